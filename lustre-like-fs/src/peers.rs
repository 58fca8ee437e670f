//! Asking the servers, with patience: a server that restarts is waited for, one that is DOWN is not.
//!
//! Every request may be sent again (see [`crate::wire`]), so a broken connection is no answer: the request is repeated
//! until the caller's patience ends, or the view says that the node is DOWN.

use crate::error::Error;
use crate::wire::{MetaReply, MetaRequest, MetaVerb, ObjectReply, ObjectRequest, ObjectVerb};
use base::NodeId;
use bytes::Bytes;
use fabric::{Endpoint, Message, Peer, Priority, Refusal, Role, ServiceId, service};
use membership::View;
use parking_lot::Mutex;
use prost::Message as _;
use rustix::io::Errno;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a request waits for a server that is being restarted.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long a request waits that makes a disk write what it holds back.
pub const PATIENCE_SYNC: Duration = Duration::from_secs(120);
/// The first pause before a request is sent again; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// The life of a node to which a source of changes belongs: the mount's source is the incarnation itself, the
/// daemon's own source its complement (incarnations keep clear of the topmost bit).
pub fn incarnation_of(source: u64) -> u64 {
    if source >> 63 == 1 { !source } else { source }
}

/// A reply that says whether something failed.
trait Answer: prost::Message + Default {
    /// 0, or why not.
    fn errno(&self) -> u32;
}

impl Answer for MetaReply {
    fn errno(&self) -> u32 {
        self.errno
    }
}

impl Answer for ObjectReply {
    fn errno(&self) -> u32 {
        self.errno
    }
}

/// The other ends of one endpoint.
#[derive(Clone)]
pub struct Peers {
    endpoint: Endpoint,
    view: watch::Receiver<Arc<View>>,
    /// Servers whose absence has been logged.
    missed: Arc<Mutex<HashSet<(NodeId, u16)>>>,
}

impl Peers {
    /// Asks through `endpoint` the servers that `view` names.
    pub fn new(endpoint: Endpoint, view: watch::Receiver<Arc<View>>) -> Peers {
        Peers { endpoint, view, missed: Arc::default() }
    }

    /// This node.
    pub fn local(&self) -> NodeId {
        self.endpoint.local().node
    }

    /// The cluster as it is now.
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// The changing cluster.
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// The nodes whose object servers can be used, by number.
    pub fn servers(&self) -> Vec<NodeId> {
        servers(&self.view.borrow())
    }

    /// Tells the endpoint where the data daemons are and which are down, now and at every new view, until the view's
    /// sender is gone.
    pub async fn follow(mut self) {
        loop {
            let view = self.view.borrow_and_update().clone();
            for node in &view.nodes {
                let peer = Peer { node: node.node_id(), role: Role::Data };
                if peer == self.endpoint.local() {
                    continue;
                }
                if let Some(address) = node.data_addr() {
                    self.endpoint.set_address(peer, address);
                }
                self.endpoint.set_down(peer, !node.is_alive());
            }
            if self.view.changed().await.is_err() {
                return;
            }
        }
    }

    /// Asks the metadata server. A reply with an errno is an error.
    ///
    /// # Errors
    /// What the server says, or that it does not.
    pub async fn meta(&self, request: &MetaRequest) -> Result<MetaReply, Error> {
        let node = NodeId(self.view.borrow().mds);
        let patience =
            if matches!(request.verb, Some(MetaVerb::Sync(()))) { PATIENCE_SYNC } else { PATIENCE };
        let message = Message { head: request.encode_to_vec().into(), bulk: Bytes::new() };
        let asked = self.ask::<MetaReply>(node, service::METADATA, Priority::Meta, message, patience);
        let (reply, _) = asked.await?;
        match reply.errno {
            0 => Ok(reply),
            errno => Err(errno_of(errno).into()),
        }
    }

    /// Asks the object server on `node`. The reply's errno is the caller's to look at.
    ///
    /// # Errors
    /// There is no reply.
    pub async fn object(
        &self,
        node: NodeId,
        request: &ObjectRequest,
        bulk: Bytes,
    ) -> Result<(ObjectReply, Bytes), Error> {
        let patience = match request.verb {
            Some(ObjectVerb::Sync(()) | ObjectVerb::Append(_)) => PATIENCE_SYNC,
            _ => PATIENCE,
        };
        let message = Message { head: request.encode_to_vec().into(), bulk };
        self.ask(node, service::OBJECTS, Priority::Data, message, patience).await
    }

    async fn ask<R: Answer>(
        &self,
        node: NodeId,
        service: ServiceId,
        priority: Priority,
        message: Message,
        patience: Duration,
    ) -> Result<(R, Bytes), Error> {
        let until = Instant::now() + patience;
        let peer = Peer { node, role: Role::Data };
        let mut pause = PAUSE_MIN;
        loop {
            if !self.is_alive(node) {
                return Err(self.missing(node, service));
            }
            let left = until.saturating_duration_since(Instant::now());
            let failed = match self.endpoint.call(peer, service, priority, message.clone(), left).await {
                Ok(reply) => match self.understood::<R>(node, service, reply)? {
                    Some(answer) => return Ok(answer),
                    None => Error::Stopped,
                },
                Err(fabric::Error::NodeDown(_)) => return Err(self.missing(node, service)),
                Err(fabric::Error::Closed) => return Err(Error::Stopped),
                Err(source) if may_come_back(&source) => unreachable(node, service, source),
                Err(source) => return Err(unreachable(node, service, source)),
            };
            if Instant::now() + pause >= until {
                return Err(failed);
            }
            self.pause(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// The decoded reply; `None` if the server is being stopped and its successor is to be asked.
    fn understood<R: Answer>(
        &self,
        node: NodeId,
        service: ServiceId,
        reply: Message,
    ) -> Result<Option<(R, Bytes)>, Error> {
        let answer = R::decode(reply.head).map_err(|error| malformed(node, service, &error.to_string()))?;
        if answer.errno() == Error::Stopped.errno().raw_os_error().unsigned_abs() {
            return Ok(None);
        }
        self.found(node, service);
        Ok(Some((answer, reply.bulk)))
    }

    /// Waits a moment, or until the view changes.
    async fn pause(&self, pause: Duration) {
        let mut view = self.view.clone();
        view.mark_unchanged();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            Ok(()) = view.changed() => {}
        }
    }

    fn is_alive(&self, node: NodeId) -> bool {
        self.view.borrow().node(node).is_some_and(membership::Node::is_alive)
    }

    fn missing(&self, node: NodeId, service: ServiceId) -> Error {
        let error = Error::Down { node, service: name(service) };
        if self.missed.lock().insert((node, service.0)) {
            tracing::error!(%error, "files that need it cannot be used until the node is back");
        }
        error
    }

    fn found(&self, node: NodeId, service: ServiceId) {
        if self.missed.lock().remove(&(node, service.0)) {
            tracing::info!(%node, service = name(service), "the server is back");
        }
    }
}

/// The nodes of `view` whose object servers can be used, by number.
pub fn servers(view: &View) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> =
        view.nodes.iter().filter(|node| node.is_alive()).map(|node| node.node_id()).collect();
    nodes.sort_unstable();
    nodes
}

/// The errno that travelled as `errno`; EIO for a number that is none.
pub fn errno_of(errno: u32) -> Errno {
    match i32::try_from(errno) {
        Ok(raw @ 1..4096) => Errno::from_raw_os_error(raw),
        _ => Errno::IO,
    }
}

/// Whether the request shall be sent again.
fn may_come_back(error: &fabric::Error) -> bool {
    match error {
        fabric::Error::Unreachable { .. } => true,
        fabric::Error::Refused { why, .. } => {
            matches!(why, Refusal::NoService | Refusal::TooSlow | Refusal::Crowded | Refusal::WrongPeer)
        }
        _ => false,
    }
}

fn name(service: ServiceId) -> &'static str {
    if service == service::METADATA { "metadata server" } else { "object server" }
}

fn unreachable(node: NodeId, service: ServiceId, source: fabric::Error) -> Error {
    Error::Unreachable { node, service: name(service), source }
}

fn malformed(node: NodeId, service: ServiceId, what: &str) -> Error {
    Error::Malformed { node, service: name(service), what: what.to_owned() }
}
