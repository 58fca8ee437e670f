//! Requests and answers of the service `admin`.
//!
//! Tagged messages: a field that one end does not know is skipped, a question that the daemon does not know is refused
//! with [`Why::Unknown`]. So both ends can be of different versions, as they are while a cluster is upgraded.

mod cluster;
mod fabric;
mod files;
mod why;

pub use cluster::{Cause, Change, Node, NodeState, Property, State, Transition, View};
pub use fabric::{Fabric, FabricChannel, FabricPeer, FabricRail, Refused, Rekey};
pub use files::{Layout, SetStripe, Space};
pub use why::Why;

/// What a client asks for in its hello.
pub const SERVICE: &str = "admin";
/// The version that both ends say in their hello. 2 has transitions, and tells which kind of refusal an error is.
pub const VERSION: u32 = 2;
/// The oldest version that a daemon still answers.
pub const VERSION_OLDEST: u32 = 1;
/// Transitions in one answer.
pub const TRANSITIONS_MAX: u32 = 256;
/// Milliseconds that a daemon lets a question for transitions wait.
pub const WAIT_MS_MAX: u32 = 30_000;

/// What can be asked.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// The question.
    #[prost(oneof = "Ask", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13")]
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
    /// Transitions, in their order.
    #[prost(message, tag = "12")]
    Transitions(TransitionsWanted),
    /// Change the cluster table. For the owner of the daemon only.
    #[prost(message, tag = "13")]
    Change(ChangeWanted),
}

/// Which transitions.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct TransitionsWanted {
    /// Those after this one; 0: from the oldest that is kept.
    #[prost(uint64, tag = "1")]
    pub after: u64,
    /// At most so many; 0 or more than [`TRANSITIONS_MAX`]: as many as that.
    #[prost(uint32, tag = "2")]
    pub max: u32,
    /// If there is none, wait for one for so long, milliseconds; at most [`WAIT_MS_MAX`].
    #[prost(uint32, tag = "3")]
    pub wait_ms: u32,
    /// Not 0: the last ones with smaller numbers than this, instead.
    #[prost(uint64, tag = "4")]
    pub before: u64,
}

/// A change of the cluster table.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChangeWanted {
    /// Which.
    #[prost(oneof = "Wish", tags = "1, 2, 3, 4, 5, 7, 8")]
    pub wish: Option<Wish>,
}

/// The changes of the cluster table.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Wish {
    /// Take a node that is DOWN out of the table.
    #[prost(uint32, tag = "1")]
    Remove(u32),
    /// Give a node another name.
    #[prost(message, tag = "2")]
    Rename(RenameWanted),
    /// Give a node no new work, or work again.
    #[prost(message, tag = "3")]
    Drain(DrainWanted),
    /// Have so many nodes vote.
    #[prost(uint32, tag = "4")]
    Voters(u32),
    /// Have one node vote in place of another.
    #[prost(message, tag = "5")]
    ReplaceVoter(ReplaceWanted),
    /// Write something down about a node.
    #[prost(message, tag = "7")]
    Describe(DescribeWanted),
    /// Make a token with which machines can join. (6 was one that no ssid ever made.)
    #[prost(message, tag = "8")]
    Token(TokenWanted),
}

/// A join token.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct TokenWanted {
    /// How long it is good, seconds.
    #[prost(uint32, tag = "1")]
    pub seconds: u32,
    /// How many machines may join with it.
    #[prost(uint32, tag = "2")]
    pub uses: u32,
}

/// A node's new name.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RenameWanted {
    /// The node.
    #[prost(uint32, tag = "1")]
    pub node: u32,
    /// The name.
    #[prost(string, tag = "2")]
    pub name: String,
}

/// A node that shall get no new work, or work again.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct DrainWanted {
    /// The node.
    #[prost(uint32, tag = "1")]
    pub node: u32,
    /// No new work, or work again.
    #[prost(bool, tag = "2")]
    pub drain: bool,
}

/// Something to be written down about a node.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DescribeWanted {
    /// The node.
    #[prost(uint32, tag = "1")]
    pub node: u32,
    /// What; an empty value takes the key away.
    #[prost(message, optional, tag = "2")]
    pub property: Option<Property>,
}

/// One voter in place of another.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct ReplaceWanted {
    /// Votes today.
    #[prost(uint32, tag = "1")]
    pub old: u32,
    /// Votes then.
    #[prost(uint32, tag = "2")]
    pub new: u32,
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
    /// With an error: which kind it is.
    #[prost(enumeration = "Why", tag = "13")]
    pub why: i32,
    /// `Transitions`.
    #[prost(message, repeated, tag = "14")]
    pub transitions: Vec<Transition>,
    /// `Change`: the token.
    #[prost(string, tag = "15")]
    pub token: String,
    /// `Nodes`: for how long this node may still serve without hearing of a majority, milliseconds; 0: it may not.
    #[prost(uint64, tag = "16")]
    pub lease_ms: u64,
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
