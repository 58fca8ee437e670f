//! The pure core of membership: one node's part in keeping the table. One event is applied, then everything that must
//! hold is restored; what must be done comes out as effects, to be carried out in their order.
//!
//! ```text
//!  heartbeats, links, answers --> Detector --opinions--+                            +--> Publish, Answer
//!                                                      +--> Command --> log --> Machine
//!  joins, leaves, removals ----> changes asked for ----+    (master)  (voters)      +--> Lead, to all nodes
//! ```
//!
//! Invariants: transitions are published in order and without holes; a life declared DOWN never acts again (its own node
//! learns of it and ends it, [`Effect::Evicted`]), and its lease was over before; what a voter promises is on its disk
//! before it is said (the log's invariant).

mod canary;
mod event;
mod following;
mod healing;
mod leading;
mod logging;
mod opinions;

pub use canary::Canary;
pub use event::{Config, Effect, Event, NodeStatus, OnDisk, Order, RequestId, Status};
pub use leading::CHANGES_MAX;

use crate::detection::Detector;
use crate::machine::Machine;
use crate::table::{self, Table};
use crate::talk::{Answer, Ask, Condition, Hello, Noted, Request, Say};
use crate::wire::{Node, View};
use base::{NodeId, Time};
use following::Following;
use leading::{Purpose, Reign};
use replog::Committed;
use std::collections::{BTreeMap, BTreeSet};

/// One node's part in membership.
#[derive(Clone, Debug)]
pub struct Core {
    config: Config,
    condition: Condition,
    log: replog::Core,
    /// What the log says; on a node that keeps no log it is empty.
    machine: Machine,
    /// Entries that wait for the snapshot before them to be read; `None`: none is awaited.
    restoring: Option<Vec<Committed>>,
    /// What is known to be agreed, from the log or from the master: what is published.
    known: Table,
    detector: Detector,
    following: Following,
    reign: Option<Reign>,
    /// What was proposed and is not agreed yet, by the log's number for it.
    proposed: BTreeMap<u64, Purpose>,
    next_proposal: u64,
    downs: BTreeSet<NodeId>,
    reach: Vec<Node>,
    answers: Vec<(RequestId, Say)>,
    out: Vec<Effect>,
    told_lease: Option<Time>,
    evicted: Option<View>,
    ended: bool,
    /// The wall clock when it was last told, and when that was.
    wall: (u64, Time),
    last_event: Time,
    canary: Canary,
}

impl Core {
    /// The core of the node in `config.row`. Give it [`Event::Tick`] at once.
    pub fn new(now: Time, mut config: Config, disk: OnDisk, seed: u64) -> Core {
        config.row.daemon = config.daemon;
        let mut settings = replog::Config::new(config.member, seed);
        settings.heartbeat = config.timings.interval;
        settings.election_min = config.timings.election_min;
        settings.election_spread = config.timings.election_spread;
        settings.lease = config.timings.lease;
        settings.snapshot_after_bytes = config.snapshot_after_bytes;
        settings.keep_bytes = config.snapshot_after_bytes / 4;
        settings.catch_up = config.timings.heal_after * 2;
        let mut core = Core {
            condition: Condition { data_up: true, daemon: config.daemon },
            log: replog::Core::new(now, settings, disk.log),
            machine: Machine::default(),
            restoring: None,
            known: disk.table,
            detector: Detector::new(config.timings, now),
            following: Following::new(now),
            reign: None,
            proposed: BTreeMap::new(),
            next_proposal: 0,
            downs: BTreeSet::new(),
            reach: Vec::new(),
            answers: Vec::new(),
            out: Vec::new(),
            told_lease: None,
            evicted: None,
            ended: false,
            wall: (0, now),
            last_event: now,
            canary: Canary::None,
            config,
        };
        core.track();
        core
    }

    /// Applies one event and says what must be done about it.
    pub fn handle(&mut self, now: Time, event: Event) -> Vec<Effect> {
        if self.ended {
            return refuse_all(event);
        }
        let away = now.since(self.last_event);
        if away > self.config.timings.late_after {
            self.detector.was_away(away);
        }
        self.last_event = now;
        self.apply(now, event);
        self.restore(now);
        self.effects(now)
    }

    /// When [`Event::Tick`] is wanted at the latest, besides every [`tick`](crate::Timings::tick).
    pub fn next_deadline(&self) -> Option<Time> {
        let lease = self.told_lease.filter(|until| until.0 < u64::MAX);
        [self.log.next_deadline(), lease].into_iter().flatten().min()
    }

    /// The newest agreed view known here.
    pub fn view(&self) -> &View {
        self.known.view()
    }

    /// The newest agreed table known here.
    pub fn table(&self) -> &Table {
        &self.known
    }

    /// The log that this node keeps, if it keeps one.
    pub fn log(&self) -> &replog::Core {
        &self.log
    }

    /// If this node is master at this moment: in which term. A master that is about to learn that it was replaced may think so too;
    /// nothing that it proposes is agreed.
    pub fn mastership(&self, now: Time) -> Option<u64> {
        (self.is_ready(now) && self.reign.is_some()).then(|| self.log.term().0)
    }

    /// Until when this node may serve; `None`: it may not.
    pub fn lease(&self, now: Time) -> Option<Time> {
        let lives = !self.ended && lives_in(self.known.view(), self.me(), self.config.row.incarnation);
        if !lives {
            return None;
        }
        let own = self.log.followed_until().filter(|_| self.reign.is_some());
        let until = own.max(self.following.lease);
        until.filter(|&until| now < until || self.canary.keeps_its_lease())
    }

    /// How membership is.
    pub fn status(&self, now: Time) -> Status {
        let lease = self.lease(now);
        let nodes = self.view().nodes.iter().map(|row| NodeStatus {
            node: row.node_id(),
            heartbeat_age: self.detector.heard_before(row.node_id(), now),
            linked: row.id == self.config.row.id || self.detector.is_linked(row.node_id()),
        });
        Status {
            quorum: lease.is_some(),
            master: self.master(now).filter(|_| !self.ended),
            term: self.log.term().0.max(self.following.term),
            epoch: self.view().epoch(),
            lease: lease.map(|until| until.since(now)),
            nodes: nodes.collect(),
        }
    }

    fn me(&self) -> NodeId {
        self.config.row.node_id()
    }

    /// The master, while it is heard.
    fn master(&self, now: Time) -> Option<NodeId> {
        if self.mastership(now).is_some() {
            return Some(self.me());
        }
        self.following.master.filter(|_| now.since(self.following.heard) < self.config.timings.master_after)
    }

    fn apply(&mut self, now: Time, event: Event) {
        match event {
            Event::Tick { wall_ms } => {
                self.wall = (wall_ms, now);
                self.drive(now, replog::Event::Tick);
            }
            Event::Heard { beats, at } => self.detector.heard(&beats, at),
            Event::Link { peer, linked } => {
                self.detector.link(peer, linked, now);
                if !linked && self.log.leader().is_some_and(|leader| leader.node == peer) {
                    self.drive(now, replog::Event::LeaderUnlinked);
                }
            }
            Event::DataUp(data_up) => self.condition.data_up = data_up,
            Event::Log(envelope) => self.drive(now, replog::Event::Message(envelope)),
            Event::Stored(ticket) => self.drive(now, replog::Event::Persisted(ticket)),
            Event::StoreFailed(why) => self.drive(now, replog::Event::StoreFailed(why)),
            Event::SnapshotMade(meta) => self.drive(now, replog::Event::SnapshotMade(meta)),
            Event::SnapshotFailed => self.drive(now, replog::Event::SnapshotFailed),
            Event::SnapshotRead(bytes) => self.take_snapshot(now, bytes),
            Event::Fenced { node, life, done, said } => self.fenced(now, node, life, done, said),
            Event::Answered { from, answer } => self.answered(now, from, answer),
            Event::Request { id, from, request } => {
                if let Some(say) = self.requested(now, id, from, request) {
                    self.answers.push((id, say));
                }
            }
        }
    }

    /// Applies a request; `None` if it is answered later.
    fn requested(&mut self, now: Time, id: RequestId, from: NodeId, request: Request) -> Option<Say> {
        let Some(ask) = request.ask else { return Some(Say::Refused("nothing is asked".into())) };
        if request.sender != from.0 {
            return Some(Say::Refused(format!("node {from} speaks as node {}", request.sender)));
        }
        if from.0 != 0 && from != self.me() && has_ended_in(self.view(), from, request.incarnation) {
            return Some(Say::Evicted(self.view().clone()));
        }
        match ask {
            Ask::Newer(newer) => Some(Say::News(self.known.feed(newer.than))),
            Ask::Change(change) => self.change(now, id, from, change),
            _ if from.0 == 0 => Some(Say::Refused("a machine that is no node yet can only join".into())),
            Ask::Replace(replace) => self.replace(now, id, replace),
            Ask::Lead(lead) => Some(Say::Followed(self.led(now, from, lead))),
            Ask::Hello(hello) => Some(self.greeted(now, from, hello, request.epoch)),
            Ask::Log(_) => Some(Say::Nothing(())),
        }
    }

    fn greeted(&mut self, now: Time, from: NodeId, hello: Hello, knows: u64) -> Say {
        let (Some(row), Some(condition)) = (hello.row, hello.condition) else {
            return Say::Refused("a hello says who and how".into());
        };
        if row.id != from.0 {
            return Say::Refused(format!("node {from} says hello as node {}", row.id));
        }
        if let Err(why) = table::check_row(&row) {
            return Say::Refused(why);
        }
        self.detector.hello(from, row.clone());
        if self.view().node(from).is_some_and(|known| known.incarnation < row.incarnation) {
            self.reach.push(row);
        }
        self.detector.answered(from, condition, now);
        let feed = Some(self.known.feed(knows)).filter(|feed| !feed.is_empty());
        Say::Noted(Noted { master: self.master(now).map_or(0, |id| id.0), feed })
    }

    fn answered(&mut self, now: Time, from: NodeId, answer: Answer) {
        match answer.say {
            Some(Say::Followed(followed)) => self.followed(now, from, &followed),
            Some(Say::Noted(noted)) => self.learn(&noted.feed.unwrap_or_default()),
            Some(Say::Evicted(view)) if view.epoch > self.view().epoch => self.learn_end(&view),
            _ => {}
        }
    }

    fn learn_end(&mut self, view: &View) {
        let same = view.cluster == self.view().cluster;
        if same && has_ended_in(view, self.me(), self.config.row.incarnation) {
            self.evicted = Some(view.clone());
        }
    }

    /// Restores everything that must hold after any event.
    fn restore(&mut self, now: Time) {
        self.publish_log();
        self.track();
        self.lead(now);
        if let Some(why) = self.log.halted() {
            self.ended = true;
            self.out.push(Effect::Failed(why));
        }
    }

    fn track(&mut self) {
        let me = self.me();
        let Core { known, detector, .. } = self;
        detector.track(known.view().nodes.iter().filter(|row| row.node_id() != me));
    }

    /// Everything that must be done, in the order that the invariants need.
    fn effects(&mut self, now: Time) -> Vec<Effect> {
        let mut effects = std::mem::take(&mut self.out);
        self.update_downs(now, &mut effects);
        effects.extend(self.reach.drain(..).map(Effect::Reach));
        self.say_hello(now, &mut effects);
        let answers = self.answers.drain(..);
        effects.extend(answers.map(|(id, say)| Effect::Answer { id, answer: say.answer() }));
        if let Some(view) = self.evicted.take() {
            self.ended = true;
            effects.push(Effect::Evicted(view));
        }
        let lease = self.lease(now);
        if lease != self.told_lease {
            self.told_lease = lease;
            effects.push(Effect::Lease(lease));
        }
        effects
    }

    fn request(&self, ask: Ask) -> Request {
        let (sender, incarnation) = (self.config.row.id, self.config.row.incarnation);
        Request { sender, incarnation, epoch: self.view().epoch, ask: Some(ask) }
    }

    /// Peers that are DOWN fail at once. Not before this run has heard of a master: until then the table may be old, and
    /// two nodes that each think the other DOWN could not elect one. For the same reason voters are reached while no master is
    /// heard, and the master always: it may be DOWN in the table while its new life waits to be agreed.
    fn update_downs(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let master = self.master(now);
        let view = self.known.view();
        let is_down = |row: &&Node| {
            let id = row.node_id();
            id != self.me()
                && !row.is_alive()
                && self.detector.returning(row).is_none()
                && master != Some(id)
                && (master.is_some() || (self.downs.contains(&id) && !view.voters.contains(&id.0)))
        };
        let downs: BTreeSet<NodeId> = self.view().nodes.iter().filter(is_down).map(Node::node_id).collect();
        if downs == self.downs {
            return;
        }
        effects.extend(downs.difference(&self.downs).map(|&peer| Effect::Down { peer, down: true }));
        effects.extend(self.downs.difference(&downs).map(|&peer| Effect::Down { peer, down: false }));
        self.downs = downs;
    }

    /// Lets a bug in, so that the oracles of the simulation can be seen to catch it.
    #[cfg(test)]
    pub(crate) fn infect(&mut self, canary: Canary) {
        self.canary = canary;
    }
}

/// True if this very life of `node` is UP or STALLED.
fn lives_in(view: &View, node: NodeId, incarnation: u64) -> bool {
    view.node(node).is_some_and(|row| row.is_alive() && row.incarnation == incarnation)
}

/// True if this life of `node` is over as far as `view` knows.
fn has_ended_in(view: &View, node: NodeId, incarnation: u64) -> bool {
    match view.node(node) {
        Some(row) => row.incarnation > incarnation || (row.incarnation == incarnation && !row.is_alive()),
        None => node.0 <= view.last_id,
    }
}

fn refuse_all(event: Event) -> Vec<Effect> {
    let Event::Request { id, .. } = event else { return Vec::new() };
    let why = Say::Refused("this node's life in the cluster has ended".into());
    vec![Effect::Answer { id, answer: why.answer() }]
}
