//! Tests of the fencer: levels, tries, pauses, and that nobody is fenced by a late answer.

use super::super::device::tests::device;
use super::*;
use proptest::prelude::*;

const S: Duration = Duration::from_secs(1);

struct Bench {
    fencer: Fencer,
    now: Time,
    running: Vec<(RunId, String)>,
    told: Vec<Effect>,
}

impl Bench {
    fn new(levels: &[&[&str]]) -> Bench {
        let levels: Vec<Vec<Device>> =
            levels.iter().map(|level| level.iter().map(|agent| device(agent)).collect()).collect();
        let plan = (1..=40).map(|id| (format!("node{id}"), levels.clone())).collect();
        Bench { fencer: Fencer::new(plan), now: Time(1), running: Vec::new(), told: Vec::new() }
    }

    fn give(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.fencer.handle(self.now, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Run { run, name, device } => {
                    self.running.push((run, format!("{name} {}", device.agent.display())));
                }
                Effect::Kill(run) => self.running.retain(|(id, _)| *id != run),
                other => self.told.push(other),
            }
        }
    }

    fn fence(&mut self, id: u32, life: u64) {
        self.give(Event::Fence { node: NodeId(id), name: format!("node{id}"), life: Incarnation(life) });
    }

    /// The one agent that runs ends; what it was.
    fn end(&mut self, ok: bool) -> String {
        assert_eq!(self.running.len(), 1, "{:?}", self.running);
        let (run, what) = self.running.remove(0);
        self.give(Event::Ended { run, result: if ok { Ok(()) } else { Err("no".into()) } });
        what
    }
}

fn fenced(id: u32, life: u64, by: &str) -> Effect {
    Effect::Fenced { node: NodeId(id), life: Incarnation(life), by: by.into() }
}

#[test]
fn all_devices_of_a_level_must_succeed() {
    let mut bench = Bench::new(&[&["a", "b"]]);
    bench.fence(2, 7);
    bench.fence(2, 7);
    assert_eq!(bench.end(true), "node2 a");
    assert!(bench.told.is_empty());
    assert_eq!(bench.end(true), "node2 b");
    assert_eq!(bench.told, [fenced(2, 7, "a, b")]);
    assert_eq!(bench.fencer.pending().count(), 0);
}

#[test]
fn a_device_is_tried_again_then_the_next_level_is() {
    let mut bench = Bench::new(&[&["a", "b"], &[], &["c"]]);
    bench.fence(2, 7);
    assert_eq!(bench.end(true), "node2 a");
    assert_eq!(bench.end(false), "node2 b");
    assert_eq!(bench.end(false), "node2 b");
    assert_eq!(bench.end(false), "node2 c");
    assert_eq!(bench.end(true), "node2 c");
    assert_eq!(bench.told, [fenced(2, 7, "c")]);
}

#[test]
fn when_all_has_failed_it_says_why_and_tries_again_after_a_growing_pause() {
    let mut bench = Bench::new(&[&["a"], &["b"]]);
    bench.fence(2, 7);
    for pause in [2, 4, 8, 16, 32, 60, 60] {
        let order: Vec<_> = (0..4).map(|_| bench.end(false)).collect();
        assert_eq!(order, ["node2 a", "node2 a", "node2 b", "node2 b"]);
        let why = "a: no; b: no".to_owned();
        assert_eq!(bench.told.pop(), Some(Effect::Failed { node: NodeId(2), life: Incarnation(7), why }));
        bench.now = bench.now + S * (pause - 1);
        bench.give(Event::Tick);
        assert!(bench.running.is_empty());
        bench.now = bench.now + S;
        bench.give(Event::Tick);
    }
    bench.end(true);
    assert_eq!(bench.told, [fenced(2, 7, "a")]);
}

#[test]
fn a_node_without_a_device_is_told_at_once() {
    let mut bench = Bench::new(&[]);
    bench.fence(2, 7);
    assert!(matches!(&bench.told[..], [Effect::Failed { why, .. }] if why.contains("no fence device")));
    assert!(bench.running.is_empty() && !bench.fencer.can_fence("node2"));
}

#[test]
fn an_agent_that_never_ends_is_given_up_and_its_late_answer_changes_nothing() {
    let mut bench = Bench::new(&[&["a"]]);
    bench.fence(2, 7);
    let (lost, _) = bench.running[0].clone();
    bench.now = bench.now + S * 5 + SLACK;
    bench.give(Event::Tick);
    assert_eq!(bench.running.len(), 1);
    assert_ne!(bench.running[0].0, lost, "it was tried again");
    bench.give(Event::Ended { run: lost, result: Ok(()) });
    assert!(bench.told.is_empty());
}

#[test]
fn an_operator_may_vouch_for_a_node_and_a_later_life_ends_the_matter() {
    let mut bench = Bench::new(&[&["a"]]);
    bench.fence(2, 7);
    bench.give(Event::Settled { node: NodeId(2), confirmed: true });
    assert_eq!(bench.told, [fenced(2, 7, "operator")]);
    assert!(bench.running.is_empty());
    bench.fence(3, 4);
    bench.give(Event::Settled { node: NodeId(3), confirmed: false });
    assert_eq!((bench.told.len(), bench.running.len()), (1, 0));
    bench.fence(2, 8);
    bench.fence(2, 9);
    bench.fence(2, 8);
    bench.end(true);
    assert_eq!(bench.told[1], fenced(2, 9, "a"));
}

#[test]
fn many_nodes_wait_for_a_place() {
    let mut bench = Bench::new(&[&["a"]]);
    (1..=40).for_each(|id| bench.fence(id, 1));
    assert_eq!(bench.running.len(), RUNNING_MAX);
    while let Some((run, _)) = bench.running.pop() {
        bench.give(Event::Ended { run, result: Ok(()) });
        assert!(bench.running.len() <= RUNNING_MAX);
    }
    assert_eq!(bench.told.len(), 40);
}

proptest! {
    /// Whatever happens in whatever order: one agent a node, the bound holds, and a life is fenced once at most, and only after an ok.
    #[test]
    fn any_order_of_events_keeps_the_invariants(steps in prop::collection::vec((0u8..6, 1u32..5, any::<bool>()), 0..200)) {
        let mut bench = Bench::new(&[&["a", "b"], &["c"]]);
        let mut lives = 0;
        let mut seen = std::collections::BTreeSet::new();
        for (step, id, ok) in steps {
            match step {
                0 => { lives += 1; bench.fence(id, lives); }
                1 | 2 if !bench.running.is_empty() => {
                    let (run, _) = bench.running.remove(id as usize % bench.running.len());
                    bench.give(Event::Ended { run, result: if ok { Ok(()) } else { Err("no".into()) } });
                }
                3 => bench.give(Event::Settled { node: NodeId(id), confirmed: ok }),
                4 => bench.give(Event::Ended { run: RunId(u64::from(id)), result: Err("stray".into()) }),
                _ => { bench.now = bench.now + S * id; bench.give(Event::Tick); }
            }
            let mut names: Vec<_> = bench.fencer.jobs.values().filter_map(|job| job.running.as_ref()).collect();
            names.dedup_by_key(|running| running.run);
            prop_assert!(names.len() <= bench.fencer.jobs.len());
            for effect in bench.told.drain(..) {
                if let Effect::Fenced { node, life, .. } = effect {
                    prop_assert!(seen.insert((node, life)), "{node} fenced twice");
                }
            }
        }
    }
}
