//! Locks beside what they stand on: a mutex, one call of the fabric; and beside etcd.
//!
//! The nodes are lock managers in two processes of this binary, with real endpoints between them: at 32 nodes namespaces and daemons would measure the
//! scheduler of a machine with two cores. Where more than two nodes take part, all but the driver's are in the server's process.

mod core;
mod driver;
mod etcd;
mod mutex;
mod nodes;
mod orders;
mod recovery;

use super::fabric::contest::{Contest, Read, micros, rate};
use super::fabric::pair::Pair;
use super::fabric::sample::{Sample, only};
use super::print;
use crate::Error;
use ssi_benches::Target::{AtLeast, AtMost, Limit};
use ssi_benches::{BLOCKS_MIN, Figure, Unit, alternate};

const CALL: &str =
    "one fabric call of 64 B on the same two cores and the same provider, both sides waiting in the same way";
const MUTEX: &str =
    "pthread_mutex_lock and _unlock of glibc, nobody else there, 1,000 pairs a look at the clock";
const ETCD: &str = "three etcd of Debian on the loopback, data in memory (tmpfs), default settings; 64 loops over one HTTP/2 connection, \
     each /v3lockpb.Lock/Lock of a name of its own and Unlock, one lease a loop";
const SHM: (&str, &str) = ("ours.serve shm encrypted sleep", "ours.call shm encrypted sleep 20000 1 1");
const TCP: (&str, &str) = ("ours.serve tcp encrypted sleep", "ours.call tcp encrypted sleep 20000 1 1");

/// Contests with both sides pinned, as the fabric's.
const CONTESTS: &[Contest] = &[
    Contest {
        ours: ("", "dlm.again 200000"),
        peer: ("", "mutex.drive 2000000"),
        beside: "pthread-mutex",
        described: MUTEX,
        reads: &[micros("dlm.again.held_token.p50", "p50", AtMost(20.0))],
    },
    Contest {
        ours: ("dlm.serve shm sleep 2", "dlm.drive shm sleep 2 local 10000"),
        peer: SHM,
        beside: "fabric-call-shm",
        described: CALL,
        reads: &[micros("dlm.new.mastered_here.shm.p50", "p50", AtMost(1.5))],
    },
    Contest {
        ours: ("dlm.serve tcp sleep 2", "dlm.drive tcp sleep 2 local 10000"),
        peer: TCP,
        beside: "fabric-call-tcp",
        described: CALL,
        reads: &[micros("dlm.new.mastered_here.tcp.p50", "p50", AtMost(1.5))],
    },
    Contest {
        ours: ("dlm.serve shm sleep 2", "dlm.drive shm sleep 2 remote 10000"),
        peer: SHM,
        beside: "fabric-call-shm",
        described: CALL,
        reads: &[micros("dlm.new.mastered_there.shm.p50", "p50", AtMost(1.5))],
    },
    Contest {
        ours: ("dlm.serve tcp sleep 2", "dlm.drive tcp sleep 2 remote 10000"),
        peer: TCP,
        beside: "fabric-call-tcp",
        described: CALL,
        reads: &[micros("dlm.new.mastered_there.tcp.p50", "p50", AtMost(1.5))],
    },
    Contest {
        ours: ("dlm.serve shm sleep 2", "dlm.drive shm sleep 2 contended 10000"),
        peer: SHM,
        beside: "fabric-call-shm",
        described: CALL,
        reads: &[micros("dlm.hand_over.shm.p50", "p50", AtMost(2.5))],
    },
    Contest {
        ours: ("dlm.serve tcp sleep 2", "dlm.drive tcp sleep 2 contended 10000"),
        peer: TCP,
        beside: "fabric-call-tcp",
        described: CALL,
        reads: &[micros("dlm.hand_over.tcp.p50", "p50", AtMost(2.5))],
    },
];

const ETCD_READS: &[Read] =
    &[rate("dlm.lock_unlock64.new_names", AtLeast(50.0)), rate("dlm.lock_unlock64.own_names", AtLeast(50.0))];

/// Becomes a side.
pub fn run_side(name: &str, words: &[&str]) -> Result<(), Error> {
    match (name, words) {
        ("dlm.again", [count]) => driver::again(count.parse()?),
        ("dlm.core", [count]) => core::grants(count.parse()?),
        ("dlm.serve", [provider, wait, nodes]) => orders::serve(provider, wait, nodes.parse()?),
        ("dlm.drive", [provider, wait, nodes, what, count, at]) => {
            driver::drive(provider, wait, nodes.parse()?, what, count.parse()?, at)
        }
        ("dlm.recovery", [count]) => recovery::run(count.parse()?),
        ("mutex.drive", [count]) => mutex::drive(count.parse()?),
        ("etcd.serve", []) => etcd::serve(),
        ("etcd.drive", [count, outstanding, at]) => etcd::drive(count.parse()?, outstanding.parse()?, at),
        (_, rest) => Err(format!("no side {name} {rest:?}").into()),
    }
}

/// Measures and prints all figures whose names contain `part`.
pub fn run(part: &str) -> Result<(), Error> {
    println!("# lock managers in two processes of this binary: node 1 on core 0, the driver's on core 1");
    for contest in CONTESTS {
        contest.run(part)?;
    }
    alone(part, "dlm.core.grants", "dlm.core 4000000", "rate", Unit::PerSecond, None)?;
    beside_etcd(part)?;
    for nodes in [4, 16, 32] {
        flat(part, nodes, "known")?;
        flat(part, nodes, "remote")?;
    }
    alone(part, "dlm.recovery.100000_locks", "dlm.recovery 100000", "took", Unit::Micros, Some(1e6))
}

/// A driver without a peer.
fn alone(part: &str, name: &str, words: &str, key: &str, unit: Unit, most: Option<f64>) -> Result<(), Error> {
    if !name.contains(part) {
        return Ok(());
    }
    println!("# ours: {words}");
    let values: Vec<f64> = (0..BLOCKS_MIN)
        .map(|_| Pair::new("", words).unpinned().block()?.value(key))
        .collect::<Result<_, Error>>()?;
    let Some(figure) = Figure::alone(name, &values, unit) else { return Ok(()) };
    let figure = match most {
        Some(most) => figure.with_target(Limit(most)),
        None => figure.with_target(ssi_benches::Target::Least(2e6)),
    };
    println!("{figure}   {}", figure.spread());
    Ok(())
}

/// Both sides on whichever cores: etcd is three processes.
fn beside_etcd(part: &str) -> Result<(), Error> {
    for (read, what) in ETCD_READS.iter().zip(["many", "own"]) {
        if !read.name.contains(part) {
            continue;
        }
        println!(
            "# ours: dlm.drive tcp sleep 2 {what}, 64 outstanding; unlocks are carried out at the node's table, its tokens stay"
        );
        println!("# peer etcd: {ETCD}");
        let drive = format!("dlm.drive tcp sleep 2 {what} 64000");
        let ours = Pair::new("dlm.serve tcp sleep 2", &drive).unpinned();
        let peer = Pair::new("etcd.serve", "etcd.drive 1920 64").unpinned().in_memory();
        let blocks = alternate(BLOCKS_MIN, || ours.block(), || peer.block())?;
        print(read.name, &only(read.key, &blocks)?, "etcd", read.unit, read.target);
    }
    Ok(())
}

/// Does a lock take longer when there are more nodes? One whose master is known; and a new one, whose directory is mostly a third node, which
/// forwards it (of two nodes it is one of the two).
fn flat(part: &str, nodes: u32, what: &str) -> Result<(), Error> {
    let name = format!("dlm.{what}.nodes{nodes}.p50");
    if !name.contains(part) {
        return Ok(());
    }
    println!(
        "# {nodes} nodes beside 2, over tcp, all but the driver's in one process that a runtime of one thread drives"
    );
    let pair = |nodes: u32| {
        Pair::new(&format!("dlm.serve tcp task {nodes}"), &format!("dlm.drive tcp sleep {nodes} {what} 4000"))
    };
    let (ours, peer) = (pair(nodes), pair(2));
    let blocks: ssi_benches::Blocks<Sample> = alternate(BLOCKS_MIN, || ours.block(), || peer.block())?;
    print(&name, &only("p50", &blocks)?, "2-nodes", Unit::Micros, AtMost(1.3));
    Ok(())
}
