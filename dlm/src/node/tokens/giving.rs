//! Giving way: a token is called back, users are asked to leave, and what nobody uses goes back to the master.
//!
//! Invariant: the node's own idea of a token is lowered before its master hears of it.

use super::{room_for, ward_for};
use crate::event::LockId;
use crate::message::{Drop, Key, Message};
use crate::mode::Mode;
use crate::node::Node;
use base::NodeId;

impl Node {
    pub(in crate::node) fn callback(
        &mut self,
        from: NodeId,
        key: Key,
        lock: LockId,
        mode: Mode,
        tries: bool,
    ) {
        let Some(token) = self.tokens.get_mut(&key) else { return };
        let is_in_the_way = token.mode.is_some_and(|held| !held.goes_with(mode));
        if token.lock != Some(lock) || token.master != Some(from) {
            return;
        }
        if !is_in_the_way {
            return self.say_again(key);
        }
        token.called = Some(token.called.map_or(mode, |called| called.join(mode)));
        self.settle(key);
        let still = self.tokens.get(&key).and_then(|token| token.mode);
        if tries && still.is_some_and(|held| !held.goes_with(mode)) {
            self.post(from, Message::InUse { key, mode });
        }
    }

    /// Gives what is called for, now or when its users have gone.
    pub(super) fn give_way(&mut self, key: Key) {
        let Some(token) = self.tokens.get_mut(&key) else { return };
        let (Some(called), Some(mode)) = (token.called, token.mode) else {
            token.called = None;
            return;
        };
        if mode.goes_with(called) {
            token.called = None;
            return;
        }
        // What no user has goes at once: it may do for somebody, and whoever waits for it must not wait for users who are not in the way.
        let used = self.users.joined_besides(token.ward).filter(|used| !used.goes_with(called));
        let mode = match used.filter(|used| *used != mode && mode.covers(*used)) {
            Some(used) if self.give(key, Some(used)) => used,
            _ => mode,
        };
        let Some(token) = self.tokens.get(&key) else { return };
        let kept = room_for(mode, called);
        let nobody = kept == Mode::NL && self.users.is_alone(token.ward) && token.parked.is_empty();
        self.give(key, if nobody { None } else { Some(kept) });
    }

    /// Lowers the token to `kept`; true if that is done already.
    pub(in crate::node) fn give(&mut self, key: Key, kept: Option<Mode>) -> bool {
        let Some(token) = self.tokens.get_mut(&key) else { return false };
        let ward = ward_for(kept);
        if token.giving.is_some() && token.giving != Some(kept) {
            self.stop_giving(key);
        }
        let Some(token) = self.tokens.get_mut(&key) else { return false };
        let waits = token.giving == Some(kept) && token.ward_mode != ward;
        token.giving = Some(kept);
        if !waits {
            self.convert_ward(key, ward);
        }
        self.finish_giving(key)
    }

    /// There is no master any more who has called: the next one calls again, if somebody still wants it. (The ward would stand in the way of new users for nobody.)
    pub(in crate::node) fn forget_call(&mut self, key: Key) {
        let Some(token) = self.tokens.get_mut(&key) else { return };
        token.called = None;
        if token.giving.is_some_and(|kept| token.ward_mode != ward_for(kept)) {
            self.stop_giving(key);
        }
    }

    /// The ward has what it needs: tells the master. True if nothing is being given any more.
    pub(in crate::node) fn finish_giving(&mut self, key: Key) -> bool {
        let Some(token) = self.tokens.get_mut(&key) else { return true };
        let Some(kept) = token.giving else { return true };
        if token.asked.is_some() {
            return false;
        }
        let (Some(master), Some(lock)) = (token.master, token.lock) else { return false };
        if token.ward_mode != ward_for(kept) {
            return false;
        }
        token.giving = None;
        token.is_stale = false;
        token.mode = kept;
        if kept.is_none() {
            token.lock = None;
        }
        if token.called.is_some_and(|called| kept.is_none_or(|kept| kept.goes_with(called))) {
            token.called = None;
        }
        let value = self.changed_value(key);
        let floor = self.users.last_token();
        self.post(master, Message::Drop(Drop { key, lock, mode: kept, scope: None, value, floor }));
        true
    }
}
