//! Tests of the watcher: whom it suspects, and when it holds its tongue.

use super::*;
use base::Epoch;

const MS: Duration = Duration::from_millis(1);
const ME: NodeId = NodeId(7);

struct Bench {
    watcher: Watcher,
    now: Time,
    sequence: u64,
    alarms: Vec<(NodeId, Alarm)>,
    /// The master's beats come.
    leased: bool,
}

fn roster(epoch: u64, size: u32) -> Arc<Roster> {
    let alive = (1..=size).map(|id| (NodeId(id), Incarnation(5)));
    Arc::new(Roster::new(Epoch(epoch), NodeId(1), alive, &Pace::default()))
}

impl Bench {
    fn new() -> Bench {
        let start = Time(0) + MS * 10_000;
        let mut watcher = Watcher::new(ME, Incarnation(5), Pace::default(), start);
        watcher.handle(start, Event::Roster(roster(1, 40)), &mut Vec::new());
        Bench { watcher, now: start, sequence: 0, alarms: Vec::new(), leased: true }
    }

    fn subjects(&self) -> Vec<NodeId> {
        self.watcher.subjects.iter().map(|subject| subject.node).collect()
    }

    fn tick(&mut self) {
        let mut effects = Vec::new();
        if self.leased {
            self.watcher.handle(self.now, Event::Lease(self.now + MS * 1_000), &mut effects);
        }
        self.watcher.handle(self.now, Event::Tick, &mut effects);
        self.alarms.extend(effects.into_iter().map(|Effect::Alarm { to, alarm }| (to, alarm)));
    }

    /// Lets time pass in which all but `silent` are heard.
    fn run(&mut self, ms: u32, silent: &[NodeId]) {
        for _ in 0..ms / 25 {
            self.now = self.now + MS * 25;
            self.sequence += 1;
            let beats: Vec<_> = self
                .subjects()
                .into_iter()
                .filter(|node| !silent.contains(node))
                .map(|node| Heartbeat { node, incarnation: Incarnation(5), sequence: self.sequence })
                .collect();
            let (now, effects) = (self.now, &mut Vec::new());
            self.watcher.handle(now, Event::Heard { beats: &beats, at: now }, effects);
            self.tick();
        }
    }

    fn named(&self) -> Vec<u32> {
        let last = self.alarms.last().map(|(_, alarm)| alarm.suspects.iter().map(|suspect| suspect.node));
        last.map(|nodes| nodes.collect()).unwrap_or_default()
    }
}

#[test]
fn a_silent_subject_is_told_again_and_again_until_it_is_heard() {
    let mut bench = Bench::new();
    let one = bench.subjects()[0];
    bench.run(1_225, &[one]);
    assert!(bench.alarms.is_empty());
    bench.run(25, &[one]);
    assert_eq!(bench.named(), [one.0]);
    bench.run(2_400, &[one]);
    assert_eq!(bench.alarms.len(), 5, "told, and four times again");
    assert!(bench.alarms.windows(2).all(|pair| pair[0].1.sequence < pair[1].1.sequence));
    bench.run(1_000, &[]);
    assert_eq!(bench.alarms.len(), 6);
    assert!(bench.named().is_empty(), "it takes the alarm back, once");
}

#[test]
fn several_subjects_go_into_few_messages() {
    let mut bench = Bench::new();
    let subjects = bench.subjects();
    bench.run(300, &subjects[..1]);
    bench.run(1_000, &subjects[..3]);
    assert_eq!(bench.alarms.len(), 1, "one: {:?}", bench.alarms);
    bench.run(300, &subjects[..3]);
    assert_eq!(bench.alarms.len(), 2, "all three: {:?}", bench.alarms);
    assert_eq!(bench.named().len(), 3);
}

#[test]
fn a_watcher_that_was_paused_suspects_nobody_and_waits_longer() {
    let mut bench = Bench::new();
    bench.run(200, &[]);
    bench.now = bench.now + MS * 5_000;
    bench.tick();
    bench.run(500, &[]);
    assert!(bench.alarms.is_empty());
    assert!(bench.watcher.score() >= 1);
    let one = bench.subjects()[0];
    bench.run(1_500, &[one]);
    assert!(bench.alarms.is_empty(), "in bad health it is patient");
    bench.run(1_500, &[one]);
    assert_eq!(bench.named(), [one.0]);
}

#[test]
fn a_watcher_whose_socket_is_not_read_suspects_nobody() {
    let mut bench = Bench::new();
    for _ in 0..200 {
        bench.now = bench.now + MS * 25;
        bench.tick();
    }
    assert!(bench.alarms.is_empty());
}

#[test]
fn a_watcher_without_a_lease_tells_nothing() {
    let mut bench = Bench::new();
    let one = bench.subjects()[0];
    bench.run(50, &[one]);
    bench.leased = false;
    bench.run(5_000, &[one]);
    // The lease given at 50 ms lasted 1,000 ms: until then it told.
    assert!(bench.alarms.len() <= 1, "{:?}", bench.alarms);
    bench.alarms.clear();
    bench.run(5_000, &[one]);
    assert!(bench.alarms.is_empty());
}

#[test]
fn many_at_once_are_believed_only_after_twice_the_time() {
    let mut bench = Bench::new();
    let subjects = bench.subjects();
    assert!(subjects.len() >= CROWD_MIN);
    bench.run(2_475, &subjects);
    assert!(bench.alarms.is_empty());
    bench.run(25, &subjects);
    assert_eq!(bench.named().len(), subjects.len());
}

#[test]
fn a_later_life_ends_the_one_that_is_watched_at_once() {
    let mut bench = Bench::new();
    bench.run(100, &[]);
    let one = bench.subjects()[0];
    let beat = Heartbeat { node: one, incarnation: Incarnation(6), sequence: 1 };
    let now = bench.now;
    bench.watcher.handle(now, Event::Heard { beats: &[beat], at: now }, &mut Vec::new());
    bench.run(25, &[]);
    assert_eq!(bench.alarms[0].1.suspects, [Suspect { node: one.0, incarnation: 5 }]);
}

#[test]
fn a_new_subject_has_the_whole_time_and_a_known_one_keeps_its_silence() {
    let mut bench = Bench::new();
    let kept = bench.subjects()[0];
    bench.run(950, &bench.subjects());
    let alive = (1..=400).map(|id| (NodeId(id), Incarnation(5)));
    let larger = Arc::new(Roster::new(Epoch(2), NodeId(1), alive, &Pace::default()));
    bench.watcher.handle(bench.now, Event::Roster(larger), &mut Vec::new());
    let silent = bench.subjects();
    bench.run(400, &silent);
    let named = bench.named();
    assert!(named.iter().all(|id| *id <= 40), "{named:?}");
    assert_eq!(named.contains(&kept.0), silent.contains(&kept));
}
