//! The cluster table and its transitions, as the admin protocol tells them: stable, whatever membership keeps inside.

use base::{NodeId, PidRegions};

/// What a node is believed to be by everybody, in one view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum NodeState {
    /// It works.
    Up = 0,
    /// A daemon is away or does not answer; its processes live.
    Stalled = 1,
    /// It is gone, and its processes with it.
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
    /// `ip:port` of `ssid`.
    #[prost(string, tag = "3")]
    pub control_address: String,
    /// `ip:port` of `ssid --data`.
    #[prost(string, tag = "4")]
    pub data_address: String,
    /// Instruction set as uname(2) names it.
    #[prost(string, tag = "5")]
    pub arch: String,
    /// Cores that it gives.
    #[prost(uint32, tag = "6")]
    pub cpus: u32,
    /// Bytes of memory that it gives.
    #[prost(uint64, tag = "7")]
    pub memory_bytes: u64,
    /// Relative speed of a core; 100 is the reference.
    #[prost(uint32, tag = "8")]
    pub speed: u32,
    /// State in this view.
    #[prost(enumeration = "NodeState", tag = "9")]
    pub state: i32,
    /// Which life of the node; 0: it has joined and was never started.
    #[prost(uint64, tag = "10")]
    pub incarnation: u64,
    /// It gets no new work.
    #[prost(bool, tag = "11")]
    pub draining: bool,
    /// It votes about transitions.
    #[prost(bool, tag = "12")]
    pub voter: bool,
    /// What is written down about it.
    #[prost(message, repeated, tag = "13")]
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

    /// The state in capitals, as people read it.
    pub fn state_name(&self) -> &'static str {
        match self.state() {
            NodeState::Up => "UP",
            NodeState::Stalled => "STALLED",
            NodeState::Down => "DOWN",
            NodeState::Fenced => "FENCED",
        }
    }
}

/// The agreed table of one transition.
#[derive(Clone, PartialEq, prost::Message)]
pub struct View {
    /// The number of the transition that made it.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    /// The cluster's name.
    #[prost(string, tag = "2")]
    pub cluster: String,
    /// The CLMS master; 0: none is known.
    #[prost(uint32, tag = "3")]
    pub master: u32,
    /// All nodes, by number.
    #[prost(message, repeated, tag = "4")]
    pub nodes: Vec<Node>,
    /// Ids in each home region.
    #[prost(uint32, tag = "5")]
    pub pid_region: u32,
    /// How many nodes shall vote; 0: it was never said.
    #[prost(uint32, tag = "6")]
    pub voters_wanted: u32,
    /// The node that runs the metadata server.
    #[prost(uint32, tag = "7")]
    pub mds: u32,
}

impl View {
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

    /// The name of a node, or its number where the table does not have it any more.
    pub fn name_of(&self, id: u32) -> String {
        self.node(NodeId(id)).map_or_else(|| format!("node {id}"), |node| node.name.clone())
    }
}

/// One agreed change of the cluster table: every node sees the same ones in the same order.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Transition {
    /// Its number: the epoch of the view that it made.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// When the master proposed it, milliseconds since 1970.
    #[prost(uint64, tag = "2")]
    pub at_ms: u64,
    /// What changed, at once.
    #[prost(message, repeated, tag = "3")]
    pub changes: Vec<Change>,
}

/// One thing that a transition changed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Change {
    /// The node; 0: the cluster as a whole.
    #[prost(uint32, tag = "1")]
    pub node: u32,
    /// The node's state before.
    #[prost(enumeration = "State", tag = "2")]
    pub from: i32,
    /// The node's state after; the same where something else changed.
    #[prost(enumeration = "State", tag = "3")]
    pub to: i32,
    /// What happened.
    #[prost(enumeration = "Cause", tag = "4")]
    pub cause: i32,
    /// For people: the new name, the voters, ...
    #[prost(string, tag = "5")]
    pub text: String,
}

/// The state of a node as the cluster API tells it: [`NodeState`], and what a node was or shall be. The numbers are those of `<ssi/cluster.h>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum State {
    /// No such node.
    None = 0,
    /// It has joined, and was never started.
    NeverUp = 1,
    /// It starts, and may not be used yet.
    ComingUp = 2,
    /// It works.
    Up = 3,
    /// It works, and gets no new work: it is drained.
    Shutdown = 4,
    /// It ends in good order.
    GoingDown = 5,
    /// It is gone, and the system tidies up after it.
    KernelCleanup = 6,
    /// It is gone, and services tidy up after it.
    UserCleanup = 7,
    /// It is gone.
    Down = 8,
    /// A daemon of it is away or does not answer; its processes live.
    Stalled = 9,
    /// It is gone, and known to be unable to touch anything shared.
    Fenced = 10,
}

impl State {
    /// The name, as people and `<ssi/cluster.h>` write it.
    pub fn name(self) -> &'static str {
        match self {
            State::None => "NONE",
            State::NeverUp => "NEVERUP",
            State::ComingUp => "COMINGUP",
            State::Up => "UP",
            State::Shutdown => "SHUTDOWN",
            State::GoingDown => "GOINGDOWN",
            State::KernelCleanup => "KCLEANUP",
            State::UserCleanup => "UCLEANUP",
            State::Down => "DOWN",
            State::Stalled => "STALLED",
            State::Fenced => "FENCED",
        }
    }

    /// The state of that name, in capitals or not.
    pub fn of_name(name: &str) -> Option<State> {
        (0..=10).filter_map(|n| State::try_from(n).ok()).find(|state| state.name().eq_ignore_ascii_case(name))
    }
}

/// Why something changed. The numbers are those of `<ssi/cluster.h>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Cause {
    /// Something that this program is too old to know.
    Unknown = 0,
    /// A machine was taken in.
    Joined = 1,
    /// It began a life, or works again.
    Started = 2,
    /// A daemon of it went away or did not answer.
    Stalled = 3,
    /// It was silent for too long.
    Failed = 4,
    /// It was stopped in good order.
    Left = 5,
    /// It was fenced.
    Fenced = 6,
    /// It was taken out of the table.
    Removed = 7,
    /// It has another name.
    Renamed = 8,
    /// It is drained, or no longer.
    Drained = 9,
    /// It gives other resources, or is described otherwise.
    Described = 10,
    /// Other nodes vote.
    Voters = 11,
    /// Another node is master.
    Master = 12,
    /// A setting of the cluster.
    Setting = 13,
}

impl Cause {
    /// The name, as `<ssi/cluster.h>` writes it.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Unknown => "UNKNOWN",
            Cause::Joined => "JOINED",
            Cause::Started => "STARTED",
            Cause::Stalled => "STALLED",
            Cause::Failed => "FAILED",
            Cause::Left => "LEFT",
            Cause::Fenced => "FENCED",
            Cause::Removed => "REMOVED",
            Cause::Renamed => "RENAMED",
            Cause::Drained => "DRAINED",
            Cause::Described => "DESCRIBED",
            Cause::Voters => "VOTERS",
            Cause::Master => "MASTER",
            Cause::Setting => "SETTING",
        }
    }
}
