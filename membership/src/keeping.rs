//! The disk's thread (`ssi-clms-disk`): the store of the log, and the file `table`.
//!
//! Invariant: orders are carried out in their order, and what is told to be safe is; all that waits is made safe by one sync.
//! After the first failure of the store nothing more is written to it.

use crate::core::{Event, Order};
use crate::saved;
use crate::shell::{Inbox, Input, Shared};
use crate::table::Table;
use replog::{CHUNK_BYTES, Directory, Envelope, Error, Member, Message, SnapshotMeta, Store, Ticket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// What the thread is told.
pub(crate) enum Work {
    Log(Order),
    Table(Box<Table>),
}

/// The thread's own.
pub(crate) struct Keeper {
    pub(crate) store: Store<Directory>,
    pub(crate) me: Member,
    pub(crate) state_dir: PathBuf,
    pub(crate) shared: Arc<Shared>,
    pub(crate) inbox: Inbox,
}

impl Keeper {
    /// Starts the thread; it ends when the sender is gone.
    pub(crate) fn start(self, on_thread_start: fn()) -> std::io::Result<(Sender<Work>, JoinHandle<()>)> {
        let (orders, ordered) = channel();
        let thread = std::thread::Builder::new().name("ssi-clms-disk".into()).spawn(move || {
            on_thread_start();
            self.run(&ordered);
        })?;
        Ok((orders, thread))
    }

    fn run(mut self, orders: &Receiver<Work>) {
        while let Ok(first) = orders.recv() {
            if let Err(error) = self.carry_out(first, orders) {
                tracing::error!("the log of the cluster table: {error}");
                self.tell(Event::StoreFailed(error.to_string()));
                return;
            }
        }
    }

    /// If the core is gone, nobody need know.
    fn tell(&self, event: Event) {
        drop(self.inbox.send(Input::Event(event)));
    }

    /// Carries out what is there, then makes all of it safe at once.
    fn carry_out(&mut self, first: Work, orders: &Receiver<Work>) -> Result<(), Error> {
        let (mut ticket, mut table) = (None, None);
        let mut next = Some(first);
        while let Some(work) = next {
            match work {
                Work::Log(order) => ticket = self.obey(order)?.or(ticket),
                // Only the newest is of use.
                Work::Table(newest) => table = Some(newest),
            }
            next = orders.try_recv().ok();
        }
        if let Some(ticket) = ticket {
            self.store.commit()?;
            self.tell(Event::Stored(ticket));
        }
        if let Some(table) = table
            && let Err(error) = saved::save(&self.state_dir, &table)
        {
            // It is only what the next start begins with; the next transition is another chance.
            tracing::warn!("{error}");
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
                if let Some((bytes, size)) = self.store.read_chunk(meta.stamp, offset, CHUNK_BYTES)? {
                    let body = Message::Chunk { meta, offset, bytes, size, mark };
                    self.shared.send_log(&Envelope { from: self.me, to, term, body });
                }
            }
            Order::SaveSnapshot { meta, bytes } => self.save_snapshot(meta, &bytes),
            Order::Trim(upto) => self.store.trim(upto)?,
            Order::ReadSnapshot => self.tell(Event::SnapshotRead(self.store.read_snapshot()?)),
        }
        Ok(None)
    }

    /// That it fails (a full disk) is no harm yet: the log is longer than it need be.
    fn save_snapshot(&mut self, meta: SnapshotMeta, bytes: &[u8]) {
        let event = match self.store.save_snapshot(&meta, bytes) {
            Ok(()) => Event::SnapshotMade(meta),
            Err(error) => {
                tracing::warn!("a snapshot of the cluster table could not be made: {error}");
                Event::SnapshotFailed
            }
        };
        self.tell(event);
    }
}
