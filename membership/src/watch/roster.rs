//! A roster: one agreed view as watching needs it. Made once for a view, shared by everything that uses it.
//!
//! Invariant: two nodes with the same view have the same roster, so they agree on who watches whom, who passes alarms on, and who
//! stands where in the tree.

use super::pace::Pace;
use super::rings::{Rings, place};
use base::{Epoch, Incarnation, NodeId};

/// The place on the tree's line is that of a ring which no watching uses.
const LINE: u32 = u32::MAX;
/// Nodes that bundle alarms for the master.
const RELAYS: u64 = 32;
/// With fewer members than this alarms go to the master directly.
const RELAYED_MIN: usize = 256;

/// Who is alive in one view.
#[derive(Clone, Debug)]
pub struct Roster {
    /// The view's number.
    pub epoch: Epoch,
    /// The CLMS master. It is not among the members: the voters watch it themselves.
    pub master: NodeId,
    rings: Rings,
    /// For each member of the rings, in their order.
    lives: Vec<Incarnation>,
    /// All members by their place on the tree's line.
    line: Vec<(u64, NodeId)>,
}

impl Roster {
    /// The roster of a view: its number, its master, and the lives in it that are UP or STALLED, in any order. (The
    /// master's own is passed over; of two rows of one node the later life holds.)
    pub fn new(
        epoch: Epoch,
        master: NodeId,
        alive: impl IntoIterator<Item = (NodeId, Incarnation)>,
        pace: &Pace,
    ) -> Roster {
        let mut rows: Vec<_> = alive.into_iter().filter(|(node, _)| *node != master).collect();
        rows.sort_unstable();
        rows.reverse();
        rows.dedup_by_key(|(node, _)| *node);
        rows.reverse();
        let (members, lives): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let mut line: Vec<_> = members.iter().map(|&node| (spot(node), node)).collect();
        line.sort_unstable();
        Roster { epoch, master, rings: Rings::new(&members, pace.watchers), lives, line }
    }

    /// Who watches whom.
    pub fn rings(&self) -> &Rings {
        &self.rings
    }

    /// All members, ascending.
    pub fn members(&self) -> &[NodeId] {
        self.rings.members()
    }

    /// The life of `node` in this view; `None` if it is no member.
    pub fn life(&self, node: NodeId) -> Option<Incarnation> {
        self.members().binary_search(&node).ok().map(|at| self.lives[at])
    }

    /// Members whose place on the tree's line is from `low` on and before `high` (`None`: to the end), by place.
    pub fn between(&self, low: u64, high: Option<u64>) -> &[(u64, NodeId)] {
        let from = self.line.partition_point(|(place, _)| *place < low);
        let to = high.map_or(self.line.len(), |high| self.line.partition_point(|(place, _)| *place < high));
        &self.line[from..to.max(from)]
    }

    /// To whom the `attempt`-th telling of an alarm goes: two relays, two other ones, from then on the master.
    pub fn relays(&self, watcher: NodeId, attempt: u32) -> Vec<NodeId> {
        if self.members().len() < RELAYED_MIN || attempt > 1 {
            return vec![self.master];
        }
        let first = u64::from(watcher.0) + u64::from(attempt) * (RELAYS / 4);
        [first, first + RELAYS / 2].map(|number| self.relay(number % RELAYS)).to_vec()
    }

    fn relay(&self, number: u64) -> NodeId {
        let low = number << (u64::BITS - RELAYS.ilog2());
        let high = low.checked_add(1 << (u64::BITS - RELAYS.ilog2()));
        // The last one of a part of the line: leaders stand first, and have enough to do.
        let found = self.between(low, high).last().or(self.line.last());
        found.map_or(self.master, |(_, node)| *node)
    }
}

/// Where a node stands on the tree's line.
pub fn spot(node: NodeId) -> u64 {
    place(LINE, node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn roster(size: u32) -> Roster {
        let alive = (1..=size).map(|id| (NodeId(id), Incarnation(u64::from(id))));
        Roster::new(Epoch(4), NodeId(1), alive, &Pace::default())
    }

    #[test]
    fn the_master_is_no_member_and_the_later_life_holds() {
        let rows = [(3, 1), (1, 9), (2, 5), (3, 7), (2, 4)];
        let alive = rows.map(|(id, life)| (NodeId(id), Incarnation(life)));
        let roster = Roster::new(Epoch(1), NodeId(1), alive, &Pace::default());
        assert_eq!(roster.members(), [NodeId(2), NodeId(3)]);
        assert_eq!(roster.life(NodeId(3)), Some(Incarnation(7)));
        assert_eq!(roster.life(NodeId(2)), Some(Incarnation(5)));
        assert_eq!(roster.life(NodeId(1)), None);
    }

    #[test]
    fn a_part_of_the_line_has_its_members_in_order() {
        let roster = roster(100);
        assert_eq!(roster.between(0, None).len(), 99);
        let half = 1 << 63;
        let (low, high) = (roster.between(0, Some(half)), roster.between(half, None));
        assert_eq!(low.len() + high.len(), 99);
        assert!(low.iter().all(|(place, node)| *place < half && *place == spot(*node)));
        assert!(roster.between(half, Some(0)).is_empty());
    }

    #[test]
    fn alarms_go_over_four_different_relays_and_then_to_the_master() {
        let roster = roster(1_000);
        let relays = |id, attempt| roster.relays(NodeId(id), attempt);
        let all: BTreeSet<NodeId> = (2..=1_000).flat_map(|id| relays(id, 0)).collect();
        assert_eq!(all.len(), RELAYS as usize);
        for id in 2..=1_000 {
            let four: BTreeSet<_> = [relays(id, 0), relays(id, 1)].concat().into_iter().collect();
            assert_eq!(four.len(), 4);
            assert_eq!(relays(id, 2), [NodeId(1)]);
        }
        assert_eq!(super::tests::roster(100).relays(NodeId(5), 0), [NodeId(1)]);
    }
}
