//! Sessions: calls that outlive the links they travel on. Pure: no clock, no socket, no thread.
//!
//! Owns what one end knows of its calls to a peer ([`Caller`]) and of the peer's calls to it ([`Callee`]): slots, sequences, credits,
//! stored replies, half-sent and half-received messages. The engine pulls frames out of a core while a link has room, and
//! hands in what links received.
//!
//! ```text
//!  submit -> waiting -> slot (sequence) -> next() ==link==> received() -> its turn -> Start -> the service
//!                        ^ link lost: again                   ^ a copy by any link        |
//!  Completed <- received() <==link== next() <- ready (link lost: ready again) <- answered +
//! ```
//!
//! Who sent a frame sends it again when its link is lost: requests the caller, replies the callee. Who receives takes the first
//! copy that is whole. So a frame may come twice and by several links; a slot's sequence tells the copies from what is new.
//!
//! Invariant: each sequence of a channel is started once and in order, and completes once at the caller; at no time does either end hold more
//! than was granted. Every frame of the callee carries its credit, so that none is lost for long.

mod assembly;
mod callee;
mod caller;
mod credit;
mod cutting;
#[cfg(test)]
mod tests;

pub use callee::{Callee, Start, Turn};
pub use caller::{Caller, Completed, Outgoing};

use crate::Priority;

/// One link of a session, as the engine numbers them; no two that live at the same time share a number, and none is used again
/// before both cores were told that it is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkId(pub u32);

/// A call, as the engine numbers them. It means nothing to a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// Channels that share links. Two lanes, so that an urgent frame does not even wait for the bulk that is in a socket already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Control and Lock.
    Urgent,
    /// Meta and Data, and one-sided transfers.
    Bulk,
}

impl Lane {
    /// The lane of a channel.
    pub fn of(channel: Priority) -> Lane {
        match channel {
            Priority::Control | Priority::Lock => Lane::Urgent,
            Priority::Meta | Priority::Data => Lane::Bulk,
        }
    }

    /// Its channels, the more urgent one first.
    pub fn channels(self) -> [Priority; 2] {
        match self {
            Lane::Urgent => [Priority::Control, Priority::Lock],
            Lane::Bulk => [Priority::Meta, Priority::Data],
        }
    }
}

/// What the callee grants a session: for each channel, in the order of [`Priority`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grants {
    /// Calls at once.
    pub slots: [u16; 4],
    /// KiB of requests that the callee holds at once. A request weighs 1 KiB and its length, but at most the window, so that one
    /// that is longer than the window goes alone.
    pub window_kib: [u32; 4],
}

/// All channels, the most urgent first; `channel as usize` is a channel's place here.
const CHANNELS: [Priority; 4] = [Priority::Control, Priority::Lock, Priority::Meta, Priority::Data];
