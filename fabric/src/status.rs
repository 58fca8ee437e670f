//! What an endpoint tells about itself, for operators and tests.

use crate::provider::{Provider, Traffic};
use crate::session::Lane;
use crate::{Peer, Priority, Refusal};
use std::net::SocketAddr;

/// A snapshot of an endpoint.
#[derive(Clone, Debug)]
pub struct Status {
    /// Who it is.
    pub local: Peer,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its peers, by name.
    pub peers: Vec<PeerStatus>,
    /// Connections that others opened to it and that have proved the key.
    pub accepted: usize,
    /// Connections that others opened to it and that have not proved the key yet.
    pub half_open: usize,
    /// Connections that were refused, by cause.
    pub refused: Refusals,
}

/// What is known about one peer.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// The peer.
    pub peer: Peer,
    /// Where it is dialled.
    pub address: Option<SocketAddr>,
    /// True while the link to it is up.
    pub connected: bool,
    /// True while it is declared down.
    pub down: bool,
    /// Calls to it that wait for a reply, or for their turn.
    pub in_flight: usize,
    /// Calls to it so far.
    pub calls: u64,
    /// Bytes sent to it so far, on links that this end dialled, as they were on the wire.
    pub bytes_sent: u64,
    /// Bytes received from it so far, on links that this end dialled.
    pub bytes_received: u64,
    /// The ways to it, each with its two lanes.
    pub links: Vec<LinkStatus>,
    /// What it grants this end on each channel at the moment.
    pub channels: Vec<ChannelStatus>,
}

/// What one lane of one way to a peer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RailState {
    /// Nobody needs it.
    Idle,
    /// It is being set up.
    Connecting,
    /// It failed and rests before the next try.
    Failed,
    /// It is up; a better provider carries.
    Standby,
    /// It carries its share of one-sided transfers.
    Bulk,
    /// It carries the lane's calls.
    Calls,
}

/// One lane of one way to a peer.
#[derive(Clone, Debug)]
pub struct LinkStatus {
    /// What carries it.
    pub provider: Provider,
    /// Where it leads.
    pub place: String,
    /// Urgent or bulk.
    pub lane: Lane,
    /// What it is doing.
    pub state: RailState,
    /// What it has carried.
    pub traffic: Traffic,
}

/// What a peer grants on one channel at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelStatus {
    /// The channel.
    pub channel: Priority,
    /// Calls that may still be sent at once.
    pub slots: u16,
    /// KiB of requests that may still be sent.
    pub credit_kib: u32,
}

/// Connections refused by the accepting side, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// [`Refusal::Stranger`].
    pub stranger: u64,
    /// [`Refusal::WrongKey`].
    pub wrong_key: u64,
    /// [`Refusal::WrongCluster`].
    pub wrong_cluster: u64,
    /// [`Refusal::Version`].
    pub version: u64,
    /// [`Refusal::Garbage`].
    pub garbage: u64,
    /// [`Refusal::TooSlow`].
    pub too_slow: u64,
    /// [`Refusal::Crowded`].
    pub crowded: u64,
}

impl Refusals {
    /// All of them together.
    pub fn total(&self) -> u64 {
        let Refusals { stranger, wrong_key, wrong_cluster, version, garbage, too_slow, crowded } = self;
        stranger + wrong_key + wrong_cluster + version + garbage + too_slow + crowded
    }

    /// Counts one more. Causes that do not concern a connection are not counted.
    pub(crate) fn count(&mut self, why: Refusal) {
        let counter = match why {
            Refusal::Stranger => &mut self.stranger,
            Refusal::WrongKey => &mut self.wrong_key,
            Refusal::WrongCluster => &mut self.wrong_cluster,
            Refusal::Version => &mut self.version,
            Refusal::Garbage => &mut self.garbage,
            Refusal::TooSlow => &mut self.too_slow,
            Refusal::Crowded => &mut self.crowded,
            Refusal::WrongPeer | Refusal::NoService | Refusal::Crashed => return,
        };
        *counter += 1;
    }
}
