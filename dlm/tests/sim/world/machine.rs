//! A machine: one life of a node, its clock, its users.
//!
//! Invariant: what happens to a paused machine waits in `held`, in its order.

use super::Happening;
use crate::Node;
use crate::sim::users::User;
use base::{Epoch, Incarnation, Prng, Time};
use std::collections::VecDeque;

/// How wrong clocks go at most, in millionths.
pub const DRIFT_MAX: u64 = 10_000;

/// A clock that began anywhere, and goes too fast or too slow.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset: u64,
    /// Millionths of a second that pass in a second.
    rate: u64,
}

impl Clock {
    pub fn new(prng: &mut Prng) -> Clock {
        Clock { offset: 1 + prng.below(1 << 40), rate: 1_000_000 - DRIFT_MAX + prng.below(2 * DRIFT_MAX) }
    }

    pub fn shows(&self, now: Time) -> Time {
        Time(self.offset + (u128::from(now.0) * u128::from(self.rate) / 1_000_000) as u64)
    }

    /// The first moment at which it shows at least `shown`.
    pub fn moment(&self, shown: Time) -> Time {
        let length = u128::from(shown.0.saturating_sub(self.offset));
        Time((length * 1_000_000 / u128::from(self.rate)) as u64 + 2)
    }
}

pub struct Machine {
    pub node: Node,
    pub life: Incarnation,
    pub clock: Clock,
    pub users: Vec<User>,
    pub runs: bool,
    /// Nothing reaches it; nothing of it is heard.
    pub is_deaf: bool,
    pub is_mute: bool,
    pub is_paused: bool,
    pub held: VecDeque<Happening>,
    pub next_tick: Option<Time>,
    pub epoch: Epoch,
}
