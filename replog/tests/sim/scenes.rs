//! Scenes: known ways in which others have failed, each told as a story.
//!
//! Invariant: each scene checks the oracles, too.

use super::storm::{Weather, calm};
use super::world::{World, member, millis};
use crate::core::Canary;
use crate::{Entry, Event, HardState, Index, Member, Payload, RequestId, Stamp, Term, Ticket, Write};
use std::collections::BTreeSet;

/// Figure 8 of Ongaro's paper: an entry of an old term is on a majority, and may still be taken back. One of 1 and 2 leads
/// again and brings it to 3; then both are lost, and 5, which has an entry of a later term there, is elected.
fn figure_8(seed: u64, canary: Canary) -> World {
    let mut world = World::new(seed, 5);
    world.canary = canary;
    world.append_bytes_max = 1;
    let entry = |index, term| Entry {
        stamp: Stamp { term: Term(term), index: Index(index) },
        payload: Payload::Command { origin: None, bytes: vec![term as u8].into() },
    };
    for (node, term, entries) in [
        (1, 3, vec![entry(1, 1), entry(2, 2)]),
        (2, 2, vec![entry(1, 1), entry(2, 2)]),
        (3, 2, vec![entry(1, 1)]),
        (4, 3, vec![entry(1, 1)]),
        (5, 3, vec![entry(1, 1), entry(2, 3)]),
    ] {
        let hard = Some(HardState { term: Term(term), vote: None, commit: Index(1) });
        let store = &mut world.machines.get_mut(&node).unwrap().store;
        store.open().unwrap();
        store.order(Write { ticket: Ticket(1), hard, truncate: None, entries });
        store.sync(Ticket(1)).unwrap();
        store.crash(&mut world.prng);
    }
    [1, 2, 3].into_iter().for_each(|node| world.start(node));
    let brought = |world: &World| world.machines[&3].core.as_ref().unwrap().status().safe == Index(2);
    assert!(world.run_until(millis(5_000), brought), "seed {seed}: {}", world.describe());
    world.network.cut.extend([(1, 3), (2, 3)]);
    world.run(millis(10));
    [1, 2].into_iter().for_each(|node| world.crash(node));
    [4, 5].into_iter().for_each(|node| world.start(node));
    let leads = |world: &World| world.leader() == Some(5) && world.machines[&5].state.index >= Index(2);
    let _ = world.run_until(millis(5_000), leads);
    world
}

#[test]
fn an_entry_of_an_old_term_is_not_agreed_because_many_have_it() {
    for seed in 0..20 {
        let world = figure_8(seed, Canary::None);
        assert!(
            world.leader() == Some(5) && world.machines[&5].state.index >= Index(2),
            "{}",
            world.describe()
        );
        check(&world, seed);
    }
    let heard =
        (0..20).find_map(|seed| figure_8(seed, Canary::CountsOldTerms).oracle.faults.first().cloned());
    assert!(
        heard.is_some_and(|fault| fault.contains("is given")),
        "a leader that counts old terms must be caught"
    );
}

fn led(seed: u64, voters: u32) -> (World, u32) {
    let mut world = World::started(seed, voters);
    assert!(
        world.run_until(millis(2_000), |world| world.oracle.acknowledgements > 5),
        "{}",
        world.describe()
    );
    let leader = world.leader().unwrap();
    (world, leader)
}

fn all(world: &World) -> Vec<u32> {
    (1..=world.nodes()).collect()
}

fn check(world: &World, seed: u64) {
    assert!(world.is_sound(), "seed {seed}: {:?}{}", world.oracle.faults, world.describe());
}

#[test]
fn a_lost_leader_is_replaced_within_two_patiences() {
    for seed in 0..40 {
        let (mut world, leader) = led(seed, 3);
        world.crash(leader);
        let done = world.run_until(millis(500), |world| world.leader().is_some_and(|new| new != leader));
        assert!(done, "seed {seed}: {}", world.describe());
        check(&world, seed);
    }
}

#[test]
fn a_leader_whose_connections_are_closed_is_replaced_at_once() {
    for seed in 0..100 {
        let (mut world, leader) = led(seed, 3 + 2 * (seed % 2) as u32);
        world.crash(leader);
        world.close_links(leader, 0);
        let done = world.run_until(millis(60), |world| world.leader().is_some_and(|new| new != leader));
        assert!(done, "seed {seed}: {}", world.describe());
        let begun = world.now;
        let leased = |world: &World| {
            world.machines.values().any(|m| m.core.as_ref().is_some_and(|core| core.lease_until().is_some()))
        };
        assert!(world.run_until(millis(500), leased), "seed {seed}: {}", world.describe());
        assert!(world.now.since(begun) > millis(100), "seed {seed}: the lease of the one before may be held");
        check(&world, seed);
    }
}

#[test]
fn a_leader_that_one_of_two_still_hears_stays() {
    for seed in 0..40 {
        let (mut world, leader) = led(seed, 3);
        let one = 1 + leader % 3;
        let elections = world.oracle.elections;
        for _ in 0..10 {
            world.give(one, Event::LeaderUnlinked);
            world.run(millis(30));
        }
        assert_eq!((world.leader(), world.oracle.elections), (Some(leader), elections), "seed {seed}");
        check(&world, seed);
    }
}

#[test]
fn a_leader_that_nobody_answers_resigns_before_another_is_elected() {
    for seed in 0..40 {
        let (mut world, leader) = led(seed, 3);
        // It is heard no more, and hears everybody: the nastier way is the other one, which the storms blow.
        let nodes = all(&world);
        world.network.isolate(leader, &nodes);
        let term = world.machines[&leader].core.as_ref().unwrap().term();
        let resigned = |world: &World| !world.machines[&leader].core.as_ref().unwrap().is_leader();
        assert!(world.run_until(millis(120), resigned), "seed {seed}: {}", world.describe());
        assert!(world.leader().is_none(), "seed {seed}: another was elected before");
        let other = |world: &World| world.leader().is_some();
        assert!(world.run_until(millis(500), other), "seed {seed}: {}", world.describe());
        assert!(
            world.machines[&leader].core.as_ref().unwrap().term() == term,
            "on trial nobody's term changes"
        );
        check(&world, seed);
    }
}

#[test]
fn a_follower_that_was_cut_off_comes_back_without_ending_the_reign() {
    for seed in 0..20 {
        let (mut world, leader) = led(seed, 3);
        let nodes = all(&world);
        world.network.isolate(1 + leader % 3, &nodes);
        world.run(millis(3_000));
        world.network.cut.clear();
        world.run(millis(1_000));
        assert_eq!(
            (world.leader(), world.oracle.elections),
            (Some(leader), 1),
            "seed {seed}: {}",
            world.describe()
        );
        check(&world, seed);
    }
}

#[test]
fn leadership_is_handed_over_without_waiting() {
    for seed in 0..20 {
        let (mut world, leader) = led(seed, 3);
        let to = 1 + leader % 3;
        let member = world.machines[&to].me;
        world.give(leader, Event::Transfer(Some(member)));
        assert!(
            world.run_until(millis(50), |world| world.leader() == Some(to)),
            "seed {seed}: {}",
            world.describe()
        );
        check(&world, seed);
    }
}

#[test]
fn a_voter_with_a_wiped_disk_is_nobody_until_it_is_replaced() {
    for seed in 0..20 {
        let (mut world, leader) = led(seed, 3);
        let (wiped, other) = (1 + leader % 3, 1 + (leader + 1) % 3);
        let old = world.machines[&wiped].me;
        world.wipe(wiped);
        world.start(wiped);
        // With the other one away its vote would be needed, and it has none.
        world.crash(other);
        world.run(millis(1_000));
        let status = world.machines[&wiped].core.as_ref().unwrap().status();
        assert!(world.leader().is_none() && status.term.0 == 0, "seed {seed}: {}", world.describe());
        world.start(other);
        assert!(
            world.run_until(millis(2_000), |world| world.leader().is_some()),
            "seed {seed}: {}",
            world.describe()
        );
        let new = world.machines[&wiped].me;
        let voters: BTreeSet<Member> = (1..=3).map(|node| world.machines[&node].me).collect();
        assert!(voters.contains(&new) && !voters.contains(&old));
        for _ in 0..10 {
            let leader = world.leader().unwrap();
            let voters = voters.clone();
            world.give(
                leader,
                Event::ChangeVoters { request: RequestId(1), voters, learners: BTreeSet::new() },
            );
            world.run(millis(100));
        }
        assert_eq!(world.voting(), Some(voters), "seed {seed}: {}", world.describe());
        // Now it counts.
        world.crash(other);
        let before = world.oracle.acknowledgements;
        world.run(millis(1_000));
        assert!(world.oracle.acknowledgements > before, "seed {seed}: {}", world.describe());
        check(&world, seed);
    }
}

#[test]
fn a_member_that_was_away_long_gets_a_snapshot() {
    for seed in 0..20 {
        let (mut world, leader) = led(seed, 3);
        let away = 1 + leader % 3;
        world.crash(away);
        world.run(millis(6_000));
        let before = world.oracle.restores;
        world.start(away);
        assert!(
            world.run_until(millis(1_000), |world| world.has_all(away)),
            "seed {seed}: {}",
            world.describe()
        );
        assert!(world.oracle.restores > before, "seed {seed}: it was to lag behind the log");
        check(&world, seed);
    }
}

#[test]
fn a_full_disk_stops_a_voter_and_loses_nothing() {
    for seed in 0..20 {
        let (mut world, leader) = led(seed, 3);
        world.machines[&leader].store.full.set(true);
        let acknowledged = world.oracle.acknowledgements;
        world.run(millis(1_500));
        let halted = world.machines[&leader].core.as_ref().unwrap().status().halted;
        assert!(halted.is_some_and(|why| why.contains("no space")), "seed {seed}");
        assert!(world.oracle.acknowledgements > acknowledged, "the others go on: {}", world.describe());
        assert_eq!(calm(&mut world), Ok(()), "seed {seed}: {}", world.describe());
        check(&world, seed);
    }
}

#[test]
fn one_voter_grows_to_three_and_all_three_are_replaced() {
    for seed in 0..20 {
        let (mut world, _) = led(seed, 1);
        let to = |world: &mut World, nodes: &[u32]| {
            let voters: BTreeSet<Member> = nodes.iter().map(|&node| member(node, u128::from(node))).collect();
            let want = voters.clone();
            let leader = world.leader().unwrap();
            world.give(
                leader,
                Event::ChangeVoters { request: RequestId(1), voters, learners: BTreeSet::new() },
            );
            let done = world.run_until(millis(3_000), |world| world.voting().as_ref() == Some(&want));
            assert!(done, "seed {seed}: {nodes:?} {}", world.describe());
            world.run(millis(300));
        };
        to(&mut world, &[1, 2, 3]);
        to(&mut world, &[2, 3]);
        to(&mut world, &[3]);
        to(&mut world, &[1, 2]);
        let weather = Weather::Changes;
        check(&world, seed);
        assert!(world.oracle.acknowledgements > 50, "{weather:?} {}", world.oracle.acknowledgements);
    }
}
