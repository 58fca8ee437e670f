//! Whole nodes in a simulated cluster: delays, deaths, cuts, returns, views that arrive at different times.
//!
//! Invariant: the same seed gives the same run. After every step the oracle looks at all that any user has been told.

mod oracle;
mod users;
mod values;
mod world;

use world::{Plan, World};

/// Runs `seeds` from `first` on; the seed of a failure is in its message.
fn run(first: u64, seeds: u64, plan: Plan) {
    let mut counted = [0; 8];
    for seed in first..first + seeds {
        let mut world = World::new(seed, plan);
        if let Err(why) = world.run() {
            panic!("seed {seed}: {why}\n{}", world.history());
        }
        for (all, more) in counted.iter_mut().zip(world.counted()) {
            *all += more;
        }
    }
    let floors = [50, 10, 10, 1, 10, 5, 1, 1].map(|floor| floor * seeds);
    assert!(
        counted.iter().zip(floors).all(|(seen, floor)| *seen > floor),
        "too little was looked at: {counted:?}"
    );
}

#[test]
fn without_faults_everybody_is_served() {
    run(1, 150, Plan { nodes: 4, faults: 0, ..Plan::default() });
}

#[test]
fn one_death_costs_nobody_else_anything() {
    run(10_000, 150, Plan { nodes: 4, faults: 1, ..Plan::default() });
}

#[test]
fn who_waits_for_a_stalled_node_waits_until_it_goes_on() {
    run(15_000, 100, Plan { nodes: 4, faults: 1, stalls: 6, ..Plan::default() });
}

#[test]
fn many_deaths_and_returns_are_survived() {
    run(20_000, 150, Plan { nodes: 6, faults: 5, stalls: 2, ..Plan::default() });
}
