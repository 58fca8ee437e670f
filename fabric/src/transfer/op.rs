//! What belongs to one ticket.
//!
//! Invariant: its parts are started in order, and together they are the whole, each byte once.

use super::TransferOp;
use super::pieces::Pieces;
use crate::frame::{Access, Verdict};
use crate::session::Ticket;

/// A ticket's transfers: one write, or one read for each of its pieces (the target cuts what it sends, and does not know them).
#[derive(Debug)]
pub(super) struct Op {
    pub(super) ticket: Ticket,
    pub(super) what: TransferOp,
    /// Parts that were started.
    pub(super) started: usize,
    pub(super) running: usize,
    /// Where in the remote region the next part begins, and where the last ends.
    pub(super) offset: u64,
    pub(super) end: u64,
    pub(super) verdict: Verdict,
}

impl Op {
    /// How many transfers it takes.
    pub(super) fn parts(&self) -> usize {
        if self.what.write { 1 } else { self.what.pieces.len().max(1) }
    }

    /// The access and memory of the next part.
    pub(super) fn next_part(&mut self) -> (Access, Pieces) {
        let key = &self.what.key;
        let pieces = if self.what.write {
            Pieces::of(std::mem::take(&mut self.what.pieces))
        } else {
            Pieces::of(self.what.pieces.get(self.started).cloned().into_iter().collect())
        };
        let access = Access {
            region: key.region,
            token: key.token,
            epoch: key.epoch,
            notify: self.what.write && self.what.notify,
            offset: self.offset,
            length: pieces.length(),
            at: 0,
        };
        (access, pieces)
    }
}
