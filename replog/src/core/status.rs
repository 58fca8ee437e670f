//! What a member knows of itself, for those who show it or check it.

use super::{Core, Part};
use crate::entry::SnapshotMeta;
use crate::ids::{Index, Member, Stamp, Term};
use crate::voters::Voters;

/// What a member is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It gets the log and decides nothing.
    Learner,
    /// It follows a leader, or waits for one.
    Follower,
    /// It stands for election.
    Candidate,
    /// It leads.
    Leader,
    /// It has stopped.
    Halted,
}

/// What a member knows of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Who it is.
    pub me: Member,
    /// What it is.
    pub role: Role,
    /// In which term.
    pub term: Term,
    /// Who leads, as far as it knows.
    pub leader: Option<Member>,
    /// Up to here the log is agreed.
    pub commit: Index,
    /// The last entry.
    pub last: Stamp,
    /// Up to here the log is on this disk.
    pub safe: Index,
    /// The newest snapshot.
    pub snapshot: SnapshotMeta,
    /// Who decides.
    pub voters: Voters,
    /// Why it has stopped, if it has.
    pub halted: Option<String>,
}

impl Core {
    /// What this member knows of itself.
    pub fn status(&self) -> Status {
        let role = match &self.part {
            _ if self.halted.is_some() => Role::Halted,
            Part::Leader(_) => Role::Leader,
            Part::Candidate(_) => Role::Candidate,
            Part::Follower if self.is_voter() => Role::Follower,
            Part::Follower => Role::Learner,
        };
        Status {
            me: self.config.me,
            role,
            term: self.hard.term,
            leader: self.leader,
            commit: self.commit,
            last: self.log.last(),
            safe: self.writes.safe(),
            snapshot: self.snapshot.clone(),
            voters: self.log.voters().clone(),
            halted: self.halted.clone(),
        }
    }

    /// Why this member has stopped, if it has.
    pub fn halted(&self) -> Option<String> {
        self.halted.clone()
    }

    /// True if this member leads.
    pub fn is_leader(&self) -> bool {
        matches!(self.part, Part::Leader(_))
    }

    /// Who leads, as far as is known.
    pub fn leader(&self) -> Option<Member> {
        self.leader
    }

    /// The term it is in.
    pub fn term(&self) -> Term {
        self.hard.term
    }

    /// Up to here the log is agreed.
    pub fn commit(&self) -> Index {
        self.commit
    }

    /// Who decides, as this member's log has it, agreed or not.
    pub fn voters(&self) -> &Voters {
        self.log.voters()
    }

    /// The log from memory: what stands at a place, if it is not compacted.
    pub fn stamp(&self, index: Index) -> Option<Stamp> {
        self.log.stamp(index)
    }
}
