//! The pure core of membership: one node's part in keeping the table. One event is applied, then everything that must
//! hold is restored; what must be done comes out as effects, to be carried out in their order.
//!
//! ```text
//!  heartbeats, links, answers --> Detector --opinions--+
//!                                                      +--> draft --> Agreement --> Publish, Persist, Ask
//!  joins, leaves, removals -----> asks ----------------+    (master only)
//! ```
//!
//! Invariants: epochs published never go back; an answer leaves after what it promises is on disk; a life declared DOWN
//! in an agreed view never acts again (its own node learns of it and ends it, [`Effect::Evicted`]).

mod event;
mod proposal;

pub use event::{Config, Effect, Event, NodeStatus, RequestId, Status};
pub use proposal::ASKS_MAX;

use proposal::{Deciding, Wish};

use crate::agreement::voters;
use crate::agreement::{Agreement, Outlook, Output};
use crate::detection::Detector;
use crate::saved::Register;
use crate::table;
use crate::talk::{Answer, Ask, Condition, Followed, Hello, Request, Say};
use crate::timings::Timings;
use crate::wire::{Node, View};
use base::{NodeId, Time};
use std::collections::{BTreeSet, VecDeque};

/// One node's part in membership.
#[derive(Clone, Debug)]
pub struct Core {
    row: Node,
    condition: Condition,
    timings: Timings,
    agreement: Agreement,
    detector: Detector,
    wishes: VecDeque<Wish>,
    deciding: Vec<Deciding>,
    downs: BTreeSet<NodeId>,
    answers: Vec<(RequestId, Say)>,
    reach: Vec<Node>,
    evicted: Option<View>,
    ended: bool,
    was_master: bool,
    last_event: Time,
    next_hello: Time,
}

impl Core {
    /// The core of the node in `config.row`, which has `register` on its disk.
    pub fn new(config: Config, register: Register, now: Time) -> Core {
        let me = config.row.node_id();
        let agreement = Agreement::new(me, config.timings, register, now);
        let mut core = Core {
            row: config.row,
            condition: Condition { data_up: true, daemon: config.daemon },
            timings: config.timings,
            agreement,
            detector: Detector::new(config.timings, now),
            wishes: VecDeque::new(),
            deciding: Vec::new(),
            downs: BTreeSet::new(),
            answers: Vec::new(),
            reach: Vec::new(),
            evicted: None,
            ended: false,
            was_master: false,
            last_event: now,
            next_hello: now,
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
        if away > self.timings.late_after {
            self.agreement.was_away(away);
            self.detector.was_away(away);
        }
        self.last_event = now;
        self.apply(now, event);
        self.restore(now);
        self.effects(now)
    }

    /// The newest agreed view known here.
    pub fn view(&self) -> &View {
        self.agreement.committed()
    }

    /// True if this node is master, and of which term.
    pub fn mastership(&self) -> Option<u64> {
        self.agreement.is_master().then(|| self.agreement.term())
    }

    /// How membership is.
    pub fn status(&self, now: Time) -> Status {
        let master = self.agreement.master(now).filter(|_| !self.ended);
        let nodes = self.view().nodes.iter().map(|row| NodeStatus {
            node: row.node_id(),
            heartbeat_age: self.detector.heard_before(row.node_id(), now),
            linked: row.id == self.row.id || self.detector.is_linked(row.node_id()),
        });
        Status {
            quorum: master.is_some(),
            master,
            term: self.agreement.term(),
            epoch: self.view().epoch(),
            nodes: nodes.collect(),
        }
    }

    fn me(&self) -> NodeId {
        self.row.node_id()
    }

    fn apply(&mut self, now: Time, event: Event) {
        match event {
            Event::Tick => self.agreement.tick(now),
            Event::Heard { beats, at } => self.detector.heard(&beats, at),
            Event::Link { peer, linked } => self.detector.link(peer, linked, now),
            Event::DataUp(data_up) => self.condition.data_up = data_up,
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
        if from.0 != 0 && from != self.me() && self.has_ended(from, request.incarnation) {
            return Some(Say::Evicted(self.view().clone()));
        }
        match ask {
            Ask::Newer(_) => Some(Say::Current(self.view().clone())),
            Ask::Join(_) | Ask::Leave(_) | Ask::Remove(_) => self.wish(now, id, ask),
            _ if from.0 == 0 => Some(Say::Refused("a machine that is no node yet can only join".into())),
            Ask::Canvass(canvass) => Some(Say::Voted(self.agreement.canvassed(now, from, &canvass))),
            Ask::Lead(lead) => {
                let followed = self.agreement.led(now, from, &lead);
                let incarnation = self.row.incarnation;
                Some(Say::Followed(Followed { incarnation, condition: Some(self.condition), ..followed }))
            }
            Ask::Hello(hello) => Some(self.greeted(now, from, hello)),
        }
    }

    fn greeted(&mut self, now: Time, from: NodeId, hello: Hello) -> Say {
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
        Say::Noted(self.agreement.master(now).map_or(0, |id| id.0))
    }

    fn answered(&mut self, now: Time, from: NodeId, answer: Answer) {
        match answer.say {
            Some(Say::Voted(vote)) => self.agreement.voted(now, from, &vote),
            Some(Say::Followed(followed)) => {
                let life = self.agreement.accepted().node(from).map(|row| row.incarnation);
                if let Some(condition) = followed.condition.filter(|_| life == Some(followed.incarnation)) {
                    self.detector.answered(from, condition, now);
                }
                self.agreement.followed(now, from, &followed);
            }
            Some(Say::Evicted(view)) if view.epoch > self.view().epoch => self.learn_end(&view),
            _ => {}
        }
    }

    /// True if this life of `node` is over as far as is agreed.
    fn has_ended(&self, node: NodeId, incarnation: u64) -> bool {
        ended_in(self.view(), node, incarnation)
    }

    fn learn_end(&mut self, view: &View) {
        if view.cluster == self.view().cluster && ended_in(view, self.me(), self.row.incarnation) {
            self.evicted = Some(view.clone());
        }
    }

    /// Restores everything that must hold after any event.
    fn restore(&mut self, now: Time) {
        self.track();
        let mastership = self.agreement.is_master();
        if mastership && !self.was_master {
            self.detector.ask_again(now);
        }
        self.was_master = mastership;
        let master = self.agreement.master(now);
        self.agreement.set_outlook(Outlook {
            linked: master.is_some_and(|id| self.detector.is_linked(id)),
            beating: master.is_some_and(|id| self.detector.is_beating(id)),
        });
        if mastership {
            self.agreement.set_alive(self.alive());
            self.agreement.set_audience(self.audience());
            self.propose(now);
        } else {
            self.give_up_wishes(now);
        }
    }

    fn track(&mut self) {
        let me = self.me();
        let Core { agreement, detector, .. } = self;
        detector.track(agreement.accepted().nodes.iter().filter(|row| row.node_id() != me));
    }

    fn alive(&self) -> BTreeSet<NodeId> {
        let ids = self.agreement.accepted().nodes.iter().map(Node::node_id);
        ids.filter(|&id| self.detector.is_beating(id) && self.detector.is_linked(id)).collect()
    }

    /// Those whom the master's beats go to, besides the voters.
    fn audience(&self) -> BTreeSet<NodeId> {
        let rows = self.agreement.accepted().nodes.iter();
        rows.filter(|row| row.is_alive() || self.detector.returning(row).is_some())
            .map(Node::node_id)
            .collect()
    }

    /// Everything that must be done, in the order that the invariants need.
    fn effects(&mut self, now: Time) -> Vec<Effect> {
        let mut effects = Vec::new();
        for output in self.agreement.drain() {
            effects.push(match output {
                Output::Persist(register) => Effect::Persist(register),
                Output::Send(to, ask) => Effect::Ask { to, request: self.request(ask) },
                Output::Commit(view) => {
                    self.learn_end(&view);
                    Effect::Publish(view)
                }
            });
        }
        self.update_downs(now, &mut effects);
        effects.extend(self.reach.drain(..).map(Effect::Reach));
        self.say_hello(now, &mut effects);
        self.answer_decided();
        let answers = self.answers.drain(..);
        effects.extend(answers.map(|(id, say)| Effect::Answer { id, answer: say.answer() }));
        if let Some(view) = self.evicted.take() {
            self.ended = true;
            effects.push(Effect::Evicted(view));
        }
        effects
    }

    fn request(&self, ask: Ask) -> Request {
        let (sender, incarnation) = (self.row.id, self.row.incarnation);
        Request { sender, incarnation, epoch: self.view().epoch, ask: Some(ask) }
    }

    /// Peers that are DOWN fail at once. Not before this run has heard of a master: until then the table may be old, and
    /// two nodes that each think the other DOWN could not elect one.
    fn update_downs(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let known = self.agreement.master(now).is_some();
        let is_down = |row: &&Node| {
            let id = row.node_id();
            id != self.me()
                && !row.is_alive()
                && self.detector.returning(row).is_none()
                && (known || self.downs.contains(&id))
        };
        let downs: BTreeSet<NodeId> = self.view().nodes.iter().filter(is_down).map(Node::node_id).collect();
        effects.extend(downs.difference(&self.downs).map(|&peer| Effect::Down { peer, down: true }));
        effects.extend(self.downs.difference(&downs).map(|&peer| Effect::Down { peer, down: false }));
        self.downs = downs;
    }

    /// A node that is not in the view as it should be, or hears no master, says hello until that is put right.
    fn say_hello(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let lives = |view: &View| {
            view.node(self.me()).is_some_and(|row| row.is_alive() && row.incarnation == self.row.incarnation)
        };
        let master = self.agreement.master(now);
        let settled = self.agreement.is_master() || (master.is_some() && lives(self.view()));
        if settled || now < self.next_hello {
            return;
        }
        self.next_hello = now + self.timings.hello;
        let hello = Hello { row: Some(self.row.clone()), condition: Some(self.condition) };
        let mut to = master.map_or_else(|| voters(self.agreement.accepted()), |master| vec![master]);
        to.retain(|&id| id != self.me());
        let request = self.request(Ask::Hello(hello));
        effects.extend(to.into_iter().map(|to| Effect::Ask { to, request: request.clone() }));
    }
}

fn ended_in(view: &View, node: NodeId, incarnation: u64) -> bool {
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
