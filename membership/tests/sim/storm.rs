//! Storms: random faults for a while, then peace, in which everything must come to rest.

use super::check;
use super::network::Network;
use super::world::World;
use crate::core::Canary;
use base::Prng;

/// The longest that a world may take to come to rest.
const REST_MS: u32 = 20_000;

/// Random faults for a while, then peace.
pub fn storm(seed: u64, canary: Canary) -> World {
    let size = [3, 3, 4, 5][(seed % 4) as usize];
    let mut world = World::settled_with(seed, size, canary);
    world.fencing = seed.is_multiple_of(3);
    for _ in 0..8 {
        strike(&mut world, size);
        if !world.oracle.faults.is_empty() {
            break;
        }
    }
    world.torn_one_in = 0;
    world.disk_us_max = 2_000;
    world.network = Network::default();
    for id in 1..=size {
        world.pause(id, 0);
    }
    world.heal();
    for id in 1..=size {
        world.start_node(id, 0);
        world.start_daemon(id, 1);
    }
    world
}

fn strike(world: &mut World, size: u32) {
    let draw = |prng: &mut Prng| 1 + prng.below(u64::from(size)) as u32;
    let (one, other) = (draw(&mut world.prng), draw(&mut world.prng));
    let length = 50 + world.prng.below(1_200) as u32;
    match world.prng.below(16) {
        0 => {
            world.kill_node(one);
            world.start_node(one, length);
        }
        1 => {
            world.kill_daemon(one);
            world.start_daemon(one, length / 4);
        }
        2 => world.isolate(one, true),
        3 if one != other => world.set_cut(one, other, true),
        4 if one != other => world.set_way(one, other, true),
        5 => {
            let network = Network {
                delay_us_max: 1 + world.prng.below(60_000),
                lost_per_mille: world.prng.below(200),
                doubled_per_mille: world.prng.below(200),
            };
            world.network = network;
        }
        6 => world.torn_one_in = 20 + world.prng.below(500),
        7 => world.pause(one, length * 2),
        8 => world.disk_us_max = 1 + world.prng.below(200_000),
        9 => {
            // The master, of all nodes.
            let master = world.master().unwrap_or(one);
            if world.prng.one_in(2) { world.isolate(master, true) } else { world.pause(master, length) }
        }
        10 => {
            // With it the promises of this disk are gone: it is another voter when it comes back. A second one may go only
            // when the first was replaced: else a majority of the promises is lost, and nothing can be decided any more.
            let whole = world.at_rest() && world.keeps_all_promises();
            world.kill_node(one);
            if whole {
                world.wipe(one);
            }
            world.start_node(one, length);
        }
        11 => {
            // The master, and another with it.
            let master = world.master().unwrap_or(other);
            world.isolate_all(&[master, one], true);
        }
        12 => {
            // Connections to the master are closed although it lives, while it cannot hear one, or everybody.
            let master = world.master().unwrap_or(one);
            if one != master {
                world.set_way(one, master, true);
            }
            let spared = world.prng.below(3);
            world.lose_links(master, if spared == 1 { 0 } else { spared });
        }
        13 => {
            // Only the new master hears too little of one of the nodes.
            let master = world.master().unwrap_or(one);
            for id in (1..=size).filter(|&id| id != one && id != master) {
                world.set_way(one, id, true);
            }
            world.run(length);
            world.lose_links(master, 0);
        }
        _ => world.heal(),
    }
    world.run(length);
}

/// A storm, and what must be true after it.
pub fn judge(seed: u64) -> World {
    let mut world = storm(seed, Canary::None);
    check(&world, seed);
    assert!(world.run_until(REST_MS, World::at_rest), "seed {seed} does not rest: {}", world.describe());
    check(&world, seed);
    world
}
