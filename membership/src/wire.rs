//! The cluster table as it travels and rests: tagged messages, stable field numbers.

use crate::token::Tickets;
use base::{Epoch, Incarnation, NodeId, PidRegions};
use std::net::SocketAddr;

/// What a node is believed to be by everybody, in one view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum NodeState {
    /// Both daemons are connected and the supervisor heartbeats.
    Up = 0,
    /// A daemon is away, the supervisor still heartbeats: grants are frozen, nothing is torn down.
    Stalled = 1,
    /// The supervisor has been silent past its lease: its processes have ended for everybody else.
    Down = 2,
    /// DOWN, and known to be unable to touch anything shared.
    Fenced = 3,
}

/// One row of the cluster table.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Node {
    /// The node's number, from 1.
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// Its name, unique in the cluster.
    #[prost(string, tag = "2")]
    pub name: String,
    /// `ip:port` of `ssid` on the fabric.
    #[prost(string, tag = "3")]
    pub control_address: String,
    /// `ip:port` of `ssid --data` on the fabric.
    #[prost(string, tag = "4")]
    pub data_address: String,
    /// Instruction set as uname(2) names it: `x86_64`, `aarch64`.
    #[prost(string, tag = "5")]
    pub arch: String,
    /// Cores that the node gives to the cluster.
    #[prost(uint32, tag = "6")]
    pub cpus: u32,
    /// Bytes of memory that the node gives to the cluster.
    #[prost(uint64, tag = "7")]
    pub memory_bytes: u64,
    /// Relative speed of one core; 100 is the reference.
    #[prost(uint32, tag = "8")]
    pub speed: u32,
    /// State in this view.
    #[prost(enumeration = "NodeState", tag = "9")]
    pub state: i32,
    /// The life of the node that this row speaks of.
    #[prost(uint64, tag = "10")]
    pub incarnation: u64,
    /// The run of `ssid` in it that was last heard of: another number after each restart; 0 before the first.
    #[prost(fixed64, tag = "20")]
    pub daemon: u64,
    /// Nothing new shall be placed on it.
    #[prost(bool, tag = "11")]
    pub drained: bool,
    /// What its owner has written down about it, by key.
    #[prost(message, repeated, tag = "12")]
    pub info: Vec<Property>,
}

/// One thing that is written down about a node.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Property {
    /// Under which name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// What.
    #[prost(string, tag = "2")]
    pub value: String,
}

impl Node {
    /// The node's number as an identity.
    pub fn node_id(&self) -> NodeId {
        NodeId(self.id)
    }

    /// The life that this row speaks of.
    pub fn incarnation(&self) -> Incarnation {
        Incarnation(self.incarnation)
    }

    /// Where `ssid` listens; `None` if the table holds something that is no address.
    pub fn control_addr(&self) -> Option<SocketAddr> {
        self.control_address.parse().ok()
    }

    /// Where `ssid --data` listens.
    pub fn data_addr(&self) -> Option<SocketAddr> {
        self.data_address.parse().ok()
    }

    /// True while the node's processes live: UP or STALLED.
    pub fn is_alive(&self) -> bool {
        matches!(self.state(), NodeState::Up | NodeState::Stalled)
    }
}

/// The agreed table of one epoch: every node that is told of this epoch is told exactly this.
#[derive(Clone, PartialEq, prost::Message)]
pub struct View {
    /// The number of this view.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    /// The cluster's name.
    #[prost(string, tag = "2")]
    pub cluster: String,
    /// The CLMS master when the view was agreed.
    #[prost(uint32, tag = "3")]
    pub master: u32,
    /// All nodes that ever joined and were not removed, by id.
    #[prost(message, repeated, tag = "4")]
    pub nodes: Vec<Node>,
    /// Ids in each home region.
    #[prost(uint32, tag = "5")]
    pub pid_region: u32,
    /// The node that runs the metadata server.
    #[prost(uint32, tag = "6")]
    pub mds: u32,
    /// The largest id ever given out: ids are not used twice, also not after a removal.
    #[prost(uint32, tag = "7")]
    pub last_id: u32,
    /// The number of the last view in which a life of a node, or a run of its `ssid`, began or ended: who misses views still knows since when
    /// those who live do.
    #[prost(uint64, tag = "20")]
    pub era: u64,
    /// The nodes that keep the log of the table, by id; empty before the first of them has said so.
    #[prost(uint32, repeated, tag = "8")]
    pub voters: Vec<u32>,
    /// How many of them there shall be: 1, 3, 5 or 7.
    #[prost(uint32, tag = "9")]
    pub voters_wanted: u32,
    /// Tickets for machines that may join. No secret is in them.
    #[prost(message, required, tag = "21")]
    pub tickets: Tickets,
}

impl View {
    /// The number of this view.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }

    /// The number of the last view in which a life, or a run of an `ssid`, began or ended.
    pub fn era(&self) -> Epoch {
        Epoch(self.era)
    }

    /// Who lives in this view: node, life, run of its `ssid`.
    pub fn lives(&self) -> impl Iterator<Item = (NodeId, Incarnation, u64)> + '_ {
        let alive = self.nodes.iter().filter(|node| node.is_alive());
        alive.map(|node| (node.node_id(), node.incarnation(), node.daemon))
    }

    /// The row of `id`.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id.0)
    }

    /// The row of the node called `name`, or whose number `name` spells.
    pub fn find(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name || node.id.to_string() == name)
    }

    /// How pids are cut into home regions in this cluster.
    pub fn regions(&self) -> PidRegions {
        PidRegions::new(self.pid_region).unwrap_or_else(|| PidRegions::new(16_384).expect("a power of two"))
    }
}
