//! Tests of the cut detector: when alarms are one decision, and when they are none.

use super::*;
use crate::watch::wire::Suspect;
use base::Epoch;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

struct Bench {
    cut: Cut,
    now: Time,
    roster: Arc<Roster>,
    sequence: u64,
    /// Who answers no rounds.
    mute: Vec<NodeId>,
    decisions: Vec<(Time, Vec<u32>)>,
}

fn roster(epoch: u64, without: &[NodeId]) -> Arc<Roster> {
    let alive = (1..=200).map(NodeId).filter(|node| !without.contains(node));
    let alive = alive.map(|node| (node, Incarnation(5)));
    Arc::new(Roster::new(Epoch(epoch), NodeId(1), alive, &Pace::default()))
}

impl Bench {
    fn new() -> Bench {
        let start = Time(0) + MS * 10_000;
        let mut cut = Cut::new(Pace::default(), start);
        let roster = roster(1, &[]);
        cut.handle(start, Event::Roster(roster.clone()), &mut Vec::new());
        Bench { cut, now: start, roster, sequence: 0, mute: Vec::new(), decisions: Vec::new() }
    }

    /// Lets time pass; everybody but the mute answers all rounds.
    fn run(&mut self, ms: u32) {
        for _ in 0..ms / 25 {
            self.now = self.now + MS * 25;
            let mut effects = Vec::new();
            let round = Event::Round { at: self.now, unheard: self.mute.clone() };
            self.cut.handle(self.now, round, &mut effects);
            self.cut.handle(self.now, Event::Tick, &mut effects);
            for Effect::Down(down) in effects {
                self.decisions.push((self.now, down.iter().map(|(node, _)| node.0).collect()));
            }
        }
    }

    fn say(&mut self, watcher: NodeId, nodes: &[NodeId]) {
        self.sequence += 1;
        let suspects = nodes.iter().map(|node| Suspect { node: node.0, incarnation: 5 }).collect();
        let alarm = Alarm { watcher: watcher.0, incarnation: 5, sequence: self.sequence, epoch: 1, suspects };
        self.cut.handle(self.now, Event::Alarms(Alarms { alarms: vec![alarm] }), &mut Vec::new());
    }

    /// The first `count` watchers of `node` say that they do not hear it.
    fn suspect(&mut self, node: NodeId, count: usize) {
        for watcher in self.watchers(node).into_iter().take(count) {
            self.say(watcher, &[node]);
        }
    }

    fn watchers(&self, node: NodeId) -> Vec<NodeId> {
        self.roster.rings().watchers(node).collect()
    }

    /// Nodes that do not watch each other, nor share a watcher.
    fn strangers(&self, count: usize) -> Vec<NodeId> {
        let mut found: Vec<NodeId> = Vec::new();
        let mut busy: BTreeSet<NodeId> = BTreeSet::new();
        for &node in self.roster.members() {
            let watchers = self.watchers(node);
            if !busy.contains(&node) && watchers.iter().all(|one| !busy.contains(one)) {
                busy.extend(watchers);
                busy.insert(node);
                found.push(node);
            }
        }
        found.truncate(count);
        found
    }
}

#[test]
fn enough_watchers_and_no_lease_are_a_decision_made_once() {
    let mut bench = Bench::new();
    let node = NodeId(50);
    bench.mute = vec![node];
    bench.run(1_500);
    bench.suspect(node, 8);
    bench.run(800);
    assert_eq!(bench.decisions.len(), 1);
    assert_eq!(bench.decisions[0].1, [50]);
}

#[test]
fn fewer_watchers_decide_nothing() {
    let mut bench = Bench::new();
    let node = NodeId(50);
    bench.mute = vec![node];
    bench.run(1_500);
    bench.suspect(node, 7);
    bench.run(800);
    assert!(bench.decisions.is_empty());
    assert_eq!(bench.cut.doubts()[&node].voices, 7);
    bench.run(800);
    assert!(bench.cut.doubts().is_empty(), "alarms that are not repeated lapse");
}

#[test]
fn strangers_and_former_lives_have_no_voice() {
    let mut bench = Bench::new();
    let node = NodeId(50);
    bench.mute = vec![node];
    bench.run(1_500);
    let watchers = bench.watchers(node);
    let others: Vec<_> =
        bench.roster.members().iter().copied().filter(|one| !watchers.contains(one)).collect();
    others.iter().for_each(|watcher| bench.say(*watcher, &[node]));
    let suspect = Suspect { node: 50, incarnation: 4 };
    for watcher in watchers {
        let alarm =
            Alarm { watcher: watcher.0, incarnation: 5, sequence: 9_999, epoch: 1, suspects: vec![suspect] };
        bench.cut.handle(bench.now, Event::Alarms(Alarms { alarms: vec![alarm] }), &mut Vec::new());
    }
    bench.run(500);
    assert!(bench.decisions.is_empty() && bench.cut.doubts().is_empty());
}

#[test]
fn a_doubtful_node_holds_the_decision_back_until_it_is_part_of_it() {
    let mut bench = Bench::new();
    let pair = bench.strangers(2);
    bench.mute = pair.clone();
    bench.run(1_500);
    bench.suspect(pair[0], 10);
    bench.suspect(pair[1], 3);
    bench.run(300);
    assert!(bench.decisions.is_empty());
    bench.suspect(pair[1], 8);
    bench.run(25);
    assert_eq!(bench.decisions.len(), 1);
    assert_eq!(bench.decisions[0].1.len(), 2, "one transition");
}

#[test]
fn a_doubtful_node_cannot_hold_it_back_for_ever() {
    let mut bench = Bench::new();
    let pair = bench.strangers(2);
    bench.mute = pair.clone();
    bench.run(1_500);
    let start = bench.now;
    bench.suspect(pair[0], 10);
    bench.suspect(pair[1], 5);
    bench.run(800);
    assert_eq!(bench.decisions.len(), 1);
    assert_eq!(bench.decisions[0].1, [pair[0].0]);
    assert!(bench.decisions[0].0.since(start) <= Duration::from_millis(750));
}

#[test]
fn who_answers_the_master_is_not_declared_down() {
    let mut bench = Bench::new();
    let node = NodeId(50);
    bench.run(1_500);
    for _ in 0..10 {
        bench.suspect(node, 10);
        bench.run(300);
    }
    assert!(bench.decisions.is_empty());
    bench.mute = vec![node];
    let silent = bench.now;
    for _ in 0..5 {
        bench.suspect(node, 10);
        bench.run(300);
    }
    let (when, _) = bench.decisions[0];
    assert!(when.since(silent) >= Duration::from_millis(1_300), "not before its lease is over");
}

#[test]
fn watchers_that_are_cut_off_with_their_subject_count_for_it() {
    let mut bench = Bench::new();
    let node = bench.strangers(1)[0];
    let watchers = bench.watchers(node);
    // Six of its watchers go with it; four stay, and say so.
    let gone: Vec<_> = watchers[..6].to_vec();
    bench.mute = gone.iter().copied().chain([node]).collect();
    bench.run(1_500);
    for one in &gone {
        for by in bench.watchers(*one).into_iter().filter(|by| !gone.contains(by) && *by != node) {
            // A watcher of several names all of them.
            let mine: Vec<_> =
                gone.iter().copied().chain([node]).filter(|it| bench.watchers(*it).contains(&by)).collect();
            bench.say(by, &mine);
        }
    }
    for by in &watchers[6..] {
        let mine: Vec<_> =
            gone.iter().copied().chain([node]).filter(|it| bench.watchers(*it).contains(by)).collect();
        bench.say(*by, &mine);
    }
    bench.run(400);
    assert_eq!(bench.decisions.len(), 1, "{:?}", bench.cut.doubts());
    assert_eq!(bench.decisions[0].1.len(), 7);
}

#[test]
fn watchers_in_doubt_cannot_condemn_anybody() {
    let mut bench = Bench::new();
    let node = bench.strangers(1)[0];
    let bad = bench.watchers(node);
    bench.run(1_500);
    bench.mute = vec![node];
    bench.run(1_500);
    bad.iter().for_each(|one| bench.say(*one, &[node]));
    // All of them are doubted themselves.
    for one in &bad {
        let by: Vec<_> = bench.watchers(*one).into_iter().filter(|by| !bad.contains(by)).take(3).collect();
        for watcher in by {
            let mine: Vec<_> =
                bad.iter().copied().filter(|it| bench.watchers(*it).contains(&watcher)).collect();
            bench.say(watcher, &mine);
        }
    }
    bench.run(800);
    assert!(bench.decisions.iter().all(|(_, down)| !down.contains(&node.0)), "{:?}", bench.decisions);
}

#[test]
fn what_came_to_nothing_is_declared_again_and_a_new_view_ends_it() {
    let mut bench = Bench::new();
    let node = NodeId(50);
    bench.mute = vec![node];
    bench.run(1_500);
    for _ in 0..6 {
        bench.suspect(node, 10);
        bench.run(250);
    }
    assert_eq!(bench.decisions.len(), 2);
    bench.suspect(node, 10);
    bench.cut.handle(bench.now, Event::Failed, &mut Vec::new());
    bench.run(200);
    assert_eq!(bench.decisions.len(), 3);
    bench.roster = roster(2, &[node]);
    bench.cut.handle(bench.now, Event::Roster(bench.roster.clone()), &mut Vec::new());
    bench.run(3_000);
    assert_eq!(bench.decisions.len(), 3);
}
