//! Deadlocks among the programs of this node.
//!
//! Invariant: looked for only while somebody has begun to wait, and not more often than once a second.

use crate::deadlock::{Sighting, cycles};
use crate::event::{Effect, Event, Refusal};
use crate::node::Node;
use base::{NodeId, Time};
use std::collections::BTreeSet;
use std::time::Duration;

/// A wait that lasts longer may be a deadlock's.
const SUSPECT_AFTER: Duration = Duration::from_secs(1);

/// Who waits.
#[derive(Debug, Default)]
pub struct Circles {
    waiting: BTreeSet<(u64, u64)>,
    looked: Time,
}

impl Circles {
    /// Something was said to an owner.
    pub fn note(&mut self, effect: &Effect) {
        let holder = super::owner(effect).holder;
        if let Effect::Queued { tag, .. } = effect {
            self.waiting.insert((holder, *tag));
        } else if let Some(tag) = effect.ended().filter(|_| !self.waiting.is_empty()) {
            self.waiting.remove(&(holder, tag));
        }
    }

    /// When it is to be looked again; `None` while nobody waits.
    pub fn next_look(&self) -> Option<Time> {
        (!self.waiting.is_empty()).then(|| self.looked + SUSPECT_AFTER)
    }

    /// True once a second, while somebody waits.
    pub fn is_due(&mut self, now: Time) -> bool {
        let is_due = self.next_look().is_some_and(|at| at <= now);
        if is_due {
            self.looked = now;
        }
        is_due
    }
}

/// Who waits for whom in the table of this node's users, since before then.
pub fn sightings(core: &Node, site: NodeId, since_before: Time) -> Vec<Sighting> {
    core.users().edges(since_before).into_iter().map(|edge| Sighting { site, edge }).collect()
}

/// Verdicts on the youngest of each circle.
pub fn victims(core: &Node, now: Time) -> Vec<Event> {
    let old = Time(now.0.saturating_sub(SUSPECT_AFTER.as_nanos() as u64));
    let seen = sightings(core, NodeId(0), old);
    let youngest = cycles(&seen).into_iter().filter_map(|cycle| cycle.edges.first().map(|seen| seen.edge));
    youngest.map(|edge| Event::Victim { lock: edge.lock, wait: edge.wait, why: Refusal::Deadlock }).collect()
}
