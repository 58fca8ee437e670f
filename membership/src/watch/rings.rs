//! Rings: who watches whom, as a function of the set of members alone.
//!
//! Each ring has all members in a pseudo-random order of its own (their place is a hash of ring and number, so it does not
//! depend on the others). On each ring a node is watched by the next one behind it that does not watch it already. Many such rings make
//! an expander: whichever part of a cluster is cut off, most watchers of its nodes stand outside (Rapid, USENIX ATC 2018).
//!
//! Invariant: every node that has the same members has the same rings; who comes or goes moves only the watchers of
//! those that stand next to it; nobody watches itself, or another one twice.

use base::{NodeId, Prng};

/// Where a node stands on a ring. Different for any two nodes; agreed between all machines, so it never changes.
pub fn place(ring: u32, node: NodeId) -> u64 {
    Prng::new((u64::from(ring) << 32) | u64::from(node.0)).next_u64()
}

/// The rings of one set of members.
#[derive(Clone, Debug)]
pub struct Rings {
    members: Vec<NodeId>,
    /// For each member, in their order, its watchers; all have the same number.
    watchers: Vec<u32>,
    each: usize,
    /// For each member where its subjects begin in `subjects`.
    starts: Vec<u32>,
    subjects: Vec<u32>,
}

impl Rings {
    /// The rings of `members` (ascending, each once) with `watchers` for each, or as many as there are others.
    pub fn new(members: &[NodeId], watchers: usize) -> Rings {
        debug_assert!(members.windows(2).all(|pair| pair[0] < pair[1]));
        let each = watchers.min(members.len().saturating_sub(1));
        let mut table = vec![u32::MAX; members.len() * each];
        for ring in 0..each {
            let order = ordered(members, ring as u32);
            for (at, &subject) in order.iter().enumerate() {
                let row = &mut table[subject as usize * each..][..each];
                let behind = order[at + 1..].iter().chain(&order[..at]);
                let next = behind.copied().find(|watcher| !row[..ring].contains(watcher));
                row[ring] = next.expect("there are more others than rings");
            }
        }
        let (starts, subjects) = inverted(&table, each, members.len());
        Rings { members: members.to_vec(), watchers: table, each, starts, subjects }
    }

    /// All members, ascending.
    pub fn members(&self) -> &[NodeId] {
        &self.members
    }

    /// Who watches `node`; nobody if it is no member.
    pub fn watchers(&self, node: NodeId) -> impl Iterator<Item = NodeId> + Clone + '_ {
        let row = self.row(node).map_or(0..0, |at| at * self.each..(at + 1) * self.each);
        self.watchers[row].iter().map(|&at| self.members[at as usize])
    }

    /// Whom `node` watches.
    pub fn subjects(&self, node: NodeId) -> impl Iterator<Item = NodeId> + Clone + '_ {
        let row = self.row(node).map_or(0..0, |at| self.starts[at] as usize..self.starts[at + 1] as usize);
        self.subjects[row].iter().map(|&at| self.members[at as usize])
    }

    /// True if `watcher` watches `subject`.
    pub fn watches(&self, watcher: NodeId, subject: NodeId) -> bool {
        self.watchers(subject).any(|one| one == watcher)
    }

    fn row(&self, node: NodeId) -> Option<usize> {
        self.members.binary_search(&node).ok()
    }
}

/// The members' indices in the order of a ring.
fn ordered(members: &[NodeId], ring: u32) -> Vec<u32> {
    let mut places: Vec<(u64, u32)> =
        members.iter().zip(0..).map(|(&node, at)| (place(ring, node), at)).collect();
    places.sort_unstable();
    places.into_iter().map(|(_, at)| at).collect()
}

/// Whom each watches, out of who watches each.
fn inverted(watchers: &[u32], each: usize, members: usize) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0u32; members + 1];
    for &watcher in watchers {
        starts[watcher as usize + 1] += 1;
    }
    for at in 0..members {
        starts[at + 1] += starts[at];
    }
    let mut free = starts.clone();
    let mut subjects = vec![0; watchers.len()];
    for (at, &watcher) in watchers.iter().enumerate() {
        let slot = &mut free[watcher as usize];
        subjects[*slot as usize] = (at / each.max(1)) as u32;
        *slot += 1;
    }
    (starts, subjects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn nodes(ids: impl IntoIterator<Item = u32>) -> Vec<NodeId> {
        ids.into_iter().map(NodeId).collect()
    }

    #[test]
    fn a_place_is_the_same_on_every_machine_for_ever() {
        assert_eq!(place(0, NodeId(1)), 0x910a_2dec_8902_5cc1);
        assert_ne!(place(0, NodeId(1)), place(1, NodeId(1)));
    }

    #[test]
    fn a_coming_or_going_node_moves_only_its_neighbours() {
        let before = Rings::new(&nodes(1..=1_000), 10);
        let after = Rings::new(&nodes((1..=1_000).filter(|id| *id != 500)), 10);
        let watch = |rings: &Rings| -> BTreeSet<(u32, u32)> {
            rings.members().iter().flat_map(|&s| rings.watchers(s).map(move |w| (w.0, s.0))).collect()
        };
        let (before, after) = (watch(&before), watch(&after));
        let untouched =
            before.iter().filter(|(w, s)| *w != 500 && *s != 500 && !after.contains(&(*w, *s))).count();
        assert!(untouched <= 2, "{untouched} pairs changed that had nothing to do with it");
        let new = after.difference(&before).count();
        assert!((10..=12).contains(&new), "{new} new pairs take the place of its ten subjects' lost ones");
    }

    #[test]
    fn nobody_watches_far_more_than_others() {
        let rings = Rings::new(&nodes(1..=10_000), 10);
        let most = rings.members().iter().map(|&node| rings.subjects(node).count()).max();
        assert!(most <= Some(14), "{most:?}");
    }

    proptest! {
        #[test]
        fn watchers_are_different_others_and_the_inverse_is_one(ids in prop::collection::btree_set(1u32..5_000, 0..60), k in 0usize..12) {
            let members = nodes(ids);
            let rings = Rings::new(&members, k);
            for &node in &members {
                let watchers: BTreeSet<NodeId> = rings.watchers(node).collect();
                prop_assert_eq!(watchers.len(), k.min(members.len() - 1));
                prop_assert!(!watchers.contains(&node));
                for watcher in watchers {
                    prop_assert!(rings.subjects(watcher).any(|subject| subject == node));
                    prop_assert!(rings.watches(watcher, node));
                }
            }
            let pairs: usize = members.iter().map(|&node| rings.subjects(node).count()).sum();
            prop_assert_eq!(pairs, members.len() * k.min(members.len().saturating_sub(1)));
            prop_assert_eq!(rings.watchers(NodeId(9_999)).count(), 0);
        }
    }
}
