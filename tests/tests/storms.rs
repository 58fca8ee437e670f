//! Many nodes, many faults, much load: nobody is called dead who lives, and all tell one table.
//!
//! `SSI_TEST_LONG` (`cargo xtask test --long`) asks for more nodes, more rounds and a longer load.

use admin::wire::{NodeState, View};
use base::Prng;
use rustix::process::Signal;
use ssi_tests::faults::{Load, signal};
use ssi_tests::views::{Watch, all_up, is};
use ssi_tests::{Cluster, cluster, wait_until};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(30);

fn long() -> bool {
    std::env::var_os("SSI_TEST_LONG").is_some()
}

#[test]
fn on_a_machine_with_every_core_busy_nobody_is_suspected() {
    let cluster = cluster!(3);
    let mut watch = Watch::on(&cluster, [1, 2, 3], PATIENCE);
    let load = Load::of(2);
    watch.listen(if long() { 60 * SECOND } else { 10 * SECOND });
    drop(load);
    assert_eq!(watch.troubles(), [], "not one DOWN or STALLED");
    watch.check_agreement();
}

#[test]
fn of_seven_nodes_two_die_at_once_and_the_others_say_so_within_a_second() {
    let cluster = cluster!(7);
    let mut watch = Watch::on(&cluster, 1..=5, PATIENCE);
    let first = watch.nodes[0].last().epoch;
    let dying: Vec<i32> = [6, 7].iter().flat_map(|k| cluster.pids(*k)).collect();
    let both = |view: &View| is(view, 6, NodeState::Down) && is(view, 7, NodeState::Down);
    let took = watch.time("both are DOWN", PATIENCE, || signal(&dying, Signal::KILL), both);
    let last = watch.nodes[0].last();
    println!("both DOWN after {took:?}, {} changes", last.epoch - first);
    assert!(took < SECOND, "{took:?}");
    assert!(last.nodes[..5].iter().all(|row| row.state() == NodeState::Up), "{last:?}");
    watch.check_agreement();
    assert_eq!(cluster.ok(1, "onnode 5 echo alive"), "alive");
}

#[test]
fn the_loss_of_most_voters_stops_all_changes_and_their_return_starts_them() {
    let cluster = cluster!(3, "--no-shm");
    let mut watch = Watch::on(&cluster, [1], PATIENCE);
    cluster.set_link(2, false);
    cluster.set_link(3, false);
    let quorum = || {
        let mut ssi = cluster.ssi_on(1);
        ssi.args(["nodes", "--json"]);
        let table: serde_json::Value = serde_json::from_str(&ssi_tests::run(ssi).out).unwrap();
        table["quorum"].as_bool().unwrap()
    };
    wait_until("node 1 says that it has no quorum", PATIENCE, || !quorum());
    watch.listen(SECOND);
    let settled = watch.nodes[0].last().clone();
    assert!(
        settled.nodes.iter().filter(|row| row.state() != NodeState::Down).count() > 1,
        "nobody can be declared"
    );
    cluster.set_link(2, true);
    cluster.set_link(3, true);
    watch.wait("all are UP", PATIENCE, all_up);
    wait_until("there is a quorum again", PATIENCE, quorum);
    watch.check_agreement();
}

/// One fault after the other, on nodes chosen by chance; after each, all nodes come to rest with one table.
fn storm(nodes: u32, rounds: u32, seed: u64) {
    let cluster = Cluster::start(nodes, &["--no-shm"]);
    let mut random = Prng::new(seed);
    let networks: Vec<_> = (1..=nodes).map(|k| cluster.network(k)).collect();
    for round in 0..rounds {
        let victim = random.below(u64::from(nodes)) as u32 + 1;
        let kind = random.below(5);
        println!("round {round}: fault {kind} on node {victim}");
        let others: Vec<u32> = (1..=nodes).filter(|k| *k != victim).collect();
        let mut watch = Watch::on(&cluster, others.iter().copied(), PATIENCE);
        let down = |view: &View| is(view, victim, NodeState::Down);
        let all = cluster.pids(victim);
        match kind {
            0 => {
                watch.time("DOWN by kill", PATIENCE, || signal(&all, Signal::KILL), down);
                wait_until("it has ended", PATIENCE, || cluster.pids(victim).is_empty());
                cluster.start_node(&networks[victim as usize - 1]);
            }
            1 => {
                watch.time("DOWN by cut", PATIENCE, || cluster.set_link(victim, false), down);
                cluster.set_link(victim, true);
            }
            2 => {
                watch.time("DOWN by pause", PATIENCE, || signal(&all, Signal::STOP), down);
                signal(&all, Signal::CONT);
            }
            3 => {
                let network = &networks[victim as usize - 1];
                let halves = ["10.77.0.0/25", "10.77.0.128/25"];
                let deaf = |on| halves.iter().for_each(|half| cluster.set_deaf(network, half, on));
                watch.time("DOWN by a one-way cut", PATIENCE, || deaf(true), down);
                deaf(false);
            }
            _ => {
                let unkept = cluster.unkept(victim);
                let ssid = cluster.process(victim, "ssid");
                let stalled = |view: &View| is(view, victim, NodeState::Stalled);
                watch.time("STALLED", PATIENCE, || signal(&ssid, Signal::KILL), stalled);
                drop(unkept);
            }
        }
        watch.wait("all are UP again", PATIENCE, all_up);
        watch.check_agreement();
        let troubled = watch.troubles();
        assert!(troubled.iter().all(|(node, _)| *node == victim), "{troubled:?}");
        let alive = cluster.sh(others[0], &format!("onnode {} echo alive", others[1]));
        assert_eq!(alive.out, "alive\n", "{}", alive.err);
    }
}

#[test]
fn storms_leave_one_table() {
    if let Some(why) = ssi_tests::cannot_run() {
        println!("{why}");
        return;
    }
    if long() {
        storm(16, 40, 1);
        storm(5, 60, 2);
    } else {
        storm(5, 4, 3);
    }
}

#[test]
fn of_thirty_two_nodes_four_are_cut_off_at_once() {
    if !long() {
        println!("skipped: 32 nodes: SSI_TEST_LONG is not set");
        return;
    }
    let cluster = cluster!(32, "--no-shm");
    let mut watch = Watch::on(&cluster, 1..=28, PATIENCE);
    let first = watch.nodes[0].last().epoch;
    let lost = |view: &View| (29..=32).all(|k| is(view, k, NodeState::Down));
    let cut = || (29..=32).for_each(|k| cluster.set_link(k, false));
    let took = watch.time("all four are DOWN", PATIENCE, cut, lost);
    println!("all four DOWN after {took:?}, {} changes", watch.nodes[0].last().epoch - first);
    (29..=32).for_each(|k| cluster.set_link(k, true));
    watch.wait("all are UP again", PATIENCE, all_up);
    watch.check_agreement();
    assert!(watch.troubles().iter().all(|(node, _)| *node > 28), "{:?}", watch.troubles());
}
