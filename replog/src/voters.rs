//! Who decides: the voters, while they change also the outgoing ones, and the learners who only listen.
//!
//! ```text
//!   {A B C} --ChangeVoters{B C D}--> learner D catches up --> joint {A B C}+{B C D} --> {B C D}
//!            majority of ABC          majority of ABC           majority of each          majority of BCD
//! ```
//!
//! Invariant: two quorums of neighbouring settings always share a member.

use crate::ids::Member;
use std::collections::BTreeSet;

/// How many voters there may be.
pub const VOTERS_MAX: usize = 7;
/// How many learners there may be.
pub const LEARNERS_MAX: usize = 16;

/// One setting of who decides. It holds from the moment it is in a member's log, agreed or not.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Voters {
    /// The voters.
    pub voters: BTreeSet<Member>,
    /// While the voters change: those before. A majority of both is needed then. Otherwise empty.
    pub outgoing: BTreeSet<Member>,
    /// They get the log, and decide nothing.
    pub learners: BTreeSet<Member>,
}

impl Voters {
    /// A setting of plain voters.
    pub fn of(voters: impl IntoIterator<Item = Member>) -> Voters {
        Voters { voters: voters.into_iter().collect(), ..Voters::default() }
    }

    /// True while two sets decide together.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// True if `member` votes.
    pub fn is_voter(&self, member: Member) -> bool {
        self.voters.contains(&member) || self.outgoing.contains(&member)
    }

    /// True if `member` gets the log.
    pub fn is_member(&self, member: Member) -> bool {
        self.is_voter(member) || self.learners.contains(&member)
    }

    /// All that get the log, each once, in order.
    pub fn members(&self) -> BTreeSet<Member> {
        let voters = self.voters.union(&self.outgoing).copied();
        voters.chain(self.learners.iter().copied()).collect()
    }

    /// Whether those for which `yes` holds are enough to decide.
    pub fn is_quorum(&self, yes: impl Fn(Member) -> bool) -> bool {
        self.quorum_value(yes)
    }

    /// The largest value that a quorum has reached.
    pub fn quorum_value<T: Ord + Default>(&self, value: impl Fn(Member) -> T) -> T {
        let reached = |of: &BTreeSet<Member>| {
            let mut values: Vec<T> = of.iter().map(|&member| value(member)).collect();
            values.sort_unstable_by(|a, b| b.cmp(a));
            values.into_iter().nth(of.len() / 2).unwrap_or_default()
        };
        let incoming = reached(&self.voters);
        if self.is_joint() { incoming.min(reached(&self.outgoing)) } else { incoming }
    }

    /// The joint setting on the way from this one to the given voters and learners.
    pub fn towards(&self, voters: &BTreeSet<Member>, learners: &BTreeSet<Member>) -> Voters {
        Voters { voters: voters.clone(), outgoing: self.voters.clone(), learners: learners.clone() }
    }

    /// The setting at the end of a joint one.
    pub fn settled(&self) -> Voters {
        Voters { outgoing: BTreeSet::new(), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::DiskId;
    use base::NodeId;

    fn set(ids: &[u32]) -> BTreeSet<Member> {
        ids.iter().map(|&id| Member { node: NodeId(id), disk: DiskId(1) }).collect()
    }

    fn quorum(voters: &Voters, yes: &[u32]) -> bool {
        voters.is_quorum(|member| yes.contains(&member.node.0))
    }

    #[test]
    fn a_majority_decides_and_nothing_less() {
        for (size, needed) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (7, 4)] {
            let all: Vec<u32> = (1..=size).collect();
            let voters = Voters::of(set(&all));
            assert!(quorum(&voters, &all[..needed]), "{needed} of {size}");
            assert!(!quorum(&voters, &all[..needed - 1]), "{} of {size}", needed - 1);
        }
        assert!(!quorum(&Voters::default(), &[1]), "nobody decides where nobody votes");
    }

    #[test]
    fn a_joint_setting_needs_both_majorities() {
        let joint = Voters::of(set(&[1, 2, 3])).towards(&set(&[3, 4, 5]), &set(&[9]));
        assert!(quorum(&joint, &[1, 3, 4]));
        assert!(!quorum(&joint, &[3, 4, 5]) && !quorum(&joint, &[1, 2, 3]) && !quorum(&joint, &[2, 3, 9]));
        assert!(quorum(&joint.settled(), &[4, 5]));
    }

    #[test]
    fn the_quorum_value_is_what_a_majority_has_reached() {
        let voters = Voters::of(set(&[1, 2, 3, 4, 5]));
        assert_eq!(voters.quorum_value(|member| u64::from(member.node.0) * 10), 30);
    }
}
