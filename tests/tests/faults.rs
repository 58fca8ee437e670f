//! What befalls single nodes: daemons killed and paused, pauses of a whole node, one-way cuts, a full disk, a lost one.
//!
//! What is asserted is what users see: the states in the views, that all nodes tell one table an epoch, that commands run,
//! and that a node which the others gave up begins anew by itself.

use admin::wire::{NodeState, View};
use rustix::process::Signal;
use ssi_tests::faults::signal;
use ssi_tests::views::{Watch, all_up, is};
use ssi_tests::{Cluster, cluster, kill, run, wait_until};
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// Nodes may be slow to start on a busy machine; what is timed is timed apart.
const PATIENCE: Duration = Duration::from_secs(20);

/// A command that runs on one node for another: `onnode TO`, started on node `from`, that says its pid and goes on for long.
fn long_task(cluster: &Cluster, from: u32, to: u32) -> (Child, BufReader<ChildStdout>) {
    let script = format!("exec onnode {to} sh -c 'echo begun; exec sleep 1000'");
    let mut command = cluster.command(from, &["sh", "-c", &script]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "begun\n");
    (child, out)
}

fn life(view: &View, k: u32) -> u64 {
    view.nodes.iter().find(|row| row.id == k).map_or(0, |row| row.incarnation)
}

/// Commands run from every node to every other one.
fn works(cluster: &Cluster, nodes: &[u32]) {
    wait_until("commands run everywhere", PATIENCE, || {
        nodes.iter().all(|k| cluster.sh(*k, "onall true").code == 0)
    });
}

#[test]
fn a_killed_data_daemon_is_stalled_and_files_go_on_where_they_were() {
    let cluster = cluster!(3);
    let mut watch = Watch::on(&cluster, [1, 3], PATIENCE);
    let writes = "for i in $(seq 60); do echo $i >> /ssi/log || exit 1; done; wc -l < /ssi/log";
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| cluster.ok(2, writes));
        // It would be back before anybody could tell.
        let unkept = cluster.unkept(2);
        let data = cluster.process(2, "ssid-data");
        let end = || signal(&data, Signal::KILL);
        watch.time("node 2 is STALLED", SECOND, end, |view| is(view, 2, NodeState::Stalled));
        drop(unkept);
        writer.join().unwrap()
    });
    assert_eq!(written.trim(), "60");
    watch.wait("node 2 is UP again", PATIENCE, all_up);
    watch.check_agreement();
    assert!(watch.troubles().iter().all(|(node, state)| (*node, state.as_str()) == (2, "STALLED")));
}

#[test]
fn a_killed_keeper_is_seen_by_nobody() {
    let cluster = cluster!(3);
    let mut watch = Watch::on(&cluster, [1, 2, 3], PATIENCE);
    cluster.process(2, "ssi-keeper").into_iter().for_each(kill);
    watch.listen(2 * SECOND);
    assert_eq!(watch.troubles(), [], "its daemons run on");
    assert_eq!(cluster.ok(1, "onnode 2 echo alive"), "alive");
}

#[test]
fn a_paused_ssid_is_stalled_its_processes_live_and_it_is_up_again() {
    let cluster = cluster!(3);
    let mut watch = Watch::on(&cluster, [1, 3], PATIENCE);
    let lives = watch.nodes[0].last().clone();
    let (mut task, _out) = long_task(&cluster, 3, 2);
    let ssid = cluster.process(2, "ssid");
    let stop = || signal(&ssid, Signal::STOP);
    watch.time("node 2 is STALLED", PATIENCE, stop, |view| is(view, 2, NodeState::Stalled));
    signal(&ssid, Signal::CONT);
    watch.wait("node 2 is UP again", PATIENCE, all_up);
    watch.check_agreement();
    assert!(watch.troubles().iter().all(|(node, state)| (*node, state.as_str()) == (2, "STALLED")));
    assert_eq!(life(watch.nodes[0].last(), 2), life(&lives, 2), "no new life");
    assert_eq!(task.try_wait().unwrap(), None, "the task goes on");
    task.kill().unwrap();
    task.wait().unwrap();
}

#[test]
fn a_supervisor_that_hangs_for_good_is_the_end_of_its_life_and_the_keeper_begins_another() {
    let cluster = cluster!(3);
    let mut watch = Watch::on(&cluster, [1, 3], PATIENCE);
    let before = life(watch.nodes[0].last(), 2);
    let supervisor = cluster.process(2, "ssi-init");
    let stop = || signal(&supervisor, Signal::STOP);
    watch.time("node 2 is STALLED first", PATIENCE, stop, |view| is(view, 2, NodeState::Stalled));
    watch.wait("node 2 is UP in a later life, and nobody has continued the old one", PATIENCE, |view| {
        is(view, 2, NodeState::Up) && life(view, 2) > before
    });
    watch.check_agreement();
    assert!(watch.troubles().iter().all(|(node, _)| *node == 2), "{:?}", watch.troubles());
    works(&cluster, &[1, 2, 3]);
}

#[test]
fn a_node_that_is_paused_as_a_whole_is_down_and_finds_that_its_life_has_ended() {
    let cluster = cluster!(3, "--no-shm");
    let mut watch = Watch::on(&cluster, [1, 2], PATIENCE);
    let before = life(watch.nodes[0].last(), 3);
    let (mut task, _out) = long_task(&cluster, 1, 3);
    let all = cluster.pids(3);
    let took = watch.time(
        "node 3 is DOWN",
        PATIENCE,
        || signal(&all, Signal::STOP),
        |view| is(view, 3, NodeState::Down),
    );
    println!("DOWN after {took:?}");
    assert!(took < SECOND, "{took:?}");
    let ended = task.wait().unwrap();
    assert!(!ended.success(), "whoever waits for a process of a node that is DOWN hears of its end");
    assert_eq!(cluster.ok(1, "onnode 2 echo alive"), "alive");
    let old: Vec<(i32, String)> =
        cluster.processes(3).into_iter().filter(|(_, name)| name != "ssi-keeper").collect();
    signal(&all, Signal::CONT);
    watch.wait("node 3 is UP in a later life", PATIENCE, |view| {
        is(view, 3, NodeState::Up) && life(view, 3) > before
    });
    // Two live processes of one number would be the worst that can be.
    wait_until("every process of the former life is gone", PATIENCE, || {
        let now = cluster.pids(3);
        old.iter().all(|(pid, _)| !now.contains(pid))
    });
    watch.check_agreement();
    works(&cluster, &[1, 2, 3]);
}

#[test]
fn a_node_that_nobody_hears_is_down_though_it_hears_all_and_returns_in_a_later_life() {
    let cluster = cluster!(3, "--no-shm");
    let mut watch = Watch::on(&cluster, [1, 2], PATIENCE);
    let before = life(watch.nodes[0].last(), 3);
    let network = cluster.network(3);
    let cut = || {
        ["10.77.0.0/25", "10.77.0.128/25"].iter().for_each(|half| cluster.set_deaf(&network, half, true));
    };
    let took = watch.time("node 3 is DOWN", PATIENCE, cut, |view| is(view, 3, NodeState::Down));
    println!("DOWN after {took:?}");
    assert!(took < SECOND + SECOND / 5, "two runs of ip(8) are in it: {took:?}");
    assert_eq!(cluster.ok(1, "onnode 2 echo alive"), "alive");
    for half in ["10.77.0.0/25", "10.77.0.128/25"] {
        cluster.set_deaf(&network, half, false);
    }
    watch.wait("node 3 is UP in a later life", PATIENCE, |view| {
        is(view, 3, NodeState::Up) && life(view, 3) > before
    });
    watch.check_agreement();
    works(&cluster, &[1, 2, 3]);
}

#[test]
fn a_one_way_cut_between_two_nodes_leaves_the_others_with_one_table() {
    let cluster = cluster!(4, "--no-shm");
    // Whoever is master: what node 3 sends to it is lost, all else arrives.
    let mut watch = Watch::on(&cluster, [1, 2, 4], PATIENCE);
    let master = watch.nodes[0].last().master;
    let silent = if master == 3 { 4 } else { 3 };
    watch.nodes.retain(|views| views.node != silent);
    let network = cluster.network(silent);
    let to = format!("10.77.0.{master}/32");
    let before = life(watch.nodes[0].last(), silent);
    let deaf = || cluster.set_deaf(&network, &to, true);
    watch.time("the others have settled what it is", PATIENCE, deaf, |view| !is(view, silent, NodeState::Up));
    let others: Vec<u32> = (1..=4).filter(|k| *k != silent).collect();
    for k in &others {
        assert!(watch.troubles().iter().all(|(node, _)| node != k), "{:?}", watch.troubles());
    }
    assert_eq!(cluster.ok(others[0], &format!("onnode {} echo alive", others[1])), "alive");
    cluster.set_deaf(&network, &to, false);
    watch.wait("all are UP again", PATIENCE, all_up);
    println!("node {silent}: life {before} -> {}", life(watch.nodes[0].last(), silent));
    watch.check_agreement();
    works(&cluster, &[1, 2, 3, 4]);
}

/// Ends node `k`, gives its state directory a filesystem of its own of so many KiB, and starts it again.
fn onto_small_disk(cluster: &Cluster, k: u32, kib: u32) -> ssi_tests::faults::Network {
    let network = cluster.network(k);
    cluster.kill_node(k);
    wait_until("all of it has ended", PATIENCE, || cluster.pids(k).is_empty());
    let dir = cluster.node_dir(k).display().to_string();
    cluster.inside_ok(
        None,
        &format!("cp -a {dir} {dir}.copy && mount -t tmpfs -o size={kib}k small {dir} && cp -a {dir}.copy/. {dir}/ && rm -r {dir}.copy"),
    );
    cluster.start_node(&network);
    network
}

#[test]
fn a_voter_whose_disk_is_full_ends_nobodys_processes_and_heals_when_there_is_room() {
    // One has a full disk and one is away: three are a majority of the voters, whether these are three or all.
    let cluster = cluster!(5);
    let _network = onto_small_disk(&cluster, 3, 4_096);
    let mut watch = Watch::on(&cluster, [1, 2, 5], PATIENCE);
    watch.wait("node 3 is back", PATIENCE, all_up);
    works(&cluster, &[1, 3]);
    let (mut task, _out) = long_task(&cluster, 3, 3);
    let lives = watch.nodes[0].last().clone();
    let filler = cluster.node_dir(3).join("filler").display().to_string();
    // Nothing is left: not even what a file that is being appended to has over.
    let fill = format!(
        "dd if=/dev/zero of={filler} bs=4k 2>/dev/null; dd if=/dev/zero bs=1 count=4096 2>/dev/null >> {filler}; df --output=avail -k $(dirname {filler}) | tail -1"
    );
    assert_eq!(cluster.inside_ok(None, &fill).trim(), "0");
    // Changes that node 3 cannot write down.
    let unkept = cluster.unkept(4);
    let ssid = cluster.process(4, "ssid");
    let end = || signal(&ssid, Signal::KILL);
    watch.time("node 4 is STALLED", SECOND, end, |view| is(view, 4, NodeState::Stalled));
    drop(unkept);
    watch.wait("node 4 is UP again, whatever node 3 can do", PATIENCE, |view| is(view, 4, NodeState::Up));
    assert_eq!(cluster.ok(1, "onnode 4 echo alive"), "alive");
    cluster.inside_ok(None, &format!("rm {filler}"));
    watch.wait("all are UP", PATIENCE, all_up);
    assert_eq!(task.try_wait().unwrap(), None, "the task on node 3 goes on");
    assert_eq!(life(watch.nodes[0].last(), 3), life(&lives, 3), "its life goes on");
    task.kill().unwrap();
    task.wait().unwrap();
    watch.check_agreement();
    works(&cluster, &[1, 2, 3, 4, 5]);
}

#[test]
fn a_voter_that_lost_its_disk_joins_again_under_its_name_and_number() {
    let cluster = cluster!(3);
    let network = cluster.network(3);
    let key = cluster.node_dir(1).join("key").display().to_string();
    let mut watch = Watch::on(&cluster, [1, 2], PATIENCE);
    let before = life(watch.nodes[0].last(), 3);
    watch.time("node 3 is DOWN", PATIENCE, || cluster.kill_node(3), |view| is(view, 3, NodeState::Down));
    wait_until("all of it has ended", PATIENCE, || cluster.pids(3).is_empty());
    let dir = cluster.node_dir(3);
    cluster.inside_ok(None, &format!("rm -rf {0} && mkdir {0}", dir.display()));
    let mut join = cluster.inside(Some(&network));
    join.arg(ssi_tests::ssi_binary()).arg("--dir").arg(&dir);
    join.args(["node", "join", "10.77.0.1:7100", "--cluster", "local", "--key", &key]);
    join.args(["--address", "10.77.0.3", "--name", "node3"]);
    let joined = run(join);
    assert!(joined.code == 0 && joined.out.contains("node 3"), "{}{}", joined.out, joined.err);
    cluster.start_node(&network);
    watch.wait("node 3 is UP in a later life", PATIENCE, |view| {
        is(view, 3, NodeState::Up) && life(view, 3) > before
    });
    works(&cluster, &[1, 2, 3]);
    // Its vote counts again: with another node away there is still a majority.
    watch.nodes.retain(|views| views.node == 1);
    let unkept = cluster.unkept(2);
    let ssid = cluster.process(2, "ssid");
    let end = || signal(&ssid, Signal::KILL);
    watch.time("node 2 is STALLED", SECOND, end, |view| is(view, 2, NodeState::Stalled));
    drop(unkept);
    watch.wait("node 2 is UP again", PATIENCE, all_up);
    watch.check_agreement();
}
