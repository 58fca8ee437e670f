//! Locks with scopes in a new era: reported by their nodes, placed by the new master.
//!
//! A conversion under way at the death: nobody knows whether the dead master granted it, and its holder relies only on what both modes have in common. So what is
//! certain is placed first; then each that converts, in its old mode if that goes with all that is placed, otherwise in its new one: then somebody has been
//! granted what its old mode forbids, and the dead master can have done that only after it had granted the conversion.
//!
//! Invariant: what is placed is compatible, and covers what each holder relies on.

use super::ScopedLock;
use crate::event::{Effect, Event, LockId, Refusal};
use crate::flags::Flags;
use crate::message::{Ask, Drop, Key, Message, Placed, Scoped, ScopedCopy};
use crate::mode::Mode;
use crate::node::master::NO_ANSWER;
use crate::node::tokens::Given;
use crate::node::{Node, partition};
use crate::resource::Value;
use base::{Epoch, NodeId};
use std::collections::BTreeMap;

impl Node {
    /// Locks and asks whose master is dead have none.
    pub(in crate::node) fn forget_scoped_masters(&mut self, ended: &[NodeId]) {
        let is_dead = |node: Option<NodeId>| node.is_some_and(|node| ended.contains(&node));
        self.hints.retain(|_, master| !ended.contains(master));
        self.scoped_ghosts
            .retain(|_, ghost| !ended.contains(&ghost.between.0) && !ended.contains(&ghost.between.1));
        self.scoped_names.retain(|(master, _), _| !ended.contains(master));
        for entry in self.scoped.values_mut() {
            if is_dead(entry.master) {
                (entry.master, entry.at_master) = (None, None);
            }
            entry.moving.take_if(|(one, other)| is_dead(Some(*one)) || is_dead(Some(*other)));
            if let Some(wait) = entry.wait.as_mut().filter(|wait| is_dead(wait.to)) {
                wait.to = None;
            }
        }
    }

    /// What this node's users have whose master is gone.
    pub(in crate::node) fn scoped_orphans(&self) -> Vec<ScopedCopy> {
        let orphan = |(lock, entry): (&LockId, &ScopedLock)| {
            let mode = entry.mode.filter(|_| entry.master.is_none() && entry.moving.is_none())?;
            Some(ScopedCopy {
                key: entry.key,
                lock: *lock,
                holder: entry.owner.holder,
                transaction: entry.transaction,
                mode,
                scope: self.users.scope_of(*lock)?,
                wanted: entry.wait.map(|wait| wait.ask.mode),
                value: self.users.value_of(*lock)?,
            })
        };
        self.scoped.iter().filter_map(orphan).collect()
    }

    /// This node becomes master of a resource with scopes.
    pub(in crate::node) fn rebuild_scoped(
        &mut self,
        key: Key,
        copies: &[(NodeId, ScopedCopy)],
        told: &mut BTreeMap<NodeId, Vec<Placed>>,
    ) {
        self.take_tree(key);
        let is_certain = |(_, copy): &&(NodeId, ScopedCopy)| copy.wanted.is_none();
        let certain = copies.iter().filter(is_certain);
        let converting = copies.iter().filter(|copy| !is_certain(copy));
        for (node, copy) in certain.chain(converting) {
            let modes = [Some(copy.mode), copy.wanted];
            let placed = modes.into_iter().flatten().find_map(|mode| self.place_scoped(*node, copy, mode));
            debug_assert!(placed.is_some(), "what survivors rely on is compatible: {copies:?}");
            told.entry(*node).or_default().extend(placed);
        }
        // Several may have been writing at once: nobody knows which was the last.
        let newest = copies.iter().map(|(_, copy)| copy.value).max_by_key(|value| value.serial);
        if let Some(value) = newest.filter(|value| *value != Value::NEW) {
            self.set_master_value(key, Value { is_valid: false, ..value });
        }
        self.note_empty(key);
    }

    pub(in crate::node) fn place_scoped(
        &mut self,
        node: NodeId,
        copy: &ScopedCopy,
        mode: Mode,
    ) -> Option<Placed> {
        let ScopedCopy { key, lock, holder, transaction, scope, .. } = *copy;
        let scoped = Scoped { lock, holder, transaction, flags: Flags::NOQUEUE, scope };
        let ask =
            Ask { tag: NO_ANSWER, key, mode, holds: None, tries: false, reads: false, scoped: Some(scoped) };
        let request = self.scoped_request(node, &ask, &scoped);
        let mut effects = Vec::new();
        self.table.handle(self.now, Event::Request(request), &mut effects);
        let Some(Effect::Granted(grant)) = effects.first() else { return None };
        self.note_scoped(key, (node, lock), grant.lock, NO_ANSWER);
        Some(Placed { key, lock, at_master: grant.lock, mode })
    }

    /// Some locks have a new master; what could not be asked can be now.
    pub(in crate::node) fn scoped_recovered(
        &mut self,
        from: NodeId,
        era: Epoch,
        placed: &[Placed],
        done: bool,
    ) {
        for placed in placed {
            self.scoped_placed(from, placed);
        }
        if done && era == self.cluster.era() {
            let again = |(lock, entry): (&LockId, &ScopedLock)| {
                let waits = entry.mode.is_none() && entry.wait.is_some_and(|wait| wait.to.is_none());
                (waits && self.cluster.owner(partition(&entry.key)) == Some(from)).then_some(*lock)
            };
            for lock in self.scoped.iter().filter_map(again).collect::<Vec<_>>() {
                self.send_scoped(lock);
            }
        }
    }

    /// The master wants to give a tree away.
    pub(in crate::node) fn note_scoped_move(&mut self, from: NodeId, root: Key, to: NodeId) {
        self.hints.remove(&root);
        for entry in self.scoped.values_mut().filter(|entry| entry.key.root() == root) {
            if entry.master == Some(from) {
                if let Some(at_master) = entry.at_master.take() {
                    self.scoped_names.remove(&(from, at_master));
                }
                (entry.master, entry.moving) = (None, entry.mode.map(|_| (from, to)));
            }
            if let Some(wait) = entry.wait.as_mut().filter(|wait| wait.to == Some(from)) {
                wait.to = None;
            }
        }
    }

    /// Requests that wait are asked for where the tree is now.
    pub(in crate::node) fn ask_new_scoped_master(&mut self, from: NodeId, root: Key) {
        let waits = |entry: &ScopedLock| {
            let is_here = entry.key.root() == root && entry.mode.is_none();
            is_here && entry.wait.is_some_and(|wait| wait.to.is_none())
        };
        let waiting = self.scoped.iter().filter(|(_, entry)| waits(entry)).map(|(lock, _)| *lock);
        for lock in waiting.collect::<Vec<_>>() {
            self.note_hint(&root, from);
            self.send_scoped(lock);
        }
    }

    /// A lock as its master has it, for the next one.
    pub(in crate::node) fn scoped_copy(
        &self,
        key: Key,
        lock: LockId,
        at_master: LockId,
        value: Value,
    ) -> Option<ScopedCopy> {
        let holder = self.table.owner_of(at_master)?.holder;
        let transaction = self.table.transaction_of(at_master)?;
        let (mode, scope) = (self.table.mode_of(at_master)?, self.table.scope_of(at_master)?);
        Some(ScopedCopy { key, lock, holder, transaction, mode, scope, wanted: None, value })
    }

    fn scoped_placed(&mut self, from: NodeId, placed: &Placed) {
        let Placed { key, lock, at_master, mode } = *placed;
        let floor = self.users.last_token();
        let is_lost = |entry: &&mut ScopedLock| entry.mode.is_some() && entry.master.is_none();
        let Some(entry) = self.scoped.get_mut(&lock).filter(is_lost) else {
            let (mode, scope, value) =
                (None, None, self.scoped_ghosts.remove(&lock).and_then(|ghost| ghost.written));
            return self.post(from, Message::Drop(Drop { key, lock: at_master, mode, scope, value, floor }));
        };
        (entry.master, entry.at_master, entry.moving) = (Some(from), Some(at_master), None);
        let (behind, wait, had) = (entry.behind.take(), entry.wait, entry.mode);
        self.scoped_names.insert((from, at_master), lock);
        let scope = self.users.scope_of(lock);
        if let (Some(written), Some(had), Some(scope)) = (behind, had, scope) {
            self.scoped_lowered(lock, had, scope, written);
        }
        let Some(wait) = wait else { return };
        match scope {
            // (Something was given up since the death, or during the move: then the ask was never sent, and the mode is an older one.)
            Some(scope) if behind.is_none() && had != Some(mode) && wait.ask.mode == mode => {
                self.scoped_asks.remove(&wait.ask.tag);
                let value = self.users.value_of(lock).unwrap_or(Value::NEW);
                let value = Value { is_valid: false, ..value };
                let given = Given { lock: at_master, mode, scope, token: 0, value };
                self.scoped_granted(from, lock, given);
            }
            _ if wait.ends.is_some() => {
                self.scoped_asks.remove(&wait.ask.tag);
                self.scoped_denied(lock, Refusal::Cancelled);
            }
            _ => self.send_scoped(lock),
        }
    }
}
