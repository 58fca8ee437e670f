//! What the rest of a daemon holds of membership.

use crate::Error;
use crate::command::{Act, Command, Describe, Drain, Life, Rename};
use crate::core::Status;
use crate::history::{History, Transitions};
use crate::lease::Lease;
use crate::shell::random_number;
use crate::shell::{Ended, Input, Shared};
use crate::talk::{Ask, Change, Decided, Replace, Say};
use crate::wire::{Node, Property, View};
use base::{Epoch, NodeId};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// How long a change of the cluster may take to be agreed.
pub const CHANGE_DEADLINE: Duration = Duration::from_secs(5);
/// Between two attempts while there is no master.
pub(crate) const ATTEMPT_INTERVAL: Duration = Duration::from_millis(100);

/// A running membership. Clones are the same one.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Handle {
        Handle { shared }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// This node's row, with its life and this run of its `ssid`.
    pub fn local(&self) -> &Node {
        &self.shared.local
    }

    /// The newest agreed view that this node knows.
    pub fn view(&self) -> Arc<View> {
        self.shared.history.view()
    }

    /// Every agreed view from now on, in order; one who is slow sees the newest.
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.shared.history.watch()
    }

    /// Every transition behind `after`, each once and in order, with the view after it.
    pub fn transitions(&self, after: Epoch) -> Transitions {
        self.shared.history.transitions(after).until(self.shared.over.clone())
    }

    /// The transitions that this node remembers, for who reads them in pages.
    pub fn history(&self) -> History {
        self.shared.history.clone()
    }

    /// Whether this node may serve. It may not while there is no master with a majority of the voters behind it.
    pub fn lease(&self) -> Lease {
        self.shared.lease.clone()
    }

    /// How membership is; `None` if it has ended or is overloaded.
    pub async fn status(&self) -> Option<Status> {
        let (reply, status) = oneshot::channel();
        self.shared.inbox.try_send(Input::Status(reply)).ok()?;
        status.await.ok()
    }

    /// Tells everybody whether `ssid --data` of this node is there; without it the node is STALLED.
    pub fn set_data_up(&self, up: bool) {
        self.shared.data_up.store(up, Ordering::Relaxed);
        // Only to be looked at sooner: the next tick would see it too.
        let _ = self.shared.inbox.try_send(Input::Wake);
    }

    /// Takes heartbeats that are signed with any of these keys, from now on.
    pub fn set_heartbeat_keys(&self, keys: Vec<[u8; 32]>) {
        *self.shared.keys.lock().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Ends this node's life in the cluster: DOWN for everybody, its name and id kept.
    ///
    /// # Errors
    /// [`Error::Undecided`] if there is no master with a majority in time.
    pub async fn leave(&self) -> Result<(), Error> {
        self.shared.leaving.store(true, Ordering::Relaxed);
        let local = &self.shared.local;
        self.decide(Act::Leave(Life { node: local.id, life: local.incarnation })).await.map(drop)
    }

    /// Takes a node that is DOWN out of the table for good. One that votes is replaced first.
    ///
    /// # Errors
    /// [`Error::Refused`] if it is alive or unknown, [`Error::Undecided`] without a master in time.
    pub async fn remove(&self, node: NodeId) -> Result<(), Error> {
        self.decide(Act::Remove(node.0)).await.map(drop)
    }

    /// Gives a node another name.
    ///
    /// # Errors
    /// [`Error::Refused`] if that is no name, or another's; [`Error::Undecided`].
    pub async fn rename(&self, node: NodeId, name: &str) -> Result<(), Error> {
        self.decide(Act::Rename(Rename { node: node.0, name: name.into() })).await.map(drop)
    }

    /// Says whether something new may be placed on a node.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is no such node; [`Error::Undecided`].
    pub async fn drain(&self, node: NodeId, drained: bool) -> Result<(), Error> {
        self.decide(Act::Drain(Drain { node: node.0, drained })).await.map(drop)
    }

    /// Writes something down about a node, for everybody to read in its row; an empty value takes the key away.
    ///
    /// # Errors
    /// [`Error::Refused`] if it is too long or too much; [`Error::Undecided`].
    pub async fn set_info(&self, node: NodeId, key: &str, value: &str) -> Result<(), Error> {
        let property = Some(Property { key: key.into(), value: value.into() });
        self.decide(Act::Describe(Describe { node: node.0, property })).await.map(drop)
    }

    /// Says how many nodes shall keep the log of the table: 1, 3, 5 or 7. The change follows by itself.
    ///
    /// # Errors
    /// [`Error::Refused`] for another number; [`Error::Undecided`].
    pub async fn set_voters(&self, wanted: u32) -> Result<(), Error> {
        self.decide(Act::WantVoters(wanted)).await.map(drop)
    }

    /// Has `new` keep the log of the table in the place of `old`; done on return.
    ///
    /// # Errors
    /// [`Error::Refused`] if `old` does not, or `new` cannot; [`Error::Undecided`].
    pub async fn replace_voter(&self, old: NodeId, new: NodeId) -> Result<(), Error> {
        self.change(Ask::Replace(Replace { old: old.0, new: new.0 })).await.map(drop)
    }

    /// Waits for the end of this node's membership and says why.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.shared.ended.clone();
        let seen = ended.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone());
        seen.unwrap_or_else(|| Ended::Failed("its thread was stopped".into()))
    }

    /// Ends the threads within a tick; the cluster is told nothing.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        let _ = self.shared.inbox.try_send(Input::Wake);
    }

    /// Has the table changed, once, however often it is asked for.
    pub(crate) async fn decide(&self, act: Act) -> Result<Decided, Error> {
        let command = Some(Command { at_ms: 0, act: Some(act) });
        self.change(Ask::Change(Change { command, session: random_number(), forwarded: false })).await
    }

    /// Has a change decided, by whoever is master.
    pub(crate) async fn change(&self, ask: Ask) -> Result<Decided, Error> {
        let local = self.shared.local.node_id();
        let deadline = Instant::now() + CHANGE_DEADLINE;
        let mut attempts = tokio::time::interval(ATTEMPT_INTERVAL);
        while Instant::now() < deadline {
            attempts.tick().await;
            let mut answer = Some(self.shared.ask_core(local, self.shared.request(ask.clone())).await);
            if let Some(Say::NotMaster(master)) = answer.as_ref().and_then(|answer| answer.say.as_ref()) {
                answer = match master {
                    0 => None,
                    master => self.shared.ask_peer(NodeId(*master), ask.clone()).await,
                };
            }
            match answer.and_then(|answer| answer.say) {
                Some(Say::Decided(decided)) => return Ok(decided),
                // A leave that was carried out, whose answer was lost.
                Some(Say::Evicted(_)) if self.shared.leaving.load(Ordering::Relaxed) => {
                    return Ok(Decided::default());
                }
                Some(Say::Refused(why)) => return Err(Error::Refused(why)),
                _ => {}
            }
        }
        Err(Error::Undecided("there is no master with a majority of the nodes behind it".into()))
    }
}
