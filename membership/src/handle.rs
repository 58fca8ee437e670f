//! What the rest of a daemon holds of membership.

use crate::Error;
use crate::core::Status;
use crate::shell::{Ended, Input, Shared};
use crate::talk::{Ask, Leave, Remove, Say};
use crate::wire::{Node, View};
use base::NodeId;
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

    /// This node's own row as this life, and this run of its daemon, wants it.
    pub fn local(&self) -> &Node {
        &self.shared.local
    }

    /// The newest agreed view that this node knows.
    pub fn view(&self) -> Arc<View> {
        self.shared.views.borrow().clone()
    }

    /// Every agreed view from now on, in order; one who is slow sees the newest.
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.shared.views.clone()
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
        self.change(Ask::Leave(Leave { node: local.id, incarnation: local.incarnation })).await
    }

    /// Takes a node that is DOWN out of the table for good.
    ///
    /// # Errors
    /// [`Error::Refused`] if it is alive or unknown, [`Error::Undecided`] without a master in time.
    pub async fn remove(&self, node: NodeId) -> Result<(), Error> {
        self.change(Ask::Remove(Remove { node: node.0 })).await
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

    /// Has a change decided, by whoever is master.
    async fn change(&self, ask: Ask) -> Result<(), Error> {
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
                Some(Say::Done(())) => return Ok(()),
                // A leave that was carried out, whose answer was lost.
                Some(Say::Evicted(_)) if matches!(ask, Ask::Leave(_)) => return Ok(()),
                Some(Say::Refused(why)) => return Err(Error::Refused(why)),
                _ => {}
            }
        }
        Err(Error::Undecided("there is no master with a majority of the nodes behind it".into()))
    }
}
