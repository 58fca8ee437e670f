//! The thread that has the disk: all that waits for it is made safe by one sync.
//!
//! Invariant: orders are carried out in their order; what is told to be safe is; after the first failure nothing more is.

use super::Input;
use super::applying::Task;
use super::exchange::Exchange;
use crate::entry::{SnapshotMeta, Write};
use crate::error::Error;
use crate::event::Event;
use crate::ids::{Index, Member, Term, Ticket};
use crate::message::{Envelope, Mark, Message};
use crate::store::{Disk, Store};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender};

/// Bytes of a snapshot in one message.
pub const CHUNK_BYTES: usize = 256 << 10;

/// What the disk shall do.
pub(super) enum Order {
    Write(Write),
    Install { ticket: Ticket, meta: SnapshotMeta },
    TakeChunk { meta: SnapshotMeta, offset: u64, bytes: Bytes, size: u64 },
    SendChunk { to: Member, term: Term, meta: SnapshotMeta, offset: u64, mark: Mark },
    SaveSnapshot { meta: SnapshotMeta, bytes: Bytes },
    Trim(Index),
    ReadSnapshot(Sender<Result<Bytes, Error>>),
}

/// The thread's own.
pub(super) struct Keeper<D> {
    pub(super) store: Store<D>,
    pub(super) me: Member,
    pub(super) log: u64,
    pub(super) exchange: Arc<Exchange>,
    pub(super) inbox: SyncSender<Input>,
}

impl<D: Disk> Keeper<D> {
    /// Runs until there are no more orders, or the disk fails.
    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        while let Ok(first) = orders.recv() {
            if let Err(error) = self.carry_out(first, orders) {
                tracing::error!("log {}: {error}", self.log);
                // If the core is gone, nobody need know.
                let _ = self.inbox.send(Input::Event(Event::StoreFailed(error.to_string())));
                return;
            }
        }
    }

    /// Carries out what is there, then makes all of it safe at once.
    fn carry_out(&mut self, first: Order, orders: &Receiver<Order>) -> Result<(), Error> {
        let mut ticket = None;
        let mut next = Some(first);
        while let Some(order) = next {
            ticket = self.obey(order)?.or(ticket);
            next = orders.try_recv().ok();
        }
        self.store.commit()?;
        if let Some(ticket) = ticket {
            // If the core is gone, nobody need know.
            let _ = self.inbox.send(Input::Event(Event::Persisted(ticket)));
        }
        Ok(())
    }

    fn obey(&mut self, order: Order) -> Result<Option<Ticket>, Error> {
        match order {
            Order::Write(write) => {
                self.store.write(&write);
                return Ok(Some(write.ticket));
            }
            Order::Install { ticket, meta } => {
                self.store.install(&meta)?;
                return Ok(Some(ticket));
            }
            Order::TakeChunk { meta, offset, bytes, size } => {
                self.store.take_chunk(&meta, offset, &bytes, size)?;
            }
            Order::SendChunk { to, term, meta, offset, mark } => {
                self.send_chunk(to, term, meta, offset, mark)?
            }
            Order::SaveSnapshot { meta, bytes } => self.save_snapshot(meta, &bytes),
            Order::Trim(upto) => self.store.trim(upto)?,
            Order::ReadSnapshot(reply) => {
                // Whoever asked may have gone away.
                let _ = reply.send(self.store.read_snapshot());
            }
        }
        Ok(None)
    }

    fn send_chunk(
        &mut self,
        to: Member,
        term: Term,
        meta: SnapshotMeta,
        offset: u64,
        mark: Mark,
    ) -> Result<(), Error> {
        if let Some((bytes, size)) = self.store.read_chunk(meta.stamp, offset, CHUNK_BYTES)? {
            let body = Message::Chunk { meta, offset, bytes, size, mark };
            self.exchange.send(self.log, &Envelope { from: self.me, to, term, body });
        }
        Ok(())
    }

    /// That it fails (a full disk) is no harm yet: the log is longer than it need be.
    fn save_snapshot(&mut self, meta: SnapshotMeta, bytes: &[u8]) {
        let event = match self.store.save_snapshot(&meta, bytes) {
            Ok(()) => Event::SnapshotMade(meta),
            Err(error) => {
                tracing::warn!("log {}: a snapshot could not be made: {error}", self.log);
                Event::SnapshotFailed
            }
        };
        // If the core is gone, nobody need know.
        let _ = self.inbox.send(Input::Event(event));
    }
}

/// Asks the disk for its snapshot; the answer comes to the thread that applies.
pub(super) fn restore(orders: &Sender<Order>) -> Task {
    let (reply, bytes) = std::sync::mpsc::channel();
    // If the disk's thread is gone, the other end is told by the lost sender.
    let _ = orders.send(Order::ReadSnapshot(reply));
    Task::Restore(bytes)
}
