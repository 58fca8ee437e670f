//! Tests of the tree: leases, silence, transitions. Nodes that answer at once, some that do not, and the time in the test's hand.

use super::*;
use base::{Epoch, Incarnation};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const MASTER: NodeId = NodeId(1);

fn roster(epoch: u64, size: u32, without: &[u32]) -> Arc<Roster> {
    let alive = (1..=size).filter(|id| !without.contains(id)).map(|id| (NodeId(id), Incarnation(1)));
    Arc::new(Roster::new(Epoch(epoch), MASTER, alive, &Pace::default()))
}

fn transition(after: u64, epoch: u64) -> Transition {
    Transition { after, epoch, body: format!("{epoch}").into_bytes().into() }
}

struct Bench {
    trees: BTreeMap<NodeId, Tree>,
    now: Time,
    rosters: BTreeMap<u64, Arc<Roster>>,
    /// Nothing reaches them, and nothing comes from them.
    dead: BTreeSet<NodeId>,
    rounds: Vec<Vec<NodeId>>,
    applied: BTreeMap<NodeId, Vec<u64>>,
    behind: Vec<(NodeId, u64)>,
    messages: u32,
}

impl Bench {
    fn new(size: u32) -> Bench {
        let first = roster(1, size, &[]);
        let start = Time(0) + MS * 10_000;
        let mut bench = Bench {
            trees: (1..=size).map(|id| (NodeId(id), Tree::new(NodeId(id), Pace::default()))).collect(),
            now: start,
            rosters: [(1, first.clone())].into(),
            dead: BTreeSet::new(),
            rounds: Vec::new(),
            applied: BTreeMap::new(),
            behind: Vec::new(),
            messages: 0,
        };
        for id in (1..=size).map(NodeId) {
            bench.give(id, Event::Roster(first.clone()));
        }
        bench.give(MASTER, Event::Lead(Some(1)));
        bench
    }

    /// Gives an event to a node, and carries out all that follows from it, at once.
    fn give(&mut self, id: NodeId, event: Event) {
        let mut open = vec![(id, event)];
        while let Some((id, event)) = open.pop() {
            let mut effects = Vec::new();
            self.trees.get_mut(&id).unwrap().handle(self.now, event, &mut effects);
            for effect in effects {
                let (to, event) = match effect {
                    Effect::Beat { to, beat } => (to, Event::Beat { from: id, beat }),
                    Effect::Ack { to, ack } => (to, Event::Ack { from: id, ack }),
                    Effect::Apply(transition) => {
                        self.applied.entry(id).or_default().push(transition.epoch);
                        (id, Event::Roster(self.rosters[&transition.epoch].clone()))
                    }
                    Effect::Round { unheard, .. } => {
                        self.rounds.push(unheard);
                        continue;
                    }
                    Effect::Behind(epoch) => {
                        self.behind.push((id, epoch));
                        continue;
                    }
                    Effect::Lease(_) => continue,
                };
                self.messages += u32::from(to != id);
                if to == id || !self.dead.contains(&to) && !self.dead.contains(&id) {
                    open.push((to, event));
                }
            }
        }
    }

    fn run(&mut self, ms: u32) {
        for _ in 0..ms / 25 {
            self.now = self.now + MS * 25;
            for id in self.trees.keys().copied().collect::<Vec<_>>() {
                self.give(id, Event::Tick);
            }
        }
    }

    fn agree(&mut self, after: u64, next: Arc<Roster>) {
        let epoch = next.epoch.0;
        self.rosters.insert(epoch, next.clone());
        self.give(MASTER, Event::Transition(transition(after, epoch)));
        self.give(MASTER, Event::Roster(next));
    }

    fn leased(&self, id: u32) -> bool {
        self.trees[&NodeId(id)].lease_until() > self.now
    }

    fn epoch(&self, id: u32) -> u64 {
        self.trees[&NodeId(id)].epoch
    }
}

#[test]
fn all_have_leases_by_two_messages_a_node_and_round() {
    let mut bench = Bench::new(200);
    bench.run(800);
    assert!((2..=200).all(|id| bench.leased(id)));
    assert!(bench.rounds.iter().all(Vec::is_empty) && bench.rounds.len() >= 2);
    let before = bench.messages;
    bench.run(400);
    assert_eq!(bench.messages - before, 2 * 199);
    assert_eq!(bench.trees[&MASTER].spread(), Some((1, true)));
}

#[test]
fn who_is_silent_is_told_and_its_part_is_not_lost() {
    let mut bench = Bench::new(200);
    bench.run(800);
    // The first child of the master has a part of some 25 nodes.
    let leader = branch::parts(&bench.rosters[&1], WHOLE, None, 8)[0].0;
    bench.dead.insert(leader);
    bench.run(2_000);
    assert_eq!(bench.rounds.last().unwrap(), &[leader]);
    assert!((2..=200).all(|id| bench.leased(id) != (NodeId(id) == leader)));
    assert_eq!(bench.trees[&MASTER].silent().collect::<Vec<_>>(), [leader]);
    bench.dead.clear();
    bench.run(1_200);
    assert!((2..=200).all(|id| bench.leased(id)), "it is asked in each round, and is back at once");
}

#[test]
fn a_transition_reaches_all_at_once_and_in_order() {
    let mut bench = Bench::new(100);
    bench.run(500);
    bench.agree(1, roster(2, 100, &[50]));
    assert!((2..=100).all(|id| id == 50 || bench.epoch(id) == 2), "without waiting for the next round");
    bench.agree(2, roster(3, 100, &[50, 60]));
    bench.run(50);
    assert!((2..=100).all(|id| [50, 60].contains(&id) || bench.applied[&NodeId(id)] == [2, 3]));
    assert_eq!(bench.trees[&MASTER].spread(), Some((3, true)));
}

#[test]
fn who_missed_transitions_gets_them_from_its_parent() {
    let mut bench = Bench::new(100);
    bench.run(500);
    let late = NodeId(50);
    bench.dead.insert(late);
    for epoch in 2..=4 {
        bench.agree(epoch - 1, roster(epoch, 100, &[60]));
        bench.run(500);
    }
    bench.dead.clear();
    bench.run(800);
    assert_eq!(bench.applied[&late], [2, 3, 4]);
    assert!(bench.behind.is_empty());
}

#[test]
fn who_missed_more_than_is_kept_is_told_to_ask_for_the_table() {
    let mut bench = Bench::new(40);
    bench.run(500);
    let late = NodeId(20);
    bench.dead.insert(late);
    let last = TRANSITIONS_MAX as u64 + 10;
    for epoch in 2..=last {
        bench.agree(epoch - 1, roster(epoch, 40, &[]));
        bench.run(200);
    }
    bench.dead.clear();
    bench.run(1_200);
    assert!(bench.behind.contains(&(late, last)), "{:?}", bench.behind);
    bench.give(late, Event::Roster(bench.rosters[&last].clone()));
    bench.behind.clear();
    bench.run(1_200);
    assert!(bench.behind.is_empty() && bench.leased(20));
}

#[test]
fn a_master_that_is_master_no_more_renews_nothing() {
    let mut bench = Bench::new(40);
    bench.run(800);
    bench.give(MASTER, Event::Lead(None));
    let rounds = bench.rounds.len();
    bench.run(1_400);
    assert_eq!(bench.rounds.len(), rounds);
    assert!((2..=40).all(|id| !bench.leased(id)));
}

#[test]
fn a_beat_of_an_earlier_term_or_round_renews_nothing() {
    let mut bench = Bench::new(3);
    bench.run(800);
    let until = bench.trees[&NodeId(2)].lease_until();
    let old =
        |term, round| Beat { term, round, epoch: 1, heard: round, span: Some(WHOLE), ..Beat::default() };
    for beat in [old(0, 99), old(1, 1)] {
        bench.give(NodeId(2), Event::Beat { from: NodeId(3), beat });
    }
    assert_eq!(bench.trees[&NodeId(2)].lease_until(), until);
    // A later term is followed, but it renews nothing that it has not heard.
    bench.give(NodeId(2), Event::Beat { from: NodeId(3), beat: old(2, 1) });
    assert_eq!(bench.trees[&NodeId(2)].lease_until(), until);
}

#[test]
fn who_does_not_know_the_view_of_a_beat_vouches_for_nobody_but_itself() {
    let mut bench = Bench::new(40);
    bench.run(800);
    let leader = branch::parts(&bench.rosters[&1], WHOLE, None, 8)[0].0;
    let beat = Beat { term: 1, round: 99, epoch: 7, span: Some(WHOLE), ..Beat::default() };
    let mut effects = Vec::new();
    bench.trees.get_mut(&leader).unwrap().handle(bench.now, Event::Beat { from: MASTER, beat }, &mut effects);
    bench.trees.get_mut(&leader).unwrap().handle(bench.now + MS * 25, Event::Tick, &mut effects);
    let acks = effects.iter().filter_map(|effect| match effect {
        Effect::Ack { ack, .. } => Some(ack),
        _ => None,
    });
    let missing: Vec<_> = acks.map(|ack| branch::members(&bench.rosters[&1], &ack.missing)).collect();
    assert_eq!(missing.len(), 1);
    assert_eq!(missing[0].len(), 38, "all but itself (and the master, which is no member)");
    assert!(!missing[0].contains(&leader));
}

mod garbage {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever another node says, a tree neither panics nor renews a lease that it should not.
        #[test]
        fn any_messages_are_taken(said in prop::collection::vec((1u32..30, 0u64..4, 0u64..6, any::<u64>(), any::<Option<u64>>(), any::<bool>()), 0..60)) {
            let mut tree = Tree::new(NodeId(5), Pace::default());
            let mut now = Time(0) + MS * 10_000;
            tree.handle(now, Event::Roster(roster(1, 30, &[])), &mut Vec::new());
            for (from, term, round, low, high, up) in said {
                now = now + MS * 25;
                let span = crate::watch::wire::Span { low, high };
                let from = NodeId(from);
                let event = if up {
                    Event::Ack { from, ack: Ack { term, round, epoch: 1, oldest: 1, complete: up, missing: vec![span] } }
                } else {
                    let transitions = vec![transition(round, term)];
                    Event::Beat { from, beat: Beat { term, round, epoch: 1, span: Some(span), heard: 0, unheard: vec![], transitions } }
                };
                tree.handle(now, event, &mut Vec::new());
                tree.handle(now, Event::Tick, &mut Vec::new());
                prop_assert_eq!(tree.lease_until(), Time(0), "nothing was heard of");
            }
        }
    }
}
