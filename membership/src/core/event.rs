//! What a core is told, and what it wants done.

use crate::heartbeat::Heartbeat;
use crate::saved::Register;
use crate::talk::{Answer, Request};
use crate::timings::Timings;
use crate::wire::{Node, View};
use base::{Epoch, NodeId, Time};
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
}

/// Names a request until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What can happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The clock was looked at.
    Tick,
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
}

/// What must be done, in the order given.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Put this on disk; if that fails nothing that follows may happen.
    Persist(Register),
    /// This view is agreed.
    Publish(View),
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
    /// This life was declared DOWN in this view: its processes must end, a later life may come back.
    Evicted(View),
}

/// How membership is, for operators.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// True if views can change: there is a master with a majority behind it.
    pub quorum: bool,
    /// The master, if there is one.
    pub master: Option<NodeId>,
    /// The term of the agreement.
    pub term: u64,
    /// The newest agreed view.
    pub epoch: Epoch,
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
