//! The node's heartbeats: while the supervisor lives, every watcher hears of it, whether a daemon runs or not.

use crate::wire::init;
use base::{Incarnation, NodeId};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
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
    /// A socket each: datagrams for a machine that is gone wait in theirs until the kernel has given up finding it, and
    /// must not fill the one that the others are reached by.
    watchers: Vec<(SocketAddr, UdpSocket)>,
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
            watchers: Vec::new(),
            interval: Duration::from_millis(50),
            sequence: 0,
            due: None,
        }
    }

    /// Beats for these watchers from now on. Addresses that are none are left out.
    pub fn beat_for(&mut self, order: &init::Heartbeat, now: Instant) {
        let wanted = order.watchers.iter().filter_map(|text| text.parse().ok());
        let mut before = std::mem::take(&mut self.watchers);
        for address in wanted.take(base::limits::NODES_MAX) {
            let known = before.iter().position(|(known, _)| *known == address);
            let watcher =
                known.map(|at| before.swap_remove(at)).or_else(|| Some((address, open_socket(&address)?)));
            self.watchers.extend(watcher);
        }
        self.interval = Duration::from_millis(order.interval_ms.max(INTERVAL_MS_MIN).into());
        if order.node != 0 {
            self.node = NodeId(order.node);
        }
        self.due = (!self.watchers.is_empty()).then_some(now);
    }

    /// Signs with this cluster key from now on; what has not the length of one is none.
    pub fn sign_with(&mut self, key: &[u8]) {
        if let Ok(key) = key.try_into() {
            self.key = key;
        }
    }

    /// When the next one is due.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Sends what is due. A watcher that cannot be reached is no reason to stop.
    pub fn beat(&mut self, now: Instant) {
        let Some(due) = self.due else { return };
        if due > now {
            return;
        }
        self.sequence += 1;
        let Heart { node, incarnation, sequence, .. } = *self;
        let heartbeat = membership::Heartbeat { node, incarnation, sequence };
        let datagram = heartbeat.encode(&self.key, &self.cluster);
        for (watcher, socket) in &self.watchers {
            let _ = socket.send_to(&datagram, watcher);
        }
        let next = due + self.interval;
        self.due = Some(if next > now { next } else { now + self.interval });
    }
}

fn open_socket(watcher: &SocketAddr) -> Option<UdpSocket> {
    let any: IpAddr = match watcher {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_watcher_is_told_also_when_the_list_changes() {
        let mut heart = Heart {
            node: NodeId(1),
            incarnation: Incarnation(2),
            key: [1; 32],
            cluster: "blue".into(),
            watchers: Vec::new(),
            interval: Duration::from_millis(50),
            sequence: 0,
            due: None,
        };
        let ears: Vec<UdpSocket> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let order = |of: &[UdpSocket]| init::Heartbeat {
            watchers: of.iter().map(|ear| ear.local_addr().unwrap().to_string()).collect(),
            interval_ms: 50,
            node: 1,
        };
        let now = Instant::now();
        for (round, of) in [&ears[..2], &ears[1..]].into_iter().enumerate() {
            heart.beat_for(&order(of), now);
            heart.beat(now);
            for ear in of {
                ear.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let mut datagram = [0; 100];
                let length = ear.recv(&mut datagram).unwrap();
                let beat = membership::Heartbeat::decode(&datagram[..length], &[1; 32], "blue").unwrap();
                assert_eq!(beat.sequence, round as u64 + 1);
            }
        }
    }
}
