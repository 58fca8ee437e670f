//! What a daemon says about its place on the fabric, and how it is told of another cluster key.

/// One daemon's endpoint. Counters grow from its start on; two answers make a rate.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Fabric {
    /// The node.
    #[prost(uint32, tag = "1")]
    pub node: u32,
    /// `ssid` or `ssid-data`.
    #[prost(string, tag = "2")]
    pub daemon: String,
    /// Where it listens first.
    #[prost(string, tag = "3")]
    pub address: String,
    /// Microseconds since it began, by a clock that is never set.
    #[prost(uint64, tag = "4")]
    pub age_us: u64,
    /// Whom it calls.
    #[prost(message, repeated, tag = "5")]
    pub peers: Vec<FabricPeer>,
    /// Connections that others opened to it and that have proved the key.
    #[prost(uint64, tag = "6")]
    pub accepted: u64,
    /// Connections that others opened to it and that have not proved the key yet.
    #[prost(uint64, tag = "7")]
    pub half_open: u64,
    /// Connections refused since the start, by cause.
    #[prost(message, repeated, tag = "8")]
    pub refused: Vec<Refused>,
}

/// One peer of the fabric.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FabricPeer {
    /// The peer, `node 2 (data)`.
    #[prost(string, tag = "1")]
    pub peer: String,
    /// Its first address.
    #[prost(string, tag = "2")]
    pub address: String,
    /// `up`, `connecting`, `not reached`, `idle` (nobody needs it) or `declared down`.
    #[prost(string, tag = "3")]
    pub state: String,
    /// Calls in flight.
    #[prost(uint64, tag = "4")]
    pub in_flight: u64,
    /// Calls made.
    #[prost(uint64, tag = "5")]
    pub calls: u64,
    /// Bytes sent, on links of this end.
    #[prost(uint64, tag = "6")]
    pub sent: u64,
    /// Bytes received, on links of this end.
    #[prost(uint64, tag = "7")]
    pub received: u64,
    /// The lanes of the ways to it.
    #[prost(message, repeated, tag = "8")]
    pub rails: Vec<FabricRail>,
    /// What it grants at the moment.
    #[prost(message, repeated, tag = "9")]
    pub channels: Vec<FabricChannel>,
}

/// One lane of one way to a peer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FabricRail {
    /// `shm`, `verbs` or `tcp`.
    #[prost(string, tag = "1")]
    pub provider: String,
    /// Where it leads: an address, or a socket's path.
    #[prost(string, tag = "2")]
    pub place: String,
    /// `urgent` or `bulk`.
    #[prost(string, tag = "3")]
    pub lane: String,
    /// `idle`, `connecting`, `failed`, `standby`, `bulk` or `calls`.
    #[prost(string, tag = "4")]
    pub state: String,
    /// Bytes sent on the present link.
    #[prost(uint64, tag = "5")]
    pub sent: u64,
    /// Bytes received on the present link.
    #[prost(uint64, tag = "6")]
    pub received: u64,
    /// Frames sent on the present link.
    #[prost(uint64, tag = "7")]
    pub frames_sent: u64,
    /// Frames received on the present link.
    #[prost(uint64, tag = "8")]
    pub frames_received: u64,
}

/// What a peer grants on one channel.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FabricChannel {
    /// `control`, `lock`, `meta` or `data`.
    #[prost(string, tag = "1")]
    pub channel: String,
    /// Calls that may still be sent at once.
    #[prost(uint32, tag = "2")]
    pub slots: u32,
    /// KiB of requests that may still be sent.
    #[prost(uint32, tag = "3")]
    pub credit_kib: u32,
}

/// Refused connections of one cause.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Refused {
    /// Why.
    #[prost(string, tag = "1")]
    pub cause: String,
    /// How many.
    #[prost(uint64, tag = "2")]
    pub count: u64,
}

/// The cluster's key is to be another.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Rekey {
    /// The new key, 32 bytes; empty: make one, or complete the change that is under way.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
}
