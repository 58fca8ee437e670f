//! What a tree is told, and what it wants done.

use crate::watch::roster::Roster;
use crate::watch::wire::{Ack, Beat, Transition};
use base::{NodeId, Time};
use std::sync::Arc;

/// What can happen.
#[derive(Clone, Debug)]
pub enum Event {
    /// The clock was looked at.
    Tick,
    /// A beat has come down.
    Beat {
        /// From whom.
        from: NodeId,
        /// It.
        beat: Beat,
    },
    /// An answer has come up.
    Ack {
        /// From whom.
        from: NodeId,
        /// It.
        ack: Ack,
    },
    /// Another view is agreed, or a transition was applied.
    Roster(Arc<Roster>),
    /// This node is the master of this term, or is master no more. A master that has lost its majority must be told so at once.
    Lead(Option<u64>),
    /// On the master: this was agreed. The roster that it makes is told beside it.
    Transition(Transition),
}

/// What must be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send a beat down.
    Beat {
        /// To whom.
        to: NodeId,
        /// It.
        beat: Beat,
    },
    /// Send an answer up.
    Ack {
        /// To whom.
        to: NodeId,
        /// It.
        ack: Ack,
    },
    /// Apply this to the table; the roster that it makes is then told as [`Event::Roster`].
    Apply(Transition),
    /// This node's lease is renewed until then.
    Lease(Time),
    /// On the master: a round is closed.
    Round {
        /// When its last answer was here.
        at: Time,
        /// Who had not answered.
        unheard: Vec<NodeId>,
    },
    /// There is a view of this epoch, and the tree cannot bring it: ask for the table.
    Behind(u64),
}
