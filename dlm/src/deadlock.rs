//! Deadlocks over several resources and tables: the graph of who waits for whom, its circles, and which wait of each is refused.
//!
//! ```text
//!  gather:   every site's edges  --> cycles()      suspects: edges from different moments may make a circle that never was
//!  confirm:  every site's edges again --> victim() all edges of the circle are still there: each was there from its first sighting
//!                                                  to its second, so at the end of the first gathering all were: it is a deadlock
//! ```
//!
//! Invariant: an edge is one wait and one grant (or one wait ahead in a queue), named by numbers that are never used again. Who waits
//! does nothing else meanwhile, so a circle that existed lasts until a wait in it is refused.

use crate::event::{Actor, LockId};
use crate::table::{Edge, Held};
use base::NodeId;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// An edge and the node whose table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sighting {
    /// The node.
    pub site: NodeId,
    /// The edge.
    pub edge: Edge,
}

/// A circle of waits: each blocker is the next one's waiter. It begins with the youngest actor's wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cycle {
    /// Its edges.
    pub edges: Vec<Sighting>,
}

/// The wait that is to be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Victim {
    /// The node whose table has it.
    pub site: NodeId,
    /// Who waits.
    pub actor: Actor,
    /// With which lock.
    pub lock: LockId,
    /// The wait's number.
    pub wait: u64,
}

impl Cycle {
    /// The youngest actor's wait, if every edge is still there.
    pub fn victim(&self, again: &BTreeSet<Sighting>) -> Option<Victim> {
        let youngest = self.edges.first()?;
        let edge = youngest.edge;
        let victim = Victim { site: youngest.site, actor: edge.waiter, lock: edge.lock, wait: edge.wait };
        self.edges.iter().all(|edge| again.contains(edge)).then_some(victim)
    }
}

/// The circles that must be broken: when the youngest actor of each gives up its wait, none is left.
///
/// First those of grants alone: who is only ahead of one of them in a queue would give up for nothing, since that one waits for the grant too.
pub fn cycles(sightings: &[Sighting]) -> Vec<Cycle> {
    let is_grant = |sighting: &&Sighting| matches!(sighting.edge.held, Held::Grant { .. });
    let grants: Vec<Sighting> = sightings.iter().filter(is_grant).copied().collect();
    let mut found = circles(Graph::new(&grants));
    let mut all = Graph::new(sightings);
    for circle in &found {
        all.edges.remove(&circle.edges[0].edge.waiter);
    }
    found.extend(circles(all));
    found
}

fn circles(mut graph: Graph) -> Vec<Cycle> {
    let mut found = Vec::new();
    graph.trim();
    // Youngest first: whoever is looked at is the youngest of any circle that it is in.
    for actor in graph.edges.keys().rev().copied().collect::<Vec<_>>() {
        if let Some(edges) = graph.shortest_circle(actor) {
            found.push(Cycle { edges });
            graph.edges.remove(&actor);
            graph.trim();
        }
    }
    found
}

struct Graph {
    edges: BTreeMap<Actor, BTreeSet<Sighting>>,
}

impl Graph {
    fn new(sightings: &[Sighting]) -> Graph {
        let mut edges: BTreeMap<Actor, BTreeSet<Sighting>> = BTreeMap::new();
        for sighting in sightings {
            edges.entry(sighting.edge.waiter).or_default().insert(*sighting);
        }
        Graph { edges }
    }

    /// Removes who waits only for those who do not wait: what is left is near a circle.
    fn trim(&mut self) {
        let mut waiters: BTreeMap<Actor, Vec<Actor>> = BTreeMap::new();
        for sighting in self.edges.values().flatten() {
            waiters.entry(sighting.edge.blocker).or_default().push(sighting.edge.waiter);
        }
        let mut free: Vec<Actor> =
            waiters.keys().filter(|actor| !self.edges.contains_key(actor)).copied().collect();
        while let Some(actor) = free.pop() {
            for waiter in waiters.remove(&actor).unwrap_or_default() {
                let Some(waits) = self.edges.get_mut(&waiter) else { continue };
                waits.retain(|sighting| sighting.edge.blocker != actor);
                if waits.is_empty() {
                    self.edges.remove(&waiter);
                    free.push(waiter);
                }
            }
        }
    }

    /// The shortest way from `start` back to it.
    fn shortest_circle(&self, start: Actor) -> Option<Vec<Sighting>> {
        let mut reached_by: BTreeMap<Actor, Sighting> = BTreeMap::new();
        let mut next = VecDeque::from([start]);
        while let Some(actor) = next.pop_front() {
            for sighting in self.edges.get(&actor).into_iter().flatten() {
                let blocker = sighting.edge.blocker;
                if blocker == start {
                    return Some(Self::way(&reached_by, start, *sighting));
                }
                if let Entry::Vacant(place) = reached_by.entry(blocker) {
                    place.insert(*sighting);
                    next.push_back(blocker);
                }
            }
        }
        None
    }

    fn way(reached_by: &BTreeMap<Actor, Sighting>, start: Actor, last: Sighting) -> Vec<Sighting> {
        let mut way = vec![last];
        let mut actor = last.edge.waiter;
        while actor != start {
            let Some(sighting) = reached_by.get(&actor) else { break };
            way.push(*sighting);
            actor = sighting.edge.waiter;
        }
        way.reverse();
        way
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Transaction;
    use proptest::prelude::*;

    fn edge(waiter: u64, blocker: u64) -> Sighting {
        let actor = |number| Actor::Transaction(Transaction(number));
        let edge = Edge {
            waiter: actor(waiter),
            lock: LockId(waiter),
            wait: waiter,
            blocker: actor(blocker),
            held: Held::Grant { lock: LockId(blocker), token: blocker },
        };
        Sighting { site: NodeId((waiter % 3 + 1) as u32), edge }
    }

    #[test]
    fn a_chain_is_no_circle() {
        assert!(cycles(&[edge(1, 2), edge(2, 3), edge(1, 3)]).is_empty());
    }

    #[test]
    fn the_youngest_of_a_circle_is_the_victim() {
        let sightings = [edge(1, 2), edge(2, 3), edge(3, 1), edge(4, 1)];
        let found = cycles(&sightings);
        assert_eq!(found.len(), 1);
        let again: BTreeSet<_> = sightings.into_iter().collect();
        let victim = found[0].victim(&again).unwrap();
        assert_eq!((victim.actor, victim.site), (Actor::Transaction(Transaction(3)), NodeId(1)));
    }

    #[test]
    fn who_waits_for_himself_is_a_circle() {
        assert_eq!(cycles(&[edge(7, 7)]).len(), 1);
    }

    #[test]
    fn a_circle_of_which_an_edge_is_gone_has_no_victim() {
        let sightings = [edge(1, 2), edge(2, 1)];
        let found = cycles(&sightings);
        let mut later = edge(2, 1);
        later.edge.held = Held::Grant { lock: LockId(1), token: 9 };
        assert_eq!(found[0].victim(&[edge(1, 2), later].into_iter().collect()), None);
    }

    #[test]
    fn two_circles_with_one_common_actor_cost_one_victim_if_it_is_the_youngest() {
        assert_eq!(cycles(&[edge(9, 1), edge(1, 9), edge(9, 2), edge(2, 9)]).len(), 1);
        assert_eq!(cycles(&[edge(1, 8), edge(8, 1), edge(1, 9), edge(9, 1)]).len(), 2);
    }

    #[test]
    fn who_is_only_ahead_in_a_queue_does_not_give_up_for_others() {
        let mut ahead = edge(1, 9);
        ahead.edge.held = Held::Wait(9);
        let found = cycles(&[edge(1, 2), edge(2, 1), ahead, edge(9, 2)]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].edges[0].edge.waiter, Actor::Transaction(Transaction(2)));
        assert_eq!(cycles(&[ahead, edge(9, 2), edge(2, 1)]).len(), 1);
    }

    proptest! {
        #[test]
        fn without_the_victims_no_circle_is_left(pairs in prop::collection::vec((0u64..12, 0u64..12), 0..40)) {
            let sightings: Vec<_> = pairs.iter().map(|(waiter, blocker)| edge(*waiter, *blocker)).collect();
            let again: BTreeSet<_> = sightings.iter().copied().collect();
            let found = cycles(&sightings);
            let victims: Vec<_> = found.iter().map(|cycle| cycle.victim(&again).unwrap().actor).collect();
            let left: Vec<_> = sightings.iter().filter(|s| !victims.contains(&s.edge.waiter)).copied().collect();
            prop_assert!(cycles(&left).is_empty());
            for cycle in &found {
                for (one, next) in cycle.edges.iter().zip(cycle.edges.iter().cycle().skip(1)) {
                    prop_assert_eq!(one.edge.blocker, next.edge.waiter);
                }
                prop_assert!(cycle.edges.iter().all(|s| s.edge.waiter <= cycle.edges[0].edge.waiter));
            }
        }
    }
}
