//! One-sided transfers: writes into and reads out of regions of another end, which is not asked and does nothing.
//!
//! Owns what one session has under way: [`Initiator`] at the end that asked, [`Target`] at the end whose memory it is. Both are pure:
//! links ask them for the next frame, and tell them what came, what was placed and which link broke.
//!
//! ```text
//!  Initiator                                    Target
//!  Write(at 0), Write(at n), ..  --any link-->  place, placed; the last byte: count the arrival, once
//!  over                          <--any link--  Done(verdict)
//!
//!  Read(at 0)                    ------------>  check
//!  place, placed                 <------------  ReadData(at 0), ReadData(at n), .. on any link
//!  over, when all is placed too  <------------  Done(verdict)
//! ```
//!
//! What is lost with a link is made good by the end that sent it there:
//! - Initiator: pieces of a write, and the asking itself, go again (flag AGAIN) until `Done` is here.
//! - Target: it says `Done` again; if data of a read was lost, `Done` with AGAIN says "ask again for what you lack", and the initiator
//!   asks from the first byte on that it lacks. It does so too when it loses a link itself.
//!
//! A transfer that is given up is said so by its own frame with ONE_WAY and without bytes; the slot is free when the `Done` for that
//! is here, and until then no other transfer goes where a given up write may still be at work.
//!
//! Invariants: every ticket finishes once; the target's memory changes only between the first piece and `Done`, within the access that was
//! checked; the initiator's memory changes only until its ticket finishes; an arrival is counted once for each notifying write.

mod initiator;
mod job;
mod op;
mod outgoing;
mod pieces;
mod ranges;
mod target;
#[cfg(test)]
mod tests;

pub use initiator::Initiator;
pub use target::Target;

use crate::frame::Verdict;
use crate::provider::DeviceAddress;
use crate::region::{RemoteKey, Span};
use crate::session::{LinkId, Ticket};

/// Transfers of one session at once.
pub const SLOTS_MAX: u16 = 64;
/// Transfers of one session that wait for a slot.
pub const WAITING_MAX: usize = 1_024;
/// Parts of memory that one transfer gathers or scatters.
pub const PIECES_MAX: usize = 1_024;
/// Bytes of one framed piece: what is copied or sealed in one go. Whole pages, so that what lies on pages goes by pages.
pub const PIECE_BYTES: u64 = 128 << 10;
/// Bytes of one piece that a device carries out.
pub const NATIVE_BYTES: u64 = 1 << 20;
/// Gaps in what has been placed of one transfer. Links cannot be so far apart: an end that makes more is broken.
const RANGES_MAX: usize = 2 * PIECES_MAX;

/// What is to be transferred.
#[derive(Clone, Debug)]
pub struct TransferOp {
    /// Into the remote region, or else out of it.
    pub write: bool,
    /// The right to do so.
    pub key: RemoteKey,
    /// Where in the remote region it begins.
    pub offset: u64,
    /// Memory of this end, in the order in which its bytes lie there.
    pub pieces: Vec<Span>,
    /// For a write: count an arrival at the remote region when all is placed.
    pub notify: bool,
}

impl TransferOp {
    /// Bytes of the whole.
    pub fn length(&self) -> u64 {
        self.pieces.iter().map(|span| span.length() as u64).sum()
    }
}

/// A transfer is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Which.
    pub ticket: Ticket,
    /// `Answered`: all its bytes are there. `Unheard`: it was cancelled. `Denied`, `Revoked`, `OutOfBounds`: the owner's word.
    pub verdict: Verdict,
}

/// Why a transfer was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// [`WAITING_MAX`] transfers wait already.
    #[error("{WAITING_MAX} transfers to this peer wait already")]
    Full,
    /// More than [`PIECES_MAX`] pieces.
    #[error("a transfer of more than {PIECES_MAX} pieces")]
    TooManyPieces,
    /// The key itself says that it would be refused so.
    #[error("the key does not allow it: {0:?}")]
    Refused(Verdict),
}

/// A piece for a device to carry out. Its end comes back through [`Initiator::posted`].
#[derive(Clone, Debug)]
pub struct NativePiece {
    /// What to call it.
    pub work: u64,
    /// True: from `span` to `remote`. False: from `remote` to `span`.
    pub write: bool,
    /// Memory of this end.
    pub span: Span,
    /// The other end's.
    pub remote: DeviceAddress,
}

/// Bytes that a link is about to put into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Placing {
    link: LinkId,
    at: u64,
    length: u64,
}

/// Takes out what `link` is placing at `at`; false if it is not.
fn take_placing(placing: &mut Vec<Placing>, link: LinkId, at: u64, length: u64) -> bool {
    let known = placing.iter().position(|one| *one == Placing { link, at, length });
    known.map(|known| placing.swap_remove(known)).is_some()
}
