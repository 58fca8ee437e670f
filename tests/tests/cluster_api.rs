//! The cluster API on real nodes: libssi's values, waiters that miss nothing, and the commands that change the table.

use serde_json::Value;
use ssi_tests::{Cluster, Ran, cluster, kill, run, wait_until};
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// The directory of the compiled program and of the library; `None`, with the reason said, if there is no compiler.
fn program() -> Option<tempfile::TempDir> {
    if Command::new("gcc").arg("--version").output().is_err() {
        println!("skipped: gcc is not there");
        return None;
    }
    let dir = tempfile::Builder::new().prefix("ssi-api").tempdir().unwrap();
    let library = std::env::current_exe().unwrap().with_file_name("libssi.so");
    assert!(library.exists(), "cargo has built no {}", library.display());
    for name in ["libssi.so", "libssi.so.1"] {
        std::os::unix::fs::symlink(&library, dir.path().join(name)).unwrap();
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut gcc = Command::new("gcc");
    gcc.args(["-Wall", "-Werror", "-I"]).arg(here.join("../libssi/include"));
    gcc.arg(here.join("tests/cluster_api/look.c")).arg("-o").arg(dir.path().join("look"));
    let made = gcc.arg("-L").arg(dir.path()).arg("-lssi").output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some(dir)
}

/// The program, in a view of node `k` or (0) on the host.
fn look(cluster: &Cluster, k: u32, dir: &Path, arguments: &[&str]) -> Command {
    let path: PathBuf = dir.join("look");
    let mut line = vec![path.display().to_string()];
    line.extend(arguments.iter().map(|word| (*word).to_owned()));
    let mut command = match k {
        0 => {
            let mut command = Command::new(&line[0]);
            command.args(&line[1..]).env("SSI_DIR", &cluster.dir);
            command
        }
        k => cluster.command(k, &line),
    };
    command.env("LD_LIBRARY_PATH", dir).stdin(Stdio::null());
    command
}

fn ssi(cluster: &Cluster, k: u32, line: &str) -> Ran {
    let mut ssi = cluster.ssi_on(k);
    ssi.args(line.split(' '));
    run(ssi)
}

#[track_caller]
fn ok(cluster: &Cluster, k: u32, line: &str) -> String {
    let ran = ssi(cluster, k, line);
    assert_eq!(ran.code, 0, "ssi {line}: {}{}", ran.out, ran.err);
    ran.out
}

fn json(cluster: &Cluster, k: u32, line: &str) -> Value {
    serde_json::from_str(&ok(cluster, k, line)).unwrap()
}

/// The changes after a transition, as `ssi transitions` of node `k` tells them, in the words of the program.
fn transitions(cluster: &Cluster, k: u32, since: u64) -> Vec<String> {
    let all = json(cluster, k, &format!("transitions --json --since {since}"));
    let number = |row: &Value, key: &str| match row[key].as_str().unwrap() {
        "NONE" => 0,
        "NEVERUP" => 1,
        "UP" => 3,
        "SHUTDOWN" => 4,
        "DOWN" => 8,
        "STALLED" => 9,
        other => panic!("{other}"),
    };
    let cause = |row: &Value| {
        let all = [
            "UNKNOWN",
            "JOINED",
            "STARTED",
            "STALLED",
            "FAILED",
            "LEFT",
            "FENCED",
            "REMOVED",
            "RENAMED",
            "DRAINED",
            "DESCRIBED",
            "VOTERS",
            "MASTER",
            "SETTING",
        ];
        all.iter().position(|cause| row["cause"] == *cause).unwrap()
    };
    let line = |row: &Value| {
        let (from, to) = (number(row, "from"), number(row, "to"));
        format!("{} {} {from} {to} {}", row["transid"], row["node"], cause(row))
    };
    all.as_array().unwrap().iter().map(line).collect()
}

/// A program that follows the changes, and goes with the test.
struct Follower {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    since: u64,
}

impl Follower {
    fn start(mut command: Command) -> Follower {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().expect("it begins").unwrap();
        let since = first.strip_prefix("after ").expect("where it begins").parse().unwrap();
        Follower { child, lines, since }
    }

    /// What it tells, up to the change with this id.
    fn up_to(&mut self, last: &str) -> Vec<String> {
        let id = last.split(' ').next().unwrap().to_owned();
        let mut told = Vec::new();
        loop {
            told.push(self.lines.next().expect("it tells more").unwrap());
            if told.last().is_some_and(|line| line.starts_with(&id)) {
                return told;
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_program_sees_the_table_in_a_view_and_from_the_host() {
    let Some(program) = program() else { return };
    let dir = program.path();
    let cluster = cluster!(3);
    let settled = |k| {
        let table = json(&cluster, k, "nodes --json");
        table["nodes"].as_array().unwrap().iter().filter(|node| node["voter"] == true).count() == 3
    };
    wait_until("three nodes vote", PATIENCE, || settled(1) && settled(2) && settled(3));
    let table = json(&cluster, 2, "nodes --json");
    for (k, number) in [(2, 2), (0, 1)] {
        let ran = run(look(&cluster, k, dir, &[]));
        assert_eq!(ran.code, 0, "{}", ran.err);
        let mut expected = format!("local {number} 255 {}\nup 1\nup 2\nup 3\n", table["epoch"]);
        for node in table["nodes"].as_array().unwrap() {
            let id = node["id"].as_u64().unwrap();
            let flags = u64::from(id == number) + 2 * u64::from(node["master"] == true) + 4;
            let cpus = &node["cpus"];
            expected += &format!(
                "node {id} node{id} state 3 flags {flags:x} cpus {cpus}/{cpus} {} avail 1 back {id}\n",
                node["address"].as_str().unwrap()
            );
        }
        assert_eq!(ran.out, expected, "on node {k}");
    }
    // The same for shells.
    assert_eq!(cluster.ok(3, "cluster_name; clusternode_num; cluster_membership"), "local\n3\n1 2 3");
    assert_eq!(cluster.ok(3, "clusternode_avail node2"), "1");
    assert_eq!(cluster.sh(3, "clusternode_avail 9").code, 2);
    assert_eq!(cluster.sh(3, "cluster_transition --wait=0").code, 1);
    assert!(cluster.ok(3, "clusternode_info 2").contains("state      UP"));
    assert!(cluster.ok(3, "cluster_detailedtransition -w last").contains("VOTERS"));
}

#[test]
fn a_waiter_sees_every_transition_in_order_while_nodes_die_and_return_and_its_own_daemon_is_killed() {
    let Some(program) = program() else { return };
    let dir = program.path();
    let cluster = cluster!(3);
    let mut inside = Follower::start(look(&cluster, 2, dir, &["follow"]));
    let mut outside = Follower::start(look(&cluster, 0, dir, &["follow"]));
    let life = cluster.life(1, 3);
    kill(cluster.process(3, "ssi-init")[0]);
    wait_until("node 3 has a new life", PATIENCE, || {
        cluster.life(1, 3) > life && cluster.state(1, 3) == "UP"
    });
    // The daemon of the waiter's own node goes, and comes back.
    cluster.process(2, "ssid").into_iter().for_each(kill);
    wait_until("node 2 is UP again", PATIENCE, || {
        let told = transitions(&cluster, 1, inside.since).join("\n") + "\n";
        told.contains(" 2 3 9 3\n") && told.contains(" 2 9 3 2\n")
    });
    ok(&cluster, 1, "node describe 1 that=is-all");
    let all = transitions(&cluster, 1, inside.since);
    let last = all.last().unwrap();
    assert_eq!(inside.up_to(last), all);
    assert_eq!(outside.up_to(last), transitions(&cluster, 1, outside.since));
    let text = all.join("\n") + "\n";
    assert!(text.contains(" 3 3 8 4\n") || text.contains(" 3 9 8 4\n"), "node 3 was DOWN: {text}");
    assert!(text.contains(" 3 8 3 2\n"), "node 3 came back: {text}");
    // Every node tells the same; a new life of a node begins with the view that it was told first.
    for k in [2, 3] {
        wait_until(&format!("node {k} knows the last one"), PATIENCE, || {
            transitions(&cluster, k, 0).last() == Some(last)
        });
        let told = transitions(&cluster, k, 0);
        let common = told.len().min(all.len());
        assert!(common > 0 && (k == 3 || common == all.len()), "node {k} tells {told:?}");
        assert_eq!(told[told.len() - common..], all[all.len() - common..], "as node {k} tells it");
    }
    // And so does a shell that follows.
    let mut shell = cluster.ssi_on(1);
    shell.args(["transitions", "--follow", "--json", "--since", &inside.since.to_string()]);
    let mut shell = shell.stdout(Stdio::piped()).spawn().unwrap();
    ok(&cluster, 1, "node describe 1 that=is-more");
    let lines = BufReader::new(shell.stdout.take().unwrap()).lines();
    let followed: Vec<Value> =
        lines.take(all.len() + 1).map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    let _ = shell.kill();
    let _ = shell.wait();
    let ids: Vec<String> = followed.iter().map(|row| row["transid"].to_string()).collect();
    assert!(all.iter().zip(&ids).all(|(line, id)| line.split(' ').next() == Some(id)), "{ids:?}");
    assert_eq!(followed.last().unwrap()["cause"], "DESCRIBED");
    let numbers: Vec<&str> = all.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert!(numbers.is_sorted_by_key(|number| number.parse::<u64>().unwrap()));
}

#[test]
fn a_node_is_drained_named_and_described() {
    let cluster = cluster!(3);
    ok(&cluster, 1, "node drain 2");
    wait_until("node 3 knows it", PATIENCE, || {
        cluster.sh(3, "clusternode_info node2 | grep -q SHUTDOWN").code == 0
    });
    // It works, gets no job, and whoever names it still gets there.
    assert_eq!(cluster.ok(3, "onnode 2 echo here"), "here");
    let nodes = cluster.ok(3, "ssirun -n 8 /bin/sh -c 'clusternode_num' | sort -u | tr '\\n' ' '");
    assert_eq!(nodes, "1 3 ");
    let named = cluster.sh(3, "ssirun -n 1 -hosts node2 true");
    assert!(named.code != 0 && named.err.contains("node2 is drained"), "{}{}", named.out, named.err);
    assert_eq!(cluster.sh(3, "clusternode_avail 2").code, 1);
    assert_eq!(cluster.ok(3, "clusternode_setinfo 2 up && cluster_membership"), "1 2 3");

    ok(&cluster, 2, "node rename node3 drei");
    wait_until("node 1 knows the name", PATIENCE, || cluster.sh(1, "onnode drei true").code == 0);
    let refused = ssi(&cluster, 1, "node rename node2 drei");
    assert!(refused.code == 1 && refused.err.contains("drei"), "{}", refused.err);
    // The name outlives the life.
    let life = cluster.life(1, 3);
    kill(cluster.process(3, "ssi-init")[0]);
    wait_until("node 3 has a new life", PATIENCE, || {
        cluster.life(1, 3) > life && cluster.state(1, 3) == "UP"
    });
    assert_eq!(json(&cluster, 2, "nodes --json")["nodes"][2]["name"], "drei");

    ok(&cluster, 1, "node describe drei rack=7 serial=x1");
    assert_eq!(
        json(&cluster, 1, "nodes --json")["nodes"][2]["info"],
        serde_json::json!({"rack": "7", "serial": "x1"})
    );
    ok(&cluster, 1, "node describe drei serial=");
    assert_eq!(json(&cluster, 1, "nodes --json")["nodes"][2]["info"], serde_json::json!({"rack": "7"}));
    let text = ok(&cluster, 1, "transitions -n 100");
    for cause in ["DRAINED", "RENAMED   node3 is now drei", "DESCRIBED", "UP -> SHUTDOWN"] {
        assert!(text.contains(cause), "{cause}: {text}");
    }
}

#[test]
fn a_node_is_removed_and_the_voters_are_chosen() {
    let cluster = cluster!(3);
    assert!(ok(&cluster, 1, "addnode").contains("ssi node join --token ssi1"));
    let refused = ssi(&cluster, 1, "rmnode 3");
    assert!(refused.code == 1 && refused.err.contains("--force"), "{}", refused.err);
    assert!(ssi(&cluster, 1, "rmnode 1 --force").err.contains("ask another"));
    let removed = ok(&cluster, 1, "rmnode node3 --force");
    assert!(removed.contains("no longer in cluster"), "{removed}");
    for k in [1, 2] {
        wait_until("the row is gone", PATIENCE, || {
            json(&cluster, k, "nodes --json")["nodes"].as_array().unwrap().len() == 2
        });
    }
    assert!(cluster.process(3, "ssi-init").is_empty());
    assert_eq!(cluster.sh(1, "clusternode_info 3").code, 2);

    assert!(ssi(&cluster, 1, "cluster voters 2").err.contains("1, 3, 5 or 7"));
    ok(&cluster, 1, "cluster voters 1");
    wait_until("one node votes", PATIENCE, || {
        json(&cluster, 2, "cluster status --json")["voters"].as_array().unwrap().len() == 1
    });
    let status = ok(&cluster, 1, "cluster");
    assert!(status.contains("quorum    yes") && status.contains("2 UP"), "{status}");
    // With one voter, the other may go without a trace of its will.
    cluster.kill_node(2);
    cluster.wait_state(1, 2, "DOWN", PATIENCE);
    ok(&cluster, 1, "rmnode 2");
}

#[test]
fn only_the_owner_changes_the_table() {
    let cluster = cluster!(1);
    if !rustix::process::geteuid().is_root() || Command::new("setpriv").arg("--version").output().is_err() {
        println!("skipped: another user is needed");
        return;
    }
    let other = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    assert_eq!(cluster.ok(1, &format!("{other} cluster_membership")), "1");
    let ran = cluster.sh(1, &format!("{other} clusternode_setinfo 1 shutdown"));
    assert!(ran.code == 2 && ran.err.contains("only root"), "{}", ran.err);
    let ran = cluster.sh(1, &format!("{other} clusternode_setinfo 1 goingdown"));
    assert!(ran.code == 2 && ran.err.contains("only root"), "{}", ran.err);
    assert_eq!(cluster.ok(1, "clusternode_avail 1"), "1");
}
