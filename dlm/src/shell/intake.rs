//! The other direction: puts the batches of one life back into their order, each once.
//!
//! Invariant: a batch is given out after all before it, and never twice; at most [`HELD_MAX`] wait for one before them.

use base::Epoch;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Batches that have overtaken others: no more than the sender has under way.
const HELD_MAX: u64 = 64;
/// So many batches are confirmed at the latest, even if there is nothing to say.
const OWED_MAX: u32 = 32;

/// What has come from one life.
#[derive(Debug, Default)]
pub struct Intake {
    /// The last number that was given out.
    last: u64,
    held: BTreeMap<u64, Bytes>,
    owed: u32,
    at_once: bool,
    /// It was owed already when the clock ticked last.
    is_late: bool,
    /// The last era that it spoke of.
    pub era: Epoch,
}

impl Intake {
    /// A batch has come; gives out what is in turn now.
    pub fn take(&mut self, number: u64, is_urgent: bool, batch: Bytes) -> Vec<Bytes> {
        self.owed += 1;
        self.at_once |= is_urgent || number <= self.last || self.owed >= OWED_MAX;
        if number <= self.last || number > self.last + HELD_MAX {
            return Vec::new();
        }
        if number == self.last + 1 && self.held.is_empty() {
            self.last = number;
            return vec![batch];
        }
        self.held.insert(number, batch);
        let mut ready = Vec::new();
        while let Some(batch) = self.held.remove(&(self.last + 1)) {
            self.last += 1;
            ready.push(batch);
        }
        ready
    }

    /// What is confirmed from now on: the number of the last one that was given out.
    pub fn confirm(&mut self) -> u64 {
        (self.owed, self.at_once, self.is_late) = (0, false, false);
        self.last
    }

    /// True if a confirmation must not wait for something to say.
    pub fn is_pressed(&self) -> bool {
        self.at_once
    }

    /// True if something was not confirmed yet.
    pub fn owes(&self) -> bool {
        self.owed > 0
    }

    /// The clock ticks. True if something is owed since the last time: nothing was said meanwhile that could have confirmed it.
    pub fn tick(&mut self) -> bool {
        let was_late = self.is_late;
        self.is_late = self.owes();
        was_late && self.is_late
    }
}
