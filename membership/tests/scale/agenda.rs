//! The agenda: what is going to happen, in the order of its time; of equal times, in the order of planning.

use base::{NodeId, Time};
use membership::Heartbeat;
use membership::watch::wire::Say;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// What one node says to another.
#[derive(Clone, Debug)]
pub enum Message {
    Heartbeat(Heartbeat),
    Note(Box<Say>),
}

/// What is going to happen.
pub enum What {
    /// A daemon looks at the clock.
    Tick(NodeId),
    /// A supervisor's next heartbeat is due.
    Pulse(NodeId),
    Arrive {
        from: NodeId,
        to: NodeId,
        message: Message,
    },
    /// The voters have agreed that these are DOWN.
    Agreed(Vec<NodeId>),
    Resume(NodeId),
}

struct Plan {
    at: Time,
    order: u64,
    what: What,
}

impl Ord for Plan {
    fn cmp(&self, other: &Plan) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl PartialOrd for Plan {
    fn partial_cmp(&self, other: &Plan) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Plan {
    fn eq(&self, other: &Plan) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Plan {}

/// Everything planned and not yet happened.
#[derive(Default)]
pub struct Agenda {
    planned: BinaryHeap<Plan>,
    order: u64,
}

impl Agenda {
    pub fn plan(&mut self, at: Time, what: What) {
        self.order += 1;
        self.planned.push(Plan { at, order: self.order, what });
    }

    /// What happens next, if that is before `end`.
    pub fn take_before(&mut self, end: Time) -> Option<(Time, What)> {
        if self.planned.peek()?.at >= end {
            return None;
        }
        self.planned.pop().map(|plan| (plan.at, plan.what))
    }

    /// How many things have been planned so far.
    pub fn count(&self) -> u64 {
        self.order
    }
}
