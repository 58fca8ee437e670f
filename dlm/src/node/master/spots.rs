//! Spots: who has what of one resource, as its master knows it.
//!
//! Invariant: a spot is there while somebody has or wants something of it.

use super::{Holder, NO_ANSWER, Spot};
use crate::event::{Event, Grant, LockId};
use crate::message::Key;
use crate::mode::Mode;
use crate::node::Node;
use crate::resource::Value;
use base::NodeId;

impl Node {
    pub(super) fn wanted_mode(&self, event: &Event) -> Option<Mode> {
        match event {
            Event::Request(request) => Some(request.mode),
            Event::Convert(convert) => Some(convert.mode),
            _ => None,
        }
    }

    pub(super) fn key_of(&self, about: Option<Key>, lock: LockId) -> Option<Key> {
        self.token_locks.get(&lock).copied().or(about)
    }

    pub(super) fn note_holder(
        &mut self,
        key: Key,
        node: NodeId,
        lock: LockId,
        tag: Option<u64>,
    ) -> &mut Holder {
        self.token_locks.insert(lock, key);
        let spot = self.spot(key);
        let holder =
            spot.holders.entry(node).or_insert(Holder { lock, tag: NO_ANSWER, mode: None, wants: None });
        holder.tag = tag.unwrap_or(holder.tag);
        holder
    }

    /// A resource, made if it is not there.
    pub(in crate::node) fn spot(&mut self, key: Key) -> &mut Spot {
        if !self.spots.contains_key(&key) {
            self.trees.or_default(key.root()).spots += 1;
            self.spots.insert(key, Spot::default());
        }
        self.spots.get_mut(&key).expect("it was just put there")
    }

    /// A token that was rebuilt from its holder's copy.
    pub(in crate::node) fn place_holder(&mut self, key: Key, grant: &Grant) {
        self.note_holder(key, grant.owner.node, grant.lock, None).mode = Some(grant.mode);
    }

    pub(super) fn forget_holder(&mut self, key: Key, node: NodeId, lock: LockId) {
        self.token_locks.remove(&lock);
        let Some(spot) = self.spots.get_mut(&key) else { return };
        if spot.holders.get(&node).is_some_and(|holder| holder.lock == lock) {
            spot.holders.remove(&node);
        }
    }

    /// A node's token, as its master knows it.
    pub(in crate::node) fn holder(&self, key: &Key, node: NodeId) -> Option<Holder> {
        self.spots.get(key)?.holders.get(&node).copied()
    }

    /// What the value is, as this master has found out.
    pub(in crate::node) fn set_master_value(&mut self, key: Key, value: Value) {
        let (lockspace, name) = key.flat();
        self.master(Event::Value { lockspace, name, value });
    }

    /// A resource that nobody has anything of any more.
    pub(in crate::node) fn forget_spot(&mut self, key: Key) {
        let is_void = |spot: &Spot| {
            let has_tokens = !(spot.holders.is_empty() && spot.ahead.is_empty());
            !has_tokens && spot.readers.is_empty() && spot.scoped.is_empty()
        };
        if self.spots.get(&key).is_some_and(is_void) {
            self.spots.remove(&key);
            if let Some(tree) = self.trees.get_mut(&key.root()) {
                tree.spots -= 1;
            }
        }
    }
}
