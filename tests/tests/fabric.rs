//! Strangers at the door of a running cluster: refused, counted, and nobody else pays.

use ssi_tests::{cluster, run, wait_until};
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
