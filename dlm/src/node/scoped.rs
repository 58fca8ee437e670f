//! Locks on resources with scopes (IBITS, EXTENT): each user's lock is a token of its own, with its scope.
//!
//! ```text
//!  user's request --> own table: waits (AWAIT) --Ask{scoped}--> master's table: by all its rules, against everybody's locks
//!                     granted  <-----Allow-----   Granted{mode, scope}: a range has grown where nobody is interested, on any node
//!  less, unlocked: own table first --Drop--> master            Callback{mode, scope} --> the user that is in the way
//! ```
//!
//! Invariant: what the own table has granted is never more than what the master has: it is lowered here first and raised there first, except that while a
//! conversion is under way the holder relies only on what both modes have in common. Only the master ends a conversion: else the two could end it differently.

mod master;
mod recovery;

pub use master::ScopedHolder;

use super::tokens::Given;
use super::{Effect as NodeEffect, Node, partition};
use crate::event::{Convert, Effect, Event, LockId, Owner, Refusal, Request, Transaction, VALUE_BYTES};
use crate::flags::Flags;
use crate::message::{Ask, Drop, Key, Message, Scoped};
use crate::mode::{Mode, ValueMove, value_move};
use crate::policy::Scope;
use crate::table::check_request;
use base::{NodeId, Time};

/// What the own table must know of a request's flags: the others are the master's.
const KEPT: Flags = Flags(Flags::VALBLK.0 | Flags::GUARD.0 | Flags::NODLCKBLK.0 | Flags::NODLCKWT.0);
/// What locks with scopes do not do: nobody could tell what is left of them.
const NOT_WITH_SCOPES: Flags =
    Flags(Flags::PERSISTENT.0 | Flags::ORPHAN.0 | Flags::CONVDEADLK.0 | Flags::AWAIT.0);
/// What the master must not see: the value goes beside it, the time is watched here.
const NOT_FOR_MASTERS: Flags = Flags(Flags::VALBLK.0 | Flags::IVVALBLK.0 | Flags::TIMEOUT.0 | Flags::AWAIT.0);
/// Trees whose master is remembered though this node has nothing of them.
const HINTS_MAX: usize = 65_536;

/// A user's lock.
#[derive(Clone, Copy, Debug)]
pub struct ScopedLock {
    key: Key,
    owner: Owner,
    transaction: Transaction,
    /// What the own table has granted.
    mode: Option<Mode>,
    master: Option<NodeId>,
    /// The lock at the master, once it has granted anything.
    at_master: Option<LockId>,
    wait: Option<ScopedWait>,
    /// It may have the one or the other as its master: whoever it is will say so.
    moving: Option<(NodeId, NodeId)>,
    /// Something was given up while there was no master to be told; the value that was written with it.
    behind: Option<Written>,
}

/// A lock that was given up while its tree moved from the one to the other: what it wrote.
#[derive(Clone, Copy, Debug)]
pub struct Ghost {
    between: (NodeId, NodeId),
    written: Written,
}

/// A value that was written, and whether it is valid; or none.
type Written = Option<([u8; VALUE_BYTES], bool)>;

/// A request or conversion under way.
#[derive(Clone, Copy, Debug)]
struct ScopedWait {
    ask: Ask,
    /// The master that has it; `None`: the directory was asked, or nobody can be.
    to: Option<NodeId>,
    deadline: Option<Time>,
    /// It is to end, and why.
    ends: Option<Refusal>,
    /// Who said so.
    cancel: Option<u64>,
}

impl Node {
    pub(super) fn is_scoped(&self, lock: LockId) -> bool {
        self.scoped.contains_key(&lock)
    }

    /// The locks on a resource, for whoever looks into why somebody waits.
    pub(super) fn scoped_of(&self, key: &Key) -> Vec<(LockId, ScopedLock)> {
        let locks = self.scoped.iter().filter(|(_, entry)| entry.key == *key);
        locks.map(|(lock, entry)| (*lock, *entry)).collect()
    }

    pub(super) fn scoped_requests(&mut self, request: Request) {
        let admitted = self.admit_scoped(&request);
        let key = match admitted {
            Ok(key) => key,
            Err(why) => {
                let (tag, owner, lock, mode) = (request.tag, request.owner, None, None);
                return self.out.push(NodeEffect::User(Effect::Refused { tag, lock, owner, mode, why }));
            }
        };
        let flags = Flags(request.flags.0 & KEPT.0) | Flags::AWAIT;
        let effects = self.show_all(Event::Request(Request { flags, deadline: None, ..request }));
        if let Some(Effect::Queued { lock, .. }) = effects.first() {
            let (owner, transaction) = (request.owner, request.transaction);
            let entry = ScopedLock {
                key,
                owner,
                transaction,
                mode: None,
                master: None,
                at_master: None,
                wait: None,
                moving: None,
                behind: None,
            };
            self.scoped.insert(*lock, entry);
            self.ask_scoped(*lock, request.mode, request.flags, request.scope, request.deadline);
        }
    }

    fn admit_scoped(&self, request: &Request) -> Result<Key, Refusal> {
        check_request(request.flags, request.mode, request.deadline.is_some())?;
        if request.flags.has_any(NOT_WITH_SCOPES) {
            return Err(Refusal::Invalid("PERSISTENT, ORPHAN or CONVDEADLK with a scope"));
        }
        self.key_for(request).map(|(key, _)| key)
    }

    /// A user's word on a lock that has a scope.
    pub(super) fn scoped_user(&mut self, lock: LockId, event: Event) {
        let Some(entry) = self.scoped.get(&lock).copied() else { return };
        match event {
            Event::Convert(convert) => self.scoped_converts(&entry, &convert),
            Event::Cancel { tag, owner, .. } if entry.mode.is_some() && owner == entry.owner => {
                self.scoped_cancels(lock, tag);
            }
            Event::Unlock(unlock) => {
                self.show(event);
                self.scoped_left(lock, written(entry.mode, unlock.flags, unlock.value));
            }
            Event::Cancel { .. } => {
                self.show(event);
                self.scoped_left(lock, None);
            }
            _ => {}
        }
    }

    fn scoped_converts(&mut self, entry: &ScopedLock, convert: &Convert) {
        let (lock, flags) = (convert.lock, convert.flags);
        let covers = entry.mode.is_some_and(|mode| mode.covers(convert.mode));
        let reads = value_move(entry.mode, convert.mode) == ValueMove::Read && flags.has(Flags::VALBLK);
        if (covers && !reads) || entry.wait.is_some() || flags.has_any(NOT_WITH_SCOPES) {
            // At once, or to be refused.
            let flags = flags.without(Flags::AWAIT);
            let effects = self.show_all(Event::Convert(Convert { flags, ..*convert }));
            if let Some(Effect::Granted(grant)) = effects.first() {
                let value = written(entry.mode, flags, convert.value);
                self.scoped_lowered(lock, grant.mode, grant.scope, value);
            }
            return;
        }
        let kept = Flags(flags.0 & KEPT.0) | Flags::AWAIT;
        let effects = self.show_all(Event::Convert(Convert { flags: kept, deadline: None, ..*convert }));
        if let Some(Effect::Queued { .. }) = effects.first() {
            let had = self.users.scope_of(lock).unwrap_or(Scope::Plain);
            let scope = convert.scope.unwrap_or(had);
            self.ask_scoped(lock, convert.mode, flags, scope, convert.deadline);
        }
    }

    /// A lock has less than before, or has written the value: the master is told, if there is one.
    fn scoped_lowered(
        &mut self,
        lock: LockId,
        mode: Mode,
        scope: Scope,
        value: Option<([u8; VALUE_BYTES], bool)>,
    ) {
        let floor = self.users.last_token();
        let Some(entry) = self.scoped.get_mut(&lock) else { return };
        entry.mode = Some(mode);
        let (Some(master), Some(at_master)) = (entry.master, entry.at_master) else {
            let earlier = entry.behind.flatten();
            entry.behind = Some(value.or(earlier));
            return;
        };
        let (key, mode, scope) = (entry.key, Some(mode), Some(scope));
        self.post(master, Message::Drop(Drop { key, lock: at_master, mode, scope, value, floor }));
    }

    /// A lock that is perhaps not in the own table any more: then nothing is wanted of the master.
    pub(super) fn scoped_left(&mut self, lock: LockId, value: Option<([u8; VALUE_BYTES], bool)>) {
        if self.users.key_of(lock).is_some() {
            return;
        }
        let Some(entry) = self.scoped.remove(&lock) else { return };
        let key = entry.key;
        if let Some(wait) = entry.wait {
            self.scoped_asks.remove(&wait.ask.tag);
            self.forget_deadline(lock, &wait);
            if let (Some(to), None) = (wait.to, entry.mode) {
                self.post(to, Message::Cancel { tag: wait.ask.tag, key });
            }
        }
        if let (Some(master), Some(at_master)) = (entry.master, entry.at_master) {
            self.scoped_names.remove(&(master, at_master));
            let floor = self.users.last_token();
            let (mode, scope) = (None, None);
            self.post(master, Message::Drop(Drop { key, lock: at_master, mode, scope, value, floor }));
        } else if let Some(moving) = entry.moving {
            // Its master to be will name it. (After a master's death the value is not valid anyway.)
            let written = value.or(entry.behind.flatten());
            self.scoped_ghosts.insert(lock, Ghost { between: moving, written });
        }
    }

    /// Locks that went with their owner.
    pub(super) fn scoped_purged(&mut self, lock: LockId) {
        let mode = self.scoped.get(&lock).and_then(|entry| entry.mode);
        self.scoped_left(lock, written(mode, Flags::IVVALBLK, None));
    }

    /// A conversion is to end; the master says how.
    fn scoped_cancels(&mut self, lock: LockId, tag: u64) {
        let Some(entry) = self.scoped.get_mut(&lock) else { return };
        let owner = entry.owner;
        match &mut entry.wait {
            Some(wait) if wait.cancel.is_none() => {
                wait.cancel = Some(tag);
                self.end_wait(lock, Refusal::Cancelled);
            }
            _ => {
                let (mode, why) = (entry.mode, Refusal::NotPending);
                self.out.push(NodeEffect::User(Effect::Refused { tag, lock: Some(lock), owner, mode, why }));
            }
        }
    }

    fn end_wait(&mut self, lock: LockId, why: Refusal) {
        let Some(entry) = self.scoped.get_mut(&lock) else { return };
        let key = entry.key;
        let Some(wait) = entry.wait.as_mut().filter(|wait| wait.ends.is_none()) else { return };
        wait.ends = Some(why);
        let tag = wait.ask.tag;
        if let Some(to) = wait.to {
            self.post(to, Message::Cancel { tag, key });
        }
    }

    fn forget_deadline(&mut self, lock: LockId, wait: &ScopedWait) {
        if let Some(deadline) = wait.deadline {
            self.scoped_deadlines.remove(&(deadline, lock));
        }
    }

    pub(super) fn scoped_tick(&mut self) {
        let now = self.now;
        while let Some((due, lock)) = self.scoped_deadlines.first().copied().filter(|(due, _)| *due <= now) {
            self.scoped_deadlines.remove(&(due, lock));
            if self.scoped.get(&lock).is_some_and(|entry| entry.mode.is_some()) {
                self.end_wait(lock, Refusal::TimedOut);
            } else {
                self.show(Event::Deny { lock, why: Refusal::TimedOut });
                self.scoped_left(lock, None);
            }
        }
    }

    fn ask_scoped(&mut self, lock: LockId, mode: Mode, flags: Flags, scope: Scope, deadline: Option<Time>) {
        let Some(entry) = self.scoped.get_mut(&lock) else { return };
        self.last_tag += 1;
        let flags = flags.without(NOT_FOR_MASTERS);
        let (holder, transaction) = (entry.owner.holder, entry.transaction);
        let scoped = Some(Scoped { lock, holder, transaction, flags, scope });
        let (tag, key, holds) = (self.last_tag, entry.key, entry.at_master);
        let ask = Ask { tag, key, mode, holds, tries: false, reads: false, scoped };
        entry.wait = Some(ScopedWait { ask, to: None, deadline, ends: None, cancel: None });
        self.scoped_asks.insert(tag, lock);
        self.scoped_deadlines.extend(deadline.map(|deadline| (deadline, lock)));
        self.send_scoped(lock);
    }

    /// Sends what is under way: to the master, if it is known, otherwise to the directory. (What has a lock and no master waits for its new one.)
    fn send_scoped(&mut self, lock: LockId) {
        let Some(entry) = self.scoped.get_mut(&lock) else { return };
        let Some(wait) = &mut entry.wait else { return };
        let hint = self.hints.get(&entry.key.root()).copied();
        let master = entry.master.or(hint.filter(|_| entry.mode.is_none()));
        wait.ask.holds = entry.at_master;
        wait.to = master;
        let (ask, is_new) = (wait.ask, entry.mode.is_none());
        match (master, self.cluster.owner(partition(&ask.key))) {
            (Some(master), _) => self.post(master, Message::Ask(ask)),
            (None, Some(owner)) if is_new => self.post(owner, Message::Lookup(ask)),
            _ => {}
        }
    }

    /// This node has become the master of what it has asked for.
    pub(super) fn ask_myself_scoped(&mut self, key: Key) {
        let me = self.me();
        let waits = |entry: &ScopedLock| {
            entry.key == key && entry.mode.is_none() && entry.wait.is_some_and(|wait| wait.to.is_none())
        };
        let locks = self.scoped.iter().filter(|(_, entry)| waits(entry)).map(|(lock, _)| *lock);
        for lock in locks.collect::<Vec<_>>() {
            self.note_hint(&key, me);
            self.send_scoped(lock);
        }
    }

    fn note_hint(&mut self, key: &Key, master: NodeId) {
        if self.hints.len() >= HINTS_MAX {
            self.hints.clear();
        }
        self.hints.insert(key.root(), master);
    }

    /// A master has queued it. If nobody waits for that any more it is taken back.
    pub(super) fn scoped_queued(&mut self, from: NodeId, tag: u64, key: Key) {
        self.note_hint(&key, from);
        let lock = self.scoped_asks.get(&tag);
        match lock.and_then(|lock| self.scoped.get_mut(lock)).and_then(|entry| entry.wait.as_mut()) {
            Some(wait) => wait.to = Some(from),
            None => self.post(from, Message::Cancel { tag, key }),
        }
    }

    pub(super) fn scoped_not_master(&mut self, from: NodeId, lock: LockId) {
        let Some(entry) = self.scoped.get(&lock).filter(|entry| entry.mode.is_none()) else { return };
        let root = entry.key.root();
        if self.hints.get(&root) == Some(&from) {
            self.hints.remove(&root);
        }
        self.send_scoped(lock);
    }

    pub(super) fn scoped_granted(&mut self, from: NodeId, lock: LockId, given: Given) {
        let Some(entry) = self.scoped.get_mut(&lock) else { return };
        let Some(wait) = entry.wait.take() else { return };
        (entry.master, entry.at_master, entry.mode) = (Some(from), Some(given.lock), Some(given.mode));
        let (key, owner) = (entry.key, entry.owner);
        self.scoped_names.insert((from, given.lock), lock);
        self.note_hint(&key, from);
        self.forget_deadline(lock, &wait);
        let Given { mode, scope, token, value, .. } = given;
        self.show(Event::Allow { lock, mode, scope, token, value });
        self.lift(token);
        if let Some(tag) = wait.cancel {
            let (lock, mode, why) = (Some(lock), Some(mode), Refusal::NotPending);
            self.out.push(NodeEffect::User(Effect::Refused { tag, lock, owner, mode, why }));
        }
    }

    pub(super) fn scoped_denied(&mut self, lock: LockId, why: Refusal) {
        let Some(entry) = self.scoped.get_mut(&lock) else { return };
        let Some(wait) = entry.wait.take() else { return };
        let owner = entry.owner;
        self.forget_deadline(lock, &wait);
        if let Some(tag) = wait.cancel {
            self.out.push(NodeEffect::User(Effect::Done { tag, lock, owner }));
        }
        self.show(Event::Deny { lock, why: wait.ends.unwrap_or(why) });
        self.scoped_left(lock, None);
    }

    /// Somebody wants what a user has.
    pub(super) fn scoped_callback(&mut self, from: NodeId, at_master: LockId, mode: Mode, scope: Scope) {
        let Some(lock) = self.scoped_names.get(&(from, at_master)).copied() else { return };
        if let Some(ScopedLock { owner, .. }) = self.scoped.get(&lock).copied() {
            self.out.push(NodeEffect::User(Effect::Blocking { lock, owner, mode, scope }));
        }
    }

    /// Shows an event to the users' table, tells what it says, and says it to the caller too.
    fn show_all(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.users.handle(self.now, event, &mut effects);
        self.tell_users(effects.clone());
        effects
    }
}

/// What an unlock or a conversion from `mode` writes.
fn written(
    mode: Option<Mode>,
    flags: Flags,
    value: Option<[u8; VALUE_BYTES]>,
) -> Option<([u8; VALUE_BYTES], bool)> {
    if !mode.is_some_and(Mode::writes_value) {
        return None;
    }
    match (flags.has(Flags::IVVALBLK), flags.has(Flags::VALBLK)) {
        (true, _) => Some(([0; VALUE_BYTES], false)),
        (false, true) => value.map(|value| (value, true)),
        (false, false) => None,
    }
}
