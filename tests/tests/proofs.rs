//! The riskiest ideas, each proved by an unmodified shell on a real cluster.

use ssi_tests::{cluster, kill, wait_until};
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn the_pid_of_a_background_onnode_is_the_pid_of_its_command_there() {
    let cluster = cluster!(3);
    let out = cluster.ok(
        1,
        r#"
        onnode 2 sleep 100 & pid=$!
        until [ "$(where_pid $pid)" = 2 ] && ps -o comm= -p $pid | grep -q sleep; do :; done
        echo rows $(ps -e -o pid= | grep -cw $pid)
        kill -STOP $pid
        until ps -o state= -p $pid | grep -q T; do :; done; echo stopped
        kill -CONT $pid
        until ps -o state= -p $pid | grep -q S; do :; done; echo continued
        kill $pid
        wait $pid
        echo status $?
        ps -o pid= -p $pid || echo gone
        "#,
    );
    assert_eq!(out, "rows 1\nstopped\ncontinued\nstatus 143\ngone");
}

#[test]
fn a_stop_on_the_far_side_stops_the_job_of_the_shell_here() {
    let cluster = cluster!(2);
    let out = cluster.ok(
        1,
        r#"
        set -m
        onnode 2 sleep 100 & pid=$!
        until [ "$(where_pid $pid)" = 2 ]; do :; done
        onnode 2 sh -c "kill -STOP $pid"
        until jobs | grep -q Stopped; do :; done; echo stopped
        onnode 2 sh -c "kill -CONT $pid"
        until jobs | grep -q Running; do :; done; echo running
        onnode 2 sh -c "kill -KILL $pid"
        wait $pid; echo status $?
        "#,
    );
    assert_eq!(out, "stopped\nrunning\nstatus 137");
}

#[test]
fn sigkill_of_the_shadow_ends_the_command() {
    let cluster = cluster!(2);
    let out = cluster.ok(
        1,
        r#"
        onnode 2 sleep 100 & pid=$!
        until [ "$(where_pid $pid)" = 2 ]; do :; done
        kill -KILL $pid; wait $pid; echo status $?
        until ! onnode 2 localview ps -o pid= -p $pid; do :; done; echo gone
        "#,
    );
    assert!(out.starts_with("status 137") && out.ends_with("gone"), "{out}");
}

#[test]
fn commands_outlive_both_daemons_on_both_ends_and_lose_nothing() {
    let cluster = cluster!(2);
    let script = r#"i=0; while read -r line; do i=$((i+1)); echo "$i $line"; done; echo end; exit 7"#;
    let mut command = cluster.command(1, &["onnode", "2", "sh", "-c", script]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut round = |n: u32| {
        writeln!(input, "line{n}").unwrap();
        assert_eq!(output.next().unwrap().unwrap(), format!("{n} line{n}"));
    };
    round(1);
    for (n, (node, daemon)) in
        [(2, "ssid"), (1, "ssid"), (1, "ssid-data"), (2, "ssid-data")].into_iter().enumerate()
    {
        let old = cluster.process(node, daemon);
        old.iter().copied().for_each(kill);
        round(n as u32 + 2);
        wait_until("the daemon is back", PATIENCE, || {
            let now = cluster.process(node, daemon);
            !now.is_empty() && now != old
        });
    }
    drop(input);
    assert_eq!(output.next().unwrap().unwrap(), "end");
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

#[test]
fn a_signal_to_a_node_whose_ssid_is_being_restarted_arrives() {
    let cluster = cluster!(2);
    let mut command = cluster.command(2, &["bash", "-c", "echo $$; exec sleep 100"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let pid = output.next().unwrap().unwrap();
    cluster.process(2, "ssid").into_iter().for_each(kill);
    cluster.ok(1, &format!("kill -TERM {pid}"));
    let status = child.wait().unwrap();
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(status.signal(), Some(15), "{status:?}");
}

#[test]
fn a_node_that_runs_out_of_ids_goes_on_in_its_local_region_and_no_id_is_out_twice() {
    let cluster = cluster!(2, "--pid-region", "512");
    let spawn = r#"for i in $(seq 700); do sleep 60 & echo $!; done; trap - EXIT; kill $(jobs -p)"#;
    let ids = |k| -> Vec<u32> { cluster.ok(k, spawn).lines().map(|line| line.parse().unwrap()).collect() };
    let (one, two) = std::thread::scope(|scope| {
        let one = scope.spawn(|| ids(1));
        let two = scope.spawn(|| ids(2));
        (one.join().unwrap(), two.join().unwrap())
    });
    for (ids, home) in [(&one, 512..1024), (&two, 1024..1536)] {
        let mut sorted = ids.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), 700, "no id twice on one node");
        assert!(ids.iter().any(|id| home.contains(id)), "the home region is used");
        assert!(ids.iter().any(|id| *id < 512), "then the node-local one");
        let strangers: Vec<_> = ids.iter().filter(|id| **id >= 512 && !home.contains(id)).collect();
        assert!(strangers.is_empty(), "never a neighbour's: {strangers:?}");
    }
}

#[test]
fn a_node_without_a_free_id_says_so_and_works_again_when_some_are_free() {
    let cluster = cluster!(2, "--pid-region", "512");
    let fill = "import os, sys, time\nwhile True:\n try:\n  if os.fork() == 0: time.sleep(1000)\n except OSError as e:\n  \
                print(e.errno, flush=True); sys.stdin.read(); sys.exit()";
    let mut command = cluster.command(1, &["/usr/bin/python3", "-c", fill]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(output.next().unwrap().unwrap(), "11", "EAGAIN");
    let refused = cluster.on(1, &["true"]);
    assert_ne!(refused.code, 0);
    assert!(refused.err.contains("no pid is free in the home region 512-1023"), "{}", refused.err);
    assert_eq!(cluster.ok(2, "onnode 1 hostname"), "node1", "a command from elsewhere brings its id along");
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("ids are free again", PATIENCE, || cluster.on(1, &["true"]).code == 0);
}
