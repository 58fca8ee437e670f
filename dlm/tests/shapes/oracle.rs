//! What no user may ever see.
//!
//! Invariant: the oracle knows only what users ask and are told, who is dead, and who is fenced; nothing of how it came about.

use crate::users::{GUARDED, bytes};
use crate::values::{Truth, Truths};
use base::{Epoch, NodeId, Time};
use dlm::mode::{ValueMove, value_move};
use dlm::{Event, Grant, Key, Mode, Owner, Scope};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug)]
struct Hold {
    mode: Mode,
    scope: Scope,
    /// What it may rely on while it converts.
    relies_on: Mode,
    /// A dead node's hold: until when it counts.
    until: Option<Time>,
}

#[derive(Default)]
pub struct Oracle {
    holds: BTreeMap<Key, BTreeMap<Owner, Hold>>,
    tokens: BTreeMap<(Key, Mode), u64>,
    values: Truths,
    /// When the one thing began that each has under way.
    began: BTreeMap<Owner, Time>,
    /// Nodes that are declared DOWN, and until when what they hold counts.
    dead: BTreeMap<NodeId, Time>,
    pub grants: u64,
    scoped_tokens: BTreeMap<Key, Vec<(Mode, Scope, u64)>>,
    pub scoped_grants: u64,
    pub grown_ranges: u64,
    pub grants_below_roots: u64,
    pub values_read: u64,
    pub values_beside_writers: u64,
}

impl Oracle {
    /// A user does something: from now on it relies on less.
    pub fn asks(&mut self, now: Time, key: Key, owner: Owner, event: &Event, value: u64) {
        self.began.insert(owner, now);
        let Some(hold) = self.holds.entry(key).or_default().get_mut(&owner) else { return };
        match event {
            Event::Convert(convert) => {
                hold.relies_on = hold.mode.meet(convert.mode);
                hold.scope = convert.scope.unwrap_or(hold.scope);
                if value_move(Some(hold.mode), convert.mode) == ValueMove::Write {
                    self.values.change(now, key, |truth| *truth = Truth { value, ..Truth::default() });
                }
            }
            Event::Unlock(_) => {
                if hold.mode.writes_value() {
                    self.values.change(now, key, |truth| *truth = Truth { value, ..Truth::default() });
                }
                self.holds.entry(key).or_default().remove(&owner);
                self.forget(now, key);
            }
            _ => {}
        }
    }

    /// A user has vanished, or its orphan: what it had goes, or stays without it.
    pub fn vanishes(&mut self, now: Time, key: Key, owner: Owner, stays: bool) {
        let holds = self.holds.entry(key).or_default();
        let Some(hold) = holds.get_mut(&owner) else { return };
        hold.relies_on = hold.mode;
        if stays {
            return;
        }
        let writes = hold.mode.writes_value();
        holds.remove(&owner);
        self.forget(now, key);
        self.values.change(now, key, |truth| truth.is_lost |= writes);
    }

    /// An orphan has got another owner.
    pub fn adopted(&mut self, key: Key, from: Owner, to: Owner) {
        let holds = self.holds.entry(key).or_default();
        if let Some(hold) = holds.remove(&from) {
            holds.insert(to, hold);
        }
    }

    /// Nobody alive has anything: what was written may be forgotten with the resource.
    fn forget(&mut self, now: Time, key: Key) {
        if self.holds[&key].values().all(|hold| hold.until.is_some()) {
            self.values.change(now, key, |truth| truth.may_be_new = true);
        }
    }

    pub fn refused(&mut self, key: Key, owner: Owner) {
        if let Some(hold) = self.holds.entry(key).or_default().get_mut(&owner) {
            hold.relies_on = hold.mode;
        }
    }

    pub fn granted(&mut self, now: Time, key: Key, grant: &Grant) -> Result<(), String> {
        let until = self.dead.get(&grant.owner.node).copied();
        if until.is_some_and(|until| key.lockspace != GUARDED || until <= now) {
            // A cut-off node that goes on granting to its own users: it has ended itself before it was declared DOWN.
            return Ok(());
        }
        self.grants += 1;
        self.grants_below_roots += u64::from(key.root() != key);
        let holds = self.holds.entry(key).or_default();
        holds.retain(|_, hold| hold.until.is_none_or(|until| until > now));
        for (owner, hold) in holds.iter().filter(|(owner, _)| **owner != grant.owner) {
            if !hold.relies_on.goes_with(grant.mode) && hold.scope.meets(grant.scope) {
                return Err(format!("{key:?}: {grant:?} while {owner:?} has {hold:?} at {now:?}"));
            }
        }
        let (mode, relies_on) = (grant.mode, grant.mode);
        holds.insert(grant.owner, Hold { mode, scope: grant.scope, relies_on, until });
        if grant.scope != Scope::Plain {
            return self.check_scoped_token(key, grant);
        }
        for mode in Mode::ALL {
            let last = self.tokens.get(&(key, mode)).copied().unwrap_or(0);
            if !mode.goes_with(grant.mode) && last >= grant.token {
                return Err(format!("{key:?}: {grant:?} after token {last} in {mode:?}"));
            }
        }
        let last = self.tokens.entry((key, grant.mode)).or_default();
        *last = (*last).max(grant.token);
        self.check_value(now, key, grant)
    }

    /// Storage remembers for each range the largest token of each mode.
    fn check_scoped_token(&mut self, key: Key, grant: &Grant) -> Result<(), String> {
        self.scoped_grants += 1;
        if let Scope::Extent { span, desired } = grant.scope {
            self.grown_ranges += u64::from(span.last - span.first > 8);
            assert_eq!(span, desired, "a granted range is what is had");
        }
        let seen = self.scoped_tokens.entry(key).or_default();
        let in_the_way = |(mode, scope, last): &&(Mode, Scope, u64)| {
            !mode.goes_with(grant.mode) && scope.meets(grant.scope) && *last >= grant.token
        };
        if let Some(earlier) = seen.iter().find(in_the_way) {
            return Err(format!("{key:?}: {grant:?} after {earlier:?}"));
        }
        seen.push((grant.mode, grant.scope, grant.token));
        Ok(())
    }

    /// What a writer wrote is read, or the reader is told. Below CW a writer may be beside: it is what was there at some moment since it was asked for.
    fn check_value(&mut self, now: Time, key: Key, grant: &Grant) -> Result<(), String> {
        let Some((value, _)) = grant.value else { return Ok(()) };
        if grant.status.value_not_valid {
            return Ok(());
        }
        self.values_read += 1;
        let truth = self.values.at(key);
        let is_right = if grant.mode < Mode::CW {
            self.values_beside_writers += 1;
            let began = self.began.get(&grant.owner).copied().unwrap_or(now);
            self.values.was(began, key, value)
        } else if truth.may_be_new && value == bytes(0) {
            self.values.change(now, key, |truth| *truth = Truth::default());
            true
        } else {
            let is_kept = !truth.is_lost && value == bytes(truth.value);
            self.values.change(now, key, |truth| truth.may_be_new &= !is_kept);
            is_kept
        };
        if is_right {
            return Ok(());
        }
        let holds = &self.holds[&key];
        Err(format!("{key:?}: {grant:?} reads another value than {truth:?}, held {holds:?}"))
    }

    /// A node's users are gone; what guards storage counts until `until`.
    pub fn node_gone(&mut self, now: Time, node: NodeId, until: Time) {
        self.dead.insert(node, until);
        for (key, holds) in &mut self.holds {
            for (_, hold) in
                holds.iter_mut().filter(|(owner, hold)| owner.node == node && hold.until.is_none())
            {
                if hold.mode.writes_value() {
                    self.values.change(now, *key, |truth| truth.is_lost = true);
                }
                hold.until = Some(if key.lockspace == GUARDED { until } else { Time(0) });
                hold.relies_on = hold.mode;
            }
            holds.retain(|_, hold| hold.until != Some(Time(0)));
            if holds.values().all(|hold| hold.until.is_some()) {
                self.values.change(now, *key, |truth| truth.may_be_new = true);
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

    pub fn masters(&self, masters: &[(Epoch, Key, NodeId)]) -> Result<(), String> {
        for pair in masters.windows(2) {
            if pair[0].0 == pair[1].0 && pair[0].1 == pair[1].1 {
                return Err(format!("two masters in one era: {pair:?}"));
            }
        }
        Ok(())
    }
}
