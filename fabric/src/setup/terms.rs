//! The terms of a link: what the dialling end opens and how the accepting end welcomes it. Tagged messages, for versions add to them.

use prost::Message;

/// How what a TCP connection carries is protected once both ends have proved the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Security {
    /// Nothing: the ends are authenticated, their frames are neither encrypted nor carry a MAC. For fabrics that nobody else can touch.
    Authenticated,
    /// Encrypted and integrity-protected.
    #[default]
    Encrypted,
}

/// An RDMA queue pair, as its other end must know it.
#[derive(Clone, PartialEq, Message)]
pub struct QueuePair {
    /// Its number.
    #[prost(uint32, tag = "1")]
    pub number: u32,
    /// The sequence number of its first packet.
    #[prost(uint32, tag = "2")]
    pub first_packet: u32,
    /// The global identifier of its port, 16 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub gid: Vec<u8>,
    /// The local identifier of its port (InfiniBand), 0 on Ethernet.
    #[prost(uint32, tag = "4")]
    pub lid: u32,
    /// The path's largest packet, as ibverbs counts it (1: 256 bytes .. 5: 4096).
    #[prost(uint32, tag = "5")]
    pub mtu: u32,
    /// Receive buffers that it keeps posted: messages that may be under way to it.
    #[prost(uint32, tag = "6")]
    pub receives: u32,
    /// The number of the rail that it is on, as that end's device keys name it.
    #[prost(uint32, tag = "7")]
    pub rail: u32,
    /// Reads that it answers at a time.
    #[prost(uint32, tag = "8")]
    pub reads: u32,
}

/// What the dialling end wants of this connection.
#[derive(Clone, PartialEq, Message)]
pub struct Open {
    /// The session that the link belongs to: a random number of the dialling endpoint for this peer.
    #[prost(uint64, tag = "1")]
    pub session: u64,
    /// 0 urgent, 1 bulk.
    #[prost(uint32, tag = "2")]
    pub lane: u32,
    /// 1 shm, 2 verbs, 3 tcp: what is to carry the frames.
    #[prost(uint32, tag = "3")]
    pub provider: u32,
    /// True if the frames must be encrypted.
    #[prost(bool, tag = "4")]
    pub encrypted: bool,
    /// The host that the dialling end runs on (its boot id).
    #[prost(bytes = "vec", tag = "5")]
    pub host: Vec<u8>,
    /// For verbs: the dialling end's queue pair.
    #[prost(message, optional, tag = "6")]
    pub queue_pair: Option<QueuePair>,
    /// The number of the dialling end's rail.
    #[prost(uint32, tag = "7")]
    pub rail: u32,
}

/// A way to the accepting endpoint.
#[derive(Clone, PartialEq, Message)]
pub struct Rail {
    /// Where it listens: `10.0.0.2:7000`.
    #[prost(string, tag = "1")]
    pub address: String,
    /// True if an RDMA device is behind it.
    #[prost(bool, tag = "2")]
    pub verbs: bool,
}

/// What the accepting end grants.
#[derive(Clone, PartialEq, Message)]
pub struct Welcome {
    /// True if it knows the session: nothing of it is lost.
    #[prost(bool, tag = "1")]
    pub resumed: bool,
    /// Calls at once, for each channel.
    #[prost(uint32, repeated, tag = "2")]
    pub slots: Vec<u32>,
    /// KiB of requests, for each channel.
    #[prost(uint32, repeated, tag = "3")]
    pub window_kib: Vec<u32>,
    /// True if the frames are encrypted.
    #[prost(bool, tag = "4")]
    pub encrypted: bool,
    /// The host that the accepting end runs on (its boot id).
    #[prost(bytes = "vec", tag = "5")]
    pub host: Vec<u8>,
    /// The Unix socket at which processes of that host may dial it for shm; empty if it offers none.
    #[prost(string, tag = "6")]
    pub shm: String,
    /// For verbs: the accepting end's queue pair.
    #[prost(message, optional, tag = "7")]
    pub queue_pair: Option<QueuePair>,
    /// All its rails.
    #[prost(message, repeated, tag = "8")]
    pub rails: Vec<Rail>,
    /// Not empty: it cannot carry the link so, for this reason.
    #[prost(string, tag = "9")]
    pub refused: String,
    /// Which life of the session it is at the accepting end: another number is another life, in which nothing was asked yet. 0: not told.
    #[prost(uint64, tag = "10")]
    pub life: u64,
}
