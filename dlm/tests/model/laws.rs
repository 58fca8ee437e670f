//! What must hold of any lock manager, whatever the model says.
//!
//! Invariant: each law is checked after each event, on the table's own list of locks and on all that it has ever told.

use dlm::{Effect, LockId, Mode, ModeSet, Scope, Table};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct Laws {
    last_token: u64,
    ended: BTreeSet<u64>,
    called: BTreeMap<LockId, Vec<(Mode, Scope)>>,
}

impl Laws {
    pub fn check(&mut self, table: &Table, effects: &[Effect]) -> Result<(), TestCaseError> {
        for effect in effects {
            if let Some(tag) = effect.ended() {
                prop_assert!(self.ended.insert(tag), "{tag} ended twice");
            }
            match effect {
                Effect::Granted(grant) => {
                    prop_assert!(grant.token > self.last_token, "the token of {grant:?} is not larger");
                    self.last_token = grant.token;
                    self.called.remove(&grant.lock);
                }
                Effect::Blocking { lock, mode, scope, .. } => {
                    let called = self.called.entry(*lock).or_default();
                    let again = called.iter().any(|(told, about)| told == mode && about == scope);
                    prop_assert!(!again, "{lock:?} was called twice for {mode:?}");
                    called.push((*mode, *scope));
                }
                _ => {}
            }
        }
        Self::nobody_is_in_anothers_way(table)?;
        self.whoever_is_in_the_way_was_called(table)
    }

    fn nobody_is_in_anothers_way(table: &Table) -> Result<(), TestCaseError> {
        let locks: Vec<_> = table.locks().collect();
        for (at, one) in locks.iter().enumerate() {
            for other in &locks[..at] {
                let (Some(mode), Some(others)) = (one.granted, other.granted) else { continue };
                let apart = one.name != other.name || !one.scope.meets(other.scope);
                prop_assert!(apart || mode.goes_with(others), "{one:?} and {other:?}");
            }
        }
        Ok(())
    }

    fn whoever_is_in_the_way_was_called(&self, table: &Table) -> Result<(), TestCaseError> {
        let locks: Vec<_> = table.locks().collect();
        for waiter in &locks {
            let Some(wanted) = waiter.wanted else { continue };
            for holder in locks.iter().filter(|other| other.name == waiter.name && other.lock != waiter.lock)
            {
                let Some(granted) = holder.granted.filter(|granted| !granted.goes_with(wanted)) else {
                    continue;
                };
                if !holder.scope.meets(waiter.scope) {
                    continue;
                }
                let called = self.called.get(&holder.lock);
                let told = called.into_iter().flatten().any(|(mode, scope)| {
                    let about = !matches!(scope, Scope::Bits(_)) || scope.meets(waiter.scope);
                    about && forbidden(*mode).has_all(forbidden(wanted))
                });
                prop_assert!(told, "{holder:?} ({granted:?}) was not called for {waiter:?}");
            }
        }
        Ok(())
    }
}

fn forbidden(mode: Mode) -> ModeSet {
    mode.conflicts()
}
