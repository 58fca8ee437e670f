//! A member's store on a disk that forgets: the store itself is the real one.
//!
//! Invariant: what was ordered reaches the store in order; at a crash some of it has, and is not synced.

use super::disk::SimDisk;
use crate::{DiskId, Error, Index, Recovered, SnapshotMeta, Stamp, Store, Ticket, Voters, Write};
use base::Prng;
use bytes::Bytes;
use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

enum Order {
    Write(Write),
    Install(Ticket, SnapshotMeta),
}

impl Order {
    fn ticket(&self) -> Ticket {
        match self {
            Order::Write(write) => write.ticket,
            Order::Install(ticket, _) => *ticket,
        }
    }
}

/// A store, while its machine runs, or its disk.
pub struct SimStore {
    store: Option<Store<SimDisk>>,
    disk: SimDisk,
    ordered: VecDeque<Order>,
    pub full: Rc<Cell<bool>>,
}

impl SimStore {
    pub fn new(id: DiskId, first: Option<Voters>) -> SimStore {
        let mut disk = SimDisk::default();
        Store::create(&mut disk, id, first).expect("an empty disk takes a store");
        SimStore { store: None, full: disk.full.clone(), disk, ordered: VecDeque::new() }
    }

    pub fn open(&mut self) -> Result<Recovered, Error> {
        self.full.set(false);
        let (store, recovered) = Store::open(std::mem::take(&mut self.disk))?;
        self.store = Some(store);
        Ok(recovered)
    }

    fn opened(&mut self) -> &mut Store<SimDisk> {
        self.store.as_mut().expect("a machine that runs has its store open")
    }

    pub fn order(&mut self, write: Write) {
        self.ordered.push_back(Order::Write(write));
    }

    pub fn order_install(&mut self, ticket: Ticket, meta: SnapshotMeta) {
        self.ordered.push_back(Order::Install(ticket, meta));
    }

    /// Everything up to `ticket` is made safe.
    pub fn sync(&mut self, ticket: Ticket) -> Result<(), Error> {
        while self.ordered.front().is_some_and(|order| order.ticket() <= ticket) {
            match self.ordered.pop_front() {
                Some(Order::Write(write)) => self.opened().write(&write),
                Some(Order::Install(_, meta)) => self.opened().install(&meta)?,
                None => {}
            }
        }
        self.opened().commit()
    }

    pub fn take_chunk(
        &mut self,
        meta: &SnapshotMeta,
        offset: u64,
        bytes: &Bytes,
        size: u64,
    ) -> Result<(), Error> {
        self.opened().take_chunk(meta, offset, bytes, size)
    }

    pub fn save_snapshot(&mut self, meta: &SnapshotMeta, bytes: &Bytes) -> Result<(), Error> {
        self.opened().save_snapshot(meta, bytes)
    }

    pub fn trim(&mut self, upto: Index) -> Result<(), Error> {
        self.opened().trim(upto)
    }

    pub fn snapshot(&mut self) -> (SnapshotMeta, Bytes) {
        let store = self.opened();
        (store.snapshot().clone(), store.read_snapshot().expect("the simulated disk can be read"))
    }

    pub fn read_chunk(&mut self, stamp: Stamp, offset: u64, length: usize) -> Option<(Bytes, u64)> {
        self.opened().read_chunk(stamp, offset, length).expect("the simulated disk can be read")
    }

    /// The power fails. Some of what was ordered was just being written.
    pub fn crash(&mut self, prng: &mut Prng) {
        let Some(mut store) = self.store.take() else { return };
        let begun = prng.below(self.ordered.len() as u64 + 1) as usize;
        for order in self.ordered.drain(..begun) {
            if let Order::Write(write) = order {
                store.write(&write);
            } else {
                break;
            }
        }
        self.ordered.clear();
        // On a full disk this fails, and half of it is there.
        let _ = store.flush();
        self.disk = store.into_disk();
        self.disk.crash(prng);
    }
}
