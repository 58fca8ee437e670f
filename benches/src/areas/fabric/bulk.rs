//! One-sided transfers of 1 MiB, several under way: how many MiB go in a second.

use super::contest::{Contest, mib, micros, rate};
use super::peers::iperf;
use crate::Error;
use ssi_benches::Target::{AtLeast, AtMost};
use ssi_benches::{BLOCKS_MIN, Figure, Unit};

const STREAM: &str = "one TCP stream on the loopback, two processes on two cores, writes and reads of 128 KiB, \
                      the receiver reads a byte of each cache line; iperf3's own figure stands below. Ours: \
                      authenticated frames carry no MAC, encrypted ones do";
const COPY: &str = "copy_from_slice of 1 MiB, one thread, from one buffer to another (both in the cache)";
const COPY_FAR: &str =
    "copy_from_slice of 1 MiB, one thread, 64 buffers to 64 others in turn (beyond the cache)";
const TOUCHING: (&str, &str) = ("stream.serve", "stream.drive 1024");

/// Over TCP.
pub const TCP: &[Contest] = &[
    Contest {
        ours: ("ours.serve tcp authenticated sleep", "ours.write tcp authenticated sleep 1024 4 1"),
        peer: TOUCHING,
        beside: "touching-stream",
        described: STREAM,
        reads: &[mib("fabric.tcp.write1m.authenticated", AtLeast(0.9))],
    },
    Contest {
        ours: ("ours.serve tcp authenticated sleep", "ours.read tcp authenticated sleep 1024 4 1"),
        peer: TOUCHING,
        beside: "touching-stream",
        described: STREAM,
        reads: &[mib("fabric.tcp.read1m.authenticated", AtLeast(0.9))],
    },
    Contest {
        ours: ("ours.serve tcp encrypted sleep", "ours.write tcp encrypted sleep 512 4 1"),
        peer: TOUCHING,
        beside: "touching-stream",
        described: STREAM,
        reads: &[mib("fabric.tcp.write1m.encrypted", AtLeast(0.35))],
    },
    Contest {
        ours: ("ours.serve tcp encrypted sleep", "ours.read tcp encrypted sleep 512 4 1"),
        peer: TOUCHING,
        beside: "touching-stream",
        described: STREAM,
        reads: &[mib("fabric.tcp.read1m.encrypted", AtLeast(0.35))],
    },
];

/// Through shared memory. The last word of ours and the first of the peer's say how many buffers of 1 MiB are used in turn.
pub const SHM: &[Contest] = &[
    Contest {
        ours: ("ours.serve shm encrypted poll", "ours.write shm encrypted poll 4096 1 1"),
        peer: ("", "copy.drive 1 4096"),
        beside: "memcpy",
        described: COPY,
        reads: &[mib("fabric.shm.write1m", AtLeast(0.7))],
    },
    Contest {
        ours: ("ours.serve shm encrypted poll", "ours.write shm encrypted poll 2048 1 64"),
        peer: ("", "copy.drive 64 2048"),
        beside: "memcpy-beyond-cache",
        described: COPY_FAR,
        reads: &[mib("fabric.shm.write1m.beyond_cache", AtLeast(0.7))],
    },
];

/// Control calls beside 4 streams of writes, and alone.
pub const BESIDE: Contest = Contest {
    ours: ("ours.serve tcp encrypted sleep", "ours.beside tcp encrypted sleep 1500 4"),
    peer: ("ours.serve tcp encrypted sleep", "ours.beside tcp encrypted sleep 20000 0"),
    beside: "ours-idle",
    described: "the same calls, one after the other, without the 4 streams of 1 MiB writes over the same endpoints",
    reads: &[micros("fabric.control_under_bulk.p99", "p99", AtMost(5.0))],
};

/// Good calls while strangers knock, and the same without them.
pub const SIEGE: Contest = Contest {
    ours: ("ours.serve tcp encrypted sleep", "ours.besieged tcp encrypted sleep 256000 500"),
    peer: ("ours.serve tcp encrypted sleep", "ours.besieged tcp encrypted sleep 256000 0"),
    beside: "ours-undisturbed",
    described: "the same calls, 64 at once, without the 500 connections a second that do not hold the key (they come from the driver's own core)",
    reads: &[rate("fabric.flood", AtLeast(0.9))],
};

/// iperf3 itself, which does not touch what it receives.
pub fn beside() -> Result<(), Error> {
    println!("# {}", iperf::SHOWN);
    let values: Result<Vec<f64>, Error> = (0..BLOCKS_MIN).map(|_| iperf::once()).collect();
    if let Some(figure) = Figure::alone("peer.iperf3.one_stream", &values?, Unit::MibPerSecond) {
        println!("{figure}   {}", figure.spread());
    }
    Ok(())
}
