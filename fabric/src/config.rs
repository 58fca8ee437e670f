//! What an endpoint is told when it starts.

use crate::provider::Provider;
use crate::reactor::Io;
use crate::session::Grants;
use crate::setup::Security;
use crate::{ClusterKey, Peer};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How an endpoint is set up. Begin with [`Config::new`] and change what differs.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name under which this endpoint speaks.
    pub local: Peer,
    /// Where it listens; port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// Where it listens besides: one address for each further rail.
    pub rails: Vec<SocketAddr>,
    /// The directory for the Unix socket over which processes of this host share memory with it; without one it offers no shm.
    pub shm: Option<PathBuf>,
    /// The providers that it uses and takes.
    pub providers: Vec<Provider>,
    /// How TCP connections are protected. The stricter of both ends holds.
    pub security: Security,
    /// The cluster key.
    pub key: ClusterKey,
    /// The cluster's name: nodes of two clusters never talk, not even with one key.
    pub cluster: String,
    /// How the bytes of TCP connections move.
    pub io: Io,
    /// The maximum of everything.
    pub limits: Limits,
}

impl Config {
    /// The default: one rail, encrypted, every provider that the machine has, shm only where a directory is named.
    pub fn new(local: Peer, listen: SocketAddr, key: ClusterKey, cluster: impl Into<String>) -> Config {
        Config {
            local,
            listen,
            rails: Vec::new(),
            shm: None,
            providers: vec![Provider::Shm, Provider::Verbs, Provider::Tcp],
            security: Security::default(),
            key,
            cluster: cluster.into(),
            io: Io::chosen(),
            limits: Limits::default(),
        }
    }
}

/// The maximum of everything that could otherwise grow or wait without end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls at once that this endpoint grants each peer, for each channel (control, lock, meta, data).
    pub slots: [u16; 4],
    /// KiB of requests that this endpoint holds for each peer, for each channel.
    pub window_kib: [u32; 4],
    /// Calls that wait for a slot, for each peer and channel; more wait in their callers.
    pub calls_waiting: usize,
    /// Connections that have not proved yet that they hold the key. One more pushes out the oldest.
    pub half_open: usize,
    /// Bytes of registered memory that are kept for the next region.
    pub registered_bytes: usize,
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
            slots: [256, 1_024, 1_024, 256],
            window_kib: [16 << 10, 16 << 10, 32 << 10, 64 << 10],
            calls_waiting: 1_024,
            half_open: 64,
            registered_bytes: 64 << 20,
            handshake: Duration::from_secs(2),
            connect: Duration::from_secs(1),
            reconnect_min: Duration::from_millis(20),
            reconnect_max: Duration::from_millis(250),
            silence: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// What each session is granted.
    pub(crate) fn grants(&self) -> Grants {
        Grants { slots: self.slots, window_kib: self.window_kib }
    }
}
