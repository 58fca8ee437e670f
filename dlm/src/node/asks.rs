//! Who asks for a tree how often: so that it goes to the node that uses it, and not to and fro.
//!
//! Invariant: a tree is due only after one node has had most of the asks for all of `watched`, and the tree has rested.

use base::{NodeId, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// When a tree goes to another node.
#[derive(Clone, Copy, Debug)]
pub struct Remaster {
    /// Asks that must have been counted.
    pub asks_min: u32,
    /// After so long counts are halved.
    pub halved: Duration,
    /// So long a node must have had more than three quarters of them.
    pub watched: Duration,
    /// So long a tree stays that has moved.
    pub rests: Duration,
}

impl Default for Remaster {
    fn default() -> Remaster {
        let [halved, watched, rests] = [1, 2, 10].map(Duration::from_secs);
        Remaster { asks_min: 256, halved, watched, rests }
    }
}

/// Who asks for a tree, how often.
#[derive(Clone, Debug, Default)]
pub struct Asks {
    counts: BTreeMap<NodeId, u32>,
    counted: Time,
    /// Who has most of them, and since when.
    most: Option<(NodeId, Time)>,
    rests_until: Time,
}

impl Asks {
    /// None yet, and so much rest.
    pub fn resting_until(rests_until: Time) -> Asks {
        Asks { rests_until, ..Asks::default() }
    }

    /// One more; the node that should have the tree.
    pub fn count(&mut self, now: Time, from: NodeId, rule: &Remaster) -> Option<NodeId> {
        while !self.counts.is_empty() && now.since(self.counted) >= rule.halved {
            self.counts.values_mut().for_each(|count| *count /= 2);
            self.counts.retain(|_, count| *count > 0);
            self.counted = self.counted + rule.halved;
        }
        if self.counts.is_empty() {
            self.counted = now;
        }
        *self.counts.entry(from).or_default() += 1;
        let all: u32 = self.counts.values().sum();
        let has_most = |(node, count): (&NodeId, &u32)| (*count > all / 4 * 3).then_some(*node);
        let most = self.counts.iter().find_map(has_most).filter(|_| all >= rule.asks_min);
        let since = self.most.filter(|(node, _)| Some(*node) == most).map_or(now, |(_, since)| since);
        self.most = most.map(|node| (node, since));
        let is_due = now.since(since) >= rule.watched && now >= self.rests_until;
        most.filter(|_| is_due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Time {
        Time::default() + Duration::from_secs(count)
    }

    #[test]
    fn a_tree_is_due_after_one_node_has_asked_most_for_long() {
        let (rule, mut asks) = (Remaster::default(), Asks::default());
        let mut at = |second: u64, node: u32, count: u32| {
            let count = (0..count).map(|_| asks.count(seconds(second), NodeId(node), &rule));
            count.last().flatten()
        };
        assert_eq!(at(0, 1, 1_000), None);
        assert_eq!(at(1, 1, 1_000), None);
        assert_eq!(at(2, 1, 1), Some(NodeId(1)));
        // Another one asks as often: nobody has most.
        assert_eq!(at(2, 2, 1_500), None);
        assert_eq!(at(3, 1, 1), None);
    }

    #[test]
    fn a_tree_that_has_moved_rests() {
        let (rule, mut asks) = (Remaster::default(), Asks::resting_until(seconds(10)));
        let last = |asks: &mut Asks, second: u64| {
            let all = (0..600).map(|_| asks.count(seconds(second), NodeId(1), &rule));
            all.last().flatten()
        };
        let due: Vec<_> = (0..=10).map(|second| last(&mut asks, second)).collect();
        assert_eq!(due.iter().position(Option::is_some), Some(10));
    }
}
