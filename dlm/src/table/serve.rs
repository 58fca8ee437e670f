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
use crate::queue::{Chain, QUEUE};

/// What those ahead, still waiting, want: PLAIN and IBITS.
#[derive(Default)]
struct Ahead {
    bits: [u64; 6],
    any: bool,
    /// Conversions that others pass: they stop new requests only.
    yielding: Vec<Wish>,
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
        if !self.resources[resource].has_pending() {
            return;
        }
        if self.resources[resource].policy != Policy::Extent {
            return self.serve_queues(resource, effects);
        }
        let mut freed = freed.map_or(Span::ALL, Scope::span);
        while let Some(more) = self.serve_ranges(resource, freed, effects) {
            freed = freed.hull(more);
        }
    }

    fn serve_queues(&mut self, resource: u32, effects: &mut Vec<Effect>) {
        let mut ahead = Ahead::default();
        while self.serve_queue(resource, State::Converting, &mut ahead, effects) {
            ahead = Ahead::default();
        }
        for wish in std::mem::take(&mut ahead.yielding) {
            ahead.add(&wish);
        }
        self.serve_queue(resource, State::Waiting, &mut ahead, effects);
    }

    /// One queue, from its head on. True if a conversion gave something up, so that those ahead must be looked at again.
    fn serve_queue(
        &mut self,
        resource: u32,
        state: State,
        ahead: &mut Ahead,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let is_plain = self.resources[resource].policy == Policy::Plain;
        let mut next = self.resources[resource].queue(state).head();
        while let Some(lock) = next {
            if is_plain && ahead.any && self.resources[resource].passing == 0 {
                break;
            }
            next = Chain::<QUEUE>::after(&self.locks, lock);
            let Some(Pending { wish, .. }) = self.locks[lock].pending else { continue };
            let passes = wish.flags.has(Flags::NOORDER) || !ahead.stops(&wish);
            match self.free_mode(resource, lock, &wish).filter(|_| passes) {
                Some(mode) if self.grant_waiting(resource, lock, &wish, mode, effects) => return true,
                Some(_) => {}
                None if wish.flags.has(Flags::YIELD) => ahead.yielding.push(wish),
                None => ahead.add(&wish),
            }
        }
        false
    }

    /// Grants one of a queue. True if its lock gave something up for it.
    fn grant_waiting(
        &mut self,
        resource: u32,
        lock: u32,
        wish: &Wish,
        mode: Mode,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let old = self.locks[lock].granted;
        self.grant(resource, lock, wish, mode, None, effects);
        old.is_some_and(|old| !mode.covers(old))
    }

    /// Ranges: only those that meet what was freed can have become grantable. What must be looked at besides: what a conversion gave
    /// up, or where one less is ahead of those who would take another mode beside it.
    fn serve_ranges(&mut self, resource: u32, freed: Span, effects: &mut Vec<Effect>) -> Option<Span> {
        let mut candidates = Vec::new();
        self.resources[resource].extents.as_ref()?.any(
            Interest::Wanted,
            ModeSet::of(&Mode::ALL),
            freed,
            |lock| {
                candidates.push((self.rank(lock), lock));
                false
            },
        );
        candidates.sort_unstable();
        for (rank, lock) in candidates {
            let Some(Pending { wish, .. }) = self.locks[lock].pending else { continue };
            if !wish.flags.has(Flags::NOORDER) && self.is_stopped(resource, rank, &wish) {
                continue;
            }
            let Some(mode) = self.free_mode(resource, lock, &wish) else { continue };
            let gave_up = self.grant_waiting(resource, lock, &wish, mode, effects);
            if gave_up || self.resources[resource].flexible > 0 {
                return Some(wish.scope.span());
            }
        }
        None
    }

    /// Smaller is served earlier.
    fn rank(&self, lock: u32) -> (bool, i64) {
        let lock = &self.locks[lock];
        (lock.state == State::Waiting, lock.pending.map_or(0, |pending| pending.place))
    }

    /// True if other conversions pass it.
    fn yields(&self, lock: u32) -> bool {
        self.locks[lock].pending.is_some_and(|pending| pending.wish.flags.has(Flags::YIELD))
    }

    /// True if somebody ahead who still waits is in the way.
    fn is_stopped(&self, resource: u32, rank: (bool, i64), wish: &Wish) -> bool {
        self.resources[resource].extents.as_ref().is_some_and(|extents| {
            extents.any(Interest::Wanted, wish.mode.conflicts(), wish.scope.span(), |other| {
                self.rank(other) < rank && (rank.0 || !self.yields(other))
            })
        })
    }
}
