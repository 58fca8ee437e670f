//! What all clones of an endpoint share: the engine behind its lock, the services, and what is done when the lock is released.
//!
//! Invariant: no service is called and nobody woken while the engine's lock is held.

use super::tree::Tree;
use super::waiting::Seat;
use crate::engine::{Arrived, Engine, Errands};
use crate::serving::{Outcome, Services, Started};
use crate::session::{Ticket, Turn};
use crate::sim::Wire;
use crate::{Config, Error, LinkEvent, Message, Peer};
use base::time::Time;
use parking_lot::{Mutex, MutexGuard};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use tokio::sync::{Notify, broadcast, watch};

/// Link events that a slow listener may lag behind by.
const EVENTS_MAX: usize = 4_096;

/// Who drives an endpoint.
pub enum Driven {
    /// A task of this runtime.
    ByTask(tokio::runtime::Handle),
    /// Whoever waits.
    ByCaller,
}

/// What all clones of an endpoint share.
pub struct Shared {
    engine: Mutex<Engine>,
    /// What is offered.
    pub services: Services,
    /// Events of links.
    pub events: broadcast::Sender<LinkEvent>,
    /// Who it is.
    pub local: Peer,
    /// Where it listens.
    pub address: SocketAddr,
    /// Who drives.
    pub driven: Driven,
    /// Wakes the driving task: an earlier deadline, or the end.
    pub nudge: Notify,
    /// The place of the thread that drives.
    pub seat: Seat,
    clock: Clock,
    closing: watch::Sender<bool>,
    open: AtomicBool,
}

/// Where an endpoint has its time from.
pub enum Clock {
    /// The machine.
    Real,
    /// A simulated network.
    Virtual(Arc<Mutex<Wire>>),
}

/// The machine's time.
pub fn now() -> Time {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Time(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}

impl Shared {
    /// An engine and all that belongs to it.
    pub fn new(config: Config, driven: Driven) -> Result<Arc<Shared>, Error> {
        Shared::around(Engine::new(config)?, driven, Clock::Real)
    }

    /// What belongs to an engine.
    pub fn around(engine: Engine, driven: Driven, clock: Clock) -> Result<Arc<Shared>, Error> {
        let local = engine.local();
        let address = engine.address();
        let seat = Seat::new(engine.reactor())
            .map_err(|source| Error::Listen { address, source: Arc::new(source) })?;
        let shared = Arc::new(Shared {
            engine: Mutex::new(engine),
            services: Services::default(),
            events: broadcast::Sender::new(EVENTS_MAX),
            local,
            address,
            driven,
            nudge: Notify::new(),
            seat,
            clock,
            closing: watch::Sender::new(false),
            open: AtomicBool::new(true),
        });
        shared.services.offer(crate::service::TREE, Arc::new(Tree(Arc::downgrade(&shared))));
        Ok(shared)
    }

    /// The time as the engine is told it.
    pub fn now(&self) -> Time {
        match &self.clock {
            Clock::Real => now(),
            Clock::Virtual(wire) => wire.lock().now(),
        }
    }

    /// Does something with the engine, sends what comes of it, and does what it has to be done outside.
    pub fn with<R>(self: &Arc<Shared>, work: impl FnOnce(&mut Engine, Time) -> R) -> R {
        // Whoever drives sends what was collected when it has collected all.
        let drives = matches!(self.driven, Driven::ByCaller) && self.seat.is_ours();
        let mut engine = self.engine.lock();
        let now = self.now();
        let before = if drives { None } else { engine.earliest() };
        let result = work(&mut engine, now);
        let sooner = !drives && {
            engine.pump(now);
            // What it left over, and what is due, is for whoever drives.
            engine.is_busy()
                || engine.earliest().is_some_and(|earliest| before.is_none_or(|before| earliest < before))
        };
        let errands = (!engine.errands.is_empty()).then(|| std::mem::take(&mut engine.errands));
        drop(engine);
        if let Some(mut errands) = errands {
            self.run(&mut errands);
        }
        if sooner {
            self.nudge();
        }
        result
    }

    /// The outcome of a call, once it is there.
    pub fn poll_call(&self, ticket: Ticket, context: &mut Context<'_>) -> Poll<Result<Message, Error>> {
        self.engine.lock().poll_call(ticket, context)
    }

    /// Wakes whoever drives.
    pub fn nudge(&self) {
        match self.driven {
            Driven::ByTask(_) => self.nudge.notify_one(),
            Driven::ByCaller => self.seat.ring(),
        }
    }

    /// One turn of the engine by whoever drives, and its errands. Tells whether there is more to do at once.
    pub fn turn(self: &Arc<Shared>, errands: &mut Errands, glance: bool) -> bool {
        let mut engine = self.engine.lock();
        let more = if glance && !engine.owes_turn() {
            engine.glance()
        } else {
            let now = self.now();
            engine.pump(now);
            engine.turn(now)
        };
        if engine.errands.is_empty() {
            // Whoever waits for the lock gets it before the next turn.
            MutexGuard::unlock_fair(engine);
            return more;
        }
        std::mem::swap(&mut engine.errands, errands);
        drop(engine);
        self.run(errands);
        true
    }

    /// How long whoever drives may sleep; `None`: until something is ready.
    pub fn rest(self: &Arc<Shared>) -> Option<std::time::Duration> {
        self.engine.lock().rest(self.now())
    }

    /// Wakes, tells, and starts requests; answers of those that are through at once are sent together.
    fn run(self: &Arc<Shared>, errands: &mut Errands) {
        for waker in errands.wakes.drain(..) {
            waker.wake();
        }
        for event in errands.events.drain(..) {
            // Nobody need listen.
            let _ = self.events.send(event);
        }
        if errands.inbox.is_empty() {
            return;
        }
        let mut answers = std::mem::take(&mut errands.answers);
        for arrived in errands.inbox.drain(..) {
            let Arrived { guest, life, turn, from, service, message } = arrived;
            match self.services.start(service, from, message) {
                Started::Done(outcome) => answers.push(((guest, life, turn), outcome)),
                Started::Running(running) => self.run_later((guest, life, turn), running),
            }
        }
        if !answers.is_empty() {
            let mut engine = self.engine.lock();
            for (turn, (verdict, message)) in answers.drain(..) {
                engine.answer(turn, verdict, message);
            }
            engine.pump_now();
        }
        errands.answers = answers;
    }

    fn run_later(
        self: &Arc<Shared>,
        turn: (usize, u64, Turn),
        running: Pin<Box<dyn Future<Output = Outcome> + Send>>,
    ) {
        let shared = self.clone();
        self.spawn(async move {
            let (verdict, message) = running.await;
            shared.with(|engine, _| engine.answer(turn, verdict, message));
        });
    }

    /// Runs something until it is through or the endpoint closes.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        match &self.driven {
            Driven::ByTask(runtime) => {
                let mut closing = self.closing.subscribe();
                runtime.spawn(async move {
                    tokio::select! {
                        () = work => {}
                        _ = closing.wait_for(|closing| *closing) => {}
                    }
                });
            }
            Driven::ByCaller => self.seat.spawn(Box::pin(work)),
        }
    }

    /// Ends everything.
    pub fn shut(self: &Arc<Shared>) {
        if self.open.swap(false, Relaxed) {
            self.with(|engine, _| engine.close());
            self.closing.send_replace(true);
            self.seat.clear();
            self.nudge();
        }
    }

    /// What is told when it closes.
    pub fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// True after [`Shared::shut`].
    pub fn is_closed(&self) -> bool {
        !self.open.load(Relaxed)
    }

    /// Waits until no task of it is left.
    pub async fn closed(&self) {
        self.closing.closed().await;
    }

    /// A descriptor that is readable when a turn has something to do.
    pub fn descriptor(&self) -> std::io::Result<std::os::fd::OwnedFd> {
        use std::os::fd::AsFd;
        self.engine.lock().reactor().as_fd().try_clone_to_owned()
    }
}
