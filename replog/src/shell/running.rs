//! The core's thread: takes inputs, carries out effects.
//!
//! Invariant: whoever asked is answered once, also at the end.

use super::applying::{Query, Task, Waiter};
use super::exchange::Exchange;
use super::handle::Leadership;
use super::keeping::{self, Order};
use super::{Ask, Input, clock};
use crate::core::Core;
use crate::error::Error;
use crate::event::{Effect, Event, Proposal, Refusal};
use crate::ids::RequestId;
use crate::voters::Voters;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;

/// Inputs that are taken in before the effects of proposals among them are carried out.
const BATCH_MAX: usize = 1_024;
/// How long the thread rests when the core waits for nothing.
const REST: Duration = Duration::from_secs(1);

/// Threads that are waited for at the end.
#[derive(Default)]
pub(super) struct Threads(Vec<JoinHandle<()>>);

impl Threads {
    pub(super) fn spawn(
        &mut self,
        name: &str,
        on_start: fn(),
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), Error> {
        self.0.push(spawn(name, on_start, work)?);
        Ok(())
    }
}

fn spawn(name: &str, on_start: fn(), work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
        on_start();
        work();
    });
    thread.map_err(|source| Error::Disk { action: "start a thread for", file: name.into(), source })
}

/// Starts the core's thread.
pub(super) fn launch(runner: Runner, on_start: fn(), inputs: Receiver<Input>) -> Result<(), Error> {
    spawn("replog", on_start, move || runner.run(inputs)).map(|_| ())
}

/// The thread's own.
pub(super) struct Runner {
    pub(super) core: Core,
    pub(super) log: u64,
    pub(super) exchange: Arc<Exchange>,
    pub(super) orders: Option<Sender<Order>>,
    pub(super) tasks: Option<Sender<Task>>,
    pub(super) threads: Threads,
    pub(super) waiters: BTreeMap<RequestId, Waiter>,
    pub(super) queries: BTreeMap<RequestId, Query>,
    pub(super) proposals: Vec<Proposal>,
    pub(super) next: u64,
    pub(super) stopping: Arc<AtomicBool>,
    pub(super) effects: Vec<Effect>,
    pub(super) leadership: watch::Sender<Leadership>,
    pub(super) voters: watch::Sender<Voters>,
    pub(super) ended: watch::Sender<Option<String>>,
}

impl Runner {
    fn run(mut self, inputs: Receiver<Input>) {
        let why = self.serve(&inputs);
        self.exchange.detach(self.log);
        // Nobody must wait for room in it while this thread waits for him.
        drop(inputs);
        let over = || Error::Ended(why.clone());
        // Whoever asked may have gone away.
        std::mem::take(&mut self.waiters).into_values().for_each(|waiter| drop(waiter.send(Err(over()))));
        std::mem::take(&mut self.queries).into_values().for_each(|query| query(Err(over())));
        // The other threads end with their channels; the applying one holds a sender to the disk's.
        self.tasks = None;
        self.orders = None;
        for thread in std::mem::take(&mut self.threads.0) {
            if thread.join().is_err() {
                tracing::error!("log {}: a thread of it has panicked", self.log);
            }
        }
        self.ended.send_replace(Some(why));
    }

    /// Runs until it is stopped; gives the reason.
    fn serve(&mut self, inputs: &Receiver<Input>) -> String {
        self.handle(Event::Tick);
        while !self.stopping.load(Ordering::Relaxed) {
            let rest = self.core.next_deadline().map_or(REST, |deadline| deadline.since(clock::now()));
            let mut taken = 0;
            let mut next = match inputs.recv_timeout(rest) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return "all who could use it are gone".into(),
            };
            while let Some(input) = next {
                self.take(input);
                taken += 1;
                next = if taken < BATCH_MAX { inputs.try_recv().ok() } else { None };
            }
            self.propose();
            if self.core.next_deadline().is_some_and(|deadline| deadline <= clock::now()) {
                self.handle(Event::Tick);
            }
            if let Some(why) = self.core.halted() {
                return why;
            }
        }
        "it was stopped".into()
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => {
                // What was asked earlier goes first.
                self.propose();
                self.handle(event);
            }
            Input::Ask(Ask::Propose { origin, bytes, waiter }) => {
                let request = self.request();
                self.waiters.insert(request, waiter);
                self.proposals.push(Proposal { request, origin, bytes });
            }
            Input::Ask(Ask::ChangeVoters { voters, learners, waiter }) => {
                let request = self.request();
                self.waiters.insert(request, waiter);
                self.handle(Event::ChangeVoters { request, voters, learners });
            }
            Input::Ask(Ask::Read(query)) => {
                let request = self.request();
                self.queries.insert(request, query);
                self.handle(Event::Read(request));
            }
            Input::Ask(Ask::Look(query)) => self.task(Task::Look(query)),
            Input::Ask(Ask::Status(reply)) => {
                // Whoever asked may have gone away.
                let _ = reply.send(self.core.status());
            }
            Input::Wake => {}
        }
    }

    fn request(&mut self) -> RequestId {
        self.next += 1;
        RequestId(self.next)
    }

    /// All proposals that came together go together.
    fn propose(&mut self) {
        if !self.proposals.is_empty() {
            let proposals = std::mem::take(&mut self.proposals);
            self.handle(Event::Propose(proposals));
        }
    }

    fn handle(&mut self, event: Event) {
        let mut effects = std::mem::take(&mut self.effects);
        self.core.handle(clock::now(), event, &mut effects);
        effects.drain(..).for_each(|effect| self.carry_out(effect));
        self.effects = effects;
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(write) => self.order(Order::Write(write)),
            Effect::Install { ticket, meta } => self.order(Order::Install { ticket, meta }),
            Effect::Send(envelope) => self.exchange.send(self.log, &envelope),
            Effect::SendChunk { to, term, meta, offset, mark } => {
                self.order(Order::SendChunk { to, term, meta, offset, mark });
            }
            Effect::TakeChunk { meta, offset, bytes, size } => {
                self.order(Order::TakeChunk { meta, offset, bytes, size });
            }
            Effect::Trim(upto) => self.order(Order::Trim(upto)),
            Effect::Restore(_) => {
                if let Some(task) = self.orders.as_ref().map(keeping::restore) {
                    self.task(task);
                }
            }
            Effect::Commit(entries) => {
                let entries = entries.into_iter().map(|committed| {
                    let waiter = committed.request.and_then(|request| self.waiters.remove(&request));
                    (committed, waiter)
                });
                let entries = entries.collect();
                self.task(Task::Apply(entries));
            }
            Effect::MakeSnapshot(meta) => self.task(Task::Snapshot(meta)),
            Effect::Accepted { .. } => {}
            Effect::Rejected { request, refusal } => self.reject(request, refusal),
            Effect::ReadReady { request, .. } => {
                if let Some(query) = self.queries.remove(&request) {
                    self.task(Task::Look(query));
                }
            }
            Effect::Leadership { leader, term } => {
                tracing::info!("log {}: term {term}, leader {leader:?}", self.log);
                self.leadership.send_replace(Leadership { leader, term });
            }
            Effect::Voters(voters) => {
                self.voters.send_replace(voters);
            }
            Effect::Halted(why) => tracing::error!("log {}: this member stops: {why}", self.log),
        }
    }

    fn reject(&mut self, request: RequestId, refusal: Refusal) {
        if let Some(waiter) = self.waiters.remove(&request) {
            // Whoever asked may have gone away.
            let _ = waiter.send(Err(Error::Refused(refusal)));
        } else if let Some(query) = self.queries.remove(&request) {
            query(Err(Error::Refused(refusal)));
        }
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // If the disk's thread is gone it has said why in the inbox.
            drop(orders.send(order));
        }
    }

    fn task(&self, task: Task) {
        if let Some(tasks) = &self.tasks {
            // If the other thread is gone it has said why in the inbox.
            drop(tasks.send(task));
        }
    }
}
