//! What a member has on its disk, and what a crash leaves of it.
//!
//! Invariant: what was told to be on disk survives; of what was not, any prefix does, also half a write.

use crate::{Index, Recovered, SnapshotMeta, Ticket, Write};
use base::Prng;
use bytes::Bytes;
use std::collections::VecDeque;

enum Order {
    Write(Write),
    Install(Ticket, SnapshotMeta, Bytes),
}

impl Order {
    fn ticket(&self) -> Ticket {
        match self {
            Order::Write(write) => write.ticket,
            Order::Install(ticket, ..) => *ticket,
        }
    }
}

/// A disk.
#[derive(Default)]
pub struct Store {
    durable: Recovered,
    pub snapshot: Bytes,
    ordered: VecDeque<Order>,
    pub incoming: Vec<u8>,
}

impl Store {
    pub fn new(meta: SnapshotMeta, snapshot: Bytes) -> Store {
        Store { durable: Recovered { snapshot: meta, ..Recovered::default() }, snapshot, ..Store::default() }
    }

    pub fn write(&mut self, write: Write) {
        self.ordered.push_back(Order::Write(write));
    }

    pub fn install(&mut self, ticket: Ticket, meta: SnapshotMeta) {
        let bytes = std::mem::take(&mut self.incoming).into();
        self.ordered.push_back(Order::Install(ticket, meta, bytes));
    }

    /// Everything up to `ticket` reaches the disk.
    pub fn sync(&mut self, ticket: Ticket) {
        while self.ordered.front().is_some_and(|order| order.ticket() <= ticket) {
            match self.ordered.pop_front() {
                Some(Order::Write(write)) => self.take_in(write),
                Some(Order::Install(_, meta, bytes)) => {
                    self.durable.snapshot = meta;
                    self.durable.entries.clear();
                    self.snapshot = bytes;
                }
                None => {}
            }
        }
    }

    fn take_in(&mut self, write: Write) {
        let entries = &mut self.durable.entries;
        if let Some(hard) = write.hard {
            self.durable.hard = hard;
        }
        if let Some(from) = write.truncate {
            entries.retain(|entry| entry.stamp.index < from);
        }
        entries.extend(write.entries);
    }

    /// A snapshot of this member's own making is on disk.
    pub fn made(&mut self, meta: SnapshotMeta, bytes: Bytes) {
        if meta.stamp.index > self.durable.snapshot.stamp.index {
            self.durable.snapshot = meta;
            self.snapshot = bytes;
        }
    }

    pub fn trim(&mut self, upto: Index) {
        self.durable.entries.retain(|entry| entry.stamp.index > upto);
    }

    pub fn snapshot_meta(&self) -> &SnapshotMeta {
        &self.durable.snapshot
    }

    /// The power fails: what was not synced is lost from some point on.
    pub fn crash(&mut self, prng: &mut Prng) {
        let kept = prng.below(self.ordered.len() as u64 + 1) as usize;
        let torn = self.ordered.drain(kept..).next();
        if let Some(last) = self.ordered.back().map(Order::ticket) {
            self.sync(last);
        }
        if let Some(Order::Write(mut write)) = torn {
            match prng.below(3) {
                0 => {}
                1 => self.take_in(Write { hard: write.hard, ..Write::default() }),
                _ => {
                    write.entries.truncate(prng.below(write.entries.len() as u64 + 1) as usize);
                    self.take_in(write);
                }
            }
        }
        self.ordered.clear();
        self.incoming.clear();
    }

    pub fn recover(&self) -> Recovered {
        let behind = self.durable.snapshot.stamp.index;
        let entries =
            self.durable.entries.iter().filter(|entry| entry.stamp.index > behind).cloned().collect();
        Recovered { entries, ..self.durable.clone() }
    }
}
