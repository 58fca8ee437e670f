//! The network, as the fabric gives it to the lock manager: between two lives each message arrives once, in its order, however late.
//!
//! A lost packet is one that is late, and all behind it are late too (the fabric sends it again). Only the end of a life, or a cut that lasts
//! until its end, loses messages: then the last ones, from some moment on. What is sent to a life does not reach the next one.

use base::{Incarnation, NodeId, Prng, Time};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Network {
    last_arrival: BTreeMap<(NodeId, NodeId), Time>,
    /// What a life that has ended says arrives before this, and then no more.
    silent_from: BTreeMap<(NodeId, Incarnation, NodeId), Time>,
}

impl Network {
    /// When a message that is sent now arrives.
    pub fn arrival(&mut self, prng: &mut Prng, now: Time, from: NodeId, to: NodeId) -> Time {
        let delay = 1 + if prng.one_in(20) { prng.below(2_000) } else { prng.below(60) };
        let last = self.last_arrival.get(&(from, to)).copied().unwrap_or_default();
        let when = Time((now.0 + delay).max(last.0 + 1));
        self.last_arrival.insert((from, to), when);
        when
    }

    /// From now on nothing that is sent on this way arrives before `until`.
    pub fn stall(&mut self, from: NodeId, to: NodeId, until: Time) {
        let last = self.last_arrival.entry((from, to)).or_default();
        *last = until.max(*last);
    }

    /// A life is not heard any more: of what it has said, each node gets a beginning.
    pub fn silence(&mut self, prng: &mut Prng, now: Time, from: (NodeId, Incarnation), nodes: u32) {
        for to in (1..=nodes).map(NodeId) {
            let still = if prng.one_in(2) { prng.below(100) } else { 0 };
            self.silent_from.entry((from.0, from.1, to)).or_insert(Time(now.0 + still));
        }
    }

    pub fn is_heard(&self, now: Time, from: (NodeId, Incarnation), to: NodeId) -> bool {
        self.silent_from.get(&(from.0, from.1, to)).is_none_or(|until| now < *until)
    }
}
