//! The engine: one endpoint's links, sessions and setups, driven by whoever waits.
//!
//! ```text
//!   ready descriptor --> setup: a step of the handshake --> link
//!                    \-> link.receive --> inlet --> Caller / Initiator --> calls settled, wakers to wake
//!                                              \--> Callee / Target    --> requests to start (the inbox)
//!   call, answer, received credit --> dirty link --> pump: next() of the cores --> link.push, flush
//! ```
//!
//! It never blocks, calls no service and wakes nobody: it collects whom to wake and what to start, and the endpoint does that
//! when the engine's lock is released. Time is told to it. Invariant: whatever can still produce a frame for a link that has room is
//! either marked dirty or waits for a readiness that will mark it.

mod calls;
mod devices;
mod dialling;
mod filling;
mod gate;
mod guest;
mod inlet;
mod links;
mod memory;
mod outgoing;
mod peers;
mod proving;
mod raising;
mod receiving;
mod recents;
mod remote;
mod renewing;
mod report;
mod setups;
mod simulated;
mod timers;

use crate::provider::Provider;
use crate::reactor::{Reactor, Ready, Token};
use crate::region::{Regions, Registrations};
use crate::serving::Outcome;
use crate::session::{Completed, Grants, Start, Turn};
use crate::setup::{Identity, Security};
use crate::{Config, Error, Limits, LinkEvent, Message, Peer, ServiceId};
use base::time::Time;
use calls::Calls;
use devices::Devices;
use gate::Gate;
use guest::Guests;
use links::Links;
use memory::Awaiting;
use remote::Remote;
use setups::Setups;
use simulated::Simulated;
use slab::Slab;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::task::Waker;
use timers::{Alarm, Timers};

pub use outgoing::{Request, Transfer, judge};

/// A request of a guest that is to be started.
pub struct Arrived {
    /// Which guest.
    pub guest: usize,
    /// Which life of his session, in case that he is forgotten meanwhile.
    pub life: u64,
    /// Which of his calls.
    pub turn: Turn,
    /// Who he is.
    pub from: Peer,
    /// Whom he asks.
    pub service: ServiceId,
    /// What he asks.
    pub message: Message,
}

/// What the endpoint does for the engine once its lock is released.
#[derive(Default)]
pub struct Errands {
    /// Requests to start, in order.
    pub inbox: Vec<Arrived>,
    /// Callers to wake.
    pub wakes: Vec<Waker>,
    /// Events to tell.
    pub events: Vec<LinkEvent>,
    /// What services answered at once; kept here for its memory.
    pub answers: Vec<((usize, u64, Turn), Outcome)>,
}

impl Errands {
    /// True if there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.inbox.is_empty() && self.wakes.is_empty() && self.events.is_empty()
    }
}

/// What a token stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Listener(usize),
    Device(usize),
    Setup(u64),
    Link(crate::session::LinkId),
}

/// One endpoint.
pub struct Engine {
    simulated: Option<Simulated>,
    identity: Identity,
    limits: Limits,
    security: Security,
    providers: Vec<Provider>,
    grants: Grants,
    host: Vec<u8>,
    reactor: Reactor,
    entries: Slab<Entry>,
    gate: Gate,
    devices: Devices,
    setups: Setups,
    links: Links,
    remotes: Slab<Remote>,
    by_peer: HashMap<Peer, usize>,
    last_found: Option<(Peer, usize)>,
    guests: Guests,
    calls: Calls,
    timers: Timers,
    regions: Regions,
    registrations: Registrations,
    awaiting: Vec<Awaiting>,
    ready: Vec<Ready>,
    completed: Vec<Completed>,
    starts: Vec<Start>,
    /// What the endpoint is to do.
    pub errands: Errands,
    closed: bool,
    /// When the last full turn was.
    now: Time,
}

impl Engine {
    /// An engine that listens.
    ///
    /// # Errors
    /// [`Error::Listen`], or the system gives no descriptors.
    pub fn new(config: Config) -> Result<Engine, Error> {
        let (listen, rails, shm) = (config.listen, config.rails.clone(), config.shm.clone());
        let mut engine = Engine::unheard(config)?;
        engine.listen(listen)?;
        for rail in rails {
            engine.listen(rail)?;
        }
        engine.listen_locally(shm)?;
        engine.open_devices();
        Ok(engine)
    }

    /// An engine that does not listen yet.
    fn unheard(config: Config) -> Result<Engine, Error> {
        let (listen, registered_bytes) = (config.listen, config.limits.registered_bytes);
        let cannot =
            |source: std::io::Error| Error::Listen { address: listen, source: std::sync::Arc::new(source) };
        Ok(Engine {
            simulated: None,
            identity: Identity {
                local: config.local,
                keys: crate::setup::Keys::one(config.key),
                cluster: config.cluster,
            },
            grants: config.limits.grants(),
            limits: config.limits,
            security: config.security,
            providers: config.providers,
            host: host_identity(),
            reactor: Reactor::with(config.io).map_err(cannot)?,
            entries: Slab::new(),
            gate: Gate::default(),
            devices: Devices::default(),
            setups: Setups::default(),
            links: Links::default(),
            remotes: Slab::new(),
            by_peer: HashMap::new(),
            last_found: None,
            guests: Guests::default(),
            calls: Calls::new(),
            timers: Timers::default(),
            regions: Regions::new(config.local),
            registrations: Registrations::new(registered_bytes),
            awaiting: Vec::new(),
            ready: Vec::new(),
            completed: Vec::new(),
            starts: Vec::new(),
            errands: Errands::default(),
            closed: false,
            now: Time(0),
        })
    }

    /// The reactor, whose descriptor is readable when a turn has something to do.
    pub fn reactor(&self) -> &Reactor {
        &self.reactor
    }

    /// The name under which it speaks.
    pub fn local(&self) -> crate::Peer {
        self.identity.local
    }

    /// Where it listens first.
    pub fn address(&self) -> SocketAddr {
        self.simulated.as_ref().map_or_else(|| self.gate.address(), |simulated| simulated.address)
    }

    /// Does all that can be done now. True if there is more to do at once.
    pub fn turn(&mut self, now: Time) -> bool {
        self.now = now;
        self.links.look();
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        if let Err(error) = self.reactor.wait(Some(std::time::Duration::ZERO), &mut ready) {
            tracing::error!(%error, "cannot look what is ready");
        }
        for ready in &ready {
            self.ready(*ready, now);
        }
        let full = ready.len() >= ready.capacity();
        self.ready = ready;
        self.note_silent();
        let again = self.receive_ready(now);
        self.arm_quiet(now);
        self.alarms(now);
        self.pump(now);
        again || full && !self.ready.is_empty() || self.links.are_busy()
    }

    /// Looks only at the links that spoke last, without asking the system for the time or which descriptors are ready: for whoever
    /// polls, and has a full turn now and then.
    pub fn glance(&mut self) -> bool {
        let now = self.now;
        self.pump(now);
        let seen = self.receive_recent(now);
        if seen {
            self.pump(now);
        }
        seen || self.links.are_busy()
    }

    /// True if a glance is not enough: bulk links have moved so much that all links should be looked at.
    pub fn owes_turn(&self) -> bool {
        self.links.may_receive() == 0 || self.links.may_send() == 0 || self.links.have_more()
    }

    /// True if there is something that the next turn does.
    pub fn is_busy(&self) -> bool {
        self.links.are_busy()
    }

    /// Fills the links, as of the last turn.
    pub fn pump_now(&mut self) {
        self.pump(self.now);
    }

    /// Nothing is due before this; `None`: nothing is.
    pub fn earliest(&self) -> Option<Time> {
        [self.calls.earliest(), self.timers.next()].into_iter().flatten().min()
    }

    /// Called before sleeping: how long at most (`None`: for ever). `Some(0)` if something came meanwhile.
    pub fn rest(&mut self, now: Time) -> Option<std::time::Duration> {
        if self.closed && self.errands.is_empty() {
            return None;
        }
        if !self.errands.is_empty() || self.arm(now) {
            return Some(std::time::Duration::ZERO);
        }
        self.earliest().map(|at| at.since(now))
    }

    /// What a ready descriptor asks for; links get their turn when all that are ready are known.
    fn ready(&mut self, ready: Ready, now: Time) {
        let Some(entry) = self.entries.get(ready.token.0 as usize).copied() else { return };
        match entry {
            Entry::Listener(at) => self.accept(at, now),
            Entry::Device(at) => self.device_tells(at, now),
            Entry::Setup(number) => self.step(number, now),
            Entry::Link(link) => {
                if ready.writable {
                    self.links.mark(link);
                }
                if ready.readable {
                    self.links.look_again(link);
                }
            }
        }
    }

    fn alarms(&mut self, now: Time) {
        for (ticket, about) in self.calls.due(now) {
            self.expire(ticket, about);
        }
        while let Some(alarm) = self.timers.due(now) {
            match alarm {
                Alarm::Dial(remote) => self.dial_again(remote, now),
                Alarm::Setup(number) => self.setup_is_late(number, now),
                Alarm::Guest(session) => self.forget_guest(session, now),
                Alarm::Accept => self.accept_again(now),
                Alarm::Devices => self.look_after_devices(now),
            }
        }
    }

    /// What a service made of a request.
    pub fn answer(&mut self, arrived: (usize, u64, Turn), verdict: crate::frame::Verdict, message: Message) {
        let (place, life, turn) = arrived;
        let Some(guest) = self.guests.living(place, life) else { return };
        let lane = crate::session::Lane::of(turn.channel());
        guest.callee.answered(turn, verdict, message);
        // It goes where its request came from, on whichever rail that was.
        for link in &guest.links {
            self.links.mark_lane(*link, lane);
        }
    }

    /// Ends everything: all calls fail, all links close.
    pub fn close(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        for remote in self.remotes.iter().map(|(at, _)| at).collect::<Vec<_>>() {
            self.fail_all(remote, &Error::Closed);
            self.remotes[remote].kept = false;
        }
        for link in self.links.ids() {
            self.drop_link(link, true);
        }
        for number in self.setups.numbers() {
            self.drop_setup(number);
        }
        self.unlisten();
    }

    /// A number that nobody can guess, for a session or a key's token.
    fn random(&mut self) -> u64 {
        if let Some(simulated) = &self.simulated {
            return simulated.wire.lock().random();
        }
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).expect("the kernel has randomness once it has booted");
        u64::from_le_bytes(bytes)
    }

    fn token(&mut self, entry: Entry) -> Token {
        Token(self.entries.insert(entry) as u64)
    }

    fn release(&mut self, token: Token) {
        let _ = self.entries.try_remove(token.0 as usize);
    }

    fn providers_allow(&self, provider: Provider) -> bool {
        self.providers.contains(&provider)
    }
}

/// What tells this host from others while it runs: its boot id.
fn host_identity() -> Vec<u8> {
    std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}
