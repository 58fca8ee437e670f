//! The part of the log that is in memory: everything behind the last compaction.
//!
//! ```text
//!   | in the snapshot ... | base | entries ...                          last |
//!                                 ^ commit somewhere here ^ persisted, too
//! ```
//!
//! Invariant: the entries follow one another without a gap, and their terms never fall.

use crate::entry::{Entry, Payload, SnapshotMeta};
use crate::ids::{Index, Stamp, Term};
use crate::voters::Voters;
use std::collections::VecDeque;

/// A window of the log.
#[derive(Clone, Debug)]
pub struct Log {
    base: Stamp,
    entries: VecDeque<Entry>,
    weight: usize,
    /// Every setting in the window by its place; the first is the one that held at `base`.
    settings: Vec<(Index, Voters)>,
}

impl Log {
    /// The log behind a snapshot. Entries that the snapshot holds are left out.
    pub fn new(snapshot: &SnapshotMeta, entries: Vec<Entry>) -> Log {
        let mut log = Log {
            base: snapshot.stamp,
            entries: VecDeque::new(),
            weight: 0,
            settings: vec![(snapshot.stamp.index, snapshot.voters.clone())],
        };
        let behind = entries.into_iter().filter(|entry| entry.stamp.index > snapshot.stamp.index);
        behind.for_each(|entry| log.append(entry));
        log
    }

    /// The entry before the first that is here.
    pub fn base(&self) -> Stamp {
        self.base
    }

    /// The last entry.
    pub fn last(&self) -> Stamp {
        self.entries.back().map_or(self.base, |entry| entry.stamp)
    }

    /// The stamp at a place; `None` before the base and behind the end.
    pub fn stamp(&self, index: Index) -> Option<Stamp> {
        if index == self.base.index {
            return Some(self.base);
        }
        self.entry(index).map(|entry| entry.stamp)
    }

    /// The term at a place, as [`Log::stamp`].
    pub fn term(&self, index: Index) -> Option<Term> {
        self.stamp(index).map(|stamp| stamp.term)
    }

    fn entry(&self, index: Index) -> Option<&Entry> {
        let place = index.0.checked_sub(self.base.index.0 + 1)?;
        self.entries.get(usize::try_from(place).ok()?)
    }

    /// Who decides now.
    pub fn voters(&self) -> &Voters {
        &self.settings[self.settings.len() - 1].1
    }

    /// Where the setting that holds now stands.
    pub fn voters_index(&self) -> Index {
        self.settings[self.settings.len() - 1].0
    }

    /// Who decided at a place in the window.
    pub fn voters_at(&self, index: Index) -> &Voters {
        let until = self.settings.partition_point(|(place, _)| *place <= index).max(1);
        &self.settings[until - 1].1
    }

    /// The entries from `from` to `to`, both included, as many as weigh at most `weight_max`, but at least one.
    pub fn slice(&self, from: Index, to: Index, weight_max: usize) -> Vec<Entry> {
        let mut weight = 0;
        let mut found = Vec::new();
        let mut index = from;
        while let Some(entry) = self.entry(index).filter(|_| index <= to) {
            weight += entry.weight();
            if weight > weight_max && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
            index = index.next();
        }
        found
    }

    /// Puts an entry to the end; it must be the next.
    pub fn append(&mut self, entry: Entry) {
        let last = self.last();
        assert!(
            entry.stamp.index == last.index.next() && entry.stamp.term >= last.term,
            "the log has no gap"
        );
        if let Payload::Voters(voters) = &entry.payload {
            self.settings.push((entry.stamp.index, voters.clone()));
        }
        self.weight += entry.weight();
        self.entries.push_back(entry);
    }

    /// Takes out everything from `from` on.
    pub fn truncate(&mut self, from: Index) {
        assert!(from > self.base.index, "what a snapshot holds is not taken back");
        while self.last().index >= from {
            let Some(entry) = self.entries.pop_back() else { break };
            self.weight -= entry.weight();
        }
        while self.voters_index() >= from {
            self.settings.pop();
        }
    }

    /// Lets go of everything up to `to`, which is in the window.
    pub fn compact(&mut self, to: Index) {
        while self.base.index < to {
            let Some(entry) = self.entries.pop_front() else { break };
            self.weight -= entry.weight();
            self.base = entry.stamp;
        }
        let until = self.settings.partition_point(|(place, _)| *place <= self.base.index);
        self.settings.drain(..until.saturating_sub(1));
    }

    /// How many bytes the window weighs.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// The first place up to which all may go if about `keep` bytes before `upto` shall stay.
    pub fn compaction(&self, upto: Index, keep: usize) -> Index {
        let mut kept = 0;
        let mut index = upto;
        while let Some(entry) = self.entry(index) {
            kept += entry.weight();
            if kept > keep {
                break;
            }
            index = index.before();
        }
        index
    }

    /// The largest place up to `index` whose term is at most `term`: where two logs may still agree.
    pub fn agreement_before(&self, index: Index, term: Term) -> Stamp {
        let mut at = index.min(self.last().index);
        while let Some(stamp) = self.stamp(at) {
            if stamp.term <= term {
                return stamp;
            }
            at = at.before();
        }
        self.base
    }
}
