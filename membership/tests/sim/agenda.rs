//! The agenda: what is going to happen, in the order of its time; of equal times, in the order of planning.

use crate::Heartbeat;
use crate::talk::{Answer, Request};
use base::Time;
use replog::Envelope;
use std::collections::BTreeMap;

/// What is going to happen.
pub enum What {
    Tick {
        node: u32,
        run: u64,
    },
    /// The core wanted to be woken.
    Wake {
        node: u32,
        run: u64,
    },
    Listen {
        node: u32,
        run: u64,
    },
    Beat {
        node: u32,
        life: u64,
    },
    /// The disk does what was ordered.
    Disk {
        node: u32,
        run: u64,
    },
    Datagram {
        to: u32,
        beat: Heartbeat,
    },
    Request {
        from: u32,
        run: u64,
        to: u32,
        request: Request,
    },
    Answer {
        to: u32,
        run: u64,
        from: u32,
        answer: Answer,
    },
    Log {
        to: u32,
        envelope: Envelope,
    },
    /// A connection was closed by somebody on the way.
    Closed {
        node: u32,
        run: u64,
        peer: u32,
    },
    Link {
        node: u32,
        run: u64,
        peer: u32,
        linked: bool,
    },
    Fenced {
        node: u32,
        run: u64,
        of: u32,
        life: u64,
    },
    StartDaemon {
        node: u32,
    },
    StartNode {
        node: u32,
    },
}

/// Everything planned and not yet happened.
#[derive(Default)]
pub struct Agenda {
    planned: BTreeMap<(Time, u64), What>,
    order: u64,
}

impl Agenda {
    pub fn plan(&mut self, at: Time, what: What) {
        self.order += 1;
        self.planned.insert((at, self.order), what);
    }

    /// When something happens next.
    pub fn next_time(&self) -> Option<Time> {
        self.planned.first_key_value().map(|(&(at, _), _)| at)
    }

    /// What happens next.
    pub fn take_next(&mut self) -> Option<(Time, What)> {
        self.planned.pop_first().map(|((at, _), what)| (at, what))
    }
}
