//! What happens when time passes: waits end, held-over locks go, losses are forgotten.
//!
//! Invariant: a timer that outlives what it was for does nothing, because its id is stale.

use super::Table;
use crate::event::{Effect, Refusal};
use base::Time;

/// What is due at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A lock has waited long enough.
    Deadline(u64),
    /// The lease of a lock's dead owner is over.
    HeldOver(u64),
    /// A resource has told of its loss long enough.
    Loss(u64),
}

impl Table {
    /// When [`crate::Event::Tick`] has something to do.
    pub fn next_deadline(&self) -> Option<Time> {
        self.timers.first().map(|(time, _)| *time)
    }

    pub(super) fn tick(&mut self, effects: &mut Vec<Effect>) {
        while let Some((due, timer)) = self.timers.first().copied().filter(|(due, _)| *due <= self.now) {
            self.timers.remove(&(due, timer));
            self.fire(timer, effects);
        }
    }

    fn fire(&mut self, timer: Timer, effects: &mut Vec<Effect>) {
        match timer {
            Timer::Deadline(id) => {
                if let Some(lock) = self.locks.find(id) {
                    self.give_up(lock, Refusal::TimedOut, effects);
                }
            }
            Timer::HeldOver(id) => {
                if let Some(lock) = self.locks.find(id) {
                    let resource = self.locks[lock].resource;
                    self.purge(lock, effects);
                    self.serve(resource, None, effects);
                    self.drop_if_idle(resource);
                }
            }
            Timer::Loss(id) => {
                if let Some(resource) = self.resources.find(id) {
                    self.resources[resource].loss_until = None;
                    self.drop_if_idle(resource);
                }
            }
        }
    }
}
