//! The simulated network's endpoints, its clock, and what runs in it.

use super::wire::{Faults, Wire};
use crate::endpoint::{Endpoint, Simulated};
use crate::{Config, Error};
use base::time::Time;
use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Notices that something can go on.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

/// A simulated network.
pub struct Network {
    wire: Arc<Mutex<Wire>>,
    endpoints: Mutex<Vec<Simulated>>,
    arriving: Mutex<Vec<Work>>,
    sleeping: Arc<Mutex<Vec<(Time, Waker)>>>,
}

impl Network {
    /// An empty network; the same seed and the same use give the same run.
    pub fn new(seed: u64, faults: Faults) -> Network {
        Network {
            wire: Arc::new(Mutex::new(Wire::new(seed, faults))),
            endpoints: Mutex::default(),
            arriving: Mutex::default(),
            sleeping: Arc::default(),
        }
    }

    /// An endpoint at the address where its configuration says that it listens. It is driven by [`Network::run`] only.
    ///
    /// # Errors
    /// The system gives no descriptors.
    pub fn endpoint(&self, config: Config) -> Result<Endpoint, Error> {
        let (endpoint, simulated) = Endpoint::simulated(config, self.wire.clone())?;
        self.endpoints.lock().push(simulated);
        Ok(endpoint)
    }

    /// The virtual time.
    pub fn now(&self) -> Time {
        self.wire.lock().now()
    }

    /// Waits in virtual time.
    pub fn sleep(&self, length: Duration) -> impl Future<Output = ()> + Send + 'static {
        let (wire, sleeping) = (self.wire.clone(), self.sleeping.clone());
        let until = self.now() + length;
        std::future::poll_fn(move |context| {
            if wire.lock().now() >= until {
                return Poll::Ready(());
            }
            sleeping.lock().push((until, context.waker().clone()));
            Poll::Pending
        })
    }

    /// Runs something beside what [`Network::run`] waits for.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.arriving.lock().push(Box::pin(work));
    }

    /// Changes how it misbehaves from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.wire.lock().set_faults(faults);
    }

    /// Cuts all links between two endpoints, and keeps them apart until [`Network::join`].
    pub fn part(&self, one: SocketAddr, other: SocketAddr) {
        self.wire.lock().part(one, other);
    }

    /// They can reach each other again.
    pub fn join(&self, one: SocketAddr, other: SocketAddr) {
        self.wire.lock().join(one, other);
    }

    /// Runs a future, and all else, until it is through: `None` if nothing can ever happen any more before that.
    pub fn run<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut context = Context::from_waker(&waker);
        let mut running: FuturesUnordered<Work> = FuturesUnordered::new();
        loop {
            woken.0.store(false, SeqCst);
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return Some(output);
            }
            running.extend(self.arriving.lock().drain(..));
            while let Poll::Ready(Some(())) = running.poll_next_unpin(&mut context) {}
            let mut more = woken.0.load(SeqCst) || !self.arriving.lock().is_empty();
            for simulated in self.endpoints.lock().iter_mut() {
                more |= simulated.turn(&mut context);
            }
            if !more && !woken.0.load(SeqCst) && !self.step() {
                return None;
            }
        }
    }

    /// Moves the clock to what happens next, and lets it happen. False if nothing does.
    fn step(&self) -> bool {
        let alarms = self.endpoints.lock().iter().filter_map(|simulated| simulated.earliest()).min();
        let sleeper = self.sleeping.lock().iter().map(|(until, _)| *until).min();
        let arrival = self.wire.lock().next();
        let Some(next) = [alarms, sleeper, arrival].into_iter().flatten().min() else { return false };
        self.wire.lock().advance(next);
        let now = self.now();
        self.sleeping.lock().extract_if(.., |(until, _)| *until <= now).for_each(|(_, waker)| waker.wake());
        loop {
            let Some((to, arrival)) = self.wire.lock().due() else { break };
            let endpoints = self.endpoints.lock();
            match endpoints.iter().find(|simulated| simulated.is_at(to)) {
                Some(simulated) => simulated.arrive(arrival),
                None => super::Arrival::nobody(arrival, &mut self.wire.lock()),
            }
        }
        true
    }
}

impl super::Arrival {
    /// Nobody is at the address where this arrives.
    fn nobody(self, wire: &mut Wire) {
        match self {
            super::Arrival::Dialled { from, setup, .. } => wire.refuse(from, setup),
            super::Arrival::Welcomed { end, .. } | super::Arrival::Frames { end } => wire.close(end),
            super::Arrival::Refused { .. } => {}
        }
    }
}
