//! The core in a simulated world, seed by seed, in virtual time: crashes that lose or tear what was not synced, cuts
//! (also one-way), closed connections to a leader that lives or not, pauses, clocks that drift, losses, doubles, reordering, changes of voters, wiped and full disks,
//! snapshots under load. The oracles (oracle.rs) look after every step.
//!
//! A failure prints its seed. `REPLOG_SEED=N` runs that seed alone; `REPLOG_SEEDS=N` runs so many of each test.

pub mod disk;
mod machine;
mod network;
mod oracle;
mod scenes;
mod state;
mod store;
mod storm;
mod world;

use crate::core::Canary;
use storm::{Weather, calm, judge, storm};
use world::{World, millis};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// The seeds of a test.
fn seeds(few: u64) -> std::ops::Range<u64> {
    match number("REPLOG_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("REPLOG_SEEDS").unwrap_or(few),
    }
}

#[derive(Default, Debug)]
struct Sum {
    acknowledged: u64,
    reads: u64,
    elections: u64,
    changes: u64,
    restores: u64,
    steps: u64,
}

fn judge_all(few: u64, weather: Weather, voters: &[u32]) {
    let mut sum = Sum::default();
    let mut count = 0;
    for seed in seeds(few) {
        let voters = voters[(seed % voters.len() as u64) as usize];
        let world = judge(seed, voters, weather);
        count += 1;
        let oracle = &world.oracle;
        sum.acknowledged += oracle.acknowledgements;
        sum.reads += oracle.reads;
        sum.elections += oracle.elections;
        sum.changes += oracle.changes;
        sum.restores += oracle.restores;
        sum.steps += world.steps;
    }
    println!("{count} seeds, {weather:?}: {sum:?}");
    assert!(sum.acknowledged > count * 10 && sum.reads > count, "the storms leave nothing to check: {sum:?}");
}

#[test]
fn storms_over_1_and_3_voters_lose_nothing_and_end_in_peace() {
    judge_all(700, Weather::Faults, &[3, 1, 3]);
}

#[test]
fn storms_over_5_and_7_voters_lose_nothing_and_end_in_peace() {
    judge_all(400, Weather::Faults, &[5, 5, 7]);
}

#[test]
fn storms_with_changing_voters_lose_nothing_and_end_in_peace() {
    judge_all(900, Weather::Changes, &[3, 1, 3, 5]);
}

#[test]
fn a_seed_is_a_run() {
    for seed in [3, 14] {
        let run = || {
            let mut world = storm(seed, 3, Weather::Changes, Canary::None, true);
            let rest = calm(&mut world);
            (world.trace, rest, world.steps, world.now)
        };
        let (one, other) = (run(), run());
        assert!(one.0.as_ref().is_some_and(|trace| trace.len() > 1_000), "the trace holds everything");
        assert!(one == other, "seed {seed} gives two runs");
    }
}

/// The first seed in which the oracles see the bug.
fn caught(canary: Canary, voters: u32, weather: Weather) -> (u64, String) {
    for seed in seeds(6_000) {
        let world = storm(seed, voters, weather, canary, false);
        if let Some(fault) = world.oracle.faults.first() {
            return (seed, fault.clone());
        }
    }
    panic!("{canary:?} sings unheard");
}

#[test]
fn canaries_are_heard() {
    for (canary, voters, weather) in [
        (Canary::SpeaksTooSoon, 3, Weather::Faults),
        (Canary::ForgetsTheLeader, 3, Weather::Faults),
        (Canary::TrustsItself, 3, Weather::Faults),
        (Canary::SkipsTheJointSetting, 3, Weather::Changes),
        (Canary::TrustsTheClose, 3, Weather::Faults),
    ] {
        let (seed, fault) = caught(canary, voters, weather);
        println!("{canary:?}: seed {seed}: {fault}");
    }
}

#[test]
fn without_faults_one_leader_stays() {
    for seed in seeds(20) {
        let mut world = World::started(seed, 1 + (seed % 5) as u32);
        world.run(millis(5_000));
        assert!(world.is_sound(), "seed {seed}: {:?}", world.oracle.faults);
        assert_eq!(world.oracle.elections, 1, "seed {seed}: {}", world.describe());
        assert!(world.oracle.acknowledgements > 200, "seed {seed}: {}", world.oracle.acknowledgements);
    }
}
