//! The service LOCKS: batches of other lock managers, and what they ask for lists.
//!
//! Invariant: only the daemon of the same role speaks for a node's locks; who says what is no message is heard no further.

use super::{Shared, listing};
use bytes::Bytes;
use fabric::{Message, Peer, Reply, Service};
use std::sync::{Arc, Weak};

/// What answers.
pub struct Desk {
    /// The endpoint holds the service, and the shell the endpoint.
    shared: Weak<Shared>,
}

impl Desk {
    /// For this shell.
    pub fn new(shared: &Arc<Shared>) -> Desk {
        Desk { shared: Arc::downgrade(shared) }
    }
}

impl Service for Desk {
    fn handle(self: Arc<Self>, from: Peer, request: Message) -> Reply {
        let Some(shared) = self.shared.upgrade() else { return Reply::Now(Message::default()) };
        if from.role != shared.endpoint.local().role {
            tracing::warn!(%from, "somebody else than a lock manager speaks of locks");
            return Reply::Now(Message::default());
        }
        if let Some(ask) = listing::asked(&request.head) {
            let head = Bytes::from(shared.lists.answer(ask));
            return Reply::Now(Message { head, bulk: Bytes::new() });
        }
        let head = shared.asked(from.node, request.head).unwrap_or_else(|error| {
            tracing::warn!(%error, "what the lock manager of {from} says is not understood");
            Bytes::new()
        });
        Reply::Now(Message { head, bulk: Bytes::new() })
    }
}
