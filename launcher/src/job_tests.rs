//! The job as a pure core: what it does when ranks end, fail, are lost, or the user wants it to end.

use super::*;
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;
const KILL: u8 = libc::SIGKILL as u8;
const TERM: u8 = libc::SIGTERM as u8;

/// Six ranks, two a node, all started: rank r has pid 16,384 * node + r.
fn job() -> Job {
    let placement: Vec<_> =
        (0..6u32).map(|rank| (NodeId(rank / 2 + 1), format!("node{}", rank / 2 + 1))).collect();
    let mut job = Job::new(Config { placement, grace: Duration::from_secs(2) });
    for rank in 0..6 {
        assert_eq!(job.handle(Time(0), Event::Started(rank, 16_384 * (rank / 2 + 1) + rank)), []);
    }
    job
}

fn exit(job: &mut Job, rank: u32, code: u8, phase: Phase) -> Vec<Effect> {
    job.handle(Time(0), Event::Ended(rank, Ending::Exited(code), phase))
}

fn killed(job: &mut Job, rank: u32, signal: u8) -> Vec<Effect> {
    job.handle(Time(0), Event::Ended(rank, Ending::Killed { signal, core: false }, Phase::Joined))
}

fn signals(effects: &[Effect], number: u8) -> Vec<u32> {
    let of = |effect: &Effect| match effect {
        Effect::Signal(rank, signal) if *signal == number => Some(*rank),
        _ => None,
    };
    effects.iter().filter_map(of).collect()
}

fn said(effects: &[Effect]) -> Vec<&str> {
    effects
        .iter()
        .filter_map(|effect| if let Effect::Say(line) = effect { Some(&line[..]) } else { None })
        .collect()
}

/// Lets every rank that lives die of `signal`; gives back what was said then, and the exit code.
fn farewell(job: &mut Job, signal: u8) -> (Vec<String>, u8) {
    let mut last = Vec::new();
    for rank in job.alive() {
        assert_eq!(said(&last), [""; 0]);
        last = killed(job, rank, signal);
    }
    match last.last() {
        Some(Effect::Done(code)) => (said(&last).into_iter().map(str::to_owned).collect(), *code),
        other => panic!("{other:?}"),
    }
}

/// As [`farewell`], with nothing said.
fn finish(job: &mut Job, signal: u8) -> u8 {
    let (said, code) = farewell(job, signal);
    assert_eq!(said, [""; 0]);
    code
}

#[test]
fn all_exit_with_0() {
    let mut job = job();
    job.handle(Time(0), Event::Joined(0));
    for rank in 0..5 {
        assert_eq!(exit(&mut job, rank, 0, Phase::Finalized), []);
    }
    assert_eq!(exit(&mut job, 5, 0, Phase::Finalized), [Effect::Done(0)]);
    assert_eq!(exit(&mut job, 5, 0, Phase::Finalized), []);
}

#[test]
fn the_first_failing_rank_gives_the_code_and_others_run_on() {
    let mut job = job();
    for (rank, code) in [(3, 0), (4, 7), (0, 9), (1, 0), (2, 0)] {
        assert_eq!(exit(&mut job, rank, code, Phase::Fresh), []);
    }
    assert_eq!(exit(&mut job, 5, 0, Phase::Fresh), [Effect::Done(7)]);
}

#[test]
fn a_rank_killed_by_a_signal_ends_the_job_at_once_and_is_named() {
    let mut job = job();
    let effects = killed(&mut job, 3, 9);
    assert_eq!(said(&effects), ["ssirun: rank 3 on node2 (pid 32771) was killed by signal 9 (Killed)"]);
    assert_eq!(signals(&effects, KILL), [0, 1, 2, 4, 5]);
    assert_eq!(finish(&mut job, KILL), 137);
}

#[test]
fn an_mpi_rank_that_leaves_without_finalize_ends_the_job() {
    for (code, expected) in [(0, 1), (5, 5)] {
        let mut job = job();
        job.handle(Time(0), Event::Joined(2));
        let effects = exit(&mut job, 2, code, Phase::Joined);
        assert_eq!(signals(&effects, TERM), [0, 1, 3, 4, 5]);
        let (said, told) = farewell(&mut job, TERM);
        assert!(said[0].ends_with(&format!("exited with code {code} without MPI_Finalize")), "{said:?}");
        assert_eq!(told, expected);
    }
}

#[test]
fn a_rank_that_ended_before_the_others_joined_is_missed() {
    let mut job = job();
    exit(&mut job, 1, 4, Phase::Fresh);
    job.handle(Time(0), Event::Joined(0));
    let said = vec!["ssirun: rank 1 on node1 (pid 16385) ended before MPI_Init".to_owned()];
    assert_eq!(farewell(&mut job, TERM), (said, 4));
}

#[test]
fn abort_ends_the_job_with_its_code() {
    let mut job = job();
    let effects = job.handle(Time(0), Event::Abort(0, 42, String::new()));
    assert_eq!(signals(&effects, TERM).len(), 6);
    let said = vec!["ssirun: rank 0 on node1 (pid 16384) aborted the job with code 42".to_owned()];
    assert_eq!(farewell(&mut job, TERM), (said, 42));
}

#[test]
fn a_rank_that_aborts_because_another_was_killed_does_not_hide_that() {
    let mut job = job();
    job.handle(Time(0), Event::Abort(2, 15, String::new()));
    assert_eq!(exit(&mut job, 2, 15, Phase::Joined), []);
    assert_eq!(killed(&mut job, 3, TERM), []);
    let effects = killed(&mut job, 1, 9);
    assert_eq!(said(&effects), ["ssirun: rank 1 on node1 (pid 16385) was killed by signal 9 (Killed)"]);
    assert_eq!(signals(&effects, KILL), [0, 4, 5]);
    assert_eq!(finish(&mut job, KILL), 137);
}

#[test]
fn a_rank_that_aborts_because_a_node_is_down_does_not_hide_that() {
    let mut job = job();
    exit(&mut job, 2, 15, Phase::Joined);
    job.handle(Time(0), Event::Joined(0));
    job.handle(Time(0), Event::Abort(3, 15, String::new()));
    let lost = Event::Ended(4, Ending::Lost { message: "node3 is DOWN".to_owned() }, Phase::Joined);
    assert_eq!(said(&job.handle(Time(SECOND), lost)), ["ssirun: node3 is DOWN: ranks 4-5 lost"]);
    assert_eq!(finish(&mut job, KILL), 255);
}

#[test]
fn an_abort_is_told_before_ranks_that_stay_are_killed_and_stays_the_cause() {
    let mut job = job();
    job.handle(Time(0), Event::Abort(0, 42, String::new()));
    let effects = job.handle(Time(2 * SECOND), Event::Tick);
    assert_eq!(said(&effects), ["ssirun: rank 0 on node1 (pid 16384) aborted the job with code 42"]);
    assert_eq!(signals(&effects, KILL).len(), 6);
    assert_eq!(finish(&mut job, KILL), 42);
}

#[test]
fn a_rank_that_cannot_start_ends_the_job_with_the_code_of_a_shell() {
    let mut job = job();
    let message = "node3: exec foo: No such file or directory".to_owned();
    let effects = job.handle(
        Time(0),
        Event::Ended(4, Ending::NotStarted { code: 127, message: message.clone() }, Phase::Fresh),
    );
    assert_eq!(said(&effects), [format!("ssirun: rank 4: {message}")]);
    let again = job.handle(Time(0), Event::Ended(5, Ending::NotStarted { code: 127, message }, Phase::Fresh));
    assert_eq!(again, []);
    assert_eq!(finish(&mut job, KILL), 127);
}

#[test]
fn a_dead_node_is_told_once_with_all_its_ranks() {
    let mut job = job();
    let lost = |rank| Event::Ended(rank, Ending::Lost { message: "node2 is DOWN".to_owned() }, Phase::Joined);
    let effects = job.handle(Time(0), lost(3));
    assert_eq!(said(&effects), ["ssirun: node2 is DOWN: ranks 2-3 lost"]);
    assert_eq!(signals(&effects, KILL), [0, 1, 4, 5]);
    assert_eq!(job.handle(Time(0), lost(2)), []);
    assert_eq!(finish(&mut job, KILL), 255);
}

#[test]
fn an_interrupt_terminates_then_kills_then_gives_up() {
    let mut job = job();
    let effects = job.handle(Time(0), Event::Interrupted(2));
    assert_eq!(signals(&effects, TERM).len(), 6);
    assert_eq!(effects.last(), Some(&Effect::Wake(Time(2 * SECOND))));
    assert_eq!(job.handle(Time(SECOND), Event::Tick), []);
    let effects = job.handle(Time(2 * SECOND), Event::Tick);
    assert_eq!(signals(&effects, KILL).len(), 6);
    let effects = job.handle(Time(4 * SECOND), Event::Tick);
    assert_eq!(effects.len(), 7);
    assert_eq!(effects.last(), Some(&Effect::Done(130)));
    assert_eq!(job.handle(Time(9 * SECOND), Event::Tick), []);
}

#[test]
fn a_second_interrupt_kills_and_a_rank_that_starts_late_is_not_spared() {
    let mut job = job();
    job.handle(Time(0), Event::Interrupted(15));
    assert_eq!(job.handle(Time(0), Event::Started(3, 77)), [Effect::Signal(3, TERM)]);
    assert_eq!(signals(&job.handle(Time(1), Event::Interrupted(2)), KILL).len(), 6);
    assert_eq!(job.handle(Time(0), Event::Started(3, 77)), [Effect::Signal(3, KILL)]);
    assert_eq!(finish(&mut job, KILL), 143);
}

#[test]
fn ranks_are_told_in_short() {
    assert_eq!(ranges(&[2]), "2");
    assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2, 5, 7-8");
}

fn event() -> impl Strategy<Value = Event> {
    let ending = prop_oneof![
        (0u8..4).prop_map(Ending::Exited),
        (1u8..32).prop_map(|signal| Ending::Killed { signal, core: signal == 11 }),
        Just(Ending::Lost { message: "node1 is DOWN".to_owned() }),
        Just(Ending::NotStarted { code: 127, message: "no".to_owned() }),
    ];
    let phase = prop::sample::select(vec![Phase::Fresh, Phase::Joined, Phase::Finalized]);
    let rank = 0u32..8;
    prop_oneof![
        4 => (rank.clone(), ending, phase).prop_map(|(rank, ending, phase)| Event::Ended(rank, ending, phase)),
        1 => (rank.clone(), 1u32..9).prop_map(|(rank, pid)| Event::Started(rank, pid)),
        1 => rank.clone().prop_map(Event::Joined),
        1 => rank.clone().prop_map(|rank| Event::Abort(rank, 1, String::new())),
        1 => rank.prop_map(|rank| Event::Broken(rank, "x".to_owned())),
        1 => Just(Event::Interrupted(2)),
        2 => Just(Event::Tick),
    ]
}

proptest! {
    #[test]
    fn a_job_is_done_once_and_says_one_cause_at_most(events in prop::collection::vec((0u64..3, event()), 0..60)) {
        let mut job = job();
        let (mut now, mut done, mut lines) = (0, 0, 0);
        for (seconds, event) in events {
            now += seconds * SECOND;
            for effect in job.handle(Time(now), event) {
                match effect {
                    Effect::Signal(rank, _) => prop_assert!(rank < 8),
                    Effect::Done(_) => done += 1,
                    Effect::Say(_) => lines += 1,
                    Effect::Forget(_) | Effect::Wake(_) => {}
                }
            }
        }
        prop_assert!(done <= 1 && lines <= 1);
        prop_assert_eq!(done == 1, job.alive().is_empty());
    }

    #[test]
    fn every_job_that_is_interrupted_ends(seed in prop::collection::vec((0u64..2, event()), 0..20)) {
        let mut job = job();
        for (_, event) in seed {
            job.handle(Time(0), event);
        }
        for (at, event) in [(1, Event::Interrupted(2)), (4, Event::Tick), (7, Event::Tick), (10, Event::Tick)] {
            job.handle(Time(at * SECOND), event);
        }
        prop_assert!(job.alive().is_empty());
    }
}
