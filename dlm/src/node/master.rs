//! The trees that this node is master of: tokens, whose owners are nodes, in one table.
//!
//! ```text
//!   (none) --Yours, recovery--> serves --empty for long--> leaving --Released--> (none)
//!                                                              |  asks wait, and are bounced at the end (also when the partition moves)
//! ```
//!
//! Invariant: `holders` of a spot are the nodes that have a lock on it in the table, one each.

mod spots;

use super::Node;
use super::asks::Asks;
use super::remaster::Move;
use super::scoped::ScopedHolder;
use super::values::Reader;
use crate::event::{Convert, Effect, Event, Grant, LockId, Owner, Refusal, Request, Transaction, Unlock};
use crate::flags::Flags;
use crate::message::{Ask, Drop, Key, Message};
use crate::mode::Mode;
use crate::policy::Scope;
use base::{Epoch, NodeId};
use std::collections::BTreeMap;

/// The tag of what nobody waits for an answer to. Asks have larger ones.
pub const NO_ANSWER: u64 = 0;

/// One node's token.
#[derive(Clone, Copy, Debug)]
pub struct Holder {
    pub lock: LockId,
    /// The last ask of it.
    pub tag: u64,
    pub mode: Option<Mode>,
    /// What it waits for, and whether it only tries.
    pub wants: Option<(Mode, bool)>,
}

/// A tree.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Its resources that somebody has something of.
    pub spots: u32,
    pub is_leaving: bool,
    /// The era in which the directory was asked to forget it.
    pub left_in: Epoch,
    /// Asks that wait for the tree to be left.
    pub waiting: Vec<(NodeId, Ask)>,
    pub empty_since: Option<u64>,
    pub asks: Asks,
    pub moving: Option<Move>,
    /// It is on its way to this node, or there: here is nothing of it.
    pub handed: Option<Hand>,
    /// It came from this node, and the directory does not know yet.
    pub taken_from: Option<NodeId>,
}

/// To whom a tree was given.
#[derive(Clone, Copy, Debug)]
pub struct Hand {
    pub to: NodeId,
    /// The era in which that life of it ended: what it had granted is known to the holders only, and the directory must hear so.
    pub ended: Option<Epoch>,
}

/// A resource of a tree: there while anything is in it.
#[derive(Clone, Debug, Default)]
pub struct Spot {
    pub holders: BTreeMap<NodeId, Holder>,
    /// Asks that have overtaken their node's `Drop`.
    pub ahead: BTreeMap<NodeId, Ask>,
    /// Asks that wait for the value as it is at the one who may change it.
    pub readers: Vec<Reader>,
    /// Users' locks with scopes: by node, and by their name in its table.
    pub scoped: BTreeMap<(NodeId, LockId), ScopedHolder>,
}

fn owner(node: NodeId) -> Owner {
    Owner { node, holder: 0 }
}

impl Node {
    /// A node asks for a token.
    pub(super) fn asked(&mut self, from: NodeId, ask: Ask) {
        let is_held = self.is_held(&ask.key);
        let Some(tree) = self.trees.get_mut(&ask.key.root()) else {
            return self.post(from, Message::NotMaster { tag: ask.tag, key: ask.key });
        };
        if let Some(Hand { to, ended: None }) = tree.handed {
            return self.pass_on(to, from, ask);
        }
        if tree.is_leaving || tree.handed.is_some() || tree.moving.is_some() {
            return tree.waiting.push((from, ask));
        }
        if is_held {
            return self.recovery.hold(from, ask);
        }
        if let Some(scoped) = ask.scoped {
            self.scoped_asked(from, &ask, &scoped);
            return self.count_ask(from, ask.key);
        }
        if self.is_old(from, &ask) {
            return;
        }
        // A node has one ask at a time.
        if let Some(spot) = self.spots.get_mut(&ask.key) {
            spot.ahead.remove(&from);
            spot.readers.retain(|reader| reader.from != from);
        }
        let mut holder = self.holder(&ask.key, from);
        if let Some(Holder { lock, wants: Some(_), .. }) = holder {
            // A node has one ask at a time: this wait is an earlier one, which came twice around a change of view.
            self.master(Event::Cancel { tag: NO_ANSWER, owner: owner(from), lock });
            holder = self.holder(&ask.key, from);
        }
        if let Some(spot) = self.spots.get_mut(&ask.key)
            && holder.is_some_and(|holder| ask.holds != Some(holder.lock))
        {
            spot.ahead.insert(from, ask);
            return;
        }
        if ask.reads && self.fetch_first(from, ask) {
            return;
        }
        let others = self.spots.get(&ask.key).into_iter().flat_map(|spot| spot.holders.values());
        let is_contended = others.into_iter().any(|holder| holder.wants.is_some());
        match holder {
            Some(holder) => self.convert_token(from, holder, &ask),
            None => {
                let request = self.token_request(from, ask.tag, ask.key, ask.mode);
                self.master_about(Some(ask.key), Event::Request(request));
            }
        }
        if ask.tries {
            self.try_to_clear(from, &ask, is_contended);
        }
        self.note_empty(ask.key);
        self.count_ask(from, ask.key);
    }

    /// True if this or a later ask of the node has been seen: it came twice around a change of view. (A reader may ask again: the value is fetched anew.)
    fn is_old(&self, from: NodeId, ask: &Ask) -> bool {
        let Some(spot) = self.spots.get(&ask.key) else { return false };
        let mut later = spot.readers.iter().filter(|reader| reader.from == from).map(|reader| reader.ask.tag);
        let is_ahead = spot.ahead.get(&from).is_some_and(|later| later.tag > ask.tag);
        let is_held = spot.holders.get(&from).is_some_and(|holder| holder.tag >= ask.tag);
        is_ahead || is_held || later.any(|tag| tag > ask.tag)
    }

    fn convert_token(&mut self, from: NodeId, holder: Holder, ask: &Ask) {
        if let Some(held) = self.spots.get_mut(&ask.key).and_then(|spot| spot.holders.get_mut(&from)) {
            held.tag = ask.tag;
        }
        self.master(Event::Convert(Convert {
            tag: ask.tag,
            owner: owner(from),
            lock: holder.lock,
            mode: ask.mode,
            scope: None,
            // Two nodes that want more may both be able to give way: only their users can be in each other's way, and the detector sees them.
            flags: Flags::NODLCKWT,
            value: None,
            deadline: None,
        }));
    }

    /// The request that stands for a node's token.
    pub(super) fn token_request(&self, node: NodeId, tag: u64, key: Key, mode: Mode) -> Request {
        let is_guarded = self.config.guarded.contains(&key.lockspace);
        let (lockspace, name) = key.flat();
        Request {
            tag,
            owner: owner(node),
            transaction: Transaction(0),
            lockspace,
            parent: None,
            name,
            mode,
            scope: Scope::Plain,
            flags: if is_guarded { Flags::GUARD } else { Flags::NONE },
            deadline: None,
        }
    }

    /// An ask that only tries waits for those who may not use what they hold, and for nobody else.
    fn try_to_clear(&mut self, from: NodeId, ask: &Ask, is_contended: bool) {
        let Some(spot) = self.spots.get_mut(&ask.key) else { return };
        let Some(holder) = spot.holders.get_mut(&from).filter(|holder| holder.wants.is_some()) else {
            return;
        };
        holder.wants = Some((ask.mode, true));
        if is_contended {
            return self.give_up_try(ask.key, from);
        }
        let in_the_way = |(node, holder): (&NodeId, &Holder)| {
            let blocks = *node != from && holder.mode.is_some_and(|mode| !mode.goes_with(ask.mode));
            blocks.then_some((*node, holder.lock))
        };
        let blockers: Vec<_> = spot.holders.iter().filter_map(in_the_way).collect();
        for (node, lock) in blockers {
            self.post(
                node,
                Message::Callback { key: ask.key, lock, mode: ask.mode, scope: Scope::Plain, tries: true },
            );
        }
    }

    fn give_up_try(&mut self, key: Key, node: NodeId) {
        let Some(lock) = self.holder(&key, node).map(|holder| holder.lock) else { return };
        self.master(Event::Cancel { tag: NO_ANSWER, owner: owner(node), lock });
    }

    /// A holder cannot give way now: who only tries need not wait.
    pub(super) fn in_use(&mut self, from: NodeId, key: Key, mode: Mode) {
        if self.trees.get(&key.root()).is_some_and(|tree| tree.moving.is_some()) {
            // It is asked again.
            return;
        }
        let Some(spot) = self.spots.get(&key) else { return };
        let blocks = spot.holders.get(&from).and_then(|holder| holder.mode);
        if blocks.is_none_or(|held| held.goes_with(mode)) {
            return;
        }
        let trying = spot.holders.iter().filter(|(_, holder)| holder.wants == Some((mode, true)));
        for node in trying.map(|(node, _)| *node).collect::<Vec<_>>() {
            self.give_up_try(key, node);
        }
    }

    /// A node gives its token back, or part of it.
    pub(super) fn dropped(&mut self, from: NodeId, drop: &Drop) {
        if self.put_aside(from, &drop.key, Message::Drop(*drop)) {
            return;
        }
        self.master(Event::Floor(drop.floor));
        if self.scoped_locks.contains_key(&drop.lock) {
            return self.scoped_dropped(from, drop);
        }
        let holder = self.holder(&drop.key, from);
        if holder.is_none_or(|holder| holder.lock != drop.lock) {
            return;
        }
        let (value, flags) = match drop.value {
            None => (None, Flags::NONE),
            Some((bytes, true)) => (Some(bytes), Flags::VALBLK),
            Some((bytes, false)) => (Some(bytes), Flags::IVVALBLK),
        };
        let (tag, owner, lock) = (NO_ANSWER, owner(from), drop.lock);
        match drop.mode {
            Some(mode) => {
                let (scope, deadline) = (None, None);
                self.master(Event::Convert(Convert {
                    tag,
                    owner,
                    lock,
                    mode,
                    scope,
                    flags,
                    value,
                    deadline,
                }));
            }
            None => {
                let flags = flags | Flags::FORCEUNLOCK;
                self.master(Event::Unlock(Unlock { tag, owner, lock, flags, value }));
            }
        }
        if let Some(ask) = self.spots.get_mut(&drop.key).and_then(|spot| spot.ahead.remove(&from)) {
            self.asked(from, ask);
        }
        self.release_readers(drop.key);
        self.note_empty(drop.key);
    }

    /// Shows an event to the table of tokens and says what it says.
    pub(super) fn master(&mut self, event: Event) {
        // Which resource it is about: a lock that goes with it is not known afterwards.
        let about = match &event {
            Event::Convert(Convert { lock, .. })
            | Event::Unlock(Unlock { lock, .. })
            | Event::Cancel { lock, .. }
            | Event::Victim { lock, .. } => {
                let scoped = self.scoped_locks.get(lock).map(|(key, ..)| *key);
                self.token_locks.get(lock).copied().or(scoped)
            }
            _ => None,
        };
        self.master_about(about, event);
    }

    fn master_about(&mut self, about: Option<Key>, event: Event) {
        let moves = |key: &Key| self.trees.get(&key.root()).is_some_and(|tree| tree.moving.is_some());
        if matches!(event, Event::Victim { .. }) && about.as_ref().is_some_and(moves) {
            // Whoever searches for deadlocks will find it again.
            return;
        }
        let mut effects = Vec::new();
        self.table.handle(self.now, event, &mut effects);
        for effect in effects {
            if let Some(lock) = effect.lock_of_what_ended() {
                self.token_may_wait_no_more(lock);
            }
            self.master_says(&event, about, effect);
        }
    }

    pub(super) fn master_says(&mut self, event: &Event, about: Option<Key>, effect: Effect) {
        if self.scoped_master_says(event, &effect) {
            return;
        }
        match effect {
            Effect::Queued { tag, lock, owner } => {
                self.token_waits(lock);
                let Some(key) = self.key_of(about, lock) else { return };
                let wants = self.wanted_mode(event).map(|mode| (mode, false));
                self.note_holder(key, owner.node, lock, Some(tag)).wants = wants;
                self.post(owner.node, Message::Queued { tag, key });
            }
            Effect::Granted(grant) => self.master_grants(about, &grant),
            Effect::Refused { tag, lock, owner, mode, why } => {
                let by_lock = lock.and_then(|lock| self.token_locks.get(&lock).copied());
                let Some(key) = by_lock.or(about) else { return };
                let mut tried = false;
                if let Some(holder) = self.spots.get_mut(&key).and_then(|s| s.holders.get_mut(&owner.node)) {
                    tried = holder.wants.take().is_some_and(|(_, tries)| tries);
                }
                if let Some(lock) = lock.filter(|_| mode.is_none()) {
                    self.forget_holder(key, owner.node, lock);
                }
                let why = if tried && why == Refusal::Cancelled { Refusal::Again } else { why };
                if tag != NO_ANSWER {
                    self.post(owner.node, Message::Denied { tag, key, why });
                }
            }
            // A cancel is done; what it cancelled is refused next.
            Effect::Done { .. } if matches!(event, Event::Cancel { .. }) => {}
            Effect::Done { lock, owner, .. } | Effect::Purged { lock, owner, .. } => {
                let Some(key) = self.token_locks.get(&lock).copied() else { return };
                if self.table.place_of(lock).is_none() {
                    self.forget_holder(key, owner.node, lock);
                    self.note_empty(key);
                }
            }
            Effect::Blocking { lock, owner, mode, scope } => {
                let Some(key) = self.token_locks.get(&lock).copied() else { return };
                self.post(owner.node, Message::Callback { key, lock, mode, scope, tries: false });
            }
        }
    }

    fn master_grants(&mut self, about: Option<Key>, grant: &Grant) {
        let Some(key) = self.key_of(about, grant.lock) else { return };
        let node = grant.owner.node;
        let holder = self.note_holder(key, node, grant.lock, None);
        holder.mode = Some(grant.mode);
        if grant.tag == NO_ANSWER {
            return;
        }
        holder.wants = None;
        holder.tag = grant.tag;
        let (lockspace, name) = key.flat();
        let Some(value) = self.table.value(lockspace, name) else { return };
        let Grant { tag, lock, mode, scope, token, .. } = *grant;
        self.post(node, Message::Granted { tag, key, lock, mode, scope, token, value });
    }
}
