//! Granting: when a wish may have its mode, and what changes when it has.
//!
//! Invariant: counts, trees and queues of a resource change together, here only.

use super::Table;
use super::timers::Timer;
use crate::event::{Effect, Grant, LockId, Status, VALUE_BYTES};
use crate::extents::{Extents, Interest};
use crate::flags::Flags;
use crate::lock::{Pending, State, Wish};
use crate::mode::{Mode, ModeSet, ValueMove, value_move};
use crate::policy::{Policy, Scope};
use crate::resource::{Resource, Value};
use crate::slab::NONE;

impl Table {
    /// The mode in which a wish that has just come may be granted now; `None`: it must wait.
    pub(super) fn mode_at_once(&self, resource: u32, lock: u32, wish: &Wish) -> Option<Mode> {
        let passes = if wish.flags.has_any(Flags::NOORDER | Flags::EXPEDITE) {
            true
        } else if self.locks[lock].granted.is_some() {
            !wish.flags.has(Flags::QUECVT)
                || wish.flags.has(Flags::HEADQUE)
                || !self.is_behind(resource, State::Converting, wish)
        } else {
            let at_head = wish.flags.has(Flags::HEADQUE);
            !self.is_behind(resource, State::Converting, wish)
                && (at_head || !self.is_behind(resource, State::Waiting, wish))
        };
        if passes { self.free_mode(resource, lock, wish) } else { None }
    }

    /// True if somebody in that queue is in the way of a newcomer.
    fn is_behind(&self, resource: u32, state: State, wish: &Wish) -> bool {
        let held = &self.resources[resource];
        let queue = if state == State::Converting { held.converting } else { held.waiting };
        if queue.is_empty() || held.policy == Policy::Plain {
            return !queue.is_empty();
        }
        let conflicts = wish.mode.conflicts();
        if conflicts.and(held.wanted_count.modes()).is_empty() {
            return false;
        }
        match &held.extents {
            Some(extents) => extents.any(Interest::Wanted, conflicts, wish.scope.span(), |other| {
                self.locks[other].state == state
            }),
            None => queue.iter(&self.locks).any(|other| {
                self.locks[other]
                    .pending
                    .is_some_and(|p| conflicts.has(p.wish.mode) && p.wish.scope.meets(wish.scope))
            }),
        }
    }

    /// The wish's mode, or the other one that will do, if no granted lock is in its way.
    pub(super) fn free_mode(&self, resource: u32, lock: u32, wish: &Wish) -> Option<Mode> {
        if wish.flags.has(Flags::AWAIT) {
            return None;
        }
        if self.is_free(resource, lock, wish.mode, wish.scope) {
            return Some(wish.mode);
        }
        let other = if wish.flags.has(Flags::ALTPR) && wish.mode != Mode::PR {
            Mode::PR
        } else if wish.flags.has(Flags::ALTCW) && wish.mode != Mode::CW {
            Mode::CW
        } else {
            return None;
        };
        // A conversion never ends with less than it had: that could write the value block, long after its caller gave the value.
        let gains = self.locks[lock].granted.is_none_or(|granted| !granted.covers(other));
        (gains && self.is_free(resource, lock, other, wish.scope)).then_some(other)
    }

    /// True if no granted lock besides `lock` is in the way of this mode on this scope.
    pub(super) fn is_free(&self, resource: u32, lock: u32, mode: Mode, scope: Scope) -> bool {
        let held = &self.resources[resource];
        let conflicts = mode.conflicts();
        let others = held.granted_count.modes_besides(self.locks[lock].granted).and(conflicts);
        if others.is_empty() || held.policy == Policy::Plain {
            return others.is_empty();
        }
        if let Some(extents) = &held.extents {
            return !extents.any(Interest::Granted, others, scope.span(), |other| other != lock);
        }
        let in_the_way = |other: u32| {
            let other_lock = &self.locks[other];
            other != lock
                && other_lock.granted.is_some_and(|mode| conflicts.has(mode))
                && other_lock.scope.meets(scope)
        };
        !held.granted.iter(&self.locks).chain(held.converting.iter(&self.locks)).any(in_the_way)
    }

    /// Grants. `value`: what the value block becomes, if this conversion writes it.
    pub(super) fn grant(
        &mut self,
        resource: u32,
        lock: u32,
        wish: &Wish,
        mode: Mode,
        value: Option<[u8; VALUE_BYTES]>,
        effects: &mut Vec<Effect>,
    ) {
        let is_new = self.locks[lock].granted.is_none();
        let moves = value_move(self.locks[lock].granted, mode);
        if self.locks[lock].pending.is_some() {
            self.dequeue(resource, lock);
        }
        if self.locks[lock].state != State::Granted {
            self.locks[lock].state = State::Granted;
            self.resources[resource].granted.push_back(&mut self.locks, lock);
        }
        let scope = if is_new { self.granted_scope(resource, mode, wish.scope) } else { wish.scope };
        self.set_granted(resource, lock, mode, scope);
        if moves == ValueMove::Write {
            self.write_value(resource, wish.flags, value);
        }
        let read = moves == ValueMove::Read && wish.flags.has(Flags::VALBLK);
        let held = &self.resources[resource].value;
        let value = read.then_some((held.bytes, held.serial));
        let mut status = self.status(resource, lock);
        status.is_other_mode = mode != wish.mode;
        self.tell_grant(lock, wish.tag, status, value, effects);
        self.call_new_holder(resource, lock, effects);
    }

    /// Somebody else has decided that a wish is granted.
    pub(super) fn allow(
        &mut self,
        id: LockId,
        mode: Mode,
        scope: Scope,
        value: Value,
        effects: &mut Vec<Effect>,
    ) {
        let Some(lock) = self.locks.find(id.0) else { return };
        let Some(Pending { wish, .. }) = self.locks[lock].pending else { return };
        let resource = self.locks[lock].resource;
        debug_assert!(self.is_free(resource, lock, mode, scope), "what is allowed goes with what is here");
        self.resources[resource].value = value;
        self.grant(resource, lock, &Wish { scope, ..wish }, mode, None, effects);
    }

    /// What a new lock gets: for a range as much of the desired one as nobody else cares for.
    fn granted_scope(&self, resource: u32, mode: Mode, scope: Scope) -> Scope {
        match (scope, &self.resources[resource].extents) {
            (Scope::Extent { span, desired }, Some(extents)) => {
                let grown = extents.grown(mode.conflicts(), span, desired);
                Scope::Extent { span: grown, desired: grown }
            }
            _ => scope,
        }
    }

    pub(super) fn status(&self, resource: u32, lock: u32) -> Status {
        Status {
            is_other_mode: false,
            was_demoted: self.locks[lock].demoted,
            value_not_valid: !self.resources[resource].value.is_valid,
        }
    }

    /// A new token, and the word to the owner.
    pub(super) fn tell_grant(
        &mut self,
        index: u32,
        tag: u64,
        status: Status,
        value: Option<([u8; VALUE_BYTES], u64)>,
        effects: &mut Vec<Effect>,
    ) {
        self.last_token += 1;
        let id = LockId(self.locks.id(index));
        let lock = &mut self.locks[index];
        lock.token = self.last_token;
        lock.called = ModeSet::default();
        lock.called_bits = None;
        lock.demoted = false;
        let mode = lock.granted.expect("only granted locks are told of");
        let (owner, scope, token) = (lock.owner, lock.scope, lock.token);
        effects.push(Effect::Granted(Grant { tag, lock: id, owner, mode, scope, token, status, value }));
    }

    pub(super) fn write_value(&mut self, resource: u32, flags: Flags, value: Option<[u8; VALUE_BYTES]>) {
        let held = &mut self.resources[resource];
        if flags.has(Flags::IVVALBLK) {
            held.value.serial += 1;
            held.value.is_valid = false;
        } else if let (true, Some(bytes)) = (flags.has(Flags::VALBLK), value) {
            held.value.serial += 1;
            held.value.bytes = bytes;
            held.value.is_valid = true;
            if let Some(until) = held.loss_until.take() {
                self.timers.remove(&(until, Timer::Loss(self.resources.id(resource))));
            }
        }
    }

    /// Gives a lock another granted mode and scope in the books.
    pub(super) fn set_granted(&mut self, resource: u32, lock: u32, mode: Mode, scope: Scope) {
        self.take_granted(resource, lock);
        let (held, changed) = (&mut self.resources[resource], &mut self.locks[lock]);
        changed.granted = Some(mode);
        changed.scope = scope;
        held.granted_count.add(mode);
        if let Some(extents) = &mut held.extents {
            extents.insert(Interest::Granted, mode, scope.span(), lock);
        }
    }

    /// Takes a lock's granted mode, if it has one, out of the books.
    pub(super) fn take_granted(&mut self, resource: u32, lock: u32) {
        let (held, changed) = (&mut self.resources[resource], &mut self.locks[lock]);
        let Some(mode) = changed.granted.take() else { return };
        held.granted_count.take(mode);
        if let Some(extents) = &mut held.extents {
            extents.remove(Interest::Granted, mode, changed.scope.span(), lock);
        }
    }

    /// Puts a wish into the queue where it belongs.
    pub(super) fn enqueue(&mut self, resource: u32, lock: u32, wish: &Wish) {
        self.last_wait += 1;
        let number = self.last_wait;
        let at_head = wish.flags.has(Flags::HEADQUE);
        let place = if at_head { -(number as i64) } else { number as i64 };
        let held = &mut self.resources[resource];
        if self.locks[lock].granted.is_some() {
            held.granted.remove(&mut self.locks, lock);
            self.locks[lock].state = State::Converting;
        }
        let queue = held.queue(self.locks[lock].state);
        match at_head {
            true => queue.push_front(&mut self.locks, lock),
            false => queue.push_back(&mut self.locks, lock),
        }
        held.wanted_count.add(wish.mode);
        held.passing += u32::from(wish.flags.has(Flags::NOORDER));
        held.flexible += u32::from(wish.flags.has_any(Flags::ALTPR | Flags::ALTCW));
        if let Some(extents) = &mut held.extents {
            extents.insert(Interest::Wanted, wish.mode, wish.scope.span(), lock);
        }
        self.locks[lock].pending = Some(Pending { wish: *wish, since: self.now, number, place });
        if let Some(deadline) = wish.deadline {
            self.timers.insert((deadline, Timer::Deadline(self.locks.id(lock))));
        }
    }

    /// Takes a lock's wish out of its queue; the lock is in no queue then.
    pub(super) fn dequeue(&mut self, resource: u32, lock: u32) {
        let id = self.locks.id(lock);
        let Some(Pending { wish, .. }) = self.locks[lock].pending.take() else { return };
        let held: &mut Resource = &mut self.resources[resource];
        held.queue(self.locks[lock].state).remove(&mut self.locks, lock);
        held.wanted_count.take(wish.mode);
        held.passing -= u32::from(wish.flags.has(Flags::NOORDER));
        held.flexible -= u32::from(wish.flags.has_any(Flags::ALTPR | Flags::ALTCW));
        if let Some(extents) = &mut held.extents {
            Extents::remove(extents, Interest::Wanted, wish.mode, wish.scope.span(), lock);
        }
        if let Some(deadline) = wish.deadline {
            self.timers.remove(&(deadline, Timer::Deadline(id)));
        }
        debug_assert!(resource != NONE);
    }
}
