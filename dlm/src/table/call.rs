//! Blocking callbacks: telling holders that they are in somebody's way.
//!
//! Invariant: since its last grant a holder is told at most once of each mode, and not of a mode that forbids it nothing more
//! than one it was told of. (IBITS: unless it is about other aspects.)

use super::Table;
use crate::event::Effect;
use crate::extents::Interest;
use crate::flags::Flags;
use crate::lock::{State, Wish};
use crate::mode::Mode;
use crate::policy::{Policy, Scope};

impl Table {
    /// Tells everybody who has what `wish` wants.
    pub(super) fn call_holders(&mut self, resource: u32, lock: u32, wish: &Wish, effects: &mut Vec<Effect>) {
        let held = &self.resources[resource];
        let conflicts = wish.mode.conflicts();
        let others = held.granted_count.modes_besides(self.locks[lock].granted).and(conflicts);
        if others.is_empty() {
            return;
        }
        let is_in_the_way = |other: &u32| {
            let holder = &self.locks[*other];
            *other != lock
                && holder.granted.is_some_and(|mode| conflicts.has(mode))
                && holder.scope.meets(wish.scope)
        };
        let holders: Vec<u32> = match &held.extents {
            Some(extents) => {
                let mut holders = Vec::new();
                extents.any(Interest::Granted, others, wish.scope.span(), |other| {
                    holders.push(other);
                    false
                });
                holders.retain(|other| *other != lock);
                holders
            }
            None => {
                let all = held.granted.iter(&self.locks).chain(held.converting.iter(&self.locks));
                all.filter(is_in_the_way).collect()
            }
        };
        for holder in holders {
            self.call(holder, wish.mode, wish.scope, effects);
        }
    }

    /// Tells a new holder of those who already wait for what it has now.
    pub(super) fn call_new_holder(&mut self, resource: u32, lock: u32, effects: &mut Vec<Effect>) {
        let held = &self.resources[resource];
        let Some(granted) = self.locks[lock].granted.filter(|_| held.has_pending()) else { return };
        let wanted = held.wanted_count.modes().and(granted.conflicts());
        if wanted.is_empty() {
            return;
        }
        if held.policy == Policy::Plain {
            for mode in wanted.strongest_first() {
                self.call(lock, mode, Scope::Plain, effects);
            }
            return;
        }
        let scope = self.locks[lock].scope;
        let mut calls: Vec<(Mode, Scope)> = Vec::new();
        let mut note = |other: u32| {
            let pending = self.locks[other].pending.filter(|pending| !pending.wish.flags.has(Flags::AWAIT));
            let Some(pending) = pending else { return false };
            if wanted.has(pending.wish.mode) && pending.wish.scope.meets(scope) {
                calls.push((pending.wish.mode, pending.wish.scope));
            }
            false
        };
        match &held.extents {
            Some(extents) => {
                extents.any(Interest::Wanted, wanted, scope.span(), note);
            }
            None => {
                for other in held.converting.iter(&self.locks).chain(held.waiting.iter(&self.locks)) {
                    note(other);
                }
            }
        }
        for (mode, scope) in calls {
            self.call(lock, mode, scope, effects);
        }
    }

    fn call(&mut self, index: u32, mode: Mode, scope: Scope, effects: &mut Vec<Effect>) {
        let id = self.id(index);
        let lock = &mut self.locks[index];
        let told = lock.called.strongest_first().filter(|told| told.conflicts().has_all(mode.conflicts()));
        if let (Scope::Bits(wanted), Scope::Bits(had)) = (scope, lock.scope) {
            let bits = wanted & had;
            let told_bits = lock
                .called_bits
                .as_ref()
                .map_or(0, |of_mode| told.fold(0, |bits, told| bits | of_mode[told as usize]));
            if bits & !told_bits == 0 {
                return;
            }
            lock.called_bits.get_or_insert_default()[mode as usize] |= bits;
        } else if told.count() > 0 {
            return;
        }
        lock.called.insert(mode);
        debug_assert!(lock.state != State::Waiting);
        effects.push(Effect::Blocking { lock: id, owner: lock.owner, mode, scope });
    }
}
