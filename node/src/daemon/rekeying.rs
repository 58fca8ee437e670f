//! The change of the cluster's key while everything runs. One `ssid`, asked by an operator, leads every node through three steps:
//!
//! ```text
//!             proves  takes
//!             old     old
//!  take       old     old, new      when all nodes have this behind them, any may go on
//!  prove      new     old, new      links are made anew, heartbeats signed anew
//!  finish     new     new
//! ```
//!
//! Each step is on file at a node before it says that it has taken it, and may be repeated; so a change whose leader died is
//! completed by whoever begins again. Only one can be under way: the first step goes to the lowest node first, which refuses a second one.
//! Invariant: at no time is there a pair of nodes of which one proves a key that the other does not take.

use super::keyholder::{Keyholder, wall_seconds};
use crate::admin::server::refuse;
use crate::config::{StateDir, Step};
use crate::error::Error;
use admin::Client;
use admin::wire::{Answer, Ask, Rekey};
use base::NodeId;
use bytes::Bytes;
use fabric::{ClusterKey, Message, Peer, Priority, Reply, Role, Service, service};
use futures_util::future::join_all;
use membership::token::Token;
use prost::Message as _;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long one step may take a node.
const STEP_WITHIN: Duration = Duration::from_secs(10);
/// How long a node's `ssid --data`, which may be starting just now, may take to be told.
const DATA_WITHIN: Duration = Duration::from_secs(5);
/// Between two tries to tell it.
const RETRY: Duration = Duration::from_millis(20);

/// What one `ssid` asks of another.
#[derive(Clone, PartialEq, prost::Message)]
struct Order {
    /// 0: say which change is under way; 1 take, 2 prove, 3 finish.
    #[prost(uint32, tag = "1")]
    step: u32,
    /// The new key, wrapped under the key that the sender proves.
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
}

/// What it answers.
#[derive(Clone, PartialEq, prost::Message)]
struct State {
    /// Not empty: it failed, and this is why.
    #[prost(string, tag = "1")]
    error: String,
    /// The key that a change under way leads to, wrapped under the key that the sender proves; empty: none is.
    #[prost(bytes = "vec", tag = "2")]
    target: Vec<u8>,
}

/// A node's part in changes of the key, and the lead of one.
pub struct Rekeying {
    keyholder: Keyholder,
    state: StateDir,
    membership: membership::Handle,
    pm: pm::Handle,
    /// One step at a time.
    turn: tokio::sync::Mutex<()>,
}

impl Rekeying {
    /// Takes part from now on. What the key file says of a change under way is told to whoever needs it.
    pub fn start(
        keyholder: Keyholder,
        state: &StateDir,
        membership: membership::Handle,
        pm: pm::Handle,
    ) -> Arc<Rekeying> {
        let endpoint = keyholder.endpoint().clone();
        let turn = tokio::sync::Mutex::new(());
        let rekeying = Arc::new(Rekeying { keyholder, state: state.clone(), membership, pm, turn });
        rekeying.tell_heartbeats();
        tokio::spawn(Arc::clone(&rekeying).follow_tickets());
        endpoint.serve(service::ADMIN, rekeying.clone());
        rekeying
    }

    /// A token with which `uses` machines may join within `life`; this node takes its key already when this returns.
    ///
    /// # Errors
    /// As [`membership::Handle::token_create`].
    pub async fn invite(&self, life: Duration, uses: u32) -> Result<Token, membership::Error> {
        let token = self.membership.token_create(life, uses).await?;
        self.keyholder.admit(&self.membership.view().tickets);
        Ok(token)
    }

    /// Takes the joining keys of tickets while they are open.
    async fn follow_tickets(self: Arc<Rekeying>) {
        let mut views = self.membership.watch();
        loop {
            let tickets = views.borrow_and_update().tickets.clone();
            let next = self.keyholder.admit(&tickets);
            let rest = next.map(|at| Duration::from_secs(at.saturating_sub(wall_seconds())));
            let expired = async {
                match rest {
                    Some(rest) => tokio::time::sleep(rest).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = views.changed() => if changed.is_err() { return },
                () = expired => {}
            }
        }
    }

    /// Heartbeats are signed with the key that this node proves, and taken with each that it takes.
    fn tell_heartbeats(&self) {
        let keys = self.keyholder.ring().keys();
        self.pm.sign_heartbeats(keys.current.as_bytes());
        let all = std::iter::once(&keys.current).chain(&keys.also).map(|key| *key.as_bytes());
        self.membership.set_heartbeat_keys(all.collect());
    }

    /// Leads a change; answers with the nodes that have taken part.
    pub async fn answer(&self, wanted: &Rekey) -> Answer {
        match self.lead(&wanted.key).await {
            Ok(nodes) => {
                let nodes = nodes.into_iter().map(|node| node.0).collect();
                Answer { nodes, view: Some(super::table::view(&self.membership.view())), ..Answer::default() }
            }
            Err(error) => refuse(error),
        }
    }

    async fn lead(&self, wanted: &[u8]) -> Result<BTreeSet<NodeId>, Error> {
        if !self.membership.status().await.is_some_and(|status| status.quorum) {
            return Err(Error::Said(
                "the key is not changed: no majority of the nodes can be reached".into(),
            ));
        }
        let target = self.target(wanted).await?;
        let mut changed = BTreeSet::new();
        for step in [Step::Take, Step::Prove, Step::Finish] {
            changed = self.all_take(step, &target).await?;
        }
        tracing::info!(nodes = changed.len(), "the cluster's key is another now");
        Ok(changed)
    }

    fn alive(&self) -> BTreeSet<NodeId> {
        let view = self.membership.view();
        view.nodes.iter().filter(|node| node.is_alive()).map(membership::Node::node_id).collect()
    }

    /// The key that a change leads to: the one under way, or the one that is wanted, or a fresh one.
    async fn target(&self, wanted: &[u8]) -> Result<ClusterKey, Error> {
        let wanted = key_of(wanted);
        let query = Order { step: 0, key: Vec::new() };
        let mut under_way = None;
        for node in self.alive() {
            let state = self.ask(node, &query).await?;
            under_way = under_way.or(self.opened(&state.target));
        }
        match (under_way, wanted) {
            (Some(target), Some(wanted)) if target != wanted => Err(Error::Said(
                "a change to another key is under way: complete it first with `ssi cluster rekey`, without --key-file".into(),
            )),
            (Some(target), _) => Ok(target),
            (None, Some(wanted)) if wanted == self.keyholder.ring().current => {
                Err(Error::Said("this is the cluster's key already".into()))
            }
            (None, Some(wanted)) => Ok(wanted),
            (None, None) => ClusterKey::generate().map_err(Error::said),
        }
    }

    /// Has every node that is not DOWN take a step, those included that come meanwhile.
    async fn all_take(&self, step: Step, target: &ClusterKey) -> Result<BTreeSet<NodeId>, Error> {
        let mut done = BTreeSet::new();
        loop {
            let order = Order { step: step as u32 + 1, key: self.wrapped(target)? };
            let mut todo: Vec<NodeId> = self.alive().difference(&done).copied().collect();
            if todo.is_empty() {
                return Ok(done);
            }
            // The lowest first: of two who begin at once it takes one's.
            if step == Step::Take && done.is_empty() {
                todo.truncate(1);
            }
            let asked = todo.iter().map(|node| async { (*node, self.ask(*node, &order).await) });
            for (node, outcome) in join_all(asked).await {
                match outcome {
                    Ok(_) => {
                        done.insert(node);
                    }
                    // It was declared DOWN meanwhile: it is told of when it is back.
                    Err(_) if !self.alive().contains(&node) => {}
                    Err(error) => {
                        return Err(Error::Said(format!(
                            "{error}; the change of the key is not complete, which hinders nobody: `ssi cluster rekey` completes it"
                        )));
                    }
                }
            }
        }
    }

    async fn ask(&self, node: NodeId, order: &Order) -> Result<State, Error> {
        let peer = Peer { node, role: Role::Control };
        let request = Message { head: Bytes::from(order.encode_to_vec()), bulk: Bytes::new() };
        let call =
            self.keyholder.endpoint().call(peer, service::ADMIN, Priority::Control, request, STEP_WITHIN);
        let reply = call.await.map_err(Error::said)?;
        let state = State::decode(reply.head).map_err(|error| Error::Said(format!("{peer}: {error}")))?;
        if state.error.is_empty() { Ok(state) } else { Err(Error::Said(format!("{peer}: {}", state.error))) }
    }

    /// Carries out what the leader asks of this node.
    async fn obey(&self, order: &Order) -> Result<State, Error> {
        let _turn = self.turn.lock().await;
        let step = match order.step {
            0 => None,
            1 => Some(Step::Take),
            2 => Some(Step::Prove),
            3 => Some(Step::Finish),
            _ => return Err(Error::Said("a step of a newer version".into())),
        };
        if let Some(step) = step {
            let key = self.opened(&order.key);
            let key =
                key.ok_or_else(|| Error::Said("there is no key in the order that opens here".into()))?;
            self.keyholder.ring().after(step, &key)?.store(&self.state)?;
            self.tell_data().await?;
            self.keyholder.read_again().await?;
            self.tell_heartbeats();
        }
        let target =
            self.keyholder.ring().target().map(|key| self.wrapped(key)).transpose()?.unwrap_or_default();
        Ok(State { error: String::new(), target })
    }

    /// A key for the eyes of the other nodes, whatever protects the connection: all of them take the key that this one proves.
    fn wrapped(&self, key: &ClusterKey) -> Result<Vec<u8>, Error> {
        self.keyholder.ring().current.wrap(key).map_err(Error::said)
    }

    /// A key that another node wrapped under one that this node takes.
    fn opened(&self, wrapped: &[u8]) -> Option<ClusterKey> {
        let keys = self.keyholder.ring().keys();
        std::iter::once(&keys.current).chain(&keys.also).find_map(|key| key.unwrap_key(wrapped))
    }

    /// Has `ssid --data` read the key file. It may be starting just now: then it does so by itself, but only its answer says when.
    async fn tell_data(&self) -> Result<(), Error> {
        let until = Instant::now() + DATA_WITHIN;
        loop {
            let socket = self.state.data_socket();
            let told = tokio::task::spawn_blocking(move || Client::connect(&socket)?.ask(Ask::ReadKeys(())));
            match told.await.map_err(Error::said)? {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > until => return Err(error.into()),
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }
}

impl Service for Rekeying {
    fn handle(self: Arc<Self>, from: Peer, request: Message) -> Reply {
        Reply::later(async move {
            let outcome = match Order::decode(request.head) {
                // A machine that joins has nothing to say here, nor has a data daemon.
                _ if from.node == NodeId(0) || from.role != Role::Control => {
                    Err(Error::Said("it is not its place".into()))
                }
                Ok(order) => self.obey(&order).await,
                Err(error) => Err(Error::said(error)),
            };
            let state =
                outcome.unwrap_or_else(|error| State { error: error.to_string(), target: Vec::new() });
            Message { head: Bytes::from(state.encode_to_vec()), bulk: Bytes::new() }
        })
    }
}

fn key_of(bytes: &[u8]) -> Option<ClusterKey> {
    bytes.try_into().ok().map(ClusterKey::from_bytes)
}
