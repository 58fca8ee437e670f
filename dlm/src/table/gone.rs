//! Owners that are gone: what goes with them, what stays, and what it does to the value block.
//!
//! ```text
//!                        holder gone        node DOWN                      node FENCED, or lease over
//!  waiting               purged             purged                         purged
//!  converting            conversion ends, then as granted
//!  granted               purged             purged                         purged
//!   PERSISTENT           orphan             purged                         purged
//!   GUARD, not NL        purged             held over                      purged
//!  value, from PW or EX  not valid          not valid                      not valid
//! ```
//!
//! Invariant: nothing is granted before everything that goes has gone.

use super::Table;
use super::timers::Timer;
use crate::event::{Effect, Gone};
use crate::flags::Flags;
use crate::mode::Mode;
use base::Time;
use std::collections::BTreeMap;

impl Table {
    pub(super) fn gone(&mut self, gone: Gone, effects: &mut Vec<Effect>) {
        let mut locks = match gone {
            Gone::Holder(owner) | Gone::OrphansOf(owner) => self.possessions(owner),
            Gone::Down { node, .. } | Gone::Fenced(node) | Gone::Orphans(node) => {
                self.possessions_of_node(node)
            }
        };
        match gone {
            // What is held over ends by time or a fence only.
            Gone::Holder(_) => {
                locks.retain(|lock| !self.locks[*lock].orphan && !self.locks[*lock].held_over);
            }
            Gone::Orphans(_) | Gone::OrphansOf(_) => locks.retain(|lock| self.locks[*lock].orphan),
            Gone::Down { .. } | Gone::Fenced(_) => {}
        }
        let mut touched = BTreeMap::new();
        for lock in locks {
            let resource = self.locks[lock].resource;
            touched.insert(resource, self.resources.id(resource));
            self.lose(lock, gone, effects);
        }
        for (resource, id) in touched {
            // One that was only there for another's sake has gone with that one.
            if self.resources.find(id).is_none() {
                continue;
            }
            self.serve(resource, None, effects);
            self.drop_if_idle(resource);
        }
    }

    /// What becomes of one lock.
    fn lose(&mut self, lock: u32, gone: Gone, effects: &mut Vec<Effect>) {
        let Some(mode) = self.locks[lock].granted else { return self.purge(lock, effects) };
        let lasting = self.locks[lock].lasting;
        match gone {
            Gone::Holder(_) if lasting.has(Flags::PERSISTENT) => {
                self.end_conversion(lock, effects);
                self.locks[lock].orphan = true;
            }
            Gone::Down { until, .. } if lasting.has(Flags::GUARD) && mode != Mode::NL && until > self.now => {
                self.hold_over(lock, until, effects);
            }
            _ => self.purge(lock, effects),
        }
    }

    fn hold_over(&mut self, lock: u32, until: Time, effects: &mut Vec<Effect>) {
        if self.locks[lock].held_over {
            return;
        }
        self.end_conversion(lock, effects);
        self.note_loss(lock);
        self.locks[lock].held_over = true;
        self.timers.insert((until, Timer::HeldOver(self.locks.id(lock))));
    }

    /// Ends what a lock that stays has been waiting for; nobody is left to be answered.
    fn end_conversion(&mut self, lock: u32, effects: &mut Vec<Effect>) {
        let Some(pending) = self.locks[lock].pending else { return };
        self.fall_back(self.locks[lock].resource, lock);
        let (id, owner) = (self.id(lock), self.locks[lock].owner);
        effects.push(Effect::Purged { lock: id, owner, tag: Some(pending.wish.tag) });
    }

    /// Takes a lock away. The caller serves the resource afterwards.
    pub(super) fn purge(&mut self, lock: u32, effects: &mut Vec<Effect>) {
        self.note_loss(lock);
        let (id, owner, resource) = (self.id(lock), self.locks[lock].owner, self.locks[lock].resource);
        let tag = self.locks[lock].pending.map(|pending| pending.wish.tag);
        self.remove(resource, lock);
        effects.push(Effect::Purged { lock: id, owner, tag });
    }

    /// A holder that may have been changing what the value tells of is gone: whoever comes next must know.
    fn note_loss(&mut self, lock: u32) {
        let lost = &self.locks[lock];
        if lost.held_over || !lost.granted.is_some_and(|mode| mode.writes_value()) {
            return;
        }
        let resource = lost.resource;
        let until = self.now + self.config.loss_kept;
        let id = self.resources.id(resource);
        let held = &mut self.resources[resource];
        held.value.is_valid = false;
        held.value.serial += 1;
        if let Some(earlier) = held.loss_until.replace(until) {
            self.timers.remove(&(earlier, Timer::Loss(id)));
        }
        self.timers.insert((until, Timer::Loss(id)));
    }
}
