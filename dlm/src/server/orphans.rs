//! Locks whose programs are gone and which stay (PERSISTENT), for lists and purges.
//!
//! Invariant: an orphan is here until it is adopted or purged.

use crate::client::wire::Row;
use crate::event::{LockId, Owner};
use base::Time;
use std::collections::BTreeMap;

#[derive(Debug)]
struct Orphan {
    owner: Owner,
    row: Row,
    since: Time,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Orphans {
    by_name: BTreeMap<LockId, Orphan>,
}

impl Orphans {
    /// These locks are `owner`'s, who is gone since `now`.
    pub fn add(&mut self, owner: Owner, rows: Vec<(LockId, Row)>, now: Time) {
        let orphan = |row| Orphan { owner, row, since: now };
        self.by_name.extend(rows.into_iter().map(|(lock, row)| (lock, orphan(row))));
    }

    /// The lock has an owner again.
    pub fn adopted(&mut self, lock: LockId) {
        self.by_name.remove(&lock);
    }

    /// Takes out those whose row is `wanted`, and says whose they were.
    pub fn take(&mut self, wanted: impl Fn(&Row) -> bool) -> Vec<Owner> {
        let mut owners: Vec<Owner> =
            self.by_name.values().filter(|orphan| wanted(&orphan.row)).map(|orphan| orphan.owner).collect();
        owners.dedup();
        self.by_name.retain(|_, orphan| !wanted(&orphan.row));
        owners
    }

    /// True if the lockspace has some.
    pub fn are_in(&self, space: &[u8]) -> bool {
        self.by_name.values().any(|orphan| orphan.row.space == space)
    }

    fn row(orphan: &Orphan, now: Time) -> Row {
        let longer = u64::try_from(now.since(orphan.since).as_millis()).unwrap_or(u64::MAX);
        Row { since_ms: orphan.row.since_ms.saturating_add(longer), ..orphan.row.clone() }
    }

    /// All, for a list.
    pub fn rows(&self, now: Time) -> impl Iterator<Item = Row> {
        self.by_name.values().map(move |orphan| Self::row(orphan, now))
    }

    /// One, for a list.
    pub fn row_of(&self, lock: LockId, now: Time) -> Option<Row> {
        self.by_name.get(&lock).map(|orphan| Self::row(orphan, now))
    }
}
