//! What a core is told, and what it wants done.

use crate::heartbeat::Heartbeat;
use crate::table::{Feed, Table};
use crate::talk::{Answer, Request};
use crate::timings::Timings;
use crate::wire::{Node, View};
use base::{Epoch, NodeId, Time};
use bytes::Bytes;
use replog::{Envelope, Index, Mark, Member, Recovered, SnapshotMeta, Term, Ticket, Write};
use std::time::Duration;

/// What a core is told when it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// The row that this node wants to have; its id is this node, its incarnation this life.
    pub row: Node,
    /// This run of `ssid`; another number after each start.
    pub daemon: u64,
    /// See [`Timings`].
    pub timings: Timings,
    /// This node and its disk, as the log knows them.
    pub member: Member,
    /// Nodes that are DOWN are fenced.
    pub fencing: bool,
    /// A snapshot of the table is made when the log behind the last one weighs so many bytes.
    pub snapshot_after_bytes: usize,
}

/// What a node has on its disk when it starts.
#[derive(Clone, Debug, PartialEq)]
pub struct OnDisk {
    /// The log.
    pub log: Recovered,
    /// The table as it was last known.
    pub table: Table,
}

/// Names a request until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What can happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The clock was looked at.
    Tick {
        /// The wall clock: milliseconds since 1970. It is only written down.
        wall_ms: u64,
    },
    /// Everything that the heartbeat socket had at `at` has been read.
    Heard {
        /// Authentic heartbeats, in the order of arrival.
        beats: Vec<Heartbeat>,
        /// Before the reading.
        at: Time,
    },
    /// The link to a peer's `ssid` came up or was lost.
    Link {
        /// The node.
        peer: NodeId,
        /// Up or lost.
        linked: bool,
    },
    /// A request of an authenticated peer (or of this very node).
    Request {
        /// To answer with.
        id: RequestId,
        /// Who asks, as the fabric knows it.
        from: NodeId,
        /// What.
        request: Request,
    },
    /// The answer to an [`Effect::Ask`].
    Answered {
        /// Who answers.
        from: NodeId,
        /// What.
        answer: Answer,
    },
    /// `ssid --data` of this node is there, or is not.
    DataUp(bool),
    /// A message of another voter's log; its sender is authentic.
    Log(Envelope),
    /// The write with this ticket, and all before it, are on disk.
    Stored(Ticket),
    /// Nothing can be written any more, and why.
    StoreFailed(String),
    /// What [`Order::ReadSnapshot`] asked for.
    SnapshotRead(Bytes),
    /// The snapshot is on disk.
    SnapshotMade(SnapshotMeta),
    /// It could not be written; it is asked for again later.
    SnapshotFailed,
    /// What [`Effect::Fence`] has come to.
    Fenced {
        /// The node.
        node: NodeId,
        /// The life that is over.
        life: u64,
        /// It cannot touch anything shared any more.
        done: bool,
        /// What the agent said.
        said: String,
    },
}

/// What shall be done with the log's disk, in the order given.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Write this, and when it is safe tell [`Event::Stored`].
    Write(Write),
    /// The snapshot that came in is the newest; when that is safe tell [`Event::Stored`].
    Install {
        /// The number under which its end is told.
        ticket: Ticket,
        /// Which snapshot.
        meta: SnapshotMeta,
    },
    /// Write down a piece of a snapshot that comes in.
    TakeChunk {
        /// Which snapshot.
        meta: SnapshotMeta,
        /// Where the piece stands.
        offset: u64,
        /// The piece.
        bytes: Bytes,
        /// How many bytes the whole has.
        size: u64,
    },
    /// Send a piece of the newest snapshot.
    SendChunk {
        /// To whom.
        to: Member,
        /// The leader's term.
        term: Term,
        /// Which snapshot.
        meta: SnapshotMeta,
        /// From which byte on.
        offset: u64,
        /// Goes with it.
        mark: Mark,
    },
    /// Write down a snapshot; then tell [`Event::SnapshotMade`] or [`Event::SnapshotFailed`].
    SaveSnapshot {
        /// Which.
        meta: SnapshotMeta,
        /// All of it.
        bytes: Bytes,
    },
    /// Read the newest snapshot, for [`Event::SnapshotRead`].
    ReadSnapshot,
    /// What the log holds up to here may go.
    Trim(Index),
}

/// What must be done, in the order given.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Give this to the disk; what follows need not wait for it.
    Store(Order),
    /// Say this to another voter's log.
    Log(Envelope),
    /// This has happened.
    Publish(Feed),
    /// Until then this node may serve; `None`: it may not.
    Lease(Option<Time>),
    /// Calls to this peer shall fail at once, or may succeed again.
    Down {
        /// The peer.
        peer: NodeId,
        /// Fail, or succeed.
        down: bool,
    },
    /// This node says that it is back, and where: calls must reach it before any view says so.
    Reach(Node),
    /// Send a request; its answer, if one comes, is an [`Event::Answered`].
    Ask {
        /// To whom.
        to: NodeId,
        /// What.
        request: Request,
    },
    /// Answer a request.
    Answer {
        /// Which.
        id: RequestId,
        /// With what.
        answer: Answer,
    },
    /// See to it that this life, which is over, cannot touch anything shared; then tell [`Event::Fenced`].
    Fence {
        /// The node.
        node: NodeId,
        /// The life.
        life: u64,
    },
    /// This life was declared DOWN in this view: its processes must end, a later life may come back.
    Evicted(View),
    /// This node cannot keep its word any more (its disk fails): its membership must end.
    Failed(String),
}

/// How membership is, for operators.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// True if this node has a lease: there is a master with a majority of the voters behind it, and it knows this node.
    pub quorum: bool,
    /// The master, if one is heard.
    pub master: Option<NodeId>,
    /// The newest term of a master that is known.
    pub term: u64,
    /// The newest agreed view.
    pub epoch: Epoch,
    /// How long this node may still serve; `None`: it may not.
    pub lease: Option<Duration>,
    /// What this node hears of the others, by id.
    pub nodes: Vec<NodeStatus>,
}

/// What this node hears of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// The other.
    pub node: NodeId,
    /// How long ago its supervisor was heard; `None` for this node itself.
    pub heartbeat_age: Option<Duration>,
    /// The link to its `ssid` is up.
    pub linked: bool,
}
