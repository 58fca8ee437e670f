//! Who is in the cluster: what every node sees when nodes and daemons come and go.

use ssi_tests::{cluster, kill, run, wait_until};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
/// Nodes may be slow to start on a busy machine; what is timed is timed apart.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn every_node_lists_the_same_table() {
    let cluster = cluster!(3);
    let table = |k| {
        let mut ssi = cluster.ssi_on(k);
        ssi.args(["nodes", "--json"]);
        let mut table: serde_json::Value = serde_json::from_str(&run(ssi).out).unwrap();
        assert_eq!(table["local"].take(), k);
        table
    };
    wait_until("the views agree", PATIENCE, || table(1) == table(2) && table(2) == table(3));
    let nodes = table(1)["nodes"].as_array().unwrap().clone();
    assert_eq!(nodes.len(), 3);
    let mut last = 0;
    for node in &nodes {
        let (first, end) = (node["pid_first"].as_u64().unwrap(), node["pid_last"].as_u64().unwrap());
        assert!(first > last && end > first, "pid ranges are disjoint: {nodes:?}");
        last = end;
    }
}

#[test]
fn a_node_whose_processes_are_all_killed_is_down_within_a_second_and_the_view_moves_on() {
    let cluster = cluster!(3);
    cluster.kill_node(3);
    let killed = Instant::now();
    for asked in [1, 2] {
        cluster.wait_state(asked, 3, "DOWN", PATIENCE);
    }
    let took = killed.elapsed();
    println!("DOWN after {took:?}");
    assert!(took < SECOND, "{took:?}");
    assert_eq!(cluster.ok(1, "onnode 2 echo alive"), "alive");
}

#[test]
fn the_cluster_survives_its_master() {
    let cluster = cluster!(3);
    cluster.kill_node(1);
    let killed = Instant::now();
    for asked in [2, 3] {
        cluster.wait_state(asked, 1, "DOWN", PATIENCE);
    }
    let took = killed.elapsed();
    println!("DOWN after {took:?}");
    assert!(took < SECOND, "{took:?}");
    let ran = run({
        let mut ssi = cluster.ssi_on(2);
        ssi.args(["shell", "--node", "3", "--", "echo", "alive"]);
        ssi
    });
    assert_eq!(ran.out, "alive\n", "{}", ran.err);
}

#[test]
fn a_node_whose_link_is_cut_is_down_within_a_second_and_comes_back_as_a_new_life() {
    // With memory shared, its ssid would still answer.
    let cluster = cluster!(3, "--no-shm");
    cluster.set_link(2, false);
    let cut = Instant::now();
    for asked in [1, 3] {
        cluster.wait_state(asked, 2, "DOWN", PATIENCE);
    }
    let took = cut.elapsed();
    println!("DOWN after {took:?}");
    assert!(took < SECOND, "{took:?}");
    let alone = run({
        let mut ssi = cluster.ssi_on(2);
        ssi.arg("nodes");
        ssi
    });
    wait_until("the lonely node says that it has no quorum", PATIENCE, || {
        let mut ssi = cluster.ssi_on(2);
        ssi.arg("nodes");
        run(ssi).out.contains("NO QUORUM")
    });
    drop(alone);
    cluster.set_link(2, true);
    cluster.wait_state(1, 2, "UP", PATIENCE);
    wait_until("node 2 runs commands again", PATIENCE, || cluster.sh(1, "onnode 2 true").code == 0);
}

#[test]
fn a_killed_ssid_is_stalled_and_up_again_and_no_process_of_its_view_ends() {
    let cluster = cluster!(3);
    let seen = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let start = Instant::now();
            let mut seen = Vec::new();
            while start.elapsed() < PATIENCE {
                let state = cluster.state(1, 2);
                if seen.last() != Some(&state) {
                    seen.push(state);
                }
                if seen.len() > 1 && seen.last().is_some_and(|state| state == "UP") {
                    break;
                }
            }
            seen
        });
        let ssid = cluster.process(2, "ssid");
        assert_eq!(ssid.len(), 1);
        ssid.into_iter().for_each(kill);
        watch.join().unwrap()
    });
    assert!(!seen.contains(&"DOWN".to_owned()), "{seen:?}");
    cluster.wait_state(1, 2, "UP", PATIENCE);
}

#[test]
fn a_second_keeper_on_the_same_state_is_refused() {
    let cluster = cluster!(1);
    let mut ssi = cluster.ssi();
    ssi.args(["node", "start", "--dir"]).arg(cluster.node_dir(1));
    let ran = run(ssi);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("in use"), "{}", ran.err);
}

#[test]
fn a_second_cluster_in_the_same_directory_is_refused() {
    let cluster = cluster!(1);
    let mut ssi = cluster.ssi();
    ssi.args(["cluster", "up", "--nodes", "1"]);
    let ran = run(ssi);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("already"), "{}", ran.err);
}

#[test]
fn a_supervisor_that_is_only_paused_is_no_dead_node() {
    let cluster = cluster!(3);
    let init = cluster.process(2, "ssi-init")[0];
    let signal = |signal| {
        let pid = rustix::process::Pid::from_raw(init).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    };
    signal(rustix::process::Signal::STOP);
    // Its ssid answers: it is not UP any more, but it lives.
    cluster.wait_state(1, 2, "STALLED", PATIENCE);
    signal(rustix::process::Signal::CONT);
    let mut seen = Vec::new();
    wait_until("node 2 is UP again", PATIENCE, || {
        seen.push(cluster.state(1, 2));
        seen.last().is_some_and(|state| state == "UP")
    });
    assert!(!seen.contains(&"DOWN".to_owned()), "{seen:?}");
}

#[test]
fn a_killed_supervisor_is_the_end_of_a_life_and_another_begins_by_itself() {
    let cluster = cluster!(3);
    let before = cluster.life(1, 2);
    kill(cluster.process(2, "ssi-init")[0]);
    // DOWN may last for milliseconds only; what stays is that the life that follows is another.
    wait_until("node 2 has a new life", PATIENCE, || {
        cluster.life(1, 2) > before && cluster.state(1, 2) == "UP"
    });
    wait_until("node 2 runs commands again", PATIENCE, || cluster.sh(1, "onnode 2 true").code == 0);
}
