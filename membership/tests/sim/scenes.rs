//! Scenes: one thing happens, and what must come of it.

use super::machine::row;
use super::network::Network;
use super::world::World;
use crate::command::{Drain, Life, Rename};
use crate::talk::{Ask, Replace, Say};
use crate::{Act, Event, NodeState};
use base::NodeId;

/// Everybody but `dead` says that it is in `state`.
fn all_say(world: &World, dead: u32, state: NodeState) -> bool {
    world.machines.keys().filter(|&&id| id != dead).all(|&id| world.state(id, dead) == Some(state))
}

#[test]
fn a_single_node_is_up_at_once() {
    let mut world = World::new(1, 1);
    assert!(world.run_until(100, World::at_rest), "{}", world.describe());
    assert_eq!(world.master(), Some(1));
    super::check(&world, 1);
}

#[test]
fn nodes_that_start_together_agree_and_nobody_is_lost() {
    for seed in super::seeds(0, 30) {
        let size = 1 + (seed % 9) as u32;
        let mut world = World::settled(seed, size);
        world.run(2_000);
        assert!(world.at_rest() && world.oracle.ends.is_empty(), "seed {seed}: {}", world.describe());
        super::check(&world, seed);
    }
}

#[test]
fn without_faults_nobody_is_declared_down_however_slow_the_network() {
    for seed in super::seeds(0, 15) {
        let mut world = World::settled(seed, 3);
        world.network = Network { delay_us_max: 40_000, lost_per_mille: 20, doubled_per_mille: 20 };
        let epoch = world.view(1).epoch;
        world.run(20_000);
        assert!(world.oracle.ends.is_empty(), "seed {seed}: {:?}", world.oracle.ends);
        assert!(
            world.view(1).epoch <= epoch + 2,
            "seed {seed}: views change without need{}",
            world.describe()
        );
        super::check(&world, seed);
    }
}

#[test]
fn a_killed_node_is_down_within_a_second_also_the_master() {
    for seed in super::seeds(0, 60) {
        let size = 3 + (seed % 4) as u32;
        let mut world = World::settled(seed, size);
        let victim = 1 + world.prng.below(u64::from(size)) as u32;
        let offset = world.prng.below(100) as u32;
        world.run(offset);
        world.kill_node(victim);
        let done = world.run_until(1_000, |world| all_say(world, victim, NodeState::Down));
        assert!(done, "seed {seed}: {victim} was killed{}", world.describe());
        super::check(&world, seed);
    }
}

#[test]
fn the_history_of_a_node_that_rejoins_goes_on() {
    for seed in super::seeds(0, 20) {
        let mut world = World::settled(seed, 3);
        let victim = 1 + (seed % 3) as u32;
        let (oldest, epoch) = (world.machines[&victim].table().oldest(), world.view(victim).epoch);
        world.kill_node(victim);
        assert!(world.run_until(1_000, |world| all_say(world, victim, NodeState::Down)), "seed {seed}");
        world.start_node(victim, 100);
        assert!(world.run_until(5_000, World::at_rest), "seed {seed}: {}", world.describe());
        let table = world.machines[&victim].table();
        assert!(table.view().epoch > epoch && table.oldest() == oldest, "seed {seed}: {}", table.oldest());
        super::check(&world, seed);
    }
}

#[test]
fn a_cut_off_node_is_down_within_a_second_and_comes_back_in_a_new_life() {
    for seed in super::seeds(0, 60) {
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
        assert!(!world.is_leased(victim), "seed {seed}: a node alone serves");
        world.heal();
        assert!(world.run_until(5_000, World::at_rest), "seed {seed}: {}", world.describe());
        assert!(world.machines[&victim].life > life);
        super::check(&world, seed);
    }
}

#[test]
fn a_node_that_only_the_master_cannot_hear_is_down_and_comes_back() {
    for seed in super::seeds(0, 20) {
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
        assert!(world.run_until(5_000, World::at_rest), "seed {seed}: {}", world.describe());
        super::check(&world, seed);
    }
}

#[test]
fn a_lost_daemon_is_stalled_soon_and_up_again_when_it_is_back() {
    for seed in super::seeds(0, 60) {
        let mut world = World::settled(seed, 3);
        let victim = 1 + (seed % 3) as u32;
        let limit = if world.master() == Some(victim) { 150 } else { 100 };
        world.kill_daemon(victim);
        let done = world.run_until(limit, |world| all_say(world, victim, NodeState::Stalled));
        assert!(done, "seed {seed}: ssid of {victim} was killed{}", world.describe());
        world.run(1_500);
        assert!(all_say(&world, victim, NodeState::Stalled), "seed {seed}: {}", world.describe());
        world.start_daemon(victim, 0);
        assert!(world.run_until(1_000, World::at_rest), "seed {seed}: {}", world.describe());
        assert!(world.oracle.ends.is_empty(), "seed {seed}");
        super::check(&world, seed);
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
        assert!(world.run_until(200, World::at_rest), "{}", world.describe());
    }
    super::check(&world, 5);
}

#[test]
fn without_a_majority_nothing_changes_and_it_says_so() {
    let mut world = World::settled(9, 3);
    world.kill_node(2);
    world.kill_node(3);
    world.run(3_000);
    assert!(!world.is_leased(1) && world.master().is_none(), "{}", world.describe());
    let before = world.view(1).clone();
    world.run(3_000);
    assert_eq!(*world.view(1), before);
    world.start_node(3, 0);
    world.start_node(2, 700);
    assert!(world.run_until(5_000, World::at_rest), "{}", world.describe());
    super::check(&world, 9);
}

#[test]
fn a_whole_cluster_that_was_switched_off_comes_back_with_its_ids() {
    for seed in super::seeds(0, 20) {
        let size = 2 + (seed % 4) as u32;
        let mut world = World::settled(seed, size);
        (1..=size).for_each(|id| world.kill_node(id));
        world.run(5_000);
        for id in 1..=size {
            let after = world.prng.below(2_000) as u32;
            world.start_node(id, after);
        }
        assert!(world.run_until(8_000, World::at_rest), "seed {seed}: {}", world.describe());
        super::check(&world, seed);
    }
}

fn answers(world: &World, node: u32) -> Vec<Say> {
    world.machines[&node].answers.iter().filter_map(|answer| answer.say.clone()).collect()
}

#[test]
fn join_leave_and_remove_are_decided_by_the_master() {
    let mut world = World::settled(3, 3);
    let master = world.master().unwrap();
    let other = 1 + master % 3;
    let join = |name: &str| Act::Join(crate::Node { name: name.into(), ..row(4) });
    world.change(other, join("node4"));
    assert_eq!(answers(&world, other).pop(), Some(Say::NotMaster(master)));
    world.change(master, join("node2"));
    world.change(master, join("node4"));
    world.run(100);
    let said = answers(&world, master);
    let refused = |say: &Say| matches!(say, Say::Refused(why) if why.contains("in use by node 2"));
    assert!(said.iter().any(refused), "{said:?}");
    let joined = said.iter().find_map(|say| if let Say::Decided(d) = say { d.view.clone() } else { None });
    let joined = joined.unwrap();
    assert_eq!(joined.nodes.last().unwrap().id, 4);
    world.run(3_000);
    assert!(world.is_leased(master), "a machine that joined and never started is not waited for");
    world.add_machine(4, &joined);
    assert!(world.run_until(2_000, World::at_rest), "{}", world.describe());
    // It leaves: DOWN at once, its row stays; then it is removed.
    let life = world.machines[&4].life;
    world.change(master, Act::Remove(4));
    world.machines.get_mut(&4).unwrap().left = true;
    world.change(master, Act::Leave(Life { node: 4, life }));
    world.kill_node(4);
    assert!(world.run_until(200, |world| world.state(1, 4) == Some(NodeState::Down)), "{}", world.describe());
    world.change(master, Act::Remove(4));
    assert!(world.run_until(200, |world| world.state(1, 4).is_none()), "{}", world.describe());
    world.change(master, join("node5"));
    world.run(100);
    assert_eq!(world.view(master).nodes.last().unwrap().node_id(), NodeId(5), "ids are not used twice");
    super::check(&world, 3);
}

#[test]
fn what_is_sent_again_is_carried_out_once() {
    let mut world = World::settled(4, 3);
    let master = world.master().unwrap();
    let command = Some(crate::Command { at_ms: 0, act: Some(Act::Join(row(9))) });
    let change = crate::talk::Change { command, session: 77, forwarded: false };
    for _ in 0..3 {
        world.ask(master, Ask::Change(change.clone()));
        world.run(100);
    }
    let given: Vec<u32> = answers(&world, master)
        .iter()
        .filter_map(|say| if let Say::Decided(d) = say { Some(d.outcome.clone()?.node) } else { None })
        .collect();
    assert_eq!(given, [4, 4, 4]);
    super::check(&world, 4);
}

#[test]
fn several_nodes_that_are_cut_off_together_are_one_transition() {
    for seed in super::seeds(0, 20) {
        let mut world = World::settled(seed, 7);
        let master = world.master().unwrap();
        let voters = world.view(master).voters.clone();
        let lost: Vec<u32> = (1..=7).filter(|id| !voters.contains(id)).take(3).collect();
        let offset = world.prng.below(100) as u32;
        world.run(offset);
        world.isolate_all(&lost, true);
        let gone = |world: &World| lost.iter().all(|&id| world.state(master, id) == Some(NodeState::Down));
        assert!(world.run_until(800, gone), "seed {seed}: {}", world.describe());
        assert_eq!(world.oracle.steps_that_end(&lost), 1, "seed {seed}");
        world.heal();
        assert!(world.run_until(5_000, World::at_rest), "seed {seed}: {}", world.describe());
        super::check(&world, seed);
    }
}

#[test]
fn a_lost_voter_is_replaced_and_so_is_one_whose_disk_was_wiped() {
    for seed in super::seeds(0, 10) {
        let mut world = World::settled(seed, 5);
        let before = world.view(1).voters.clone();
        let victim = before[(seed % 3) as usize];
        world.kill_node(victim);
        let healed = |world: &World| {
            let voters = &world.view(if victim == 1 { 2 } else { 1 }).voters;
            voters.len() == 3 && !voters.contains(&victim)
        };
        assert!(world.run_until(8_000, healed), "seed {seed}: {}", world.describe());
        world.start_node(victim, 0);
        assert!(world.run_until(3_000, World::at_rest), "seed {seed}: {}", world.describe());
        // Another loses its disk: it is put in its own place.
        let wiped = *world.view(1).voters.iter().find(|&&id| Some(id) != world.master()).unwrap();
        let disk = world.machines[&wiped].disk_id;
        world.kill_node(wiped);
        world.wipe(wiped);
        world.start_node(wiped, 100);
        let votes_again = |world: &World| {
            let master = world.master().and_then(|id| world.machines[&id].daemon.as_ref());
            let voters = master.map(|daemon| daemon.core.log().voters().voters.clone()).unwrap_or_default();
            world.at_rest() && voters.len() == 3 && voters.iter().all(|member| member.disk != disk)
        };
        assert!(world.run_until(10_000, votes_again), "seed {seed}: {}", world.describe());
        super::check(&world, seed);
    }
}

#[test]
fn names_drains_and_voters_are_changed_while_all_go_on() {
    let mut world = World::settled(6, 5);
    let master = world.master().unwrap();
    world.change(master, Act::Rename(Rename { node: 5, name: "five".into() }));
    world.change(master, Act::Drain(Drain { node: 4, drained: true }));
    world.change(master, Act::WantVoters(2));
    let spare = (1..=5).rev().find(|id| !world.view(1).voters.contains(id)).unwrap();
    let old = *world.view(1).voters.iter().find(|&&id| id != master).unwrap();
    world.ask(master, Ask::Replace(Replace { old, new: spare }));
    let done = |world: &World| {
        let view = world.view(1);
        view.voters.contains(&spare) && !view.voters.contains(&old) && view.nodes[4].name == "five"
    };
    assert!(world.run_until(3_000, done), "{}", world.describe());
    assert!(world.view(1).nodes[3].drained);
    let said = answers(&world, master);
    assert!(said.iter().any(|say| matches!(say, Say::Refused(why) if why.contains("1, 3, 5 or 7"))));
    world.change(master, Act::Drain(Drain { node: 4, drained: false }));
    world.change(master, Act::WantVoters(5));
    assert!(world.run_until(5_000, |world| world.view(1).voters.len() == 5), "{}", world.describe());
    assert!(world.oracle.ends.is_empty());
    super::check(&world, 6);
}

#[test]
fn a_voter_can_be_removed_when_it_is_down() {
    let mut world = World::settled(7, 3);
    world.kill_node(3);
    assert!(world.run_until(1_500, |world| world.state(1, 3) == Some(NodeState::Down)));
    let master = world.master().unwrap();
    world.change(master, Act::Remove(3));
    assert!(world.run_until(3_000, |world| world.state(1, 3).is_none()), "{}", world.describe());
    assert_eq!(world.view(1).voters.len(), 1);
    super::check(&world, 7);
}

#[test]
fn a_node_that_is_down_is_fenced_before_it_comes_back() {
    let mut world = World::new(8, 3);
    world.fencing = true;
    assert!(world.run_until(10_000, World::at_rest));
    world.isolate(3, true);
    let fenced = |world: &World| world.state(1, 3) == Some(NodeState::Fenced);
    assert!(world.run_until(1_500, fenced), "{}", world.describe());
    world.heal();
    assert!(world.run_until(3_000, World::at_rest), "{}", world.describe());
    super::check(&world, 8);
}

#[test]
fn a_lease_is_over_before_its_node_is_declared_down() {
    let mut world = World::settled(9, 3);
    let victim = 1 + world.master().unwrap() % 3;
    world.isolate(victim, true);
    let cut = world.now;
    assert!(world.run_until(450, |world| !world.is_leased(victim)), "{}", world.describe());
    assert!(world.now.since(cut) >= super::world::MS * 300);
    assert!(world.run_until(300, |world| all_say(world, victim, NodeState::Down)), "{}", world.describe());
    assert!(world.now.since(cut) >= super::world::MS * 550);
    super::check(&world, 9);
}

#[test]
fn a_master_that_leaves_gives_the_mastership_to_another_first() {
    let mut world = World::settled(10, 3);
    let master = world.master().unwrap();
    let life = world.machines[&master].life;
    let left = world.now;
    world.machines.get_mut(&master).unwrap().left = true;
    for _ in 0..10 {
        let asked = world.master().unwrap_or(master);
        world.change(asked, Act::Leave(Life { node: master, life }));
        world.run(20);
        if world.machines[&master].evictions > 0 {
            break;
        }
    }
    assert!(world.now.since(left) < super::world::MS * 200, "{}", world.describe());
    assert!(world.master().is_some_and(|now| now != master), "{}", world.describe());
    assert!(world.run_until(3_000, World::at_rest), "{}", world.describe());
    super::check(&world, 10);
}
