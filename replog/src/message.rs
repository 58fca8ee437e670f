//! What members say to one another. How it looks on the wire is in `wire.rs`.
//!
//! Invariant: an answer repeats what it answers (`sent`, `round`, `prev`), so a late or doubled one does no harm.

use crate::entry::{Entry, SnapshotMeta};
use crate::ids::{Index, Member, Stamp, Term};
use base::Time;
use bytes::Bytes;

/// A message with its address.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// Who speaks.
    pub from: Member,
    /// To whom. Another member on the same node (its disk was wiped) must not take it.
    pub to: Member,
    /// The speaker's term; of a trial canvass the one that it would stand in.
    pub term: Term,
    /// What is said.
    pub body: Message,
}

/// When and in which round a leader sent what is answered. The time is the leader's own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Mark {
    /// When it was sent.
    pub sent: Time,
    /// The newest round of reads that had begun by then.
    pub round: u64,
}

/// What is said.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Vote for me.
    Canvass {
        /// Only asking whether it could win; nobody's promises change.
        trial: bool,
        /// The last entry that the candidate has.
        last: Stamp,
        /// The leader itself wants this: that it is heard is no reason to refuse.
        handover: bool,
        /// The candidate's connection to its leader was closed. One whose connection was closed too need not keep its promise.
        early: bool,
    },
    /// The answer to a canvass.
    Vote {
        /// To a trial.
        trial: bool,
        /// Yes or no.
        granted: bool,
    },
    /// The leader is there; its log goes on so.
    Append {
        /// The entry before the first of `entries`.
        prev: Stamp,
        /// What follows it.
        entries: Vec<Entry>,
        /// Up to here the log is agreed.
        commit: Index,
        /// Comes back with the answer.
        mark: Mark,
    },
    /// The follower has the log up to here on its disk.
    Appended {
        /// Up to here it is the leader's.
        matched: Index,
        /// Of the newest message that it has seen.
        mark: Mark,
    },
    /// The follower's log does not go on where the leader thinks.
    Mismatch {
        /// `prev` of what is refused.
        prev: Index,
        /// Where the two logs may still agree.
        hint: Stamp,
        /// Of the message that is refused.
        mark: Mark,
    },
    /// A piece of a snapshot.
    Chunk {
        /// Which snapshot.
        meta: SnapshotMeta,
        /// Where the piece stands in it, bytes.
        offset: u64,
        /// The piece.
        bytes: Bytes,
        /// How many bytes the whole snapshot has.
        size: u64,
        /// Comes back with the answer.
        mark: Mark,
    },
    /// The follower wants the snapshot on from here.
    ChunkTaken {
        /// Which snapshot.
        stamp: Stamp,
        /// The place of the next piece.
        offset: u64,
        /// Of the piece.
        mark: Mark,
    },
    /// Stand for election now, I give way.
    TakeOver,
}
