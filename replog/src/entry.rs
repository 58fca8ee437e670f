//! What the log holds, and what a store must remember beside it.

use crate::ids::{Index, Member, RequestId, Stamp, Term, Ticket};
use crate::voters::Voters;
use bytes::Bytes;

/// Which request of whom an entry is, so that a resend after a failure can be told from a new request:
/// see [`Sessions`](crate::Sessions).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Origin {
    /// The client's session: unique for ever.
    pub session: u64,
    /// Which of its slots: a slot has one request at a time.
    pub slot: u32,
    /// Grows with each new request of the slot; a resend bears the same.
    pub sequence: u64,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// Nothing: a new leader's first, so that what came before it can be agreed.
    Blank,
    /// Something for the state machine.
    Command {
        /// Whose request it is; `None`: it is never sent twice.
        origin: Option<Origin>,
        /// The request.
        bytes: Bytes,
    },
    /// Who decides from here on.
    Voters(Voters),
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its term and place.
    pub stamp: Stamp,
    /// What it says.
    pub payload: Payload,
}

impl Entry {
    /// What it weighs in a message, in memory and on disk, roughly; bytes.
    pub fn weight(&self) -> usize {
        const FRAME_BYTES: usize = 48;
        const MEMBER_BYTES: usize = 24;
        FRAME_BYTES
            + match &self.payload {
                Payload::Blank => 0,
                Payload::Command { bytes, .. } => bytes.len(),
                Payload::Voters(voters) => {
                    (voters.voters.len() + voters.outgoing.len() + voters.learners.len()) * MEMBER_BYTES
                }
            }
    }
}

/// An agreed entry, as it is given to the state machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// The entry.
    pub entry: Entry,
    /// The request that it answers, if it was made here and in this reign.
    pub request: Option<RequestId>,
}

/// A member's promises. They are on disk before anybody hears of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HardState {
    /// The term it is in.
    pub term: Term,
    /// For whom it voted in that term.
    pub vote: Option<Member>,
    /// A place up to which the log is known to be agreed; there may be more.
    pub commit: Index,
}

/// What a snapshot stands for.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct SnapshotMeta {
    /// The last entry that it holds.
    pub stamp: Stamp,
    /// Who decided at that entry.
    pub voters: Voters,
}

/// What shall be on disk, and nothing of it before all that was ordered earlier. The order within: promises, truncation,
/// entries; each may be missing at the end after a crash.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Write {
    /// The number under which its end is told: [`Event::Persisted`](crate::Event::Persisted).
    pub ticket: Ticket,
    /// The promises, if they changed.
    pub hard: Option<HardState>,
    /// Everything from here on is taken out of the log first.
    pub truncate: Option<Index>,
    /// These are put to its end.
    pub entries: Vec<Entry>,
}

/// What a store holds when it is opened.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Recovered {
    /// The promises.
    pub hard: HardState,
    /// The newest snapshot; of a fresh log: stamp 0 and the first voters, if this member is one of them.
    pub snapshot: SnapshotMeta,
    /// The entries behind it, without a gap.
    pub entries: Vec<Entry>,
}
