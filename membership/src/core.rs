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

use crate::agreement::{Agreement, Outlook, Output};
use crate::detection::Detector;
use crate::heartbeat::Heartbeat;
use crate::saved::Register;
use crate::table::{self, voters};
use crate::talk::{Answer, Ask, Condition, Followed, Hello, Joined, Request, Say};
use crate::timings::Timings;
use crate::wire::{Node, NodeState, View};
use base::{Epoch, NodeId, Time};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// Changes asked of the master that wait for their turn.
pub const ASKS_MAX: usize = 64;

/// What a core is told when it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// The row that this node wants to have; its id is this node, its incarnation this life.
    pub row: Node,
    /// This run of `ssid`; another number after each start.
    pub daemon: u64,
    /// See [`Timings`].
    pub timings: Timings,
}

/// Names a request until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What can happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The clock was looked at.
    Tick,
    /// The heartbeat socket was read until it was empty at `at`.
    Heard {
        /// Authentic heartbeats, in the order of arrival.
        beats: Vec<Heartbeat>,
        /// When the socket was empty.
        at: Time,
    },
    /// The link to a peer's `ssid` came up or was lost.
    Link {
        /// The node.
        peer: NodeId,
        /// Up or lost.
        linked: bool,
    },
    /// A request of an authenticated peer (or of this very node).
    Request {
        /// To answer with.
        id: RequestId,
        /// Who asks, as the fabric knows it.
        from: NodeId,
        /// What.
        request: Request,
    },
    /// The answer to an [`Effect::Ask`].
    Answered {
        /// Who answers.
        from: NodeId,
        /// What.
        answer: Answer,
    },
    /// `ssid --data` of this node is there, or is not.
    DataUp(bool),
}

/// What must be done, in the order given.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Put this on disk; if that fails nothing that follows may happen.
    Persist(Register),
    /// This view is agreed.
    Publish(View),
    /// Calls to this peer shall fail at once, or may succeed again.
    Down {
        /// The peer.
        peer: NodeId,
        /// Fail, or succeed.
        down: bool,
    },
    /// This node says that it is back, and where: calls must reach it before any view says so.
    Reach(Node),
    /// Send a request; its answer, if one comes, is an [`Event::Answered`].
    Ask {
        /// To whom.
        to: NodeId,
        /// What.
        request: Request,
    },
    /// Answer a request.
    Answer {
        /// Which.
        id: RequestId,
        /// With what.
        answer: Answer,
    },
    /// This life was declared DOWN in this view: its processes must end, a later life may come back.
    Evicted(View),
}

/// How membership is, for operators.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// True if views can change: there is a master with a majority behind it.
    pub quorum: bool,
    /// The master, if there is one.
    pub master: Option<NodeId>,
    /// The term of the agreement.
    pub term: u64,
    /// The newest agreed view.
    pub epoch: Epoch,
    /// What this node hears of the others, by id.
    pub nodes: Vec<NodeStatus>,
}

/// What this node hears of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// The other.
    pub node: NodeId,
    /// How long ago its supervisor was heard; `None` for this node itself.
    pub heartbeat_age: Option<Duration>,
    /// The link to its `ssid` is up.
    pub linked: bool,
}

/// A change asked of the master.
#[derive(Clone, Debug)]
struct Wish {
    id: RequestId,
    ask: Ask,
}

/// A change in a proposal that is not agreed yet.
#[derive(Clone, Debug)]
struct Deciding {
    id: RequestId,
    epoch: u64,
    joined: Option<NodeId>,
}

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

    fn wish(&mut self, now: Time, id: RequestId, ask: Ask) -> Option<Say> {
        if !self.agreement.is_master() {
            return Some(Say::NotMaster(self.agreement.master(now).map_or(0, |id| id.0)));
        }
        if self.wishes.len() >= ASKS_MAX {
            return Some(Say::Refused("too many changes of the cluster are under way; try again".into()));
        }
        self.wishes.push_back(Wish { id, ask });
        None
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

    /// Those whom the master's beats go to, besides the voters.
    fn audience(&self) -> BTreeSet<NodeId> {
        let rows = self.agreement.accepted().nodes.iter();
        rows.filter(|row| row.is_alive() || self.detector.returning(row).is_some())
            .map(Node::node_id)
            .collect()
    }

    fn give_up_wishes(&mut self, now: Time) {
        let master = self.agreement.master(now).map_or(0, |id| id.0);
        let waiting = self.wishes.drain(..).map(|wish| wish.id);
        let ids = waiting.chain(self.deciding.drain(..).map(|deciding| deciding.id));
        self.answers.extend(ids.map(|id| (id, Say::NotMaster(master))));
    }

    /// Master only: proposes a view in which everything is as it is heard and wished.
    fn propose(&mut self, now: Time) {
        let Some(present) = self.agreement.draft() else { return };
        let mut view = present.clone();
        let mut voters_may_change = self.agreement.is_settled();
        for at in 0..view.nodes.len() {
            let Some(row) = self.next_row(&view.nodes[at], now) else { continue };
            let new_voter = view.nodes[at].incarnation == 0;
            if new_voter && !voters_may_change {
                continue;
            }
            voters_may_change &= !new_voter;
            view.nodes[at] = row;
        }
        let epoch = view.epoch + 1;
        let decided = self.deciding.len();
        self.grant_wishes(&mut view, voters_may_change, epoch);
        if view != present || self.agreement.owes_proposal() {
            self.agreement.propose(now, view);
        } else {
            self.deciding[decided..].iter_mut().for_each(|deciding| deciding.epoch = 0);
        }
    }

    /// The row that `row` must become, `None` if it is right.
    fn next_row(&self, row: &Node, now: Time) -> Option<Node> {
        let with =
            |state: NodeState| (row.state() != state).then(|| Node { state: state as i32, ..row.clone() });
        let itself = row.node_id() == self.me();
        let mine = (itself && row.incarnation < self.row.incarnation).then_some(&self.row);
        if let Some(hello) = mine.or_else(|| self.detector.returning(row)) {
            if row.is_alive() {
                return with(NodeState::Down);
            }
            return (itself || self.detector.is_present(hello)).then(|| table::reborn(row, hello));
        }
        if !row.is_alive() {
            return None;
        }
        if itself {
            return with(if self.condition.data_up { NodeState::Up } else { NodeState::Stalled });
        }
        with(self.detector.opinion(row, now))
    }

    fn grant_wishes(&mut self, view: &mut View, mut voters_may_change: bool, epoch: u64) {
        for Wish { id, ask } in std::mem::take(&mut self.wishes) {
            let granted = match &ask {
                Ask::Join(join) => table::join(view, &join.row.clone().unwrap_or_default()).map(Some),
                Ask::Leave(leave) => {
                    table::leave(view, NodeId(leave.node), leave.incarnation);
                    Ok(None)
                }
                Ask::Remove(remove) => {
                    let mut without = view.clone();
                    let removed = table::remove(&mut without, NodeId(remove.node));
                    let same_voters = voters(&without) == voters(view);
                    if removed.is_ok() && !same_voters && !voters_may_change {
                        self.wishes.push_back(Wish { id, ask });
                        continue;
                    }
                    voters_may_change &= same_voters;
                    *view = without;
                    removed.map(|()| None)
                }
                _ => Ok(None),
            };
            match granted {
                Ok(joined) => self.deciding.push(Deciding { id, epoch, joined }),
                Err(why) => self.answers.push((id, Say::Refused(why))),
            }
        }
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

    fn answer_decided(&mut self) {
        let view = self.agreement.committed();
        let answers = &mut self.answers;
        self.deciding.retain(|deciding| {
            let agreed = deciding.epoch <= view.epoch;
            if agreed {
                answers.push((
                    deciding.id,
                    match deciding.joined {
                        Some(node) => Say::Joined(Joined { node: node.0, view: Some(view.clone()) }),
                        None => Say::Done(()),
                    },
                ));
            }
            !agreed
        });
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
