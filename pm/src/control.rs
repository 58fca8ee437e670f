//! Process control in `ssid`: which client has which task where, and everything that travels between them.
//!
//! [`Core`] is pure: [`Core::handle`] takes an [`Event`] and gives back [`Effect`]s. The shell ([`Pm`]) carries them out:
//! clients' sockets, the link to `ssi-init`, the fabric. README.md has the states, messages and failure cases.
//!
//! ```text
//!   client --ClientSaid--> [ home part: sessions, tasks ] --orders--> lane --> peer --> [ runner part ] --> ssi-init
//!          <-----Client--- [ shadows, grace             ] <--news---- lane <-- peer <-- [ hosted      ] <-- ssi-init
//! ```
//!
//! Both parts run on every node. Between two parts of one node, orders and news go through a queue inside the core.
//!
//! Invariant: a task of this node is known to its home, or its home is within its grace time, or it is being killed.

pub mod caller;
pub mod event;
pub mod lane;
pub mod limits;
pub mod nodes;
pub mod routes;
pub mod streams;

mod attach;
mod calls;
mod home;
mod news;
mod outbox;
#[cfg(test)]
mod ownership_tests;
mod runner;
mod session;
mod shadow;
mod shell;
#[cfg(test)]
mod simulation;

pub use event::{ClientId, CoreConfig, Effect, Event};
pub use outbox::Outbox;
pub(crate) use shell::Shared;
pub use shell::{Config, Error, Handle, Pm};

use crate::wire::init::ToInit;
use crate::wire::peer::{Answer, Body, Command, Notice, Request};
use crate::wire::{Signal, TaskId, init};
use base::{NodeId, Time};
use lane::{Admission, Inlet, Lane, Track};
use membership::View;
use routes::Routes;
use runner::Hosted;
use rustix::io::Errno;
use session::{Session, SessionId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// What may be due at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Lane(NodeId, Track),
    Session(SessionId),
    Spawn(TaskId),
    Unclaimed(TaskId),
    Homes,
}

/// A task that a runner told of and no client has claimed since this daemon's start.
#[derive(Clone, Copy, Debug)]
struct Unclaimed {
    node: NodeId,
    until: Time,
}

/// What `ssi-init` said about a shadow before its client came back.
#[derive(Clone, Debug, Default)]
struct Early {
    signals: Vec<Signal>,
    gone: bool,
}

/// A place in a queue to another node.
type LaneKey = (NodeId, Track);
/// `request_id` of the question whose answer says that `ssi-init` has told all its tasks.
const FENCE: u64 = u64::MAX;

/// The core. See the module's description.
#[derive(Debug)]
pub struct Core {
    config: CoreConfig,
    now: Time,
    routes: Routes,
    routes_version: u64,
    settled: bool,
    held: VecDeque<Event>,
    sessions: BTreeMap<SessionId, Session>,
    clients: BTreeMap<ClientId, SessionId>,
    unclaimed: BTreeMap<TaskId, Unclaimed>,
    early: BTreeMap<TaskId, Early>,
    hosted: BTreeMap<TaskId, Hosted>,
    lanes: BTreeMap<LaneKey, Lane>,
    lanes_used: u64,
    inlets: BTreeMap<LaneKey, Inlet>,
    dirty: BTreeSet<LaneKey>,
    local: VecDeque<Body>,
    due: BTreeSet<(Time, Due)>,
    effects: Vec<Effect>,
}

impl Core {
    /// A core that has just started, and what to do first.
    pub fn start(config: CoreConfig, now: Time) -> (Core, Vec<Effect>) {
        let core = Core {
            config,
            now,
            routes: Routes::new(config.node, config.regions),
            routes_version: 0,
            settled: false,
            held: VecDeque::new(),
            sessions: BTreeMap::new(),
            clients: BTreeMap::new(),
            unclaimed: BTreeMap::new(),
            early: BTreeMap::new(),
            hosted: BTreeMap::new(),
            lanes: BTreeMap::new(),
            lanes_used: 0,
            inlets: BTreeMap::new(),
            dirty: BTreeSet::new(),
            local: VecDeque::new(),
            due: BTreeSet::new(),
            effects: Vec::new(),
        };
        let question = Signal { target: 1, privileged: true, ..Signal::default() };
        let fence = ToInit { task: None, request_id: FENCE, request: Some(init::Request::Signal(question)) };
        (core, vec![Effect::Init(fence)])
    }

    /// Takes one event and says what is to be done.
    pub fn handle(&mut self, now: Time, event: Event) -> Vec<Effect> {
        self.now = self.now.max(now);
        self.dispatch(event);
        self.settle_local();
        self.fire_due();
        self.pump_lanes();
        std::mem::take(&mut self.effects)
    }

    /// When [`Event::Tick`] is wanted at the latest.
    pub fn deadline(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Where signals go; changes whenever [`Core::routes_version`] does.
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Grows with every change of [`Core::routes`].
    pub fn routes_version(&self) -> u64 {
        self.routes_version
    }

    /// Tasks of sessions of this node, and tasks that run here: for status displays and tests.
    pub fn counts(&self) -> (usize, usize) {
        (self.sessions.values().map(|session| session.tasks.len()).sum(), self.hosted.len())
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::View(view) => self.take_view(&view),
            Event::Init(report) => self.take_report(report),
            Event::Peer { from, request } => self.take_request(from, request),
            Event::Tick => {}
            // A client's Resume must find every task that ssi-init still has.
            event if !self.settled => self.held.push_back(event),
            Event::ClientOpened { client, hello, credentials, pid } => {
                self.open_client(client, &hello, credentials, pid);
            }
            Event::ClientSaid { client, batch } => self.take_batch(client, batch),
            Event::ClientWritten { client, bytes } => self.client_written(client, bytes),
            Event::ClientClosed(client) => self.client_closed(client),
            Event::Answered { from, track, ticket, errno } => {
                if let Some(lane) = self.lanes.get_mut(&(from, track)) {
                    lane.answered(self.now, ticket, errno);
                    self.dirty.insert((from, track));
                }
            }
            Event::CallFailed { from, track, ticket } => {
                if let Some(lane) = self.lanes.get_mut(&(from, track)) {
                    lane.failed(self.now, ticket);
                    self.dirty.insert((from, track));
                }
            }
        }
    }

    /// `ssi-init` has told all its tasks: what waited for that goes on.
    fn settled(&mut self) {
        self.settled = true;
        // Not at once: the first view may be one of before the restart.
        self.due.insert((self.now + home::GRACE, Due::Homes));
        for event in std::mem::take(&mut self.held) {
            self.dispatch(event);
        }
    }

    fn take_request(&mut self, from: NodeId, request: Request) {
        let track = request.body.as_ref().map_or(Track::Control, Track::of);
        // A node that this one's view does not hold for alive, yet or any more, may try again later.
        let ready = self.settled && self.routes.nodes.is_alive(from);
        let errno = match (ready, request.body) {
            (false, _) => Errno::AGAIN.raw_os_error() as u32,
            (true, None) => Errno::INVAL.raw_os_error() as u32,
            (true, Some(body)) => {
                let inlet = self.inlets.entry((from, track)).or_default();
                match inlet.admit(request.lane, request.sequence) {
                    Admission::Answer(errno) => errno,
                    Admission::Next => {
                        self.carry_out(from, body);
                        0
                    }
                }
            }
        };
        self.effects.push(Effect::Answer(Answer { errno, ..Answer::default() }));
    }

    fn carry_out(&mut self, from: NodeId, body: Body) {
        match body {
            Body::Spawn(many) => self.host(from, many),
            Body::Command(Command { task: Some(task), order: Some(order) }) if task.home == from.0 => {
                self.obey(task, order);
            }
            Body::Notice(Notice { task: Some(task), news: Some(news) })
                if task.home == self.config.node.0 =>
            {
                self.hear(from, task, news);
            }
            Body::Greet(()) => {
                self.tell_again_as_home(from);
                self.announce_all(from);
            }
            // The rest are questions, which the shell answers, or nonsense of a peer, which changes nothing.
            _ => {}
        }
    }

    /// Sends `body` to `node`, which may be this one.
    fn post(&mut self, node: NodeId, body: Body) {
        let track = Track::of(&body);
        if node == self.config.node {
            self.local.push_back(body);
        } else if self.routes.nodes.is_alive(node) {
            self.lane(node, track).push(body);
            self.dirty.insert((node, track));
        }
    }

    fn lane(&mut self, node: NodeId, track: Track) -> &mut Lane {
        let (life, used) = (self.config.life, &mut self.lanes_used);
        self.lanes.entry((node, track)).or_insert_with(|| {
            // A lane that counts anew takes the next id, so lanes begin far from each other.
            *used += 1;
            Lane::new(life + (*used << 16))
        })
    }

    fn settle_local(&mut self) {
        while let Some(body) = self.local.pop_front() {
            self.carry_out(self.config.node, body);
        }
    }

    fn pump_lanes(&mut self) {
        for key in std::mem::take(&mut self.dirty) {
            let Some(lane) = self.lanes.get_mut(&key) else { continue };
            while let Some((ticket, body)) = lane.poll(self.now) {
                let request = Request { body: Some(body), lane: ticket.lane, sequence: ticket.sequence };
                self.effects.push(Effect::Call { to: key.0, track: key.1, ticket, request });
            }
            if let Some(at) = lane.retry_at() {
                self.due.insert((at, Due::Lane(key.0, key.1)));
            }
            if key.1 == Track::Data && lane.bytes() < limits::LANE_QUEUE_BYTES_MAX / 2 {
                self.catch_up(key.0);
            }
        }
    }

    fn fire_due(&mut self) {
        while let Some((at, due)) = self.due.first().copied() {
            if at > self.now {
                break;
            }
            self.due.pop_first();
            match due {
                Due::Lane(node, track) => {
                    self.dirty.insert((node, track));
                }
                Due::Session(number) => self.session_due(number),
                Due::Spawn(task) => self.spawn_due(task),
                Due::Unclaimed(task) => self.unclaimed_due(task),
                Due::Homes => self.drop_dead_homes(),
            }
            self.settle_local();
        }
    }

    fn take_view(&mut self, view: &Arc<View>) {
        let (here, changes) = (self.config.node, self.routes.nodes.update(view));
        for node in changes.ended.into_iter().filter(|node| *node != here) {
            for track in [Track::Control, Track::Data] {
                self.lanes.remove(&(node, track));
                self.inlets.remove(&(node, track));
            }
            self.lose_node(node);
            self.drop_home(node);
        }
        for node in changes.arrived.into_iter().filter(|node| *node != here) {
            self.post(node, Body::Greet(()));
        }
        self.routes_version += 1;
    }

    fn order_init(&mut self, task: TaskId, request: init::Request) {
        self.effects.push(Effect::Init(ToInit { task: Some(task), request_id: 0, request: Some(request) }));
    }
}
