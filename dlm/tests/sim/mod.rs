//! Whole nodes in a simulated cluster: delays, losses, pauses, wrong clocks, cuts (also one-way), deaths, returns, views that arrive at different times
//! and twice.
//!
//! Invariant: the same seed gives the same run. After every step the oracles look at all that any user has been told.
//!
//! A failure prints its seed. `DLM_SEED=N` runs that seed alone, with its history; `DLM_SEEDS=N` runs so many of each test.

mod circles;
mod every;
mod oracle;
mod scenes;
mod users;
mod world;

use crate::node::Canary;
use users::Habit;
use world::{Plan, Weather, World};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// The seeds of a test.
fn seeds(few: u64) -> std::ops::Range<u64> {
    let many = if std::env::var_os("SSI_TEST_LONG").is_some() { few * 20 } else { few };
    match number("DLM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("DLM_SEEDS").unwrap_or(many),
    }
}

/// Runs a seed; again with its history, if it fails.
fn judge(seed: u64, plan: Plan) -> World {
    let mut world = World::new(seed, plan, false);
    if world.run().is_err() {
        let mut again = World::new(seed, plan, true);
        let why = again.run().expect_err("a seed is a run");
        panic!("{}\nseed {seed}: {why}\nDLM_SEED={seed} replays it", again.history());
    }
    world
}

/// Runs the seeds of a test and sees that there was something to see.
fn judge_all(few: u64, plan: Plan) {
    let (mut grants, mut values, mut victims, mut count) = (0, 0, 0, 0);
    for seed in seeds(few) {
        let world = judge(seed, plan);
        let (more_grants, more_values) = world.counted();
        (grants, values, victims) = (grants + more_grants, values + more_values, victims + world.victims);
        count += 1;
    }
    println!("{count} seeds, {grants} grants, {values} values, {victims} victims, {plan:?}");
    // One seed may end early.
    let few = count < 20;
    assert!(few || grants > count * 20, "the storms leave nothing to check");
    assert!(few || values > count * 5 || plan.habit != Habit::One, "no value was looked at");
}

#[test]
fn without_faults_everybody_is_served() {
    judge_all(200, Plan { nodes: 4, ..Plan::default() });
}

#[test]
fn one_death_costs_nobody_else_anything() {
    judge_all(300, Plan { nodes: 4, faults: 1, ..Plan::default() });
}

#[test]
fn many_deaths_and_returns_are_survived() {
    judge_all(500, Plan { nodes: 6, faults: 6, ..Plan::default() });
}

#[test]
fn storms_are_survived() {
    judge_all(1_000, Plan { nodes: 5, faults: 12, weather: Weather::Storm, ..Plan::default() });
}

#[test]
fn deadlocks_over_nodes_are_broken_and_nobody_else_suffers() {
    judge_all(200, Plan { nodes: 4, habit: Habit::Exclusive, keys: 8, ..Plan::default() });
}

#[test]
fn deadlocks_over_nodes_are_broken_in_storms() {
    let plan = Plan { nodes: 5, faults: 8, weather: Weather::Storm, keys: 8, ..Plan::default() };
    judge_all(200, Plan { habit: Habit::Exclusive, ..plan });
    judge_all(200, Plan { habit: Habit::Several, ..plan });
}

/// Seeds beyond those of each day, in which there was a bug once.
#[test]
fn what_failed_once_does_not_again() {
    let one = Plan { nodes: 4, faults: 1, ..Plan::default() };
    let many = Plan { nodes: 6, faults: 6, ..Plan::default() };
    let storm = Plan { nodes: 5, faults: 8, weather: Weather::Storm, keys: 8, ..Plan::default() };
    let several = Plan { habit: Habit::Several, ..storm };
    let seeds = [(one, 726), (many, 506), (many, 863), (many, 1_385), (several, 299)];
    for (plan, seed) in seeds {
        judge(seed, plan);
    }
}

/// As many nodes as asked for (`DLM_NODES`, otherwise few), two of which die; how long it took, and what it cost.
#[test]
fn a_large_cluster_survives_two_deaths() {
    let long = std::env::var_os("SSI_TEST_LONG").is_some();
    let nodes = number("DLM_NODES").unwrap_or(if long { 200 } else { 40 }) as u32;
    let plan = Plan { nodes, users: 1, faults: 2, keys: u64::from(nodes) / 2, ..Plan::default() };
    let first = number("DLM_SEED").unwrap_or(0);
    let many = if number("DLM_NODES").is_some() { number("DLM_SEEDS").unwrap_or(1) } else { 1 };
    for seed in first..first + many {
        let begin = std::time::Instant::now();
        let world = judge(seed, plan);
        let (grants, _) = world.counted();
        let (messages, took) = (world.messages, begin.elapsed().as_secs_f32());
        println!("seed {seed}: {nodes} nodes, {grants} grants, {messages} messages, {took:.1} s");
        assert!(grants > u64::from(nodes) * 10, "the storm leaves nothing to check");
    }
}

/// The first seed in which the oracles see the bug.
fn caught(canary: Canary, plan: Plan) -> (u64, String) {
    // However many seeds are run: each bug is looked for until it is heard.
    for seed in 0..3_000 {
        let mut world = World::new(seed, Plan { canary, ..plan }, false);
        if let Err(why) = world.run() {
            return (seed, why.lines().next().unwrap_or_default().chars().take(160).collect());
        }
    }
    panic!("{canary:?} sings unheard");
}

#[test]
fn canaries_are_heard() {
    let calm = Plan { nodes: 5, ..Plan::default() };
    let storm = Plan { faults: 12, weather: Weather::Storm, ..calm };
    for (canary, plan) in [
        (Canary::ForgetsACopy, storm),
        (Canary::LosesADrop, storm),
        (Canary::TrustsAnyValue, storm),
        (Canary::TokensGoBack, calm),
        (Canary::CountsOldReports, storm),
        (Canary::GivesOnGuards, storm),
        (Canary::BelievesOldAnswers, storm),
    ] {
        let (seed, fault) = caught(canary, plan);
        println!("{canary:?}: seed {seed}: {fault}");
    }
}

#[test]
fn a_seed_is_a_run() {
    let plan = Plan { nodes: 5, faults: 12, weather: Weather::Storm, ..Plan::default() };
    for seed in [3, 14] {
        let run = || {
            let mut world = World::new(seed, plan, true);
            let end = world.run();
            (world.history(), end, world.messages)
        };
        let (one, other) = (run(), run());
        assert!(one.2 > 500, "the run is not empty: {}", one.2);
        assert!(one == other, "seed {seed} gives two runs");
    }
}
