//! The fabric beside the least that does the same: bare sockets, cache lines, futexes, copies; and beside gRPC and iperf3.
//!
//! Both sides of every figure are pairs of processes of this binary, a core each, made anew for each block.

mod bulk;
mod calls;
pub(super) mod contest;
mod cost;
mod ours;
pub(super) mod pair;
mod peers;
pub(super) mod sample;
pub(super) mod side;
mod verbs;

use crate::Error;
use contest::Contest;
use pair::Pair;
use ssi_benches::Target;

pub use side::run as run_side;
pub use verbs::run as run_verbs;

/// All contests, in the order in which they are printed.
fn contests() -> impl Iterator<Item = &'static Contest> {
    calls::TCP.iter().chain(bulk::TCP).chain(calls::SHM).chain(bulk::SHM)
}

/// Measures and prints all figures whose names contain `part`.
pub fn run(part: &str) -> Result<(), Error> {
    println!(
        "# on two cores: the server of each pair on core 0, the driver on core 1; spread over blocks behind each figure"
    );
    for contest in contests() {
        contest.run(part)?;
    }
    if part.is_empty() || "peer.iperf3.one_stream".contains(part) {
        bulk::beside()?;
    }
    bulk::BESIDE.run(part)?;
    bulk::SIEGE.run(part)?;
    costs(part)?;
    idle(part)
}

/// What a peer costs that does nothing.
fn idle(part: &str) -> Result<(), Error> {
    let figures = [
        ("fabric.idle_peer.kib", 2, Target::Limit(48.0)),
        ("fabric.idle_peer.urgent_lane_only.kib", 1, Target::None),
    ];
    for (name, lanes, target) in figures {
        if name.contains(part) {
            println!(
                "# a process with one endpoint grows by 1,000 peers (endpoints of another process), each connected both \
                 ways over {lanes} lane(s); resident memory, without the kernel's socket buffers"
            );
            let drive = format!("ours.crowd tcp encrypted sleep 1000 {lanes}");
            cost::idle_peers(name, &Pair::new("ours.hub tcp encrypted sleep", &drive), target)?;
        }
    }
    Ok(())
}

/// What a call costs beside time.
fn costs(part: &str) -> Result<(), Error> {
    const SERVE: &str = "ours.serve tcp encrypted sleep";
    let pair = |count: u32| Pair::new(SERVE, &format!("ours.call tcp encrypted sleep {count} 1 1"));
    if "fabric.tcp.call64.allocations".contains(part) {
        println!(
            "# allocations of one call, both sides together (40,000 calls and 20,000, their difference)"
        );
        cost::allocations("fabric.tcp.call64.allocations", pair)?;
    }
    if "fabric.tcp.call64.syscalls".contains(part) {
        println!("# system calls of one call (strace -f -c of 4,000 and of 8,000 calls, their difference)");
        cost::system_calls("fabric.tcp.call64.syscalls", "ours", pair)?;
        let bare = |count: u32| Pair::new("tcp.serve block", &format!("tcp.drive block {count}"));
        cost::system_calls("fabric.tcp.call64.syscalls", "bare-tcp-blocking", bare)?;
    }
    Ok(())
}

/// Measures the peers alone, each once: what this machine can do.
pub fn run_peers() -> Result<(), Error> {
    let mut seen = Vec::new();
    for contest in contests().filter(|contest| {
        let new = !seen.contains(&contest.beside);
        seen.push(contest.beside);
        new
    }) {
        contest.run_peer()?;
    }
    bulk::beside()
}
