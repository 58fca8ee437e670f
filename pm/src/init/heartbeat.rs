//! The node's heartbeats: while the supervisor lives, every watcher hears of it, whether a daemon runs or not.

use crate::wire::init;
use base::{Incarnation, NodeId};
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// The shortest interval that is accepted, milliseconds.
const INTERVAL_MS_MIN: u32 = 5;

/// Sends them.
#[derive(Debug)]
pub struct Heart {
    node: NodeId,
    incarnation: Incarnation,
    key: [u8; 32],
    cluster: String,
    socket: Option<UdpSocket>,
    watchers: Vec<SocketAddr>,
    interval: Duration,
    sequence: u64,
    due: Option<Instant>,
}

impl Heart {
    /// A heart that does not beat until it is told to whom.
    pub fn new(config: &super::InitConfig) -> Heart {
        Heart {
            node: config.node,
            incarnation: config.incarnation,
            key: config.key,
            cluster: config.cluster.clone(),
            socket: None,
            watchers: Vec::new(),
            interval: Duration::from_millis(50),
            sequence: 0,
            due: None,
        }
    }

    /// Beats for these watchers from now on. Addresses that are none are left out.
    pub fn beat_for(&mut self, order: &init::Heartbeat, now: Instant) {
        self.watchers = order
            .watchers
            .iter()
            .filter_map(|text| text.parse().ok())
            .take(base::limits::NODES_MAX)
            .collect();
        self.interval = Duration::from_millis(order.interval_ms.max(INTERVAL_MS_MIN).into());
        if order.node != 0 {
            self.node = NodeId(order.node);
        }
        if self.socket.is_none() {
            self.socket = open_socket();
        }
        self.due = (!self.watchers.is_empty()).then_some(now);
    }

    /// When the next one is due.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Sends what is due. A watcher that cannot be reached is no reason to stop.
    pub fn beat(&mut self, now: Instant) {
        let (Some(due), Some(socket)) = (self.due, &self.socket) else { return };
        if due > now {
            return;
        }
        self.sequence += 1;
        let Heart { node, incarnation, sequence, .. } = *self;
        let heartbeat = membership::Heartbeat { node, incarnation, sequence };
        let datagram = heartbeat.encode(&self.key, &self.cluster);
        for watcher in &self.watchers {
            let _ = socket.send_to(&datagram, watcher);
        }
        let next = due + self.interval;
        self.due = Some(if next > now { next } else { now + self.interval });
    }
}

fn open_socket() -> Option<UdpSocket> {
    // IPv4 watchers are reached from an IPv4 socket, the others through the second choice.
    let socket =
        UdpSocket::bind("0.0.0.0:0").or_else(|_| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))).ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}
