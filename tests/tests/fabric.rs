//! The fabric of a running cluster, as its operator has to do with it: strangers at the door, what carries the links, another key.

use serde_json::Value;
use ssi_tests::{Cluster, Ran, cluster, run, wait_until};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn garbage_at_a_nodes_door_is_refused_and_counted_and_disturbs_nobody() {
    let cluster = cluster!(2);
    let epoch = |k| {
        let mut ssi = cluster.ssi_on(k);
        ssi.args(["nodes", "--json"]);
        serde_json::from_str::<serde_json::Value>(&run(ssi).out).unwrap()["epoch"].clone()
    };
    let before = epoch(1);
    let throw = "import os, socket\nfor i in range(50):\n s = socket.create_connection(('10.77.0.1', 7100 + i % 2))\n \
                 s.sendall(os.urandom(300)); s.close()";
    cluster.ok(2, &format!("/usr/bin/python3 -c \"{throw}\""));
    wait_until("the refusals are counted", PATIENCE, || {
        let mut ssi = cluster.ssi_on(1);
        ssi.args(["fabric", "status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&run(ssi).out).unwrap();
        let refused = status["refused"].as_object().unwrap().values();
        refused.map(|count| count.as_u64().unwrap()).sum::<u64>() >= 25
    });
    assert_eq!(cluster.ok(1, "onnode 2 hostname; cat /proc/uptime > /ssi/file; echo ok"), "node2\nok");
    assert_eq!(epoch(1), before, "no view has changed");
}

#[test]
fn a_machine_with_another_key_is_told_so_and_does_not_get_in() {
    let cluster = cluster!(2);
    let state = cluster.dir.join("intruder");
    let key = cluster.dir.join("wrong-key");
    std::fs::write(&key, "ab".repeat(32)).unwrap();
    let join = format!(
        "ssi --dir {} node join 10.77.0.1:7100 --cluster local --key {} --address 10.77.0.2 --port 7300 --name intruder",
        state.display(),
        key.display()
    );
    let ran = cluster.sh(2, &join);
    assert_eq!(ran.code, 1, "{}", ran.out);
    assert!(ran.err.contains("key"), "{}", ran.err);
    assert!(!cluster.ok(1, "ssi nodes").contains("intruder"));
}

/// What `ssi` prints as JSON on node `k`.
fn asked(cluster: &Cluster, k: u32, words: &[&str]) -> Value {
    let ran = ssi(cluster, k, words);
    assert_eq!(ran.code, 0, "{words:?}: {}", ran.err);
    serde_json::from_str(&ran.out).unwrap()
}

fn ssi(cluster: &Cluster, k: u32, words: &[&str]) -> Ran {
    let mut ssi = cluster.ssi_on(k);
    ssi.args(words);
    run(ssi)
}

/// The providers of the links that carry calls, of both daemons of node `k`.
fn carriers(cluster: &Cluster, k: u32) -> Vec<String> {
    let status = asked(cluster, k, &["fabric", "status", "--json"]);
    let daemons = status["daemons"].as_array().unwrap();
    let peers = daemons.iter().flat_map(|daemon| daemon["peers"].as_array().unwrap());
    let rails = peers.flat_map(|peer| peer["rails"].as_array().unwrap());
    let calls = rails.filter(|rail| rail["state"] == "calls");
    calls.map(|rail| rail["provider"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn nodes_of_one_host_share_memory_unless_told_not_to() {
    let cluster = cluster!(2);
    let shared = std::env::var_os("SSI_TEST_SHM").is_none_or(|choice| choice != "off");
    let wanted = if shared { "shm" } else { "tcp" };
    wait_until("calls go over the best provider", PATIENCE, || {
        cluster.ok(1, "onnode 2 true; echo x > /ssi/x");
        let carriers = carriers(&cluster, 1);
        !carriers.is_empty() && carriers.iter().all(|carrier| carrier == wanted)
    });
}

#[test]
fn status_shows_both_daemons_with_rails_rates_and_credits() {
    let cluster = cluster!(2);
    cluster.ok(1, "head -c 3000000 /dev/zero > /ssi/zeros; onnode 2 cat /ssi/zeros > /dev/null");
    let status = asked(&cluster, 1, &["fabric", "status", "--json", "--interval", "1"]);
    let daemons = status["daemons"].as_array().unwrap();
    let names: Vec<&str> = daemons.iter().map(|daemon| daemon["daemon"].as_str().unwrap()).collect();
    assert_eq!(names, ["ssid", "ssid-data"]);
    for daemon in daemons {
        assert!(daemon["node"] == 1 && daemon["rates_over_us"].as_u64().unwrap() >= 1_000_000, "{daemon}");
        let peers = daemon["peers"].as_array().unwrap();
        let peer = peers
            .iter()
            .find(|peer| peer["peer"] == "node 2" && peer["state"] == "up")
            .or(peers.first())
            .unwrap();
        assert!(peer["credits"]["lock"]["slots"].as_u64().unwrap() > 0, "{peer}");
        assert!(
            peer["rails"].as_array().unwrap().iter().any(|rail| rail["frames_sent"].as_u64() > Some(0)),
            "{peer}"
        );
    }
    let table = ssi(&cluster, 1, &["fabric", "status"]);
    assert!(
        table.out.contains("node 1 ssid-data at 10.77.0.1:7101") && table.out.contains("PROVIDER"),
        "{}",
        table.out
    );
}

#[test]
fn the_key_changes_under_load_and_only_the_new_one_opens() {
    let cluster = cluster!(3);
    let key = |k: u32| std::fs::read_to_string(cluster.node_dir(k).join("key")).unwrap();
    let old = key(1);
    let lives = [1, 2, 3].map(|k| cluster.life(1, k));
    let over = AtomicBool::new(false);
    let rounds = std::thread::scope(|scope| {
        let commands = scope.spawn(|| until(&over, |_| cluster.ok(1, "onnode 2 true && onnode 3 true")));
        let files = scope.spawn(|| {
            until(&over, |n| cluster.ok(2, &format!("head -c 300000 /dev/urandom > /ssi/f{0} && cmp /ssi/f{0} <(cat /ssi/f{0}) && rm /ssi/f{0}", n % 5)))
        });
        // Whatever fails below, the load ends.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for asked in [1, 3, 2] {
                let before = key(2);
                let ran = ssi(&cluster, asked, &["cluster", "rekey"]);
                assert!(ran.code == 0 && ran.out.contains("on 3 nodes"), "{}{}", ran.out, ran.err);
                assert!(
                    key(1) == key(2) && key(2) == key(3) && key(1) != before && key(1).lines().count() == 1
                );
            }
        }));
        over.store(true, Ordering::Relaxed);
        let rounds = (commands.join().unwrap(), files.join().unwrap());
        outcome.unwrap();
        rounds
    });
    println!("rounds of commands and of files meanwhile: {rounds:?}");
    assert_eq!([1, 2, 3].map(|k| cluster.life(1, k)), lives, "no node began anew");
    for (file, text, opens) in [("old-key", &old, false), ("new-key", &key(1), true)] {
        let path = cluster.dir.join(file);
        std::fs::write(&path, text).unwrap();
        let join = format!(
            "ssi --dir {0}/of-{file} node join 10.77.0.1:7100 --cluster local --key {1} --address 10.77.0.2 --port 7300 --name n-{file}",
            cluster.dir.display(),
            path.display()
        );
        let ran = cluster.sh(2, &join);
        assert_eq!(ran.code == 0, opens, "{}{}", ran.out, ran.err);
        assert!(opens || ran.err.contains("key"), "{}", ran.err);
    }
}

#[test]
fn a_change_of_the_key_that_was_interrupted_is_completed_by_the_next() {
    let cluster = cluster!(2);
    let file = |k: u32| cluster.node_dir(k).join("key");
    let old = std::fs::read_to_string(file(1)).unwrap();
    // As if the one that led the change had died when node 1 had taken the first step.
    let next = "cd".repeat(32);
    std::fs::write(file(1), format!("{old}next {next}\n")).unwrap();
    cluster.process(1, "ssid").into_iter().for_each(ssi_tests::kill);
    wait_until("ssid is back", PATIENCE, || cluster.state(2, 1) == "UP" && cluster.state(1, 1) == "UP");
    let other = cluster.dir.join("another-key");
    std::fs::write(&other, "ef".repeat(32)).unwrap();
    wait_until("a change to another key is refused", PATIENCE, || {
        let ran = ssi(&cluster, 2, &["cluster", "rekey", "--key-file", other.to_str().unwrap()]);
        assert_eq!(ran.code, 1, "{}", ran.out);
        ran.err.contains("under way")
    });
    let ran = ssi(&cluster, 2, &["cluster", "rekey"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for k in [1, 2] {
        assert_eq!(std::fs::read_to_string(file(k)).unwrap().trim(), next);
    }
    assert_eq!(cluster.ok(1, "onnode 2 echo alive"), "alive");
}

/// Repeats something until it is over; how often.
fn until<T>(over: &AtomicBool, mut round: impl FnMut(usize) -> T) -> usize {
    let mut rounds = 0;
    while !over.load(Ordering::Relaxed) {
        round(rounds);
        rounds += 1;
    }
    rounds
}
