//! Calls of 64 bytes: how long one takes, how many go in a second, and what they cost the processor.

use super::contest::{Contest, micros, rate};
use super::peers::memory::BATCH;
use ssi_benches::Target::{AtLeast, AtMost};

const BLOCKING: &str = "two processes on two cores, one TCP connection on the loopback, TCP_NODELAY, 96 B each way, blocking reads";
const SPINNING: &str = "the same with sockets that do not block, both sides reading again and again";
const TONIC: &str =
    "tonic unary echo of 64 B, HTTP/2 without TLS, no router, current_thread runtime and one core a side";
const LINES: &str = "two threads on two cores, each spinning on the other's cache line";
const FUTEX: &str = "two processes on two cores, FUTEX_WAKE and FUTEX_WAIT on a shared page, no spinning";
const BARE_BLOCKING: (&str, &str) = ("tcp.serve block", "tcp.drive block 20000");
const BARE_SPINNING: (&str, &str) = ("tcp.serve spin", "tcp.drive spin 30000");

/// Over TCP.
pub const TCP: &[Contest] = &[
    Contest {
        ours: ("ours.serve tcp encrypted sleep", "ours.call tcp encrypted sleep 20000 1 1"),
        peer: BARE_BLOCKING,
        beside: "bare-tcp-blocking",
        described: BLOCKING,
        reads: &[
            micros("fabric.tcp.call64.sleep.p50", "p50", AtMost(1.5)),
            micros("fabric.tcp.call64.sleep.p99", "p99", AtMost(1.5)),
            micros("fabric.tcp.call64.cpu", "cpu", AtMost(1.6)),
        ],
    },
    Contest {
        ours: ("ours.serve tcp encrypted poll", "ours.call tcp encrypted poll 30000 1 1"),
        peer: BARE_SPINNING,
        beside: "bare-tcp-spinning",
        described: SPINNING,
        reads: &[
            micros("fabric.tcp.call64.poll.p50", "p50", AtMost(1.3)),
            micros("fabric.tcp.call64.poll.p99", "p99", AtMost(1.3)),
        ],
    },
    Contest {
        ours: ("ours.serve tcp authenticated sleep", "ours.call tcp authenticated sleep 256000 64 1"),
        peer: BARE_BLOCKING,
        beside: "bare-tcp-blocking",
        described: BLOCKING,
        reads: &[rate("fabric.tcp.call64x64.authenticated", AtLeast(6.0))],
    },
    Contest {
        ours: ("ours.serve tcp authenticated poll", "ours.call tcp authenticated poll 256000 64 1"),
        peer: BARE_SPINNING,
        beside: "bare-tcp-spinning",
        described: SPINNING,
        reads: &[rate("fabric.tcp.call64x64.authenticated.poll", AtLeast(6.0))],
    },
    Contest {
        ours: ("ours.serve tcp authenticated sleep", "ours.call tcp authenticated sleep 20000 1 1"),
        peer: ("grpc.serve", "grpc.drive 8000 1"),
        beside: "tonic",
        described: TONIC,
        reads: &[rate("fabric.tcp.call64.grpc", AtLeast(4.0))],
    },
    Contest {
        ours: ("ours.serve tcp authenticated sleep", "ours.call tcp authenticated sleep 256000 64 1"),
        peer: ("grpc.serve", "grpc.drive 32000 64"),
        beside: "tonic-64-outstanding",
        described: TONIC,
        reads: &[rate("fabric.tcp.call64x64.grpc", AtLeast(4.0))],
    },
];

const _: () = assert!(BATCH == 16, "the words below say how many calls one look at the clock covers");

/// Over shared memory.
pub const SHM: &[Contest] = &[
    Contest {
        ours: ("ours.serve shm encrypted poll", "ours.call shm encrypted poll 320000 1 16"),
        peer: ("", "lines.drive 1600000"),
        beside: "cache-lines",
        described: LINES,
        reads: &[micros("fabric.shm.call64.poll.p50", "p50", AtMost(4.0))],
    },
    Contest {
        ours: ("ours.serve shm encrypted sleep", "ours.call shm encrypted sleep 40000 1 1"),
        peer: ("futex.serve", "futex.drive 40000"),
        beside: "futex",
        described: FUTEX,
        reads: &[micros("fabric.shm.call64.sleep.p50", "p50", AtMost(1.3))],
    },
];
