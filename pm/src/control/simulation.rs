//! Several cores, wired together by a network that delays, loses and reorders, with daemons that are killed and clients
//! that come and go; all from one seed. `ssi-init` and the clients are small models that keep the truth:
//! what a task printed and read, and what its client saw of it.
//!
//! Checked at the end of each run: every client that lived saw each of its tasks whole (every byte of output once and in
//! order, the right status; the task read exactly what was typed) or lost with its node, and nothing is left anywhere.

mod ends;
mod model;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;
use world::World;

const NODES: u32 = 3;
/// Bytes of output that a model task keeps unacknowledged: small, so that windows matter.
const WINDOW: usize = 64;
const MILLISECOND: u64 = 1_000_000;

fn run(seed: u64) {
    let mut world = World::new(seed);
    let mut steps = 0;
    while world.step() {
        steps += 1;
        assert!(steps < 200_000, "it does not come to rest");
        assert!(world.now < 60_000 * MILLISECOND, "it takes for ever");
    }
    world.check();
}

#[test]
fn no_byte_no_status_is_lost_and_no_orphan_left_whatever_dies() {
    let seeds = if std::env::var_os("SSI_TEST_LONG").is_some() { 5_000 } else { 150 };
    for seed in 0..seeds {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "seed {seed} fails");
    }
}

#[test]
fn a_client_that_never_comes_back_has_its_tasks_killed_after_the_grace_time() {
    let mut world = World::new(1);
    world.queue.clear();
    world.faulty_until = 0;
    for client in &mut world.clients[1..] {
        client.dead = true;
    }
    world.clients[0].tasks.iter_mut().for_each(|seen| seen.typed.clear());
    world.connect(0);
    world.clients[0].dead = true;
    let gone = Duration::from_millis(20);
    while world.now < gone.as_nanos() as u64 && world.step() {}
    world.disconnect(0);
    while world.step() {}
    assert!(world.processes.values().all(BTreeMap::is_empty));
}
