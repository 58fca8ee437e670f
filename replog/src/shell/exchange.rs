//! The exchange: carries the messages of all logs of one endpoint, each to its log by number.
//!
//! Invariant: a message that cannot be delivered now is lost, as on a cut link; cores repeat what matters.

use super::Input;
use crate::event::Event;
use crate::message::Envelope;
use crate::wire;
use base::NodeId;
use bytes::Bytes;
use fabric::{Endpoint, Peer, Priority, Reply, Role, Service, service};
use std::collections::BTreeMap;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A message that could not be sent for so long is worth nothing any more.
const SEND_DEADLINE: Duration = Duration::from_millis(500);

/// All logs of one endpoint.
pub struct Exchange {
    endpoint: Endpoint,
    logs: Mutex<BTreeMap<u64, SyncSender<Input>>>,
}

impl Exchange {
    /// Serves the logs of `endpoint` from now on. There is one exchange an endpoint.
    pub fn new(endpoint: Endpoint) -> Arc<Exchange> {
        let exchange = Arc::new(Exchange { endpoint, logs: Mutex::default() });
        exchange.endpoint.serve(service::REPLOG, Arc::new(Desk(exchange.clone())));
        exchange
    }

    /// The name under which its messages go out.
    pub fn local(&self) -> Peer {
        self.endpoint.local()
    }

    pub(super) fn attach(&self, log: u64, inbox: SyncSender<Input>) {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).insert(log, inbox);
    }

    pub(super) fn detach(&self, log: u64) {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).remove(&log);
    }

    /// Sends a message to its member's node, to the daemon of the same role as this one.
    pub(super) fn send(&self, log: u64, envelope: &Envelope) {
        let peer = Peer { node: envelope.to.node, role: self.endpoint.local().role };
        let message = fabric::Message { head: Bytes::from(wire::encode(log, envelope)), bulk: Bytes::new() };
        // All of them in one order: a sign of life that overtakes entries would look like a gap.
        let sent = self.endpoint.send(peer, service::REPLOG, Priority::Control, message, SEND_DEADLINE);
        if let Err(error) = sent {
            tracing::trace!("log {log}: a message to {peer} is lost: {error}");
        }
    }

    fn deliver(&self, from: NodeId, role: Role, bytes: Bytes) {
        let (log, envelope) = match wire::decode(bytes) {
            Ok(decoded) => decoded,
            Err(error) => return tracing::warn!("a message of node {from}: {error}"),
        };
        if envelope.from.node != from || role != self.endpoint.local().role {
            return tracing::warn!("log {log}: node {from} speaks in the name of {}", envelope.from);
        }
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(inbox) = logs.get(&log) {
            // A full inbox loses it as a cut link would.
            let _ = inbox.try_send(Input::Event(Event::Message(envelope)));
        }
    }
}

struct Desk(Arc<Exchange>);

impl Service for Desk {
    fn handle(self: Arc<Self>, from: Peer, request: fabric::Message) -> Reply {
        self.0.deliver(from.node, from.role, request.head);
        Reply::Now(fabric::Message::default())
    }
}
