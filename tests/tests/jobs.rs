//! Jobs: ssirun with unmodified MPI programs and with plain commands.

use ssi_tests::{Cluster, cluster, kill, wait_until};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// An MPI program that says where it is, adds up the ranks, and can wait for a signal.
const HELLO: &str = r#"
#include <mpi.h>
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv) {
    int rank, size, sum = 0; char host[64] = "";
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank); MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    gethostname(host, sizeof host);
    printf("rank %d of %d on %s sum %d\n", rank, size, host, sum); fflush(stdout);
    if (argc > 1) { MPI_Barrier(MPI_COMM_WORLD); printf("ready %d\n", (int)getpid()); fflush(stdout); for (;;) pause(); }
    MPI_Finalize();
    return 0;
}
"#;

fn compile(cluster: &Cluster) {
    std::fs::write(cluster.dir.join("hello.c"), HELLO).unwrap();
    cluster.ok(1, &format!("mpicc -o /ssi/hello {}", cluster.dir.join("hello.c").display()));
}

#[test]
fn an_mpi_program_runs_over_three_nodes() {
    let cluster = cluster!(3);
    compile(&cluster);
    let out = cluster.ok(2, "ssirun -n 6 -ppn 2 /ssi/hello | sort");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 6, "{out}");
    for (rank, line) in lines.iter().enumerate() {
        assert_eq!(*line, format!("rank {rank} of 6 on node{} sum 15", rank / 2 + 1));
    }
}

#[test]
fn the_death_of_one_rank_ends_the_job_at_once() {
    let cluster = cluster!(3);
    compile(&cluster);
    let mut command = cluster.command(1, &["ssirun", "-n", "6", "/ssi/hello", "wait"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.map(Result::unwrap).filter_map(|line| line.strip_prefix("ready ").map(str::to_owned));
    let pids: Vec<String> = ready.take(6).collect();
    let victim = pids.iter().find(|pid| cluster.ok(3, &format!("where_pid {pid}")) == "1").unwrap();
    cluster.ok(3, &format!("kill -KILL {victim}"));
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(137));
    let mut message = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut message).unwrap();
    assert!(
        message.contains("rank") && message.contains("node1") && message.contains("signal 9"),
        "{message}"
    );
    wait_until("no rank is left", PATIENCE, || {
        pids.iter().all(|pid| cluster.sh(2, &format!("kill -0 {pid}")).code != 0)
    });
}

#[test]
fn a_dead_node_ends_the_job_with_a_message() {
    let cluster = cluster!(3);
    compile(&cluster);
    let mut command = cluster.command(1, &["ssirun", "-n", "6", "/ssi/hello", "wait"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.map(Result::unwrap).filter(|line| line.starts_with("ready")).take(6).count(), 6);
    cluster.kill_node(3);
    assert_ne!(child.wait().unwrap().code(), Some(0));
    let mut message = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut message).unwrap();
    assert!(message.contains("node3") && message.contains("DOWN"), "{message}");
    wait_until("no rank is left", PATIENCE, || cluster.sh(2, "pgrep -f /ssi/hello").code == 1);
}

#[test]
fn no_rank_is_left_when_ssirun_is_killed() {
    let cluster = cluster!(3);
    let mut command = cluster.command(1, &["ssirun", "-n", "6", "sleep", "1000"]);
    let mut child = command.spawn().unwrap();
    wait_until("six ranks run", PATIENCE, || cluster.sh(2, "pgrep -fc '^sleep 1000'").out.trim() == "6");
    let ssirun = cluster.processes(1).into_iter().find(|(_, name)| name == "ssirun").unwrap();
    kill(ssirun.0);
    child.wait().unwrap();
    wait_until("no rank is left", PATIENCE, || cluster.sh(2, "pgrep -f '^sleep 1000'").code == 1);
}

#[test]
fn flags_do_what_mpiexecs_users_expect() {
    let cluster = cluster!(3);
    let out = cluster.ok(1, "ssirun -n 4 -ppn 2 -hosts node2,node3 hostname | sort");
    assert_eq!(out, "node2\nnode2\nnode3\nnode3");
    assert_eq!(cluster.ok(1, "ssirun -n 2 -wdir /usr pwd"), "/usr\n/usr");
    assert_eq!(cluster.ok(1, "ssirun -n 1 -env COLOUR red sh -c 'echo $COLOUR'"), "red");
    let ranked = cluster.ok(1, "ssirun -n 3 -prepend-rank echo x | sort");
    assert!(
        ranked.lines().enumerate().all(|(k, line)| line.contains(&k.to_string()) && line.ends_with('x')),
        "{ranked}"
    );
    assert_eq!(cluster.ok(1, "echo input | ssirun -n 3 cat"), "input", "stdin goes to rank 0");
    assert_eq!(
        cluster.sh(1, "ssirun -n 3 sh -c 'test $PMI_RANK != 1 || exit 3'").code,
        3,
        "the failing rank's code"
    );
}

#[test]
fn wrong_jobs_are_refused_with_a_reason() {
    let cluster = cluster!(2);
    for (job, code, word) in [
        ("ssirun -n 2 -hosts node7 true", 1, "node7"),
        ("ssirun -n 2 no-such-program", 127, "no-such-program"),
        ("ssirun -n 1000000 true", 1, "1000000"),
        ("ssirun -n 2 /etc/passwd", 126, "/etc/passwd"),
    ] {
        let ran = cluster.sh(1, job);
        assert_eq!(ran.code, code, "{job}: {}", ran.err);
        assert!(ran.err.contains(word), "{job}: {}", ran.err);
    }
}

#[test]
fn lines_of_ranks_never_mix() {
    let cluster = cluster!(3);
    let script = r#"i=0; while [ $i -lt 200 ]; do i=$((i+1)); printf %s aaaaaaaaaaaaaaaaaaaa; echo bbbbbbbbbbbbbbbbbbbbbb; done"#;
    let out = cluster.ok(1, &format!("ssirun -n 6 sh -c '{script}'"));
    assert_eq!(out.lines().count(), 1_200);
    assert!(out.lines().all(|line| line == "aaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbbbb"));
}

#[test]
fn the_least_loaded_node_is_another_when_one_gets_work() {
    let cluster = cluster!(3);
    let first = cluster.ok(1, "fastnode");
    let spin = "import time\nend = time.time() + 30\nwhile time.time() < end: pass";
    let mut child = cluster.command(first.parse().unwrap(), &["python3", "-c", spin]).spawn().unwrap();
    wait_until("fastnode names another", PATIENCE, || cluster.ok(1, "fastnode") != first);
    assert!(cluster.ok(1, "loads").lines().count() == 4);
    child.kill().unwrap();
    child.wait().unwrap();
}
