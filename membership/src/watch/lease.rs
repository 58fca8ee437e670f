//! Leases: until when a node may serve, and when the master may declare it DOWN.
//!
//! ```text
//!   node     answers round n at t -------------------------> may serve until t + lease        (its own clock)
//!   master   has that answer at a >= t; later beat says so   may declare from a + lease + drift (its own clock)
//! ```
//!
//! The holder counts from when it *sent* the answer, the master from when it *had* it. So however long messages are under way, the
//! lease is over before the declaration, if the two clocks run apart by less than `drift` within one lease.
//!
//! Invariant: [`Leases::is_over`] is false while the node may still serve.

use super::pace::Pace;
use base::{NodeId, Time};
use std::collections::BTreeMap;

/// Answers that a node remembers having sent: more rounds than this are never under way.
const ANSWERS_KEPT: usize = 8;

/// The lease of this node.
#[derive(Clone, Debug)]
pub struct Lease {
    pace: Pace,
    /// Term, round, and when this node first answered it.
    answered: Vec<(u64, u64, Time)>,
    until: Time,
}

impl Lease {
    /// No lease yet.
    pub fn new(pace: Pace) -> Lease {
        Lease { pace, answered: Vec::new(), until: Time(0) }
    }

    /// This node answers a round now.
    pub fn answered(&mut self, term: u64, round: u64, now: Time) {
        if self.answered.iter().any(|(t, r, _)| (*t, *r) == (term, round)) {
            return;
        }
        if self.answered.len() == ANSWERS_KEPT {
            self.answered.remove(0);
        }
        self.answered.push((term, round, now));
    }

    /// The master has this node's answer to that round. The end of the lease, if it lies later now.
    pub fn acknowledged(&mut self, term: u64, round: u64) -> Option<Time> {
        let (_, _, sent) = self.answered.iter().find(|(t, r, _)| (*t, *r) == (term, round))?;
        let until = *sent + self.pace.lease;
        (until > self.until).then(|| {
            self.until = until;
            until
        })
    }

    /// Until when this node may serve.
    pub fn until(&self) -> Time {
        self.until
    }
}

/// The leases of all, as the master knows them.
#[derive(Clone, Debug)]
pub struct Leases {
    pace: Pace,
    /// When the last answer of the last round was here: all but `others` had answered by then.
    latest: Time,
    others: BTreeMap<NodeId, Time>,
}

impl Leases {
    /// This node has become master: whoever lives may hold a lease that the master before it gave.
    pub fn new(pace: Pace, now: Time) -> Leases {
        Leases { pace, latest: now, others: BTreeMap::new() }
    }

    /// A round was closed: its last answer was here at `at`, and those in `unheard` had not answered.
    pub fn round(&mut self, at: Time, unheard: &[NodeId]) {
        let mut others = BTreeMap::new();
        for node in unheard {
            others.insert(*node, self.last(*node));
        }
        self.others = others;
        self.latest = self.latest.max(at);
    }

    /// When `node` last renewed its lease, at the latest.
    pub fn last(&self, node: NodeId) -> Time {
        self.others.get(&node).copied().unwrap_or(self.latest)
    }

    /// Nodes that answered no round for so long that they hold no lease any more, ascending.
    pub fn lapsed(&self, now: Time) -> impl Iterator<Item = NodeId> + '_ {
        self.others.keys().copied().filter(move |node| self.is_over(*node, now))
    }

    /// True if `node` holds no lease any more.
    pub fn is_over(&self, node: NodeId, now: Time) -> bool {
        now >= self.last(node) + self.pace.lease + self.pace.drift
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u32) -> Time {
        Time(0) + MS * ms
    }

    #[test]
    fn a_lease_counts_from_the_answer_that_was_acknowledged() {
        let mut lease = Lease::new(Pace::default());
        lease.answered(1, 4, at(100));
        lease.answered(1, 4, at(150));
        lease.answered(1, 5, at(400));
        assert_eq!(lease.acknowledged(1, 3), None, "it never answered that one");
        assert_eq!(lease.acknowledged(2, 4), None, "another master's round");
        assert_eq!(lease.acknowledged(1, 4), Some(at(1_400)), "the first answer counts");
        assert_eq!(lease.acknowledged(1, 4), None);
        assert_eq!(lease.acknowledged(1, 5), Some(at(1_700)));
        assert_eq!(lease.acknowledged(1, 4), None, "no lease grows shorter");
        assert_eq!(lease.until(), at(1_700));
    }

    #[test]
    fn a_new_master_waits_for_leases_that_it_knows_nothing_of() {
        let leases = Leases::new(Pace::default(), at(5_000));
        assert!(!leases.is_over(NodeId(3), at(6_319)));
        assert!(leases.is_over(NodeId(3), at(6_320)));
    }

    #[test]
    fn who_does_not_answer_loses_its_lease_and_has_it_again_when_it_answers() {
        let mut leases = Leases::new(Pace::default(), at(0));
        leases.round(at(300), &[]);
        leases.round(at(600), &[NodeId(3)]);
        leases.round(at(900), &[NodeId(3), NodeId(4)]);
        assert_eq!((leases.last(NodeId(3)), leases.last(NodeId(4))), (at(300), at(600)));
        assert!(leases.is_over(NodeId(3), at(1_620)) && !leases.is_over(NodeId(4), at(1_620)));
        assert_eq!(leases.lapsed(at(1_620)).collect::<Vec<_>>(), [NodeId(3)]);
        leases.round(at(1_200), &[]);
        assert!(!leases.is_over(NodeId(3), at(1_620)));
    }

    proptest! {
        /// Any delays and losses: while the node may serve, the master knows that it may.
        #[test]
        fn a_lease_is_over_before_the_master_says_so(rounds in prop::collection::vec((1u32..400, 0u32..900, 0u32..900), 1..30)) {
            let pace = Pace::default();
            let (mut lease, mut leases) = (Lease::new(pace), Leases::new(pace, at(0)));
            let node = NodeId(2);
            let mut now = at(0);
            let mut acks: Vec<Time> = Vec::new();
            let mut closed = 0usize;
            for (number, (gap, down, up)) in rounds.iter().enumerate() {
                // The master closes the round before this one, if there is one, and sends the next beat.
                now = now + MS * *gap;
                if let Some(arrives) = acks.get(number.wrapping_sub(1)) {
                    let heard = *arrives <= now;
                    leases.round((*arrives).min(now), if heard { &[] } else { &[NodeId(2)] });
                    closed = if heard { number } else { 0 };
                }
                let received = now + MS * *down;
                lease.answered(1, number as u64 + 1, received);
                if closed > 0 {
                    lease.acknowledged(1, closed as u64);
                }
                acks.push(received + MS * *up);
                for ms in (0..2_500).step_by(10) {
                    let moment = now + MS * ms;
                    prop_assert!(!leases.is_over(node, moment) || lease.until() <= moment);
                }
            }
        }
    }
}
