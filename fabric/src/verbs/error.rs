//! What the verbs can fail with.
//!
//! Invariant: a message names the device or the limit, what was tried, and what can be done about it.

use std::io;
use std::net::IpAddr;

/// Why something of the verbs did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This machine has no library, no kernel support or no device.
    #[error("RDMA verbs are not available here: {why}")]
    Unavailable {
        /// What is missing, and what to install.
        why: String,
    },
    /// A request to the library or the kernel failed.
    #[error("RDMA device {device}: cannot {action}: {source}")]
    Device {
        /// Its kernel name.
        device: String,
        /// What was tried.
        action: &'static str,
        /// The reason that was given.
        source: io::Error,
    },
    /// No port of the device carries the address.
    #[error(
        "RDMA device {device} has no RoCEv2 port with the address {address}: give the address to its network interface"
    )]
    NoAddress {
        /// Its kernel name.
        device: String,
        /// The address that was asked for.
        address: IpAddr,
    },
    /// A part of a region that reaches beyond its end, or that is not aligned as it must be.
    #[error("bytes {offset}..{offset}+{length} are no usable part of a region of {size} bytes")]
    Outside {
        /// Where the part begins.
        offset: usize,
        /// Its length in bytes.
        length: usize,
        /// Length of the region.
        size: usize,
    },
    /// The region has been revoked: the device does not know it any more.
    #[error("the memory region has been revoked")]
    Revoked,
    /// More than the device or the queue pair takes.
    #[error("{what}: {value} is more than the {limit} that are possible")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How much was asked for.
        value: usize,
        /// What there may be.
        limit: usize,
    },
    /// The send queue has no room: wait for completions.
    #[error("the send queue of {capacity} requests is full")]
    Full {
        /// Requests that it holds.
        capacity: u32,
    },
    /// The device refused a request in the midst of a batch.
    #[error("RDMA device {device}: took {taken} requests and refused the next: {source}")]
    Post {
        /// Its kernel name.
        device: String,
        /// Requests of the batch that are under way.
        taken: usize,
        /// The reason that was given.
        source: io::Error,
    },
}
