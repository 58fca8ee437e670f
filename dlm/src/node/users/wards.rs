//! Wards: what the rest of the cluster may have, as a lock in the node's own table.
//!
//! Invariant: a ward forbids users what the token does not cover.

use super::super::Node;
use crate::event::{Convert, Event};
use crate::flags::Flags;
use crate::message::Key;
use crate::mode::Mode;
use crate::resource::Value;

impl Node {
    /// Converts the ward; what comes of it arrives in [`Node::ward_granted`]. It waits for holders only, not for its place in the queue: those ahead
    /// may be waiting for it.
    pub(in crate::node) fn convert_ward(&mut self, key: Key, mode: Mode) {
        self.show_ward(key, mode, Flags::NODLCKWT | Flags::NOORDER | Flags::YIELD, None);
    }

    pub(super) fn show_ward(&mut self, key: Key, mode: Mode, flags: Flags, value: Option<[u8; 32]>) {
        let Some(token) = self.tokens.get(&key) else { return };
        let (tag, owner, lock) = (0, token.ward_owner, token.ward);
        let (scope, deadline) = (None, None);
        self.show(Event::Convert(Convert { tag, owner, lock, mode, scope, flags, value, deadline }));
    }

    /// The value as this node knows it.
    pub(in crate::node) fn token_value(&self, key: &Key) -> Value {
        self.tokens.get(key).and_then(|token| self.users.value_of(token.ward)).unwrap_or(Value::NEW)
    }

    /// The ward gives its conversion up, if one is under way.
    pub(in crate::node) fn stop_giving(&mut self, key: Key) {
        let Some(token) = self.tokens.get_mut(&key) else { return };
        if token.giving.take().is_some() {
            let (owner, lock) = (token.ward_owner, token.ward);
            self.show(Event::Cancel { tag: 0, owner, lock });
        }
    }

    /// The value as the master has it; nobody here can have changed it meanwhile.
    pub(in crate::node) fn take_value(&mut self, key: Key, value: Value) {
        let Some(ward_mode) = self.tokens.get(&key).map(|token| token.ward_mode) else { return };
        if ward_mode.writes_value() {
            self.show_ward(key, ward_mode, Flags::VALBLK, Some(value.bytes));
            if !value.is_valid {
                self.show_ward(key, ward_mode, Flags::IVVALBLK, None);
            }
        }
        let local = self.token_value(&key);
        if let Some(token) = self.tokens.get_mut(&key) {
            token.serial = value.serial;
            token.synced = local.serial;
        }
    }
}
