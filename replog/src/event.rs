//! What a [`Core`](crate::Core) is told, and what it wants done.

use crate::entry::{Committed, Origin, SnapshotMeta, Write};
use crate::ids::{Index, Member, RequestId, Stamp, Term, Ticket};
use crate::message::{Envelope, Mark};
use crate::voters::Voters;
use bytes::Bytes;
use std::collections::BTreeSet;

/// Something for the state machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// The caller's number for it.
    pub request: RequestId,
    /// Whose request it is, if it may be sent again.
    pub origin: Option<Origin>,
    /// The request.
    pub bytes: Bytes,
}

/// What a core is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Time has passed: [`Core::next_deadline`](crate::Core::next_deadline) is due.
    Tick,
    /// A member says something.
    Message(Envelope),
    /// These shall be in the log; together they cost one write and one message a follower.
    Propose(Vec<Proposal>),
    /// From when on does a read of the state machine see everything that was acknowledged before this?
    Read(RequestId),
    /// From now on these shall decide. A new voter first catches up as a learner.
    ChangeVoters {
        /// The caller's number for it.
        request: RequestId,
        /// The voters.
        voters: BTreeSet<Member>,
        /// The learners.
        learners: BTreeSet<Member>,
    },
    /// Another shall lead: this one, or the one that has most.
    Transfer(Option<Member>),
    /// The connection to the leader that this member follows was closed: most likely the leader's process has ended. A quorum of
    /// those whose connections were closed elects another at once. Should the leader live after all, nothing is lost:
    /// [`Core::reigns_early`](crate::Core::reigns_early).
    LeaderUnlinked,
    /// The write with this ticket, and all before it, are on disk.
    Persisted(Ticket),
    /// Nothing can be written any more, and why.
    StoreFailed(String),
    /// The snapshot that was asked for is on disk.
    SnapshotMade(SnapshotMeta),
    /// The snapshot that was asked for could not be made; it is asked for again later.
    SnapshotFailed,
}

/// Why something asked for will not be done, or may not have been done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Only the leader can.
    #[error("this member does not lead{}", .0.map_or(String::new(), |leader| format!("; {leader} does")))]
    NotLeader(Option<Member>),
    /// Too much is waiting to be agreed.
    #[error("too much is waiting to be agreed; ask again later")]
    Busy,
    /// Leadership is being handed over.
    #[error("leadership is being handed over; ask the next leader")]
    HandingOver,
    /// Leadership was lost before the entry was agreed. Whether it will be, nobody can say: send it again with the same
    /// [`Origin`].
    #[error("leadership was lost before it was agreed; it may still be: send it again under the same origin")]
    Unknown,
    /// The request itself cannot be.
    #[error("{0}")]
    Invalid(&'static str),
    /// The voters are changing already, or this leader has agreed nothing yet.
    #[error("the voters cannot be changed now: {0}")]
    ChangeUnderWay(&'static str),
    /// New voters did not catch up in time; they stay learners.
    #[error("new voters did not catch up with the log in time")]
    NotCaughtUp,
    /// This member has stopped.
    #[error("this member has stopped: {0}")]
    Halted(String),
}

/// What must be done. The order counts: do it in this one.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Put this on disk, and then tell [`Event::Persisted`]. What follows need not wait for it.
    Persist(Write),
    /// Say this.
    Send(Envelope),
    /// Say [`Message::Chunk`](crate::Message::Chunk): a piece of the newest snapshot, from this place on. Nothing if
    /// there is no such snapshot any more.
    SendChunk {
        /// To whom.
        to: Member,
        /// The leader's term.
        term: Term,
        /// Which snapshot.
        meta: SnapshotMeta,
        /// From which byte on.
        offset: u64,
        /// Goes with it.
        mark: Mark,
    },
    /// Write down a piece of a snapshot that is coming in; at offset 0 a new one begins.
    TakeChunk {
        /// Which snapshot.
        meta: SnapshotMeta,
        /// Where the piece stands.
        offset: u64,
        /// The piece.
        bytes: Bytes,
        /// How many bytes the whole snapshot has.
        size: u64,
    },
    /// The snapshot that came in is whole: make it the newest, and the log empty behind it; then tell
    /// [`Event::Persisted`].
    Install {
        /// The number under which its end is told.
        ticket: Ticket,
        /// Which snapshot.
        meta: SnapshotMeta,
    },
    /// The state machine begins again with the newest snapshot. Also at the very start.
    Restore(SnapshotMeta),
    /// These are agreed: apply them, in this order.
    Commit(Vec<Committed>),
    /// Make a snapshot of the state machine as it is after all that was committed; then tell
    /// [`Event::SnapshotMade`] or [`Event::SnapshotFailed`].
    MakeSnapshot(SnapshotMeta),
    /// The store may drop what it holds of the log up to here: a snapshot has it.
    Trim(Index),
    /// The proposal is in the leader's log; when it is agreed it comes with [`Effect::Commit`].
    Accepted {
        /// The caller's number.
        request: RequestId,
        /// Where it stands.
        stamp: Stamp,
    },
    /// It is not done, or nobody knows.
    Rejected {
        /// The caller's number.
        request: RequestId,
        /// Why.
        refusal: Refusal,
    },
    /// A read of the state machine is good now: everything agreed before the question has been applied.
    ReadReady {
        /// The caller's number.
        request: RequestId,
        /// What was agreed when it was asked.
        index: Index,
    },
    /// Who leads, as far as is known here, has changed.
    Leadership {
        /// Who.
        leader: Option<Member>,
        /// In which term.
        term: Term,
    },
    /// Who decides has changed, or is new to this member.
    Voters(Voters),
    /// This member takes no part any more, and why. What it has promised stands on its disk.
    Halted(String),
}
