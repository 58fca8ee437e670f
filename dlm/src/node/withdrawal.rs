//! Asks that are withdrawn: nobody on this node needs them any more, or others need what would be given back but for them.
//!
//! Invariant: a withdrawn ask is answered all the same; until then nothing else is asked.

use super::Node;
use crate::message::{Key, Message};

impl Node {
    /// An ask that waits while others want what no user has any more is withdrawn, so that the token can be given.
    ///
    /// So is one for more than any user still waits for: in its master's queue it would stop those who want less.
    pub(super) fn perhaps_cancel(&mut self, key: Key) {
        if self.asks_too_much(key) {
            return self.cancel_own_ask(key);
        }
        let Some(token) = self.tokens.get_mut(&key) else { return };
        if token.mode.is_none_or(|mode| token.called.is_some_and(|called| mode.goes_with(called))) {
            token.called = None;
        }
        let (Some(called), Some(asked)) = (token.called, &token.asked) else { return };
        let used = self.users.joined_besides(token.ward);
        if asked.is_cancelled || used.is_some_and(|used| !used.goes_with(called)) {
            return;
        }
        self.cancel_own_ask(key);
    }

    fn asks_too_much(&self, key: Key) -> bool {
        let Some(token) = self.tokens.get(&key) else { return false };
        let Some(asked) = token.asked.filter(|asked| asked.is_queued && !asked.ask.tries) else {
            return false;
        };
        self.need(key).is_none_or(|(mode, _, _)| {
            let wanted = token.mode.map_or(mode, |held| held.join(mode));
            wanted != asked.ask.mode && asked.ask.mode.covers(wanted)
        })
    }

    fn cancel_own_ask(&mut self, key: Key) {
        let asked = self.tokens.get_mut(&key).and_then(|token| token.asked.as_mut());
        let Some(asked) = asked.filter(|asked| !asked.is_cancelled) else { return };
        if let Some(to) = asked.to {
            asked.is_cancelled = true;
            let tag = asked.ask.tag;
            self.post(to, Message::Cancel { tag, key });
        }
    }
}
