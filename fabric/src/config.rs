//! What an endpoint is told when it starts.

use crate::{ClusterKey, Peer};
use std::net::SocketAddr;
use std::time::Duration;

/// How an endpoint is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name under which this endpoint speaks.
    pub local: Peer,
    /// Where it listens; port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// The cluster key.
    pub key: ClusterKey,
    /// The cluster's name: nodes of two clusters never talk, not even with one key.
    pub cluster: String,
    /// The maximum of everything.
    pub limits: Limits,
}

/// The maximum of everything that could otherwise grow or wait without end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls that wait for a reply, for each peer and lane (of which it has two).
    pub calls_in_flight: usize,
    /// Requests that are being answered at once, for each connection. When it is reached the connection is not read.
    pub requests_served: usize,
    /// Bytes of requests that are being answered at once, for each connection.
    pub serving_bytes: usize,
    /// Bytes that wait for one connection's socket.
    pub queue_bytes: usize,
    /// Connections that have not proved yet that they hold the key. One more pushes out the oldest.
    pub half_open: usize,
    /// Time in which a connection that was accepted must prove that it holds the key.
    pub handshake: Duration,
    /// Time in which a peer that is dialled must accept.
    pub connect: Duration,
    /// The shortest pause before a kept link is dialled again.
    pub reconnect_min: Duration,
    /// The longest pause before a kept link is dialled again; it doubles from the shortest.
    pub reconnect_max: Duration,
    /// Time after which a connection whose other end has fallen silent (link cut, power lost) is given up.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            calls_in_flight: 1_024,
            requests_served: 1_024,
            serving_bytes: 64 << 20,
            queue_bytes: 32 << 20,
            half_open: 64,
            handshake: Duration::from_secs(2),
            connect: Duration::from_secs(1),
            reconnect_min: Duration::from_millis(20),
            reconnect_max: Duration::from_millis(250),
            silence: Duration::from_secs(10),
        }
    }
}
