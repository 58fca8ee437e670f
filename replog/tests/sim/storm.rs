//! Storms: random faults for a while, then peace, and everything must come to rest.
//!
//! Invariant: no storm takes more disks than the voters can spare: what a majority has lost nobody can keep.

use super::world::{What, World, millis};
use crate::core::Canary;
use crate::{Event, Member, RequestId};
use std::collections::BTreeSet;

/// How hard it blows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Crashes, cuts, pauses, losses.
    Faults,
    /// The same, and the voters change all the time.
    Changes,
}

/// A storm over `voters` voters.
pub fn storm(seed: u64, voters: u32, weather: Weather, canary: Canary, traced: bool) -> World {
    let mut world = World::started(seed, voters);
    world.canary = canary;
    for machine in world.machines.values_mut() {
        if let Some(core) = &mut machine.core {
            core.infect(canary);
        }
    }
    world.trace = traced.then(Vec::new);
    let length = millis(150 + world.prng.below(300));
    world.run(length);
    for machine in world.machines.values_mut() {
        machine.disk_us_max = 200 + world.prng.below(10_000);
    }
    let mut wiped = 0;
    for _ in 0..12 {
        blow(&mut world, weather, &mut wiped);
        // Now and then nobody writes: then a member that hears no leader lacks nothing, and could be elected.
        let busy = !world.prng.one_in(3);
        world.clients.iter_mut().for_each(|client| client.busy = busy);
        let length = millis(10 + world.prng.below(250));
        world.run(length);
        if !world.is_sound() {
            break;
        }
    }
    world
}

fn blow(world: &mut World, weather: Weather, wiped: &mut u32) {
    let nodes = u64::from(world.nodes());
    let all: Vec<u32> = (1..=world.nodes()).collect();
    let one = 1 + world.prng.below(nodes) as u32;
    let other = 1 + world.prng.below(nodes) as u32;
    let leader = world.leader().unwrap_or(one);
    let after = millis(world.prng.below(400));
    match world.prng.below(19) {
        0 | 1 => {
            world.crash(one);
            world.plan(after, What::Start { node: one });
        }
        2 => {
            world.crash(leader);
            // Its connections are closed, and that may be seen late or not at all.
            world.close_links(leader, 2);
            world.plan(after, What::Start { node: leader });
        }
        3 => world.network.isolate(leader, &all),
        4 => world.network.isolate(one, &all),
        5 => {
            world.network.cut.insert((one, other));
        }
        6 => {
            // One way: the leader is heard, and hears nobody.
            all.iter().filter(|&&node| node != leader).for_each(|&node| {
                world.network.cut.insert((node, leader));
            });
        }
        7 => {
            let half: BTreeSet<u32> = all.iter().copied().filter(|_| world.prng.one_in(2)).collect();
            for &a in &half {
                all.iter().filter(|b| !half.contains(b)).for_each(|&b| {
                    world.network.cut.extend([(a, b), (b, a)]);
                });
            }
        }
        8 => world.pause(leader, after),
        9 => world.pause(one, after),
        10 => {
            world.network.lost_per_mille = world.prng.below(150);
            world.network.doubled_per_mille = world.prng.below(100);
            world.network.delay_us_max = 200 + world.prng.below(30_000);
        }
        11 => {
            let slowest = 200 + world.prng.below(60_000);
            world.machines.values_mut().for_each(|machine| machine.disk_us_max = slowest);
        }
        12 => all.iter().for_each(|&node| {
            world.crash(node);
            let after = millis(world.prng.below(100));
            world.plan(after, What::Start { node });
        }),
        13 => world.give(leader, Event::Transfer(None)),
        15 => {
            // One way: one member does not hear the leader, all others do.
            world.network.cut.insert((leader, one));
        }
        // Somebody on the way has closed connections to a leader that lives: all of them, or some.
        16 => world.close_links(leader, 0),
        17 => world.close_links(leader, 2),
        14 if weather == Weather::Changes => disturb_disk(world, one, after, wiped),
        _ => world.network.cut.clear(),
    }
    if weather == Weather::Changes {
        change(world);
    }
}

/// A full disk, or one that is wiped if the voters can spare it.
fn disturb_disk(world: &mut World, node: u32, after: std::time::Duration, wiped: &mut u32) {
    if world.prng.one_in(2) {
        if let Some(machine) = world.machines.get_mut(&node) {
            machine.store.full.set(true);
        }
        world.plan(after, What::Start { node });
    } else if *wiped == 0 && world.size() >= 3 && may_lose(world, node) {
        *wiped += 1;
        world.wipe(node);
        world.plan(after, What::Start { node });
    }
}

/// True if no setting that anybody knows needs this disk for its majorities.
fn may_lose(world: &World, node: u32) -> bool {
    let settings =
        world.machines.values().filter_map(|machine| machine.core.as_ref()).map(|core| core.status().voters);
    let lost = world.machines[&node].me;
    let running = world.machines.values().all(|machine| machine.core.is_some());
    // Whoever was voted out may come back in by a change under way; a setting of three or more can spare one.
    let mut spare = settings.map(|voters| {
        let spares = |set: &BTreeSet<Member>| set.is_empty() || set.len() >= 3 || !set.contains(&lost);
        spares(&voters.voters) && spares(&voters.outgoing)
    });
    running && spare.all(|spare| spare)
}

/// Asks the leader for other voters: any of the machines as they are now.
fn change(world: &mut World) {
    let Some(leader) = world.leader() else { return };
    let least = world.size().min(3) as usize;
    let mut all: Vec<Member> = world.machines.values().map(|machine| machine.me).collect();
    while all.len() > least && all.len() > 1 && (all.len() > 7 || !world.prng.one_in(3)) {
        let out = world.prng.below(all.len() as u64) as usize;
        all.swap_remove(out);
    }
    let voters: BTreeSet<Member> = all.into_iter().collect();
    let learners = BTreeSet::new();
    world.give(leader, Event::ChangeVoters { request: RequestId(1), voters, learners });
}

/// The faults stop: everything must come to rest, and a new request must come through everywhere.
pub fn calm(world: &mut World) -> Result<(), String> {
    world.network = super::network::Network::default();
    let now = world.now;
    for machine in world.machines.values_mut() {
        machine.disk_us_max = 500;
        machine.store.full.set(false);
        machine.paused = now;
    }
    let halted = |world: &World, node: &u32| {
        world.machines[node].core.as_ref().is_some_and(|core| core.status().halted.is_some())
    };
    let halted: Vec<u32> = (1..=world.nodes()).filter(|node| halted(world, node)).collect();
    halted.into_iter().for_each(|node| world.crash(node));
    world.start_all();
    if !world.run_until(millis(10_000), |world| settled(world).is_some()) {
        return Err("no leader with settled voters after 10 s of peace".into());
    }
    let before = world.oracle.acknowledged;
    let fresh = |world: &World| {
        let Some(voters) = settled(world) else { return false };
        world.oracle.acknowledged > before && voters.iter().all(|voter| world.has_all(voter.node.0))
    };
    for _ in 0..50 {
        world.clients.iter_mut().for_each(|client| client.busy = true);
        // Again and again: a change that was begun before a disk was lost may bring it back in.
        replace_the_lost(world)?;
        if world.run_until(millis(200), fresh) {
            return Ok(());
        }
        if !world.is_sound() {
            return Ok(());
        }
    }
    Err("a fresh request is not everywhere after 10 s of peace".into())
}

/// The voters, if they have a leader and their setting is not joint.
fn settled(world: &World) -> Option<BTreeSet<Member>> {
    let leader = world.leader()?;
    let status = world.machines[&leader].core.as_ref()?.status();
    // One that was voted out may be ahead of them all; it is nobody's concern.
    let voters = world.machines.values().filter(|machine| status.voters.is_voter(machine.me));
    let terms = voters.filter_map(|machine| machine.core.as_ref()).map(crate::Core::term);
    let latest = terms.max()? == status.term;
    (latest && !status.voters.is_joint()).then_some(status.voters.voters)
}

/// Voters whose disk is gone are voted out.
fn replace_the_lost(world: &mut World) -> Result<(), String> {
    let is_there = |world: &World, voter: &Member| world.machines[&voter.node.0].me == *voter;
    for _ in 0..100 {
        let Some(voters) = settled(world) else {
            world.run(millis(100));
            continue;
        };
        if voters.iter().all(|voter| is_there(world, voter)) {
            return Ok(());
        }
        let present = |voter: &Member| world.machines[&voter.node.0].me;
        let voters: BTreeSet<Member> = voters.iter().map(present).collect();
        let Some(leader) = world.leader() else { continue };
        let learners = BTreeSet::new();
        world.give(leader, Event::ChangeVoters { request: RequestId(1), voters, learners });
        world.run(millis(100));
    }
    Err("voters whose disk was wiped are not replaced after 10 s of peace".into())
}

/// One seed, whole.
pub fn judge(seed: u64, voters: u32, weather: Weather) -> World {
    let mut world = storm(seed, voters, weather, Canary::None, false);
    let rest = calm(&mut world);
    let faults = &world.oracle.faults;
    assert!(
        faults.is_empty() && rest.is_ok(),
        "REPLOG_SEED={seed} ({voters} voters, {weather:?}): {faults:#?} {rest:?}{}",
        world.describe()
    );
    world
}
