//! The daemons are replaced by those of another copy of the binary, one node at a time: no process, waiter or stream notices.

use admin::wire::NodeState;
use rustix::process::Signal;
use ssi_tests::faults::signal;
use ssi_tests::views::{Watch, all_up, is};
use ssi_tests::{Cluster, ssi_binary, wait_until};
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// The file that a process runs, as the kernel holds it.
fn inode(pid: i32) -> u64 {
    std::fs::metadata(format!("/proc/{pid}/exe")).map_or(0, |file| file.ino())
}

/// A command of one node on another that answers each line, for as long as its input is open.
struct Echo {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    rounds: u32,
}

impl Echo {
    fn start(cluster: &Cluster, from: u32, to: u32) -> Echo {
        let script = "i=0; while read -r line; do i=$((i+1)); echo \"$i $line\"; done; exit 7";
        let mut command = cluster.command(from, &["onnode", &to.to_string(), "sh", "-c", script]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Echo { child, input, output: BufReader::new(output).lines(), rounds: 0 }
    }

    fn round(&mut self) {
        self.rounds += 1;
        writeln!(self.input, "line").unwrap();
        assert_eq!(
            self.output.next().unwrap().unwrap(),
            format!("{} line", self.rounds),
            "no line is lost or new"
        );
    }

    fn end(self) {
        drop(self.input);
        let mut child = self.child;
        assert_eq!(child.wait().unwrap().code(), Some(7));
    }
}

/// Puts another file with the same content in its place, as a package manager does.
fn replace(binary: &Path) {
    let new = binary.with_extension("new");
    std::fs::copy(ssi_binary(), &new).unwrap();
    std::fs::rename(&new, binary).unwrap();
}

#[test]
fn daemons_are_upgraded_one_node_at_a_time_and_nothing_that_runs_notices() {
    if let Some(why) = ssi_tests::cannot_run() {
        println!("{why}");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let binary = home.path().join("ssi");
    std::fs::copy(ssi_binary(), &binary).unwrap();
    let cluster = Cluster::start_of(&binary, 3, &[]);
    let lives = [1, 2, 3].map(|k| cluster.life(1, k));
    let mut echoes: Vec<Echo> =
        [(1, 2), (2, 3), (3, 1)].into_iter().map(|(from, to)| Echo::start(&cluster, from, to)).collect();
    let mut waiter =
        cluster.command(2, &["bash", "-c", "onnode 3 sh -c 'read x < /ssi/go; exit 9' & wait $!; exit $?"]);
    cluster.ok(1, "mkfifo /ssi/go");
    let mut waiter = waiter.spawn().unwrap();
    echoes.iter_mut().for_each(Echo::round);
    replace(&binary);
    let new = std::fs::metadata(&binary).unwrap().ino();
    for k in 1..=3 {
        let others: Vec<u32> = (1..=3).filter(|other| *other != k).collect();
        let mut watch = Watch::on(&cluster, others, PATIENCE);
        let supervisor = cluster.process(k, "ssi-init");
        let old: Vec<i32> = ["ssid", "ssid-data"].iter().flat_map(|name| cluster.process(k, name)).collect();
        assert_eq!(old.len(), 2);
        let unkept = cluster.unkept(k);
        let end = || signal(&old, Signal::KILL);
        watch.time("the node is STALLED", PATIENCE, end, |view| is(view, k, NodeState::Stalled));
        drop(unkept);
        watch.wait("the node is UP again", PATIENCE, all_up);
        for name in ["ssid", "ssid-data"] {
            wait_until("the daemon is of the new file", PATIENCE, || {
                let now = cluster.process(k, name);
                now.iter().all(|pid| !old.contains(pid) && inode(*pid) == new) && !now.is_empty()
            });
        }
        assert_eq!(cluster.process(k, "ssi-init"), supervisor, "the supervisor goes on");
        assert_ne!(inode(supervisor[0]), new);
        echoes.iter_mut().for_each(Echo::round);
        watch.check_agreement();
        let seen = watch.troubles();
        assert!(seen.iter().all(|(node, state)| (*node, state.as_str()) == (k, "STALLED")), "{seen:?}");
    }
    assert_eq!([1, 2, 3].map(|k| cluster.life(1, k)), lives, "no node began anew");
    assert_eq!(waiter.try_wait().unwrap(), None);
    cluster.ok(3, "echo > /ssi/go");
    assert_eq!(waiter.wait().unwrap().code(), Some(9), "who waited heard the end, and of what");
    echoes.into_iter().for_each(Echo::end);
    assert_eq!(cluster.ok(1, "onall echo alive | wc -l"), "3");
}
