//! What no user may ever see.
//!
//! Invariant: the oracle knows only what users ask and are told, who is dead, and who is fenced; nothing of how it came about.

use super::users::{Doing, GUARDED, User, bytes};
use crate::mode::{ValueMove, value_move};
use crate::{Event, Flags, Grant, Key, Mode, Owner, Refusal};
use base::{Epoch, NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug)]
struct Hold {
    mode: Mode,
    /// What it may rely on while it converts.
    relies_on: Mode,
    /// A dead node's hold: until when it counts.
    until: Option<Time>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Truth {
    value: u64,
    is_lost: bool,
    /// Nobody had a lock for a moment: the resource may have been forgotten with its value.
    may_be_new: bool,
}

#[derive(Default)]
pub struct Oracle {
    holds: BTreeMap<Key, BTreeMap<Owner, Hold>>,
    tokens: BTreeMap<(Key, Mode), u64>,
    values: BTreeMap<Key, Truth>,
    /// Nodes that are declared DOWN, and until when what they hold counts.
    dead: BTreeMap<NodeId, Time>,
    /// Who says that it is master, in which era, and of what.
    masters: BTreeMap<Key, BTreeMap<NodeId, Epoch>>,
    trees: BTreeMap<NodeId, BTreeSet<Key>>,
    pub grants: u64,
    pub values_read: u64,
}

impl Oracle {
    /// A user does something: from now on it relies on less.
    pub fn asks(&mut self, key: Key, owner: Owner, event: &Event, value: u64) {
        let Some(hold) = self.holds.entry(key).or_default().get_mut(&owner) else { return };
        match event {
            Event::Convert(convert) => {
                hold.relies_on = hold.mode.meet(convert.mode);
                let writes = value_move(Some(hold.mode), convert.mode) == ValueMove::Write;
                if writes && convert.flags.has(Flags::VALBLK) {
                    self.values.insert(key, Truth { value, ..Truth::default() });
                }
            }
            Event::Unlock(unlock) => {
                if hold.mode.writes_value() && unlock.flags.has(Flags::VALBLK) {
                    self.values.insert(key, Truth { value, ..Truth::default() });
                }
                self.holds.entry(key).or_default().remove(&owner);
                self.forget(key);
            }
            _ => {}
        }
    }

    /// Nobody alive has anything: what was written may be forgotten with the resource.
    fn forget(&mut self, key: Key) {
        if self.holds[&key].values().all(|hold| hold.until.is_some()) {
            self.values.entry(key).or_default().may_be_new = true;
        }
    }

    /// A refusal: a victim must have been in a circle of waits.
    pub fn refused(&mut self, key: Key, user: &User, why: Refusal, mode: Option<Mode>) -> Result<(), String> {
        let is_new = user.doing == Doing::Requesting;
        if let Some(hold) = self.holds.entry(key).or_default().get_mut(&user.owner) {
            hold.relies_on = hold.mode;
            if mode != Some(hold.mode) && !is_new {
                return Err(format!("{user:?} has {mode:?} and {hold:?} after {why}"));
            }
        }
        match why {
            Refusal::Deadlock if !user.was_in_circle => Err(format!("a false victim: {user:?}")),
            Refusal::Deadlock | Refusal::Again | Refusal::TimedOut | Refusal::Cancelled => Ok(()),
            why => Err(format!("{user:?} is refused: {why}")),
        }
    }

    pub fn granted(&mut self, now: Time, key: Key, grant: &Grant) -> Result<(), String> {
        if self.dead.contains_key(&grant.owner.node) {
            return Err(format!("{key:?}: {grant:?} on a node that is DOWN"));
        }
        self.grants += 1;
        let holds = self.holds.entry(key).or_default();
        holds.retain(|_, hold| hold.until.is_none_or(|until| until > now));
        for (owner, hold) in holds.iter().filter(|(owner, _)| **owner != grant.owner) {
            if !hold.relies_on.goes_with(grant.mode) {
                return Err(format!("{key:?}: {grant:?} while {owner:?} has {hold:?} at {now:?}"));
            }
        }
        let (mode, relies_on) = (grant.mode, grant.mode);
        holds.insert(grant.owner, Hold { mode, relies_on, until: None });
        for mode in Mode::ALL {
            let last = self.tokens.get(&(key, mode)).copied().unwrap_or(0);
            if !mode.goes_with(grant.mode) && last >= grant.token {
                return Err(format!("{key:?}: {grant:?} after token {last} in {mode:?}"));
            }
        }
        let last = self.tokens.entry((key, grant.mode)).or_default();
        *last = (*last).max(grant.token);
        self.check_value(key, grant)
    }

    /// What a writer wrote is read, or the reader is told. (Below CW a writer may be beside.)
    fn check_value(&mut self, key: Key, grant: &Grant) -> Result<(), String> {
        let Some((value, _)) = grant.value else { return Ok(()) };
        if grant.status.value_not_valid || grant.mode < Mode::CW {
            return Ok(());
        }
        self.values_read += 1;
        let truth = self.values.entry(key).or_insert(Truth { may_be_new: true, ..Truth::default() });
        let is_kept = !truth.is_lost && value == bytes(truth.value);
        if truth.may_be_new && value == bytes(0) {
            *truth = Truth::default();
        } else if is_kept {
            truth.may_be_new = false;
        } else {
            let holds = &self.holds[&key];
            return Err(format!("{key:?}: {grant:?} reads another value than {truth:?}, held {holds:?}"));
        }
        Ok(())
    }

    /// A node's users are gone; what guards storage counts until `until`.
    pub fn node_gone(&mut self, node: NodeId, until: Time) {
        self.masters_nothing(node);
        self.dead.insert(node, until);
        for (key, holds) in &mut self.holds {
            for (_, hold) in
                holds.iter_mut().filter(|(owner, hold)| owner.node == node && hold.until.is_none())
            {
                if hold.mode.writes_value() {
                    self.values.entry(*key).or_default().is_lost = true;
                }
                hold.until = Some(if key.lockspace == GUARDED { until } else { Time(0) });
                hold.relies_on = hold.mode;
            }
            holds.retain(|_, hold| hold.until != Some(Time(0)));
            if holds.values().all(|hold| hold.until.is_some()) {
                self.values.entry(*key).or_default().may_be_new = true;
            }
        }
    }

    pub fn fenced(&mut self, node: NodeId) {
        for holds in self.holds.values_mut() {
            holds.retain(|owner, hold| owner.node != node || hold.until.is_none());
        }
    }

    pub fn returns(&mut self, node: NodeId) {
        self.dead.remove(&node);
    }

    /// A user's process has ended.
    pub fn user_gone(&mut self, owner: Owner) {
        let had: Vec<(Key, Mode)> = self
            .holds
            .iter_mut()
            .filter_map(|(key, holds)| holds.remove(&owner).map(|hold| (*key, hold.mode)))
            .collect();
        for (key, mode) in had {
            if mode.writes_value() {
                self.values.entry(key).or_default().is_lost = true;
            }
            self.forget(key);
        }
    }

    /// What a node says that it is master of: nobody else of its era says so.
    pub fn masters(
        &mut self,
        node: NodeId,
        era: Epoch,
        trees: impl Iterator<Item = Key>,
    ) -> Result<(), String> {
        let now: BTreeSet<Key> = trees.collect();
        let before = self.trees.entry(node).or_default();
        for key in before.difference(&now) {
            self.masters.get_mut(key).and_then(|masters| masters.remove(&node));
        }
        for key in &now {
            let masters = self.masters.entry(*key).or_default();
            masters.insert(node, era);
            if let Some((other, _)) = masters.iter().find(|(other, of)| **other != node && **of == era) {
                return Err(format!("{key:?} has two masters in era {era}: {node} and {other}"));
            }
        }
        *before = now;
        Ok(())
    }

    /// A life has ended: it is master of nothing.
    fn masters_nothing(&mut self, node: NodeId) {
        for key in self.trees.remove(&node).unwrap_or_default() {
            self.masters.get_mut(&key).and_then(|masters| masters.remove(&node));
        }
    }
}
