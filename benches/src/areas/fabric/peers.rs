//! The peers: each the least that does the same thing, with its best settings.
//!
//! Invariant: a peer has no part of ours in it, and leaves out whatever its figure does not need.

pub mod futex;
pub mod grpc;
pub mod iperf;
pub mod memory;
pub mod perftest;
mod shared;
pub mod stream;
pub mod tcp;
