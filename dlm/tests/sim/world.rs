//! The world: machines, the network between them, their users, their deaths.
//!
//! Invariant: the same seed gives the same run, told or not. Views arrive at each node in their order. All chance comes from the seed.

mod faults;
mod machine;
mod network;
mod told;

use super::circles;
use super::oracle::Oracle;
use super::users::{Doing, GUARDED, Habit, User};
use crate::node::{Canary, Config, Effect, Event, Member, MemberState, Remaster};
use crate::{Envelope, Key, Node};
use base::{Epoch, Incarnation, NodeId, Prng, Time};
use faults::Fault;
use machine::{Clock, DRIFT_MAX, Machine};
use network::Network;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// How long the dead may touch storage after they were declared DOWN. Nodes reckon with more: their clocks drift.
pub const LEASE: u64 = 20_000;
/// Until when users begin anything new, and faults happen.
const BUSY: u64 = 60_000;
/// After that nothing may go on.
const REST_BY: u64 = 1_000_000;
/// A wait that lasts longer is looked at for deadlocks.
pub const PATIENCE: u64 = 3_000;
/// Happenings of one node at most.
const STEPS_MAX: u64 = 200_000;
const HISTORY_LINES: usize = 2000;

/// What may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Crashes and cuts.
    Deaths,
    /// All there is.
    Storm,
}

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub nodes: u32,
    /// Users of a node.
    pub users: u64,
    pub faults: u32,
    pub weather: Weather,
    pub habit: Habit,
    /// Resources.
    pub keys: u64,
    /// Tokens and trees that a node keeps unused.
    pub idle_max: usize,
    pub canary: Canary,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            nodes: 3,
            users: 3,
            faults: 0,
            weather: Weather::Deaths,
            habit: Habit::One,
            keys: 6,
            idle_max: 3,
            canary: Canary::None,
        }
    }
}

pub enum Happening {
    Arrives { to: NodeId, to_life: Incarnation, envelope: Box<Envelope> },
    View { to: NodeId, epoch: Epoch, members: Vec<Member> },
    UserActs { node: NodeId, user: usize },
    UserCancels { node: NodeId, tag: u64 },
    Tick(NodeId, Incarnation),
    Fault { node: NodeId, fault: Fault },
    LeaseEnds(NodeId, Incarnation),
    GoesOn(NodeId, Incarnation),
    Declared(NodeId),
    Fenced(NodeId),
    Returns(NodeId),
}

pub struct World {
    plan: Plan,
    prng: Prng,
    now: Time,
    order: u64,
    agenda: BTreeMap<(Time, u64), Happening>,
    machines: BTreeMap<NodeId, Machine>,
    members: BTreeMap<NodeId, Member>,
    epoch: Epoch,
    network: Network,
    last_view: BTreeMap<NodeId, Time>,
    oracle: Oracle,
    last_tag: u64,
    last_holder: u64,
    /// When something last went wrong, or changed.
    disturbed: Time,
    users_acted: bool,
    oldest_circle: Option<Time>,
    /// Messages between nodes.
    pub messages: u64,
    pub victims: u64,
    steps: u64,
    history: Option<VecDeque<String>>,
}

impl World {
    pub fn new(seed: u64, plan: Plan, is_told: bool) -> World {
        let mut world = World {
            plan,
            prng: Prng::new(seed),
            now: Time(1),
            order: 0,
            agenda: BTreeMap::new(),
            machines: BTreeMap::new(),
            members: BTreeMap::new(),
            epoch: Epoch(0),
            network: Network::default(),
            last_view: BTreeMap::new(),
            oracle: Oracle::default(),
            last_tag: 0,
            last_holder: 0,
            disturbed: Time(0),
            users_acted: false,
            oldest_circle: None,
            messages: 0,
            victims: 0,
            steps: 0,
            history: is_told.then(VecDeque::new),
        };
        for node in 1..=plan.nodes {
            world.start(NodeId(node), Incarnation(1));
        }
        world.agree();
        world.plan_faults();
        world
    }

    /// Grants and values that the oracle has looked at.
    pub fn counted(&self) -> (u64, u64) {
        (self.oracle.grants, self.oracle.values_read)
    }

    /// What happened last, and who has and wants what.
    pub fn history(&self) -> String {
        let users =
            self.machines.values().flat_map(|machine| machine.users.iter().map(move |user| (machine, user)));
        let users = users.map(|(machine, user)| {
            let held: Vec<_> = user.held.iter().map(|held| (held.key, held.mode)).collect();
            let wants = (user.doing, user.key.map(|key| key.name), user.wanted, user.since);
            format!("{} runs {}: {held:?} {wants:?}\n", user.owner.node, machine.runs)
        });
        self.history.iter().flatten().map(|line| format!("{line}\n")).chain(users).collect()
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        let Some(history) = &mut self.history else { return };
        if history.len() >= HISTORY_LINES {
            history.pop_front();
        }
        history.push_back(format!("{} {}", self.now.0, line()));
    }

    fn later(&mut self, length: u64, happening: Happening) {
        self.at(Time(self.now.0 + length), happening);
    }

    fn at(&mut self, when: Time, happening: Happening) {
        self.order += 1;
        self.agenda.insert((when, self.order), happening);
    }

    fn start(&mut self, node: NodeId, life: Incarnation) {
        let patience = Duration::from_nanos(PATIENCE);
        let config = Config {
            node,
            life,
            table: crate::Config { patience, ..crate::Config::default() },
            tokens_idle_max: self.plan.idle_max,
            trees_idle_max: self.plan.idle_max,
            guarded: BTreeSet::from([GUARDED]),
            lease: Duration::from_nanos(LEASE + LEASE * 3 * DRIFT_MAX / 1_000_000),
            remaster: Remaster {
                asks_min: 5,
                halved: Duration::from_nanos(8_000),
                watched: Duration::from_nanos(300),
                rests: Duration::from_nanos(2_000),
            },
        };
        let mut core = Node::new(config).unwrap();
        core.infect(self.plan.canary);
        let (habit, keys, first) = (self.plan.habit, self.plan.keys, self.last_holder + 1);
        self.last_holder += self.plan.users;
        let users = (first..=self.last_holder).map(|holder| User::new(node, holder, habit, keys)).collect();
        let machine = Machine {
            node: core,
            life,
            clock: Clock::new(&mut self.prng),
            users,
            runs: true,
            is_deaf: false,
            is_mute: false,
            is_paused: false,
            held: VecDeque::new(),
            next_tick: None,
            epoch: Epoch(0),
        };
        self.machines.insert(node, machine);
        self.members.insert(node, Member { node, life, state: MemberState::Alive });
        for user in 0..self.plan.users as usize {
            let when = self.prng.below(2_000);
            self.later(when, Happening::UserActs { node, user });
        }
    }

    /// Until everything is at rest.
    pub fn run(&mut self) -> Result<(), String> {
        while let Some(((when, _), happening)) = self.agenda.pop_first() {
            if when.0 > REST_BY {
                return self.at_rest();
            }
            self.now = when;
            self.steps += 1;
            if self.steps > STEPS_MAX * u64::from(self.plan.nodes) {
                return Err("it goes round and round".to_owned());
            }
            self.happen(happening)?;
            self.circles()?;
        }
        self.at_rest()
    }

    /// Nobody waits, nothing is on its way; timers may run.
    fn at_rest(&self) -> Result<(), String> {
        if self.agenda.values().any(|happening| !matches!(happening, Happening::Tick(..))) {
            return Err("no rest".to_owned());
        }
        for (id, machine) in self.machines.iter().filter(|(_, machine)| machine.runs) {
            let busy = |user: &&User| user.doing != Doing::Nothing || !user.held.is_empty();
            if let Some(user) = machine.users.iter().find(busy) {
                let key = user.key.unwrap();
                return Err(format!("{id} at rest, and not served: {user:?}\n{}", self.tokens(&key)));
            }
        }
        Ok(())
    }

    fn tokens(&self, key: &Key) -> String {
        let running = self.machines.iter().filter(|(_, machine)| machine.runs);
        running.map(|(id, machine)| format!("node {id}: {}\n", machine.node.describe(key))).collect()
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        let Some(happening) = self.unless_paused(happening) else { return Ok(()) };
        match happening {
            Happening::Arrives { to, to_life, envelope } => {
                let receiver = &self.machines[&to];
                if receiver.life != to_life || receiver.is_deaf {
                    return Ok(());
                }
                self.show(to, Event::Message(*envelope))
            }
            Happening::View { to, epoch, members } => self.view(to, epoch, members),
            Happening::UserActs { node, user } => self.user_acts(node, user),
            Happening::UserCancels { node, tag } => self.user_cancels(node, tag),
            Happening::Tick(node, life) => {
                let machine = self.machines.get_mut(&node).unwrap();
                if machine.life != life {
                    return Ok(());
                }
                machine.next_tick = None;
                self.show(node, Event::Tick)
            }
            Happening::Fault { node, fault } => self.fault(node, fault),
            Happening::LeaseEnds(node, life) => {
                if self.machines[&node].life == life {
                    self.ends(node);
                }
                Ok(())
            }
            Happening::GoesOn(node, life) => self.goes_on(node, life),
            Happening::Declared(node) => {
                self.declared(node);
                Ok(())
            }
            Happening::Fenced(node) => {
                self.fenced(node);
                Ok(())
            }
            Happening::Returns(node) => {
                self.returns(node);
                Ok(())
            }
        }
    }

    /// What happens to a paused machine is kept for it; a message that never arrives is not.
    fn unless_paused(&mut self, happening: Happening) -> Option<Happening> {
        let node = match &happening {
            Happening::Arrives { to, envelope, .. } => {
                if !self.network.is_heard(self.now, (envelope.from, envelope.life), *to) {
                    return None;
                }
                to
            }
            Happening::View { to, .. } => to,
            Happening::UserActs { node, .. } | Happening::UserCancels { node, .. } => node,
            Happening::Tick(node, _) => node,
            _ => return Some(happening),
        };
        match self.machines.get_mut(node) {
            Some(machine) if machine.is_paused && machine.runs => {
                machine.held.push_back(happening);
                None
            }
            _ => Some(happening),
        }
    }

    /// Not for an earlier life, and not for the deaf. Now and then it comes twice.
    fn view(&mut self, to: NodeId, epoch: Epoch, members: Vec<Member>) -> Result<(), String> {
        let machine = self.machines.get_mut(&to).unwrap();
        let is_in_it = members.iter().any(|member| member.node == to && member.life == machine.life);
        if machine.is_deaf || !is_in_it || epoch < machine.epoch {
            return Ok(());
        }
        let is_first = machine.epoch < epoch;
        machine.epoch = epoch;
        if is_first && self.prng.one_in(8) {
            let again = self.prng.below(500);
            self.later(again, Happening::View { to, epoch, members: members.clone() });
        }
        self.show(to, Event::View { epoch, members })
    }

    fn user_acts(&mut self, node: NodeId, user: usize) -> Result<(), String> {
        let last = self.now.0 > BUSY;
        self.last_tag += 1;
        let (tag, now) = (self.last_tag, self.now);
        let Some(machine) = self.machines.get_mut(&node).filter(|machine| machine.runs) else {
            return Ok(());
        };
        let clock = machine.clock.shows(now);
        self.users_acted = true;
        let acting = &mut machine.users[user];
        let Some(event) = acting.step(&mut self.prng, now, clock, tag, last) else { return Ok(()) };
        let (key, owner, waits) = (acting.key.unwrap(), acting.owner, acting.waits());
        self.oracle.asks(key, owner, &event, tag);
        self.note(|| format!("{node} user {event:?}"));
        if waits && self.plan.weather == Weather::Storm && self.prng.one_in(8) {
            let patience = self.prng.below(6_000);
            self.later(patience, Happening::UserCancels { node, tag });
        }
        // Before it is shown: what closes a circle may be refused at once.
        self.circles()?;
        self.show(node, Event::User(event))
    }

    fn show(&mut self, to: NodeId, event: Event) -> Result<(), String> {
        if !self.machines[&to].runs {
            return Ok(());
        }
        if let Event::Message(envelope) = &event {
            self.note(|| format!("{} -> {to} era {}: {:?}", envelope.from, envelope.era, envelope.message));
        }
        let machine = self.machines.get_mut(&to).unwrap();
        let mut effects = Vec::new();
        machine.node.handle(machine.clock.shows(self.now), event, &mut effects);
        let due = machine.node.next_deadline().map(|due| machine.clock.moment(due));
        if let Some(due) = due.filter(|due| machine.next_tick.is_none_or(|tick| tick > *due)) {
            machine.next_tick = Some(due);
            let life = machine.life;
            self.at(Time(due.0.max(self.now.0 + 1)), Happening::Tick(to, life));
        }
        for effect in effects {
            match effect {
                Effect::Send { to: receiver, envelope } => self.send(to, receiver, envelope),
                Effect::User(told) => self.told(to, told)?,
            }
        }
        let machine = &self.machines[&to];
        self.oracle.masters(to, machine.node.era(), machine.node.mastered())
    }

    fn send(&mut self, from: NodeId, to: NodeId, envelope: Envelope) {
        self.messages += 1;
        // The fabric speaks to the life that the sender knows of.
        let Some(to_life) = self.machines.get(&from).and_then(|sender| sender.node.life_of(to)) else {
            return;
        };
        let envelope = Box::new(envelope);
        let when = self.network.arrival(&mut self.prng, self.now, from, to);
        self.at(when, Happening::Arrives { to, to_life, envelope });
    }
}
