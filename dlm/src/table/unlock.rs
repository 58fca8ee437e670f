//! Unlocking, cancelling, and the end of what waits.

use super::Table;
use crate::event::{Effect, LockId, Owner, Refusal, Unlock};
use crate::flags::Flags;
use crate::lock::State;

impl Table {
    pub(super) fn unlock(&mut self, unlock: &Unlock, effects: &mut Vec<Effect>) {
        let (tag, owner, id) = (unlock.tag, unlock.owner, unlock.lock);
        match self.admit_unlock(unlock) {
            Err(why) => {
                let known = self.own_lock(owner, id).ok();
                let mode = known.and_then(|lock| self.locks[lock].granted);
                effects.push(Effect::Refused { tag, lock: Some(id), owner, mode, why });
            }
            Ok(lock) => {
                let resource = self.locks[lock].resource;
                if self.locks[lock].granted.is_some_and(|mode| mode.writes_value()) {
                    self.write_value(resource, unlock.flags, unlock.value);
                }
                if let Some(pending) = self.locks[lock].pending {
                    let (tag, why) = (pending.wish.tag, Refusal::Cancelled);
                    let mode = self.locks[lock].granted;
                    effects.push(Effect::Refused { tag, lock: Some(id), owner, mode, why });
                }
                let scope = self.locks[lock].scope;
                self.remove(resource, lock);
                effects.push(Effect::Done { tag, lock: id, owner });
                self.serve(resource, Some(scope), effects);
                self.drop_if_idle(resource);
            }
        }
    }

    fn admit_unlock(&self, unlock: &Unlock) -> Result<u32, Refusal> {
        let index = self.own_lock(unlock.owner, unlock.lock)?;
        let lock = &self.locks[index];
        let is_forced = unlock.flags.has(Flags::FORCEUNLOCK);
        if lock.state != State::Granted && !is_forced {
            return Err(Refusal::Busy);
        }
        if lock.children > 0 && !is_forced {
            return Err(Refusal::HasChildren);
        }
        let writes = lock.granted.is_some_and(|mode| mode.writes_value());
        let lacks_value = writes && unlock.flags.has(Flags::VALBLK) && unlock.value.is_none();
        if lacks_value && !unlock.flags.has(Flags::IVVALBLK) {
            return Err(Refusal::Invalid("VALBLK without a value to write"));
        }
        Ok(index)
    }

    /// Takes a lock out of its resource and the table. Whoever waited for it is not served yet.
    pub(super) fn remove(&mut self, resource: u32, lock: u32) {
        match self.locks[lock].pending {
            Some(_) => self.dequeue(resource, lock),
            None => self.resources[resource].granted.remove(&mut self.locks, lock),
        }
        self.take_granted(resource, lock);
        self.forget(lock);
    }

    pub(super) fn cancel(&mut self, tag: u64, owner: Owner, id: LockId, effects: &mut Vec<Effect>) {
        let pending = self.own_lock(owner, id).and_then(|lock| match self.locks[lock].pending {
            Some(_) => Ok(lock),
            None => Err(Refusal::NotPending),
        });
        match pending {
            Ok(lock) => {
                effects.push(Effect::Done { tag, lock: id, owner });
                self.give_up(lock, Refusal::Cancelled, effects);
            }
            Err(why) => {
                let known = self.own_lock(owner, id).ok();
                let mode = known.and_then(|lock| self.locks[lock].granted);
                effects.push(Effect::Refused { tag, lock: Some(id), owner, mode, why });
            }
        }
    }

    pub(super) fn victim(&mut self, id: LockId, wait: u64, why: Refusal, effects: &mut Vec<Effect>) {
        let Some(lock) = self.locks.find(id.0) else { return };
        if self.locks[lock].pending.is_some_and(|pending| pending.number == wait) {
            self.give_up(lock, why, effects);
        }
    }

    /// Ends a wait: a request goes, a conversion falls back to what it has.
    pub(super) fn give_up(&mut self, lock: u32, why: Refusal, effects: &mut Vec<Effect>) {
        let Some(pending) = self.locks[lock].pending else { return };
        let (resource, owner, id) = (self.locks[lock].resource, self.locks[lock].owner, self.id(lock));
        let mode = self.locks[lock].granted;
        effects.push(Effect::Refused { tag: pending.wish.tag, lock: Some(id), owner, mode, why });
        if mode.is_some() {
            self.fall_back(resource, lock);
        } else {
            self.remove(resource, lock);
        }
        self.serve(resource, Some(pending.wish.scope), effects);
        self.drop_if_idle(resource);
    }

    /// A converting lock has its old mode again and wants no other.
    pub(super) fn fall_back(&mut self, resource: u32, lock: u32) {
        self.dequeue(resource, lock);
        self.locks[lock].state = State::Granted;
        self.locks[lock].demoted = false;
        self.resources[resource].granted.push_back(&mut self.locks, lock);
    }
}
