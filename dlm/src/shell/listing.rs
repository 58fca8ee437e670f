//! Lists of the whole cluster: each node is asked for the locks of its own programs.
//!
//! ```text
//!  | version | 1 | reserved (2) | first (u32) |   --->   a tagged Reply: rows from `first` on, and whether more follow
//! ```
//!
//! Invariant: a list is a picture of each node at a moment of its own; a node that does not answer in time is left out, and said to be.

use super::Shared;
use crate::client::wire::{Reply, Row};
use crate::server::{Lister, Listing};
use crate::wire::VERSION;
use base::NodeId;
use bytes::Bytes;
use fabric::{Message, Peer, Priority, service};
use parking_lot::RwLock;
use prost::Message as _;
use std::time::Duration;

const KIND_LIST: u8 = 1;
/// How long a node may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Rows in one answer: with names and lockspaces of full length they fit into a message.
const ROWS_MAX: usize = 8_192;

/// Who knows the locks of this node's programs.
#[derive(Default)]
pub struct Lists {
    lister: RwLock<Option<Lister>>,
}

impl Lists {
    /// This one does, from now on.
    pub fn set(&self, lister: Lister) {
        *self.lister.write() = Some(lister);
    }

    /// The answer to another node.
    pub fn answer(&self, first: u32) -> Vec<u8> {
        let lister = self.lister.read().clone();
        let rows = lister.map(|lister| lister()).unwrap_or_default();
        let first = (first as usize).min(rows.len());
        let part = &rows[first..rows.len().min(first + ROWS_MAX)];
        let more = first + part.len() < rows.len();
        Reply { rows: part.to_vec(), more, ..Reply::default() }.encode_to_vec()
    }
}

/// From which row on a list is wanted, if that is what is asked.
pub fn asked(head: &[u8]) -> Option<u32> {
    match head {
        [VERSION, KIND_LIST, _, _, first @ ..] => Some(u32::from_le_bytes(first.try_into().ok()?)),
        _ => None,
    }
}

fn ask(first: u32) -> Bytes {
    let mut head = vec![VERSION, KIND_LIST, 0, 0];
    head.extend_from_slice(&first.to_le_bytes());
    head.into()
}

impl Shared {
    /// The locks of all programs on other nodes.
    pub(crate) async fn list_elsewhere(&self) -> Listing {
        let nodes = self.look(|state| state.core().live());
        let others = nodes.into_iter().filter(|node| *node != self.node);
        let asked = others.map(|node| async move { (node, self.list_of(node).await) });
        let mut listing = Listing::default();
        for (node, rows) in futures_util::future::join_all(asked).await {
            match rows {
                Some(rows) => listing.rows.extend(rows),
                None => listing.silent.push(node),
            }
        }
        listing
    }

    async fn list_of(&self, node: NodeId) -> Option<Vec<Row>> {
        let peer = Peer { node, role: self.endpoint.local().role };
        let mut rows: Vec<Row> = Vec::new();
        loop {
            let message = Message { head: ask(u32::try_from(rows.len()).ok()?), bulk: Bytes::new() };
            let asked = self.endpoint.call(peer, service::LOCKS, Priority::Meta, message, ANSWER_WITHIN);
            let reply = Reply::decode(asked.await.ok()?.head).ok()?;
            let is_empty = reply.rows.is_empty();
            // A node speaks of its own programs.
            rows.extend(reply.rows.into_iter().map(|row| Row { node: node.0, ..row }));
            if !reply.more || is_empty {
                return Some(rows);
            }
        }
    }
}
