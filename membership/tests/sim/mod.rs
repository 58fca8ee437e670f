//! The cores in a simulated world, seed by seed, in virtual time: crashes that lose or tear what was not made safe, cuts
//! (also one-way), connections closed by somebody on the way, pauses, clocks that drift, losses, doubles, wiped disks, changes of voters, snapshots. The oracle
//! (oracle.rs) looks after every step.
//!
//! A failure prints its seed. `MEMBERSHIP_SEED=N` runs that seed alone; `MEMBERSHIP_SEEDS=N` runs so many of each test.

mod agenda;
#[allow(dead_code, reason = "replog damages it too")]
#[path = "../../../replog/tests/sim/disk.rs"]
mod disk;
mod machine;
mod network;
mod oracle;
mod scenes;
mod storm;
mod world;

use crate::core::Canary;
use storm::{judge, storm};
use world::World;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// The seeds of a test.
fn seeds(first: u64, few: u64) -> std::ops::Range<u64> {
    match number("MEMBERSHIP_SEED") {
        Some(seed) => seed..seed + 1,
        None => first..first + number("MEMBERSHIP_SEEDS").unwrap_or(few),
    }
}

fn check(world: &World, seed: u64) {
    assert!(world.oracle.faults.is_empty(), "seed {seed}: {:#?}{}", world.oracle.faults, world.describe());
}

fn judge_all(first: u64, few: u64) {
    let (mut ends, mut looks, mut steps, mut epochs) = (0, 0, 0, 0);
    let seeds = seeds(first, few);
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let world = judge(seed);
        ends += world.oracle.ends.len() as u64;
        looks += world.oracle.looks;
        steps += world.steps;
        epochs += world.oracle.epoch();
    }
    println!("{count} seeds: {steps} steps, {looks} looks, {epochs} transitions, {ends} lives ended");
    assert!(looks > count * 100 && ends * 2 > count, "the storms leave nothing to check");
}

#[test]
fn storms_leave_one_history_and_end_in_peace_1() {
    judge_all(0, 500);
}

#[test]
fn storms_leave_one_history_and_end_in_peace_2() {
    judge_all(10_000, 500);
}

#[test]
fn storms_leave_one_history_and_end_in_peace_3() {
    judge_all(20_000, 500);
}

#[test]
fn storms_leave_one_history_and_end_in_peace_4() {
    judge_all(30_000, 500);
}

/// The first seed whose storm the oracle complains about.
fn heard(canary: Canary, within: u64) -> Option<u64> {
    (0..within).find(|&seed| !storm(seed, canary).oracle.faults.is_empty())
}

#[test]
fn the_oracle_hears_every_canary() {
    for canary in [Canary::GrantsBlindly, Canary::KeepsItsLease, Canary::DecidesAlone, Canary::JudgesAtOnce] {
        let seed = heard(canary, 4_000);
        println!("{canary:?}: heard with seed {seed:?}");
        assert!(seed.is_some(), "nobody hears {canary:?}");
    }
}

#[test]
fn a_seed_is_a_run() {
    let run = |seed| storm(seed, Canary::None).describe();
    assert_eq!(run(11), run(11));
}
