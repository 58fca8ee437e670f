//! Locks of the cluster on real nodes: whoever holds, waits, dies or is killed, and on which node.

#[path = "locks/program.rs"]
mod program;

use dlm::client::status;
use dlm::{Flags, Mode};
use program::Program;
use ssi_tests::{Cluster, Ran, cluster, kill, run, wait_until};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Nodes may be slow on a busy machine; what is timed is timed apart.
const PATIENCE: Duration = Duration::from_secs(20);

/// A command on a node, killed with the test.
struct Running(Child);

impl Running {
    fn start(cluster: &Cluster, node: u32, script: &str) -> Running {
        let mut command = cluster.command(node, &["bash", "-c", script]);
        Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn end(mut self) -> Ran {
        let output = std::mem::replace(&mut self.0, std::process::Command::new("true").spawn().unwrap());
        Ran::of(&output.wait_with_output().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The rows of `ssi locks --json`, asked on a node.
fn locks(cluster: &Cluster, node: u32) -> Vec<serde_json::Value> {
    let ran = cluster.on(node, &["ssi", "locks", "--json"]);
    let rows: serde_json::Value = serde_json::from_str(&ran.out).unwrap_or_default();
    rows.as_array().cloned().unwrap_or_default()
}

fn is_there(rows: &[serde_json::Value], name: &str, node: u32, state: &str) -> bool {
    rows.iter().any(|row| row["name"] == name && row["node"] == node && row["state"] == state)
}

#[track_caller]
fn wait_row(cluster: &Cluster, asked: u32, name: &str, node: u32, state: &str) {
    let what = format!("node {asked} sees {name} {state} by node {node}");
    wait_until(&what, PATIENCE, || is_there(&locks(cluster, asked), name, node, state));
}

#[test]
fn a_lock_holds_on_all_nodes() {
    let cluster = cluster!(3);
    let holder =
        Running::start(&cluster, 1, "ssi lock a bash -c 'echo held; read -t 60 < <(tail -f /dev/null)'");
    wait_row(&cluster, 3, "a", 1, "granted");
    // At once or not at all; in time or not at all.
    assert_eq!(cluster.on(2, &["ssi", "lock", "-n", "a", "true"]).code, 1);
    assert_eq!(cluster.on(3, &["ssi", "lock", "-w", "0.2", "-E", "75", "a", "true"]).code, 75);
    // Others have nothing to do with it.
    assert_eq!(cluster.on(2, &["ssi", "lock", "-n", "b", "true"]).code, 0);
    let waiter = Running::start(&cluster, 2, "ssi lock a echo mine");
    wait_row(&cluster, 3, "a", 2, "waiting");
    assert!(is_there(&locks(&cluster, 2), "a", 1, "granted"), "both are in every list");
    // The holder's process and its command are killed, from another node.
    let pid = locks(&cluster, 2).iter().find(|row| row["node"] == 1).unwrap()["pid"].clone();
    cluster.ok(3, &format!("kill -KILL {pid}; for p in $(pgrep -P {pid}); do kill -KILL $p; done; true"));
    let pids = cluster.ok(1, "pgrep -f 'echo held' || true");
    pids.lines().for_each(|pid| drop(cluster.sh(1, &format!("kill -KILL {pid}"))));
    let ran = waiter.end();
    assert_eq!((ran.code, ran.out.as_str()), (0, "mine\n"), "{}", ran.err);
    drop(holder);
}

#[test]
fn readers_of_all_nodes_share_and_a_writer_is_alone() {
    let cluster = cluster!(3);
    let mut readers: Vec<Program> = (1..=3).map(|node| Program::open(&cluster, node)).collect();
    for reader in &mut readers {
        assert_eq!(reader.lock("shared", Mode::PR, Flags::NOQUEUE).status, status::OK);
    }
    let mut writer = Program::open(&cluster, 2);
    assert_eq!(writer.lock("shared", Mode::EX, Flags::NOQUEUE).status, status::AGAIN);
    let asked = writer.ask("shared", Mode::EX, Flags::NONE);
    // Each reader is told that somebody waits for it.
    let lkids: Vec<u32> = readers.iter_mut().map(Program::blocking).collect();
    for (reader, lkid) in readers.iter_mut().zip(lkids) {
        assert_eq!(reader.unlock(lkid).status, status::UNLOCKED);
    }
    let had = writer.end_of(asked);
    assert_eq!(had.status, status::OK);
    assert_eq!(readers[0].lock("shared", Mode::PR, Flags::NOQUEUE).status, status::AGAIN);
    let first = readers[2].ask("shared", Mode::PR, Flags::NONE);
    assert_eq!(writer.unlock(had.lkid).status, status::UNLOCKED);
    assert_eq!(readers[2].end_of(first).status, status::OK);
}

#[test]
fn what_a_writer_leaves_behind_is_read_on_other_nodes_or_said_to_be_lost() {
    let cluster = cluster!(3);
    let (mut one, mut two) = (Program::open(&cluster, 1), Program::open(&cluster, 2));
    let written = one.lock("value", Mode::EX, Flags::VALBLK);
    assert_eq!((written.status, written.flags), (status::OK, 0));
    assert_eq!(one.convert(written.lkid, Mode::NL, b"what node 1 wrote").status, status::OK);
    let read = two.lock("value", Mode::PR, Flags::VALBLK);
    assert_eq!(&read.value[..17], b"what node 1 wrote");
    assert!(read.token > written.token, "tokens grow over nodes: {} {}", read.token, written.token);
    assert_eq!(two.unlock(read.lkid).status, status::UNLOCKED);
    // A third node's writer dies with the lock.
    let mut three = Program::open(&cluster, 3);
    assert_eq!(three.lock("value", Mode::EX, Flags::VALBLK).status, status::OK);
    let asked = two.ask("value", Mode::PR, Flags::VALBLK);
    drop(three);
    let read = two.end_of(asked);
    assert_eq!(read.status, status::OK);
    assert_ne!(read.flags & status::VALUE_NOT_VALID, 0, "a writer died");
}

#[test]
fn the_locks_of_a_node_that_is_killed_are_given_on_and_those_that_it_mastered_stay() {
    let cluster = cluster!(3);
    // Node 3 is the first to use these, so it is their master.
    let mut dead = Program::open(&cluster, 3);
    let names: Vec<String> = (0..8).map(|n| format!("held {n}")).collect();
    for name in &names {
        assert_eq!(dead.lock(name, Mode::EX, Flags::VALBLK).status, status::OK);
    }
    assert_eq!(dead.lock("shared", Mode::PR, Flags::NONE).status, status::OK);
    // Locks of the others under a master that dies.
    let (mut one, mut two) = (Program::open(&cluster, 1), Program::open(&cluster, 2));
    let kept = one.lock("shared", Mode::PR, Flags::NONE);
    assert_eq!(kept.status, status::OK);
    // Somebody who lives on keeps the first of them, and with it what there is to say of its value.
    assert_eq!(one.lock(&names[0], Mode::NL, Flags::NONE).status, status::OK);
    let waiting: Vec<u64> = names.iter().map(|name| two.ask(name, Mode::EX, Flags::VALBLK)).collect();
    wait_row(&cluster, 1, "held 7", 2, "waiting");
    cluster.kill_node(3);
    let killed = Instant::now();
    for (name, tag) in names.iter().zip(waiting) {
        let had = two.end_of(tag);
        assert_eq!(had.status, status::OK);
        let is_said = had.flags & status::VALUE_NOT_VALID != 0;
        assert!(is_said || *name != names[0], "its writer died");
    }
    let took = killed.elapsed();
    println!("given on after {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(two.lock("shared", Mode::EX, Flags::NOQUEUE).status, status::AGAIN, "node 1 still has it");
    assert_eq!(one.unlock(kept.lkid).status, status::UNLOCKED);
    assert_eq!(two.lock("shared", Mode::EX, Flags::NONE).status, status::OK);
    assert!(locks(&cluster, 1).iter().all(|row| row["node"] != 3), "the dead hold nothing");
}

#[test]
fn a_lock_manager_that_is_killed_tells_its_programs_and_the_others_get_what_they_had() {
    let cluster = cluster!(3);
    let mut lost = Program::open(&cluster, 2);
    assert_eq!(lost.lock("x", Mode::EX, Flags::NONE).status, status::OK);
    let mut other = Program::open(&cluster, 1);
    let stays = other.lock("y", Mode::EX, Flags::NONE);
    let asked = other.ask("x", Mode::EX, Flags::NONE);
    wait_row(&cluster, 3, "x", 1, "waiting");
    let life = cluster.life(1, 2);
    let ssid = cluster.process(2, "ssid");
    assert_eq!(ssid.len(), 1);
    kill(ssid[0]);
    // Its programs hear that their locks are gone, those who wait get them when the new run is in the view.
    assert!(lost.is_gone());
    assert_eq!(other.end_of(asked).status, status::OK);
    let came = || Program::try_open(&cluster, 2).is_some();
    wait_until("node 2 serves again", PATIENCE, came);
    let mut again = Program::open(&cluster, 2);
    assert_eq!(again.lock("y", Mode::EX, Flags::NOQUEUE).status, status::AGAIN, "what others hold is held");
    assert_eq!(other.unlock(stays.lkid).status, status::UNLOCKED);
    assert_eq!(again.lock("y", Mode::EX, Flags::NONE).status, status::OK);
    assert_eq!(cluster.life(1, 2), life, "the node lives on");
}

#[test]
fn a_lock_without_a_command_stays_and_says_where() {
    let cluster = cluster!(2);
    assert_eq!(cluster.on(1, &["ssi", "lock", "left"]).code, 0);
    wait_row(&cluster, 2, "left", 1, "orphan");
    assert_eq!(cluster.on(2, &["ssi", "lock", "-n", "left", "true"]).code, 1);
    let ran = cluster.on(2, &["ssi", "lock", "-u", "left"]);
    assert!(ran.code == 1 && ran.err.contains("on node 1"), "{ran:?}");
    assert_eq!(cluster.on(1, &["ssi", "lock", "-u", "left"]).code, 0);
    assert_eq!(cluster.on(2, &["ssi", "lock", "-n", "left", "true"]).code, 0);
    let mut list = cluster.ssi_on(2);
    list.args(["locks", "--json"]);
    assert_eq!(run(list).out.trim(), "[]");
}

/// Our libraries, if they were built beside the tests (`cargo build -p libdlm`), under the names that programs look for.
fn libraries(cluster: &Cluster) -> Option<std::path::PathBuf> {
    let library = ssi_tests::ssi_binary().with_file_name("liblibdlm.so");
    if !library.exists() || !std::path::Path::new("/usr/include/libdlm.h").exists() {
        println!("skipped: {} or /usr/include/libdlm.h (package libdlm-dev) is not there", library.display());
        return None;
    }
    let dir = cluster.dir.join("lib");
    std::fs::create_dir(&dir).unwrap();
    std::os::unix::fs::symlink(library, dir.join("libdlm.so.3")).unwrap();
    Some(dir)
}

#[test]
fn c_programs_on_all_nodes_count_together() {
    let cluster = cluster!(3);
    let Some(lib) = libraries(&cluster) else { return };
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/locks/counter.c");
    let program = cluster.dir.join("counter");
    let mut gcc = std::process::Command::new("gcc");
    gcc.args(["-Wall", "-O1", "-D_REENTRANT", "-pthread", "-o"]).arg(&program).arg(source);
    let made = run({
        gcc.arg("-ldlm");
        gcc
    });
    assert_eq!(made.code, 0, "{}", made.err);
    let mut counters: Vec<Running> = (1..=3)
        .map(|node| {
            let (lib, program) = (lib.display(), program.display());
            let mut command = cluster
                .command(node, &["env", &format!("LD_LIBRARY_PATH={lib}"), &program.to_string(), "50"]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            Running(command.spawn().unwrap())
        })
        .collect();
    // Each has added its fifty when it says what it sees; the last one sees them all.
    let seen = counters.iter_mut().map(|counter| {
        let mut line = String::new();
        let out = counter.0.stdout.as_mut().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
        line.trim().parse::<u32>().unwrap_or(0)
    });
    assert_eq!(seen.max(), Some(150));
}
