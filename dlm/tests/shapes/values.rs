//! What each value block is, and has been: so that a reader beside a writer can be judged.
//!
//! Invariant: what was true keeps the time at which it ended.

use crate::users::bytes;
use base::Time;
use dlm::Key;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, Default)]
pub struct Truth {
    pub value: u64,
    pub is_lost: bool,
    /// Nobody had a lock for a moment: the resource may have been forgotten with its value.
    pub may_be_new: bool,
}

impl Truth {
    fn allows(&self, value: [u8; 32]) -> bool {
        (!self.is_lost && value == bytes(self.value)) || (self.may_be_new && value == bytes(0))
    }
}

#[derive(Default)]
pub struct Truths {
    present: BTreeMap<Key, Truth>,
    past: BTreeMap<Key, Vec<(Time, Truth)>>,
}

impl Truths {
    /// What is true now; of a resource nobody has seen: that it may be new.
    pub fn at(&self, key: Key) -> Truth {
        let unseen = Truth { may_be_new: true, ..Truth::default() };
        self.present.get(&key).copied().unwrap_or(unseen)
    }

    pub fn change(&mut self, now: Time, key: Key, change: impl FnOnce(&mut Truth)) {
        let mut truth = self.at(key);
        self.past.entry(key).or_default().push((now, truth));
        change(&mut truth);
        self.present.insert(key, truth);
    }

    /// True if that was the value at some moment since `start`.
    pub fn was(&self, start: Time, key: Key, value: [u8; 32]) -> bool {
        let past = self.past.get(&key).into_iter().flatten().rev();
        let mut seen = past.take_while(|(ended, _)| *ended >= start);
        self.at(key).allows(value) || seen.any(|(_, truth)| truth.allows(value))
    }
}
