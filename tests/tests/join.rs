//! Machines that join a running cluster with a token: once each, in time, and never after the key was changed.

use serde_json::Value;
use ssi_tests::faults::Network;
use ssi_tests::{Cluster, Ran, cluster, run, ssi_binary, wait_until};
use std::time::{Duration, SystemTime};

const PATIENCE: Duration = Duration::from_secs(20);

fn ssi(cluster: &Cluster, k: u32, line: &str) -> Ran {
    let mut ssi = cluster.ssi_on(k);
    ssi.args(line.split(' '));
    run(ssi)
}

/// What `ssi addnode --json` says.
fn addnode(cluster: &Cluster, k: u32, flags: &str) -> Value {
    let ran = ssi(cluster, k, &format!("addnode --json{flags}"));
    assert_eq!(ran.code, 0, "{}", ran.err);
    serde_json::from_str(&ran.out).unwrap()
}

/// A machine at the address of `network` becomes `name` by a token, with its state in the directory `dir`.
fn join(cluster: &Cluster, network: &Network, token: &str, name: &str, dir: &str) -> Ran {
    let (ssi, dir, k) = (ssi_binary(), cluster.dir.join(dir), network.node);
    let line = format!(
        "echo {token} | {} --dir {} node join --token - --address 10.77.0.{k} --name {name}",
        ssi.display(),
        dir.display()
    );
    cluster.inside_sh(Some(network), &line)
}

fn names(cluster: &Cluster, k: u32) -> Vec<String> {
    let table: Value = serde_json::from_str(&ssi(cluster, k, "nodes --json").out).unwrap();
    let nodes = table["nodes"].as_array().unwrap().iter();
    nodes.map(|node| node["name"].as_str().unwrap().to_owned()).collect()
}

fn key(cluster: &Cluster, node: &str) -> String {
    std::fs::read_to_string(cluster.dir.join(node).join("key")).unwrap()
}

#[test]
fn a_fourth_machine_joins_with_a_token_and_a_fifth_does_not() {
    let cluster = cluster!(3);
    // Made on one node; any takes it.
    let made = addnode(&cluster, 2, "");
    let token = made["token"].as_str().unwrap();
    assert_eq!(made["seeds"].as_array().unwrap().len(), 3, "{made}");
    let fourth = cluster.plug_in(4);
    let mut mistyped = token.to_owned();
    mistyped.replace_range(40..41, if &token[40..41] == "a" { "b" } else { "a" });
    let ran = join(&cluster, &fourth, &mistyped, "node4", "mistyped");
    assert!(ran.code == 1 && ran.err.contains("mistyped"), "{}", ran.err);
    assert!(!ran.err.contains(&mistyped), "a token is not repeated: {}", ran.err);

    let ran = join(&cluster, &fourth, token, "node4", "node4");
    assert!(ran.code == 0 && ran.out.contains("this machine is node 4"), "{}{}", ran.out, ran.err);
    assert_eq!(key(&cluster, "node4"), key(&cluster, "node1"), "it has the cluster key now");
    cluster.start_node(&fourth);
    for asked in [1, 2, 3, 4] {
        cluster.wait_state(asked, 4, "UP", PATIENCE);
    }
    assert_eq!(cluster.ok(1, "onnode 4 hostname"), "node4");

    let fifth = cluster.plug_in(5);
    let ran = join(&cluster, &fifth, token, "node5", "node5");
    assert!(ran.code == 1 && ran.err.contains("used already"), "{}", ran.err);
    assert!(!cluster.dir.join("node5/key").exists());
    assert_eq!(names(&cluster, 3), ["node1", "node2", "node3", "node4"]);
    let told = ssi(&cluster, 1, "transitions -n 100").out;
    assert!(told.contains("join token made") && told.contains("with a join token"), "{told}");
    assert!(!told.contains(token));
    // One for two machines.
    let made = addnode(&cluster, 4, " --uses 2");
    let token = made["token"].as_str().unwrap();
    for (name, port, code) in [("one", 7200, 0), ("two", 7300, 0), ("three", 7400, 1)] {
        let line = format!(
            "{} --dir {} node join --token {token} --address 10.77.0.5 --port {port} --name {name}",
            ssi_binary().display(),
            cluster.dir.join(name).display(),
        );
        let ran = cluster.inside_sh(Some(&fifth), &line);
        assert_eq!(ran.code, code, "{name}: {}{}", ran.out, ran.err);
        assert_eq!(ran.err.contains("used already"), code == 1, "{}", ran.err);
    }
}

#[test]
fn an_expired_token_and_one_of_a_former_key_open_nothing() {
    let cluster = cluster!(2);
    let third = cluster.plug_in(3);
    let made = addnode(&cluster, 1, " --ttl 1s");
    let expires = made["expires"].as_u64().unwrap();
    wait_until("the token has expired", PATIENCE, || {
        SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() > expires
    });
    let ran = join(&cluster, &third, made["token"].as_str().unwrap(), "node3", "expired");
    assert!(ran.code == 1 && ran.err.contains("has expired"), "{}", ran.err);

    let made = addnode(&cluster, 1, "");
    assert_eq!(ssi(&cluster, 1, "cluster rekey").code, 0);
    let ran = join(&cluster, &third, made["token"].as_str().unwrap(), "node3", "voided");
    assert!(ran.code == 1 && ran.err.contains("key was changed since"), "{}", ran.err);
    assert_eq!(names(&cluster, 2), ["node1", "node2"]);

    let made = addnode(&cluster, 2, "");
    let ran = join(&cluster, &third, made["token"].as_str().unwrap(), "node3", "node3");
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(key(&cluster, "node3"), key(&cluster, "node1"));
    for line in ["addnode --ttl 8d", "addnode --uses 65", "addnode --ttl x"] {
        assert_eq!(ssi(&cluster, 1, line).code, 2, "{line}");
    }
}
