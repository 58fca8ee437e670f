//! The shell: one core, driven by whoever has something to say to it.
//!
//! ```text
//!  program, thread --submit--+                                        +--> owners: channels, waiting threads
//!  fabric --Service::handle--+--> core's lock: Node::handle, effects -+
//!  ssi-locks: time, views ---+                                        +--> post: batches --(lock released)--> fabric
//! ```
//!
//! No thread stands between a caller and the core: it takes the lock, applies its event, tells those whom the effects concern, and sends what came of it
//! when the lock is released. Batches are numbered under the lock, so it does not matter who sends his first.
//!
//! Invariants: effects are carried out in the core's order; nothing waits for anything while the core's lock is held; while the node has no
//! lease nothing is applied but views, so nothing is granted: what programs want waits here, what nodes say is not confirmed and comes again.

mod circles;
mod desk;
mod intake;
mod line;
mod listing;
mod owners;
mod post;
mod timer;
mod views;

pub use views::life;
pub(crate) use views::members;

use crate::deadlock::Sighting;
use crate::error::Error;
use crate::event::{self, Owner};
use crate::handle::Handle;
use crate::message::Envelope;
use crate::node::{Config, Effect, Event, Member, Node};
use crate::wire::{self, Header};
use base::{Epoch, NodeId, Time};
use bytes::Bytes;
use circles::Circles;
use fabric::{Endpoint, Peer, Priority, service};
use listing::Lists;
use owners::Owners;
pub(crate) use owners::{Listener, Told};
use parking_lot::Mutex;
use post::{Outgoing, Post};
use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};
use timer::Timer;

/// A batch that could not be sent for so long is given up; it is sent again as long as both ends live.
const SEND_DEADLINE: Duration = Duration::from_secs(2);
/// What programs want while the node has no lease, at most; more is refused.
const HELD_MAX: usize = 65_536;
/// After so long it is looked whether the lease is there again: much shorter than a lease.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What handles, the service and the timer's thread share.
pub(crate) struct Shared {
    /// For what outlives a call.
    itself: Weak<Shared>,
    pub(crate) node: NodeId,
    pub(crate) endpoint: Endpoint,
    pub(crate) lists: Lists,
    began: Instant,
    state: Mutex<State>,
    timer: Timer,
}

/// All that the lock guards.
pub(crate) struct State {
    core: Node,
    life: base::Incarnation,
    post: Post,
    owners: Owners,
    circles: Circles,
    effects: Vec<Effect>,
    told: Told,
    has_lease: bool,
    /// Looked at before anything is granted: who was paused finds it over before anybody could say so.
    lease: Option<membership::Lease>,
    held: VecDeque<event::Event>,
    /// When to look whether the lease is there again, if nobody has said that it was not.
    look_at: Option<Time>,
    /// When the timer's thread will look.
    armed: Option<Time>,
}

/// Starts a node's lock manager: its service on `endpoint`, and its thread.
///
/// # Errors
/// [`Error::Limit`], or the thread cannot be started.
pub(crate) fn start(config: Config, endpoint: Endpoint) -> Result<Handle, Error> {
    let (node, life, seed) = (config.node, config.life, config.table.seed);
    let state = State {
        core: Node::new(config)?,
        life,
        post: Post::new(life),
        owners: Owners::new(node),
        circles: Circles::default(),
        effects: Vec::new(),
        told: Told::default(),
        has_lease: true,
        lease: None,
        held: VecDeque::new(),
        look_at: None,
        armed: None,
    };
    let shared = Arc::new_cyclic(|itself| Shared {
        itself: itself.clone(),
        node,
        endpoint,
        lists: Lists::default(),
        began: Instant::now(),
        state: Mutex::new(state),
        timer: Timer::default(),
    });
    shared.endpoint.serve(service::LOCKS, Arc::new(desk::Desk::new(&shared)));
    timer::start(&shared)?;
    Ok(Handle::new(shared, seed))
}

impl Shared {
    /// The time that the core is told.
    pub(crate) fn now(&self) -> Time {
        Time(u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Applies something to the core and does what comes of it.
    pub(crate) fn turn<R>(&self, work: impl FnOnce(&mut State, Time) -> R) -> R {
        self.turn_for(None, work).0
    }

    /// As [`Shared::turn`]; the first batch for `asker`, who waits for a reply, is given out.
    fn turn_for<R>(
        &self,
        asker: Option<NodeId>,
        work: impl FnOnce(&mut State, Time) -> R,
    ) -> (R, Option<Bytes>) {
        let now = self.now();
        let mut state = self.state.lock();
        let result = work(&mut state, now);
        let mut batches = state.post.due(now);
        let mut answer = None;
        if let Some(asker) = asker {
            let place = batches.iter().position(|(node, _)| *node == asker);
            answer = place.map(|place| batches.remove(place).1).or_else(|| state.post.acknowledgement(asker));
        }
        let is_sooner = state.note_deadline();
        let wakes = std::mem::take(&mut state.told.wakes);
        drop(state);
        wakes.into_iter().for_each(Waker::wake);
        self.send(batches);
        if is_sooner {
            self.timer.wake();
        }
        (result, answer)
    }

    /// Looks at the state, without changing anything.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.state.lock())
    }

    fn send(&self, batches: Vec<Outgoing>) {
        let Some(shared) = self.itself.upgrade().filter(|_| !batches.is_empty()) else { return };
        for (node, head) in batches {
            let mut saying = Box::pin(shared.clone().say(node, head));
            // The call begins here: a task would begin it only when whoever drives the endpoint has been round once more.
            let begun = saying.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            if begun.is_pending() {
                self.endpoint.spawn(saying);
            }
        }
    }

    /// Calls another lock manager, which may have something to say in its reply.
    async fn say(self: Arc<Shared>, node: NodeId, head: Bytes) {
        let peer = Peer { node, role: self.endpoint.local().role };
        let message = fabric::Message { head, bulk: Bytes::new() };
        let called = self.endpoint.call(peer, service::LOCKS, Priority::Lock, message, SEND_DEADLINE).await;
        match called {
            Ok(reply) => {
                if let Err(error) = self.received(node, reply.head) {
                    tracing::warn!(%error, "what the lock manager of node {node} answers is not understood");
                }
            }
            // It is said again until the node is not in the view any more.
            Err(error) => tracing::debug!(%error, "a message to the lock manager of node {node} must wait"),
        }
    }

    /// What another node answers; often nothing.
    ///
    /// # Errors
    /// It is no batch.
    fn received(&self, from: NodeId, bytes: Bytes) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.turn(|state, now| state.received(now, from, bytes))
    }

    /// A batch of another node has come, and is answered by what there is to say to it.
    ///
    /// # Errors
    /// It is no batch.
    pub(crate) fn asked(&self, from: NodeId, bytes: Bytes) -> Result<Bytes, Error> {
        let (outcome, answer) = self.turn_for(Some(from), |state, now| state.received(now, from, bytes));
        outcome.map(|()| answer.unwrap_or_default())
    }

    /// A user's event.
    pub(crate) fn submit(&self, event: event::Event) {
        self.turn(|state, now| state.submit(now, event));
    }

    /// Who waits for whom among this node's users, at this moment.
    pub(crate) fn survey(&self) -> Vec<Sighting> {
        self.look(|state| circles::sightings(&state.core, self.node, Time(u64::MAX)))
    }

    /// What is due: the core's deadlines, confirmations, what is late.
    fn tick(&self) -> Option<Time> {
        let now = self.now();
        let mut state = self.state.lock();
        if state.look_at.is_some_and(|due| due <= now) {
            state.let_in(now);
        }
        if state.core.next_deadline().is_some_and(|due| due <= now) {
            match state.may_serve() {
                true => state.apply(now, Event::Tick),
                false => state.look_at = Some(now + LOOK_AGAIN),
            }
        }
        state.break_circles(now);
        let mut batches = state.post.due(now);
        batches.extend(state.post.tick(now));
        state.armed = state.next_deadline();
        let next = state.armed;
        let wakes = std::mem::take(&mut state.told.wakes);
        drop(state);
        wakes.into_iter().for_each(Waker::wake);
        self.send(batches);
        next
    }
}

impl State {
    /// The core, to be looked at.
    pub(crate) fn core(&self) -> &Node {
        &self.core
    }

    /// Who is told what becomes of locks.
    pub(crate) fn owners(&mut self) -> &mut Owners {
        &mut self.owners
    }

    /// A user's event; without a lease it waits.
    pub(crate) fn submit(&mut self, now: Time, event: event::Event) {
        if self.may_serve() {
            self.let_in(now);
            return self.apply(now, Event::User(event));
        }
        self.look_at = Some(now + LOOK_AGAIN);
        if self.held.len() < HELD_MAX || !matches!(event, event::Event::Request(_)) {
            return self.held.push_back(event);
        }
        if let event::Event::Request(event::Request { tag, owner, .. }) = event {
            let why = event::Refusal::Limit("of requests while the node has no lease");
            let refused = event::Effect::Refused { tag, lock: None, owner, mode: None, why };
            self.owners.tell(refused, &mut self.told);
        }
    }

    /// A view: era and members.
    pub(crate) fn view(&mut self, now: Time, era: Epoch, members: Vec<Member>) {
        self.post.view(era, &members);
        self.apply(now, Event::View { epoch: era, members });
    }

    /// The node's lease has ended, or is there again.
    pub(crate) fn lease(&mut self, now: Time, has_lease: bool) {
        self.has_lease = has_lease;
        self.let_in(now);
    }

    /// From now on this lease counts, too.
    pub(crate) fn serve_under(&mut self, lease: membership::Lease) {
        self.lease = Some(lease);
    }

    fn may_serve(&self) -> bool {
        self.has_lease && self.lease.as_ref().is_none_or(membership::Lease::is_held)
    }

    /// What has waited for the lease, if it is there.
    fn let_in(&mut self, now: Time) {
        self.look_at = None;
        while self.may_serve()
            && let Some(event) = self.held.pop_front()
        {
            self.apply(now, Event::User(event));
        }
        if !self.held.is_empty() && self.has_lease {
            self.look_at = Some(now + LOOK_AGAIN);
        }
    }

    fn received(&mut self, now: Time, from: NodeId, bytes: Bytes) -> Result<(), Error> {
        if !self.may_serve() {
            return Ok(());
        }
        for (header, batch) in self.post.received(now, from, bytes)? {
            self.messages(now, from, &header, &batch)?;
        }
        Ok(())
    }

    fn messages(&mut self, now: Time, from: NodeId, header: &Header, batch: &Bytes) -> Result<(), Error> {
        for message in wire::messages(batch)? {
            let envelope = Envelope { from, life: header.life, era: header.era, message };
            self.apply(now, Event::Message(envelope));
        }
        Ok(())
    }

    fn apply(&mut self, now: Time, event: Event) {
        self.apply_one(now, event);
        // What listeners say to it: each has fewer locks to speak of afterwards.
        while let Some(event) = self.told.events.pop() {
            self.apply_one(now, Event::User(event));
        }
    }

    fn apply_one(&mut self, now: Time, event: Event) {
        let mut effects = std::mem::take(&mut self.effects);
        self.core.handle(now, event, &mut effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Send { to, envelope } => {
                    debug_assert_eq!(envelope.life, self.life);
                    self.post.push(to, envelope.era, &envelope.message);
                }
                Effect::User(effect) => {
                    self.circles.note(&effect);
                    self.owners.tell(effect, &mut self.told);
                }
            }
        }
        self.effects = effects;
    }

    /// In this node's own table all edges are of one moment: a circle is a deadlock.
    fn break_circles(&mut self, now: Time) {
        if self.may_serve() && self.circles.is_due(now) {
            for victim in circles::victims(&self.core, now) {
                self.apply(now, Event::User(victim));
            }
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        let core = self.core.next_deadline().filter(|_| self.has_lease && self.look_at.is_none());
        [core, self.post.next_deadline(), self.circles.next_look(), self.look_at].into_iter().flatten().min()
    }

    /// True if the timer's thread must look sooner than it would.
    fn note_deadline(&mut self) -> bool {
        let next = self.next_deadline();
        let is_sooner = next.is_some_and(|next| self.armed.is_none_or(|armed| next < armed));
        if is_sooner {
            self.armed = next;
        }
        is_sooner
    }
}

/// The owner that an effect concerns.
pub(crate) fn owner(effect: &event::Effect) -> Owner {
    match effect {
        event::Effect::Granted(grant) => grant.owner,
        event::Effect::Queued { owner, .. }
        | event::Effect::Refused { owner, .. }
        | event::Effect::Done { owner, .. }
        | event::Effect::Blocking { owner, .. }
        | event::Effect::Purged { owner, .. } => *owner,
    }
}
