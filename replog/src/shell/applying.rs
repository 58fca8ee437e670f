//! The thread that has the state machine: agreed entries, reads and snapshots, in the order in which the core gave them.
//!
//! Invariant: a request with an [`Origin`](crate::Origin) is carried out once; a snapshot holds the state and the sessions
//! of exactly its place.

use super::handle::Outcome;
use super::keeping::Order;
use super::{Input, StateMachine};
use crate::entry::{Committed, Payload, SnapshotMeta};
use crate::error::Error;
use crate::event::Event;
use crate::session::{Sessions, Turn};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::any::Any;
use std::sync::mpsc::{Receiver, Sender, SyncSender};
use tokio::sync::oneshot;

/// Somebody who wants to look at the state, or to know why he cannot.
pub(super) type Query = Box<dyn FnOnce(Result<&dyn Any, Error>) + Send>;

/// Who waits for an entry.
pub(super) type Waiter = oneshot::Sender<Result<Outcome, Error>>;

/// What shall be done with the state machine.
pub(super) enum Task {
    Restore(Receiver<Result<Bytes, Error>>),
    Apply(Vec<(Committed, Option<Waiter>)>),
    Snapshot(SnapshotMeta),
    Look(Query),
}

/// The thread's own.
pub(super) struct Applier<S> {
    pub(super) machine: S,
    pub(super) sessions: Sessions,
    pub(super) log: u64,
    pub(super) orders: Sender<Order>,
    pub(super) inbox: SyncSender<Input>,
}

impl<S: StateMachine> Applier<S> {
    /// Runs until there are no more tasks.
    pub(super) fn run(mut self, tasks: &Receiver<Task>) {
        while let Ok(task) = tasks.recv() {
            match task {
                Task::Apply(entries) => {
                    entries.into_iter().for_each(|(committed, waiter)| self.apply(&committed, waiter));
                }
                Task::Look(query) => query(Ok(&self.machine)),
                Task::Snapshot(meta) => {
                    let bytes = self.snapshot();
                    // If the disk's thread is gone, so is the core.
                    let _ = self.orders.send(Order::SaveSnapshot { meta, bytes });
                }
                Task::Restore(bytes) => {
                    let read = bytes.recv().unwrap_or_else(|_| Err(Error::Ended("its disk fails".into())));
                    if let Err(error) = read.and_then(|bytes| self.restore(bytes)) {
                        tracing::error!("log {}: the snapshot cannot be taken over: {error}", self.log);
                        let why = format!("the snapshot cannot be taken over: {error}");
                        // If the core is gone, nobody need know.
                        let _ = self.inbox.send(Input::Event(Event::StoreFailed(why)));
                        return;
                    }
                }
            }
        }
    }

    fn apply(&mut self, committed: &Committed, waiter: Option<Waiter>) {
        let index = committed.entry.stamp.index;
        let bytes = match &committed.entry.payload {
            Payload::Blank => Bytes::new(),
            Payload::Voters(voters) => {
                self.machine.voters(index, voters);
                Bytes::new()
            }
            Payload::Command { origin: None, bytes } => self.machine.apply(index, bytes),
            Payload::Command { origin: Some(origin), bytes } => match self.sessions.turn(*origin) {
                Turn::New => {
                    let outcome = self.machine.apply(index, bytes);
                    self.sessions.done(*origin, index, outcome.clone());
                    outcome
                }
                Turn::Repeat(outcome) => outcome,
                Turn::Stale => Bytes::new(),
            },
        };
        if let Some(waiter) = waiter {
            // Whoever asked may have gone away.
            let _ = waiter.send(Ok(Outcome { index, bytes }));
        }
    }

    fn snapshot(&mut self) -> Bytes {
        let (sessions, state) = (self.sessions.encode(), self.machine.snapshot());
        let mut bytes = BytesMut::with_capacity(8 + sessions.len() + state.len());
        bytes.put_u64_le(sessions.len() as u64);
        bytes.put_slice(&sessions);
        bytes.put_slice(&state);
        bytes.freeze()
    }

    fn restore(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        let cut_off = || Error::Malformed("a snapshot is cut off".into());
        if bytes.len() < 8 {
            return Err(cut_off());
        }
        let length = usize::try_from(bytes.get_u64_le()).map_err(|_| cut_off())?;
        if bytes.len() < length {
            return Err(cut_off());
        }
        self.sessions = Sessions::decode(bytes.split_to(length))?;
        self.machine.restore(bytes).map_err(Error::Malformed)
    }
}
