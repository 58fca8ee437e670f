//! Beats: to which of its watchers a node's supervisor sends a heartbeat, and when.
//!
//! It serves them by turns, spread evenly over the interval. So when it falls silent its watchers notice one after the other, over one
//! interval, and of many nodes that fall silent at once all are doubted by some before the first is given up by most: that is
//! what lets one cut be one transition.
//!
//! Invariant: each watcher is served once an interval; a supervisor that was late does not make up for it by a burst.

use super::pace::Pace;
use super::roster::Roster;
use base::{NodeId, Time};
use std::time::Duration;

/// The turns of one node.
#[derive(Clone, Debug)]
pub struct Beats {
    interval: Duration,
    watchers: Vec<NodeId>,
    turn: usize,
    due: Time,
}

impl Beats {
    /// Nobody to serve yet.
    pub fn new(pace: &Pace, now: Time) -> Beats {
        Beats { interval: pace.heartbeat, watchers: Vec::new(), turn: 0, due: now }
    }

    /// Serves the watchers of `node` in `roster` from now on.
    pub fn follow(&mut self, roster: &Roster, node: NodeId) {
        self.serve(roster.rings().watchers(node).collect());
    }

    /// Serves these watchers from now on: for a supervisor that is told them by its daemon.
    pub fn serve(&mut self, watchers: Vec<NodeId>) {
        self.watchers = watchers;
        self.turn = self.turn.checked_rem(self.watchers.len()).unwrap_or(0);
    }

    /// When the next heartbeat is due; `None` while there is nobody to serve.
    pub fn due(&self) -> Option<Time> {
        (!self.watchers.is_empty()).then_some(self.due)
    }

    /// The watcher to whom a heartbeat must be sent now, if one is due.
    pub fn next(&mut self, now: Time) -> Option<NodeId> {
        if self.due().is_none_or(|due| now < due) {
            return None;
        }
        let step = self.interval / u32::try_from(self.watchers.len()).unwrap_or(u32::MAX);
        let next = self.due + step;
        self.due = if next > now { next } else { now + step };
        let watcher = *self.watchers.get(self.turn)?;
        self.turn = (self.turn + 1) % self.watchers.len();
        Some(watcher)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Epoch, Incarnation};

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn each_watcher_is_served_once_an_interval_and_none_in_a_burst() {
        let pace = Pace::default();
        let alive = (1..=50).map(|id| (NodeId(id), Incarnation(1)));
        let roster = Roster::new(Epoch(1), NodeId(1), alive, &pace);
        let mut beats = Beats::new(&pace, Time(0));
        assert_eq!(beats.next(Time(0)), None, "nobody to serve");
        beats.follow(&roster, NodeId(7));
        let mut served = Vec::new();
        for ms in 1..400u32 {
            served.extend(beats.next(Time(0) + MS * ms));
        }
        served.sort_unstable();
        let mut watchers: Vec<_> = roster.rings().watchers(NodeId(7)).collect();
        watchers.sort_unstable();
        assert_eq!(served, watchers);
        let late = Time(0) + MS * 5_000;
        assert!(beats.next(late).is_some());
        assert_eq!(beats.next(late), None, "no burst after a pause");
        assert_eq!(beats.due(), Some(late + MS * 40));
    }
}
