//! Requests and answers of the service `admin`.

mod fabric;

pub use fabric::{Fabric, FabricChannel, FabricPeer, FabricRail, Refused, Rekey};

use membership::View;

/// The version that both ends say in their hello.
pub const VERSION: u32 = 1;

/// What can be asked.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// The question.
    #[prost(oneof = "Ask", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11")]
    pub ask: Option<Ask>,
}

/// The questions.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Ask {
    /// The cluster table and what this node believes of it.
    #[prost(message, tag = "1")]
    Nodes(()),
    /// The load of every node.
    #[prost(message, tag = "2")]
    Loads(()),
    /// On which node does this process run?
    #[prost(uint32, tag = "3")]
    WherePid(u32),
    /// Where would a job go?
    #[prost(message, tag = "4")]
    Placement(PlacementRequest),
    /// End this node: its view, then its daemons. For the owner of the daemon only.
    #[prost(message, tag = "5")]
    Stop(()),
    /// To both daemons: links, rates, refused connections of the fabric.
    #[prost(message, tag = "6")]
    Fabric(()),
    /// To `ssid --data`: the layout of a file, by its path below the mount.
    #[prost(bytes = "vec", tag = "7")]
    Stripe(Vec<u8>),
    /// To `ssid --data`: set a layout.
    #[prost(message, tag = "8")]
    SetStripe(SetStripe),
    /// To `ssid --data`: space on every object server.
    #[prost(message, tag = "9")]
    Space(()),
    /// Change the cluster's key on every node. For the owner of the daemon only.
    #[prost(message, tag = "10")]
    Rekey(Rekey),
    /// To `ssid --data`: the key file has changed. For the owner of the daemon only.
    #[prost(message, tag = "11")]
    ReadKeys(()),
}

/// A job that wants nodes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PlacementRequest {
    /// Ranks.
    #[prost(uint32, tag = "1")]
    pub ranks: u32,
    /// Ranks a node at most; 0: as the load says.
    #[prost(uint32, tag = "2")]
    pub per_node: u32,
    /// Only these nodes (names or numbers); empty: all.
    #[prost(string, repeated, tag = "3")]
    pub hosts: Vec<String>,
}

/// A layout for a directory's new files, or for a new file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetStripe {
    /// Path below the mount.
    #[prost(bytes = "vec", tag = "1")]
    pub path: Vec<u8>,
    /// Stripe size in bytes; 0: the default.
    #[prost(uint64, tag = "2")]
    pub size: u64,
    /// Object servers to stripe over; 0: the default, `u32::MAX`: all.
    #[prost(uint32, tag = "3")]
    pub count: u32,
    /// Node of the first stripe; 0: chosen.
    #[prost(uint32, tag = "4")]
    pub first: u32,
}

/// An answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Answer {
    /// Not empty: it failed, and this is why.
    #[prost(string, tag = "1")]
    pub error: String,
    /// `Nodes`: the table.
    #[prost(message, optional, tag = "2")]
    pub view: Option<View>,
    /// `Nodes`: the node that answers.
    #[prost(uint32, tag = "3")]
    pub local: u32,
    /// `Nodes`: false while no majority of voters can be reached.
    #[prost(bool, tag = "4")]
    pub quorum: bool,
    /// `Loads`.
    #[prost(message, repeated, tag = "5")]
    pub loads: Vec<Load>,
    /// `WherePid`, `Placement`: nodes. `Rekey`: the nodes that have the new key.
    #[prost(uint32, repeated, tag = "6")]
    pub nodes: Vec<u32>,
    /// `Stripe`: one a file.
    #[prost(message, optional, tag = "8")]
    pub layout: Option<Layout>,
    /// `Space`.
    #[prost(message, repeated, tag = "9")]
    pub space: Vec<Space>,
    /// `Loads`: the least loaded node.
    #[prost(uint32, tag = "11")]
    pub fastest: u32,
    /// `Fabric`. (7 and 10 were parts of it once.)
    #[prost(message, optional, tag = "12")]
    pub fabric: Option<Fabric>,
}

/// The load of one node.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Load {
    /// The node.
    #[prost(uint32, tag = "1")]
    pub node: u32,
    /// Cores in use by the view's processes, in thousandths of the node's cores.
    #[prost(uint32, tag = "2")]
    pub busy_permille: u32,
    /// Memory in use by the view's processes, bytes.
    #[prost(uint64, tag = "3")]
    pub memory_used: u64,
    /// Memory the node gives, bytes.
    #[prost(uint64, tag = "4")]
    pub memory_total: u64,
    /// Cores the node gives.
    #[prost(uint32, tag = "5")]
    pub cpus: u32,
    /// Relative speed.
    #[prost(uint32, tag = "6")]
    pub speed: u32,
    /// Age of the sample, milliseconds.
    #[prost(uint64, tag = "7")]
    pub age_ms: u64,
    /// What one more process would cost there; the least is the fastest.
    #[prost(uint64, tag = "8")]
    pub cost: u64,
    /// Processes of the view that want a core.
    #[prost(uint32, tag = "9")]
    pub runnable: u32,
}

/// A file's layout.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Layout {
    /// Stripe size, bytes.
    #[prost(uint64, tag = "1")]
    pub size: u64,
    /// Object servers, in stripe order.
    #[prost(uint32, repeated, tag = "2")]
    pub nodes: Vec<u32>,
    /// Stripe count; for a directory, the default it gives (`u32::MAX`: all).
    #[prost(uint32, tag = "4")]
    pub count: u32,
    /// It is a directory: this is what new files in it get.
    #[prost(bool, tag = "5")]
    pub directory: bool,
}

/// The space of one object server.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Space {
    /// Its node.
    #[prost(uint32, tag = "1")]
    pub node: u32,
    /// Bytes in all.
    #[prost(uint64, tag = "2")]
    pub total: u64,
    /// Bytes free for users.
    #[prost(uint64, tag = "3")]
    pub free: u64,
    /// Not empty: it does not answer, and this is why.
    #[prost(string, tag = "4")]
    pub error: String,
}
