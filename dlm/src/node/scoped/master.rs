//! Locks with scopes at their master: in its table under their owners, beside the tokens of the nodes.
//!
//! Invariant: a lock is in its spot's `scoped` and in `scoped_locks` while it is in the table.

use crate::event::{Convert, Effect, Event, LockId, Owner, Refusal, Request, Unlock};
use crate::flags::Flags;
use crate::message::{Ask, Drop, Key, Message, Scoped};
use crate::node::Node;
use crate::node::master::NO_ANSWER;
use base::NodeId;

/// One user's lock.
#[derive(Clone, Copy, Debug)]
pub struct ScopedHolder {
    pub lock: LockId,
    /// The last ask of it.
    pub tag: u64,
}

impl Node {
    /// A user of a node asks for a lock, or a conversion of one.
    pub(in crate::node) fn scoped_asked(&mut self, from: NodeId, ask: &Ask, scoped: &Scoped) {
        let name = (from, scoped.lock);
        let held = self.spots.get(&ask.key).and_then(|spot| spot.scoped.get(&name)).copied();
        let (tag, key) = (ask.tag, ask.key);
        let event = match held {
            // It came twice around a change of view.
            Some(held) if held.tag == tag => return,
            Some(held) if ask.holds == Some(held.lock) => {
                let spot = self.spots.get_mut(&key).and_then(|spot| spot.scoped.get_mut(&name));
                if let Some(held) = spot {
                    held.tag = tag;
                }
                self.scoped_conversion(from, ask, scoped, held.lock)
            }
            None if ask.holds.is_none() => Event::Request(self.scoped_request(from, ask, scoped)),
            _ => return self.post(from, Message::Denied { tag, key, why: Refusal::NoLock }),
        };
        let mut effects = Vec::new();
        self.table.handle(self.now, event, &mut effects);
        for effect in effects {
            if let Some(lock) = effect.lock_of_what_ended() {
                self.token_may_wait_no_more(lock);
            }
            match effect {
                Effect::Refused { lock, why, .. }
                    if effect.ended() == Some(tag)
                        && lock.is_none_or(|lock| !self.scoped_locks.contains_key(&lock)) =>
                {
                    self.post(from, Message::Denied { tag, key, why });
                    continue;
                }
                Effect::Queued { lock, .. } => self.note_scoped(key, name, lock, tag),
                Effect::Granted(grant) => self.note_scoped(key, name, grant.lock, tag),
                _ => {}
            }
            self.master_says(&event, None, effect);
        }
        self.note_empty(key);
    }

    pub(super) fn scoped_request(&self, from: NodeId, ask: &Ask, scoped: &Scoped) -> Request {
        let token = self.token_request(from, ask.tag, ask.key, ask.mode);
        let owner = Owner { node: from, holder: scoped.holder };
        let (transaction, scope) = (scoped.transaction, scoped.scope);
        Request { owner, transaction, scope, flags: scoped.flags | token.flags, ..token }
    }

    fn scoped_conversion(&self, from: NodeId, ask: &Ask, scoped: &Scoped, lock: LockId) -> Event {
        let owner = Owner { node: from, holder: scoped.holder };
        let (tag, mode, flags, scope) = (ask.tag, ask.mode, scoped.flags, Some(scoped.scope));
        Event::Convert(Convert { tag, owner, lock, mode, scope, flags, value: None, deadline: None })
    }

    /// Remembers a lock that is new here.
    pub(super) fn note_scoped(&mut self, key: Key, name: (NodeId, LockId), lock: LockId, tag: u64) {
        let is_new = !self.scoped_locks.contains_key(&lock);
        if !self.scoped_locks.contains_key(&lock) {
            self.scoped_locks.insert(lock, (key, name.0, name.1));
        }
        if is_new {
            self.spot(key).scoped.insert(name, ScopedHolder { lock, tag });
        }
    }

    fn forget_scoped(&mut self, lock: LockId) {
        let Some((key, node, name)) = self.scoped_locks.remove(&lock) else { return };
        if let Some(spot) = self.spots.get_mut(&key) {
            spot.scoped.remove(&(node, name));
        }
        self.note_empty(key);
    }

    fn scoped_owner(&self, lock: LockId) -> Option<Owner> {
        self.table.owner_of(lock)
    }

    pub(in crate::node) fn cancel_scoped(&mut self, from: NodeId, lock: LockId) {
        if let Some(owner) = self.scoped_owner(lock).filter(|owner| owner.node == from) {
            self.master(Event::Cancel { tag: NO_ANSWER, owner, lock });
        }
    }

    /// A user has given its lock back, or part of it.
    pub(in crate::node) fn scoped_dropped(&mut self, from: NodeId, drop: &Drop) {
        let lock = drop.lock;
        let Some(owner) = self.scoped_owner(lock).filter(|owner| owner.node == from) else { return };
        let (value, flags) = match drop.value {
            None => (None, Flags::NONE),
            Some((bytes, true)) => (Some(bytes), Flags::VALBLK),
            Some((bytes, false)) => (Some(bytes), Flags::IVVALBLK),
        };
        let (tag, scope, deadline) = (NO_ANSWER, drop.scope, None);
        self.master(match drop.mode {
            Some(mode) => Event::Convert(Convert { tag, owner, lock, mode, scope, flags, value, deadline }),
            None => {
                let flags = flags | Flags::FORCEUNLOCK;
                Event::Unlock(Unlock { tag, owner, lock, flags, value })
            }
        });
    }

    /// What the table says of a lock with a scope; false: it is about none.
    pub(in crate::node) fn scoped_master_says(&mut self, event: &Event, effect: &Effect) -> bool {
        let lock = match *effect {
            Effect::Granted(grant) => grant.lock,
            Effect::Refused { lock: Some(lock), .. } => lock,
            Effect::Refused { .. } => return false,
            Effect::Queued { lock, .. }
            | Effect::Done { lock, .. }
            | Effect::Blocking { lock, .. }
            | Effect::Purged { lock, .. } => lock,
        };
        let Some((key, node, _)) = self.scoped_locks.get(&lock).copied() else { return false };
        match *effect {
            Effect::Queued { tag, .. } => {
                self.token_waits(lock);
                self.post(node, Message::Queued { tag, key });
            }
            Effect::Granted(grant) if grant.tag != NO_ANSWER => {
                let (space, name) = key.flat();
                let Some(value) = self.table.value(space, name) else { return true };
                let (tag, mode, scope, token) = (grant.tag, grant.mode, grant.scope, grant.token);
                self.post(node, Message::Granted { tag, key, lock, mode, scope, token, value });
            }
            Effect::Granted(_) => {}
            Effect::Refused { tag, why, .. } => {
                if tag != NO_ANSWER {
                    self.post(node, Message::Denied { tag, key, why });
                }
                self.forget_gone(lock);
            }
            // A cancel is done; what it cancelled is refused next.
            Effect::Done { .. } if matches!(event, Event::Cancel { .. }) => {}
            Effect::Done { .. } | Effect::Purged { .. } => self.forget_gone(lock),
            Effect::Blocking { mode, scope, .. } => {
                self.post(node, Message::Callback { key, lock, mode, scope, tries: false });
            }
        }
        true
    }

    fn forget_gone(&mut self, lock: LockId) {
        if self.table.owner_of(lock).is_none() {
            self.forget_scoped(lock);
        }
    }
}
