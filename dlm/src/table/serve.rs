//! Serving the queues of a resource after something was given up: conversions first, then new requests, each first come first served.
//!
//! ```text
//!  converting:  A  B  C       the first that is not free stops those behind it: all of them (PLAIN), those in whose way it is (others)
//!  waiting:     D  E  F       only those in whose way nothing that still converts is
//! ```
//!
//! Invariant: afterwards nobody waits who could be granted by the rules of order.

use super::Table;
use crate::event::Effect;
use crate::extents::Interest;
use crate::flags::Flags;
use crate::lock::{Pending, State, Wish};
use crate::mode::{Mode, ModeSet};
use crate::policy::{Policy, Scope, Span};

/// What those ahead, still waiting, want: PLAIN and IBITS.
#[derive(Default)]
struct Ahead {
    bits: [u64; 6],
    any: bool,
}

impl Ahead {
    fn add(&mut self, wish: &Wish) {
        self.any = true;
        if let Scope::Bits(bits) = wish.scope {
            self.bits[wish.mode as usize] |= bits;
        }
    }

    fn stops(&self, wish: &Wish) -> bool {
        match wish.scope {
            Scope::Bits(bits) => {
                wish.mode.conflicts().strongest_first().any(|mode| self.bits[mode as usize] & bits != 0)
            }
            _ => self.any,
        }
    }
}

impl Table {
    /// Grants what can be granted. `freed`: what was given up or is no longer waited for; `None`: perhaps everything.
    pub(super) fn serve(&mut self, resource: u32, freed: Option<Scope>, effects: &mut Vec<Effect>) {
        while self.resources[resource].has_pending() {
            // A conversion that is granted may free what its lock had before.
            let converted = match self.resources[resource].policy {
                Policy::Extent => self.serve_ranges(resource, freed.map_or(Span::ALL, Scope::span), effects),
                Policy::Plain | Policy::Bits => self.serve_queues(resource, effects),
            };
            if !converted {
                return;
            }
        }
    }

    fn serve_queues(&mut self, resource: u32, effects: &mut Vec<Effect>) -> bool {
        let mut ahead = Ahead::default();
        let converting = self.resources[resource].converting.head();
        let converted = self.serve_queue(resource, converting, &mut ahead, effects);
        let waiting = self.resources[resource].waiting.head();
        self.serve_queue(resource, waiting, &mut ahead, effects);
        converted
    }

    /// One queue, from its head on. True if anything was granted.
    fn serve_queue(
        &mut self,
        resource: u32,
        head: Option<u32>,
        ahead: &mut Ahead,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let is_plain = self.resources[resource].policy == Policy::Plain;
        let (mut next, mut granted) = (head, false);
        while let Some(lock) = next {
            if is_plain && ahead.any && self.resources[resource].passing == 0 {
                break;
            }
            next = crate::queue::Chain::<{ crate::queue::QUEUE }>::after(&self.locks, lock);
            let Some(Pending { wish, .. }) = self.locks[lock].pending else { continue };
            let passes = wish.flags.has(Flags::NOORDER) || !ahead.stops(&wish);
            match self.free_mode(resource, lock, &wish).filter(|_| passes) {
                Some(mode) => {
                    self.grant(resource, lock, &wish, mode, None, effects);
                    granted = true;
                }
                None => ahead.add(&wish),
            }
        }
        granted
    }

    /// Ranges: only those that meet what was freed can have become grantable.
    fn serve_ranges(&mut self, resource: u32, freed: Span, effects: &mut Vec<Effect>) -> bool {
        let Some(extents) = &self.resources[resource].extents else { return false };
        let mut candidates = Vec::new();
        extents.any(Interest::Wanted, ModeSet::of(&Mode::ALL), freed, |lock| {
            candidates.push((self.rank(lock), lock));
            false
        });
        candidates.sort_unstable();
        let mut converted = false;
        for (rank, lock) in candidates {
            let Some(Pending { wish, .. }) = self.locks[lock].pending else { continue };
            if !wish.flags.has(Flags::NOORDER) && self.is_stopped(resource, rank, &wish) {
                continue;
            }
            if let Some(mode) = self.free_mode(resource, lock, &wish) {
                converted |= self.locks[lock].state == State::Converting;
                self.grant(resource, lock, &wish, mode, None, effects);
            }
        }
        converted
    }

    /// Smaller is served earlier.
    fn rank(&self, lock: u32) -> (bool, i64) {
        let lock = &self.locks[lock];
        (lock.state == State::Waiting, lock.pending.map_or(0, |pending| pending.place))
    }

    /// True if somebody ahead who still waits is in the way.
    fn is_stopped(&self, resource: u32, rank: (bool, i64), wish: &Wish) -> bool {
        self.resources[resource].extents.as_ref().is_some_and(|extents| {
            extents.any(Interest::Wanted, wish.mode.conflicts(), wish.scope.span(), |other| {
                self.rank(other) < rank
            })
        })
    }
}
