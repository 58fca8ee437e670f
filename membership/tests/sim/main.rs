//! The cores in a simulated world, seed by seed. Every run is checked by the oracle (oracle.rs); each test adds what it
//! is about. A seed that fails is in the message: the same seed gives the same run.

mod agenda;
mod machine;
mod network;
mod oracle;
mod world;

use base::NodeId;
use machine::row;
use membership::talk::{Ask, Join, Leave, Remove, Say};
use membership::{Event, NodeState};
use network::Network;
use world::World;

fn check(world: &World, seed: u64) {
    assert!(world.oracle.faults.is_empty(), "seed {seed}: {:#?}{}", world.oracle.faults, world.describe());
}

/// How many seeds a test runs: `few`, or what SSI_TEST_SEEDS says (long runs).
fn seeds(few: u64) -> std::ops::Range<u64> {
    let many = std::env::var("SSI_TEST_SEEDS").ok().and_then(|text| text.parse().ok());
    0..many.unwrap_or(few)
}

/// Everybody but `dead` says that it is in `state`.
fn all_say(world: &World, dead: u32, state: NodeState) -> bool {
    world.machines.keys().filter(|&&id| id != dead).all(|&id| world.state(id, dead) == Some(state))
}

#[test]
fn a_single_node_is_up_at_once() {
    let mut world = World::new(1, 1);
    assert!(world.run_until(10, World::all_up), "{}", world.describe());
    assert_eq!(world.master(), Some(1));
    check(&world, 1);
}

#[test]
fn nodes_that_start_together_agree_and_nobody_is_lost() {
    for seed in seeds(30) {
        let size = 1 + (seed % 9) as u32;
        let mut world = World::settled(seed, size);
        world.run(2_000);
        assert!(world.all_up() && world.oracle.ends.is_empty(), "seed {seed}: {}", world.describe());
        check(&world, seed);
    }
}

#[test]
fn without_faults_nobody_is_declared_down_however_slow_the_network() {
    for seed in seeds(15) {
        let mut world = World::settled(seed, 3);
        world.network = Network { delay_us_max: 40_000, lost_per_mille: 20 };
        let epoch = world.view(1).epoch;
        world.run(20_000);
        assert!(world.oracle.ends.is_empty(), "seed {seed}: {:?}", world.oracle.ends);
        assert!(
            world.view(1).epoch <= epoch + 2,
            "seed {seed}: views change without need{}",
            world.describe()
        );
        check(&world, seed);
    }
}

#[test]
fn a_killed_node_is_down_within_a_second_also_the_master() {
    for seed in seeds(60) {
        let size = 3 + (seed % 4) as u32;
        let mut world = World::settled(seed, size);
        let victim = 1 + world.prng.below(u64::from(size)) as u32;
        let offset = world.prng.below(100) as u32;
        world.run(offset);
        world.kill_node(victim);
        let done = world.run_until(1_000, |world| all_say(world, victim, NodeState::Down));
        assert!(done, "seed {seed}: {victim} was killed{}", world.describe());
        check(&world, seed);
    }
}

#[test]
fn a_cut_off_node_is_down_within_a_second_and_comes_back_in_a_new_life() {
    for seed in seeds(60) {
        let size = 3 + (seed % 3) as u32;
        let mut world = World::settled(seed, size);
        let victim = 1 + world.prng.below(u64::from(size)) as u32;
        let life = world.machines[&victim].life;
        let (offset, cut_off) = (world.prng.below(100) as u32, world.prng.below(3_000) as u32);
        world.run(offset);
        world.isolate(victim, true);
        let done = world.run_until(1_000, |world| all_say(world, victim, NodeState::Down));
        assert!(done, "seed {seed}: {victim} was cut off{}", world.describe());
        world.run(cut_off);
        assert_eq!(world.machines[&victim].evictions, 0);
        let quorum = world.machines[&victim].core.as_ref().unwrap().status(world.now).quorum;
        assert!(!quorum || cut_off < 600, "seed {seed}: a node alone thinks it decides");
        world.heal();
        assert!(world.run_until(5_000, World::all_up), "seed {seed}: {}", world.describe());
        assert!(world.machines[&victim].life > life);
        check(&world, seed);
    }
}

#[test]
fn a_node_that_only_the_master_cannot_hear_is_down_and_comes_back() {
    for seed in seeds(20) {
        let mut world = World::settled(seed, 3);
        let master = world.master().unwrap();
        let victim = 1 + master % 3;
        world.set_cut(master, victim, true);
        assert!(world.run_until(1_000, |world| all_say(world, victim, NodeState::Down)), "seed {seed}");
        assert!(
            world.run_until(2_000, |world| world.machines[&victim].evictions == 1),
            "seed {seed}: it is told"
        );
        world.heal();
        assert!(world.run_until(5_000, World::all_up), "seed {seed}: {}", world.describe());
        check(&world, seed);
    }
}

#[test]
fn a_lost_daemon_is_stalled_soon_and_up_again_when_it_is_back() {
    for seed in seeds(60) {
        let mut world = World::settled(seed, 3);
        let victim = 1 + (seed % 3) as u32;
        let limit = if world.master() == Some(victim) { 300 } else { 100 };
        world.kill_daemon(victim);
        let done = world.run_until(limit, |world| all_say(world, victim, NodeState::Stalled));
        assert!(done, "seed {seed}: ssid of {victim} was killed{}", world.describe());
        world.run(1_500);
        assert!(all_say(&world, victim, NodeState::Stalled), "seed {seed}: {}", world.describe());
        world.start_daemon(victim, 0);
        assert!(world.run_until(1_000, World::all_up), "seed {seed}: {}", world.describe());
        assert!(world.oracle.ends.is_empty(), "seed {seed}");
        check(&world, seed);
    }
}

#[test]
fn a_node_without_its_data_daemon_is_stalled() {
    let mut world = World::settled(5, 3);
    for victim in 1..=3 {
        world.give(victim, Event::DataUp(false));
        assert!(
            world.run_until(200, |world| all_say(world, victim, NodeState::Stalled)),
            "{}",
            world.describe()
        );
        world.give(victim, Event::DataUp(true));
        assert!(world.run_until(200, World::all_up), "{}", world.describe());
    }
    check(&world, 5);
}

#[test]
fn without_a_majority_nothing_changes_and_it_says_so() {
    let mut world = World::settled(9, 3);
    world.kill_node(2);
    world.kill_node(3);
    world.run(3_000);
    let status = world.machines[&1].core.as_ref().unwrap().status(world.now);
    assert!(!status.quorum && status.master.is_none(), "{status:?}");
    let before = world.view(1).clone();
    world.run(3_000);
    assert_eq!(*world.view(1), before);
    world.start_node(3, 0);
    world.start_node(2, 700);
    assert!(world.run_until(5_000, World::all_up), "{}", world.describe());
    check(&world, 9);
}

#[test]
fn a_whole_cluster_that_was_switched_off_comes_back_with_its_ids() {
    for seed in seeds(20) {
        let size = 2 + (seed % 4) as u32;
        let mut world = World::settled(seed, size);
        (1..=size).for_each(|id| world.kill_node(id));
        world.run(5_000);
        for id in 1..=size {
            let after = world.prng.below(2_000) as u32;
            world.start_node(id, after);
        }
        assert!(world.run_until(8_000, World::all_up), "seed {seed}: {}", world.describe());
        check(&world, seed);
    }
}

#[test]
fn join_leave_and_remove_are_decided_by_the_master() {
    let mut world = World::settled(3, 3);
    let master = world.master().unwrap();
    let other = 1 + master % 3;
    let join = |name: &str| {
        Ask::Join(Join { row: Some(membership::Node { name: name.into(), ..row(4) }), forwarded: false })
    };
    world.ask(other, join("node4"));
    assert_eq!(world.machines[&other].answers.last().unwrap().say, Some(Say::NotMaster(master)));
    world.ask(master, join("node2"));
    world.ask(master, join("node4"));
    world.run(100);
    let answers: Vec<_> = world.machines[&master].answers.iter().filter_map(|a| a.say.clone()).collect();
    assert!(
        answers.iter().any(|say| matches!(say, Say::Refused(why) if why.contains("in use by node 2"))),
        "{answers:?}"
    );
    let joined =
        answers.iter().find_map(|say| if let Say::Joined(j) = say { Some(j.clone()) } else { None }).unwrap();
    assert_eq!(joined.node, 4);
    let quorum = |world: &World| world.machines[&master].core.as_ref().unwrap().status(world.now).quorum;
    world.run(3_000);
    assert!(quorum(&world), "a machine that joined and never started is not waited for");
    world.add_machine(4, joined.view.as_ref().unwrap());
    assert!(world.run_until(2_000, World::all_up), "{}", world.describe());
    // It leaves: DOWN at once, its row stays; then it is removed.
    let life = world.machines[&4].life;
    world.ask(master, Ask::Remove(Remove { node: 4 }));
    world.ask(master, Ask::Leave(Leave { node: 4, incarnation: life }));
    world.kill_node(4);
    assert!(world.run_until(200, |world| world.state(1, 4) == Some(NodeState::Down)), "{}", world.describe());
    world.ask(master, Ask::Remove(Remove { node: 4 }));
    assert!(world.run_until(200, |world| world.state(1, 4).is_none()), "{}", world.describe());
    world.ask(master, join("node5"));
    world.run(100);
    assert_eq!(world.view(master).nodes.last().unwrap().node_id(), NodeId(5), "ids are not used twice");
    check(&world, 3);
}

/// Random faults for a while, then peace.
fn storm(seed: u64, forgetful: bool) -> World {
    let size = 3 + (seed % 3) as u32;
    let mut world = World::settled(seed, size);
    world.forgetful = forgetful;
    for _ in 0..12 {
        let one = 1 + world.prng.below(u64::from(size)) as u32;
        let other = 1 + world.prng.below(u64::from(size)) as u32;
        let length = world.prng.below(1_200) as u32;
        match world.prng.below(8) {
            0 => {
                world.kill_node(one);
                world.start_node(one, length);
            }
            1 | 2 => {
                world.kill_daemon(one);
                world.start_daemon(one, length / 4);
            }
            3 => world.isolate(one, true),
            4 if one != other => world.set_cut(one, other, true),
            5 => {
                world.network = Network {
                    delay_us_max: 1 + world.prng.below(60_000),
                    lost_per_mille: world.prng.below(200),
                }
            }
            6 => world.torn_one_in = 20 + world.prng.below(500),
            _ => world.heal(),
        }
        world.run(length);
    }
    world.heal();
    world.torn_one_in = 0;
    world.network = Network::default();
    for id in 1..=size {
        world.start_node(id, 0);
        world.start_daemon(id, 1);
    }
    world
}

#[test]
fn through_storms_views_agree_and_after_them_all_are_up() {
    for seed in seeds(150) {
        let mut world = storm(seed, false);
        check(&world, seed);
        assert!(world.run_until(10_000, World::all_up), "seed {seed}: {}", world.describe());
        check(&world, seed);
    }
}

#[test]
fn the_oracle_notices_disks_that_forget() {
    let noticed = (0..150).any(|seed| !storm(seed, true).oracle.faults.is_empty());
    assert!(noticed, "cores that forget their votes must be caught");
}

#[test]
fn a_seed_is_a_run() {
    let run = |seed| storm(seed, false).describe();
    assert_eq!(run(11), run(11));
}
