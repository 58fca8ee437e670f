//! The few things that happen after some time, besides the deadlines of calls.

use base::time::Time;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What is to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// A path to a remote may be dialled again.
    Dial(usize),
    /// A link's setting up takes too long.
    Setup(u64),
    /// A guest without links may be forgotten.
    Guest(u64),
    /// Connections are accepted again.
    Accept,
    /// Operations of devices are looked after.
    Devices,
}

/// Alarms by time.
#[derive(Debug, Default)]
pub struct Timers {
    alarms: BinaryHeap<Reverse<(Time, Alarm)>>,
}

impl Timers {
    /// Sets an alarm. Whoever hears it looks whether it still means anything.
    pub fn set(&mut self, at: Time, alarm: Alarm) {
        self.alarms.push(Reverse((at, alarm)));
    }

    /// The next alarm that is due.
    pub fn due(&mut self, now: Time) -> Option<Alarm> {
        let Reverse((at, _)) = self.alarms.peek()?;
        if *at > now {
            return None;
        }
        self.alarms.pop().map(|Reverse((_, alarm))| alarm)
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Time> {
        self.alarms.peek().map(|Reverse((at, _))| *at)
    }
}
