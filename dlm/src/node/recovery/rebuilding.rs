//! Trees are rebuilt from what survivors have, and tokens find their master again.
//!
//! Invariant: what survivors have is compatible, so it is granted at once in the order in which it comes.

use super::super::canary::sings;
use crate::event::{Effect, Event, LockId};
use crate::message::{Copy, Key, Message};
use crate::mode::Mode;
use crate::node::Node;
use crate::resource::Value;
use base::NodeId;
use std::collections::BTreeMap;

impl Node {
    /// This node is the master of a tree from now on.
    pub(in crate::node) fn take_tree(&mut self, key: Key) {
        self.directory.entries.insert(key.root(), self.me());
        if self.config.guarded.contains(&key.lockspace) {
            self.recovery.held_keys.insert(key.root());
        }
        self.trees.or_default(key.root());
        self.forget_hand(key.root());
    }

    /// This node becomes master of a tree, whose state is in the copies of those who survive.
    pub(super) fn rebuild(
        &mut self,
        key: Key,
        copies: &[(NodeId, Copy)],
        told: &mut BTreeMap<NodeId, Vec<(Key, LockId)>>,
    ) {
        self.take_tree(key);
        let forgets = usize::from(sings!(self, ForgetsACopy));
        for (node, copy) in copies.iter().skip(forgets) {
            self.place_token(*node, copy, told);
        }
        let surely_current = copies.iter().filter(|(_, copy)| copy.mode >= Mode::CW);
        let best = surely_current.map(|(_, copy)| copy.value).max_by_key(|value| value.serial);
        let newest = copies.iter().map(|(_, copy)| copy.value).max_by_key(|value| value.serial);
        let is_valid = sings!(self, TrustsAnyValue);
        let value = best.or(newest.map(|value| Value { is_valid, ..value }));
        if let Some(value) = value {
            self.set_master_value(key, value);
        }
        self.note_empty(key);
    }

    /// A token as its holder has it, in this node's table.
    pub(in crate::node) fn place_token(
        &mut self,
        node: NodeId,
        copy: &Copy,
        told: &mut BTreeMap<NodeId, Vec<(Key, LockId)>>,
    ) {
        let key = copy.key;
        let request = self.token_request(node, super::super::master::NO_ANSWER, key, copy.mode);
        let mut effects = Vec::new();
        self.table.handle(self.now, Event::Request(request), &mut effects);
        if let Some(Effect::Granted(grant)) = effects.first() {
            self.place_holder(key, grant);
            told.entry(node).or_default().push((key, grant.lock));
        } else {
            debug_assert!(false, "what nodes have is compatible: {copy:?}");
        }
    }

    /// A token has a master again.
    pub(in crate::node) fn token_placed(&mut self, from: NodeId, key: Key, lock: LockId) {
        let is_lost = |token: &&mut super::super::Token| token.mode.is_some() && token.master.is_none();
        let Some(token) = self.tokens.get_mut(&key).filter(is_lost) else {
            let (mode, scope, value, floor) = (None, None, None, 0);
            let drop = crate::message::Drop { key, lock, mode, scope, value, floor };
            return self.post(from, Message::Drop(drop));
        };
        (token.master, token.lock, token.moving) = (Some(from), Some(lock), None);
        // An ask that went to the directory named no token: to a master who knows this one it would seem to have overtaken its `Drop`.
        if token.asked.is_some_and(|asked| asked.to.is_none()) {
            self.send_ask(key);
        }
    }
}
