//! The world: nodes, the network between them, their users, their deaths; one clock.
//!
//! Invariant: messages of one node to another arrive in their order; views arrive at each node in theirs. All chance comes from the seed.

mod lives;
mod orphans;
mod stalls;

use crate::oracle::Oracle;
use crate::users::{Doing, Orphan, User};
use base::{Epoch, Incarnation, NodeId, Prng, Time};
use dlm::node::{Effect, Event, Member, MemberState};
use dlm::{Effect as Told, Envelope, Key, Node, Owner};
use std::collections::{BTreeMap, VecDeque};

const USERS: u64 = 3;
const LEASE: u64 = 20_000;
/// Until when users begin anything new, and faults happen.
const BUSY: u64 = 60_000;
const STEPS_MAX: usize = 400_000;

#[derive(Clone, Copy)]
pub struct Plan {
    pub nodes: u32,
    pub faults: u32,
    /// How often a node is STALLED: it does nothing for a while, nobody declares it DOWN, and it goes on in the same life.
    pub stalls: u32,
    /// Tokens and trees that a node keeps unused.
    pub idle_max: usize,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan { nodes: 3, faults: 0, stalls: 0, idle_max: 3 }
    }
}

enum Happening {
    Arrives {
        to: NodeId,
        envelope: Box<Envelope>,
    },
    View {
        to: NodeId,
        epoch: Epoch,
        members: Vec<Member>,
    },
    UserActs {
        node: NodeId,
        user: usize,
    },
    /// A user's process ends.
    Vanishes {
        node: NodeId,
        user: usize,
    },
    Purges(Owner),
    Tick(NodeId),
    Dies {
        node: NodeId,
        is_cut: bool,
    },
    Declared(NodeId),
    Fenced(NodeId),
    Returns(NodeId),
    Stalls {
        node: NodeId,
        length: u64,
    },
    GoesOn(NodeId),
}

struct Machine {
    node: Node,
    life: Incarnation,
    users: Vec<User>,
    orphans: Vec<Orphan>,
    /// Runs; a machine that is cut off runs too.
    runs: bool,
    is_cut: bool,
    last_tick: Option<Time>,
    /// What has come since it is STALLED.
    stalled: Option<VecDeque<Happening>>,
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
    last_arrival: BTreeMap<(NodeId, NodeId), Time>,
    last_view: BTreeMap<NodeId, Time>,
    oracle: Oracle,
    last_tag: u64,
    adopted: u64,
    history: VecDeque<String>,
}

impl World {
    pub fn new(seed: u64, plan: Plan) -> World {
        let mut world = World {
            plan,
            prng: Prng::new(seed),
            now: Time(1),
            order: 0,
            agenda: BTreeMap::new(),
            machines: BTreeMap::new(),
            members: BTreeMap::new(),
            epoch: Epoch(0),
            last_arrival: BTreeMap::new(),
            last_view: BTreeMap::new(),
            oracle: Oracle::default(),
            last_tag: 0,
            adopted: 0,
            history: VecDeque::new(),
        };
        for node in 1..=plan.nodes {
            world.start(NodeId(node), Incarnation(1));
        }
        world.agree();
        for _ in 0..plan.faults {
            let node = NodeId(1 + world.prng.below(u64::from(plan.nodes)) as u32);
            let is_cut = world.prng.one_in(3);
            let when = 1_000 + world.prng.below(BUSY - 2_000);
            world.later(when, Happening::Dies { node, is_cut });
        }
        for _ in 0..plan.stalls {
            let node = NodeId(1 + world.prng.below(u64::from(plan.nodes)) as u32);
            let (when, length) = (world.prng.below(BUSY), 200 + world.prng.below(6_000));
            world.later(when, Happening::Stalls { node, length });
        }
        world
    }

    /// What the oracle has looked at: grants, those below roots, with scopes, ranges that grew, values, those beside writers; adoptions, moves of trees.
    pub fn counted(&self) -> [u64; 8] {
        let seen = &self.oracle;
        let grants = [seen.grants, seen.grants_below_roots];
        let moves = self.machines.values().map(|machine| machine.node.trees_taken()).sum();
        let scoped = [seen.scoped_grants, seen.grown_ranges];
        [
            grants[0],
            grants[1],
            scoped[0],
            scoped[1],
            seen.values_read,
            seen.values_beside_writers,
            self.adopted,
            moves,
        ]
    }

    pub fn history(&self) -> String {
        self.history.iter().map(|line| format!("{line}\n")).collect()
    }

    fn note(&mut self, line: String) {
        if self.history.len() > 400 {
            self.history.pop_front();
        }
        self.history.push_back(format!("{} {line}", self.now.0));
    }

    fn later(&mut self, length: u64, happening: Happening) {
        self.at(Time(self.now.0 + length), happening);
    }

    fn at(&mut self, when: Time, happening: Happening) {
        self.order += 1;
        self.agenda.insert((when, self.order), happening);
    }

    pub fn run(&mut self) -> Result<(), String> {
        for _ in 0..STEPS_MAX {
            let Some(((when, _), happening)) = self.agenda.pop_first() else { return self.at_rest() };
            self.now = when;
            self.happen(happening)?;
            self.masters()?;
        }
        Err(format!("no rest after {STEPS_MAX} steps"))
    }

    fn at_rest(&self) -> Result<(), String> {
        for machine in self.machines.values().filter(|machine| machine.runs) {
            if let Some(user) = machine.users.iter().find(|user| user.doing != Doing::Nothing) {
                return Err(format!(
                    "at rest, and not served: {user:?}\n{}",
                    self.tokens(&user.key.unwrap())
                ));
            }
        }
        Ok(())
    }

    fn tokens(&self, key: &Key) -> String {
        let running = self.machines.iter().filter(|(_, machine)| machine.runs);
        running.map(|(id, machine)| format!("node {id}: {}\n", machine.node.describe(key))).collect()
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        let machine = happening.needs().and_then(|node| self.machines.get_mut(&node));
        if let Some(stalled) = machine.and_then(|machine| machine.stalled.as_mut()) {
            stalled.push_back(happening);
            return Ok(());
        }
        match happening {
            Happening::Stalls { node, length } => {
                self.stalls(node, length);
                Ok(())
            }
            Happening::GoesOn(node) => self.goes_on(node),
            Happening::Arrives { to, envelope } => {
                let is_cut = |node: &NodeId| self.machines.get(node).is_none_or(|m| m.is_cut);
                if is_cut(&to) || is_cut(&envelope.from) {
                    return Ok(());
                }
                self.show(to, Event::Message(*envelope))
            }
            Happening::View { to, epoch, members } => {
                // Not for an earlier life.
                let life = self.machines.get(&to).map(|machine| machine.life);
                if members.iter().any(|member| member.node == to && Some(member.life) == life) {
                    self.show(to, Event::View { epoch, members })?;
                }
                Ok(())
            }
            Happening::UserActs { node, user } => self.user_acts(node, user),
            Happening::Vanishes { node, user } => self.vanishes(node, user),
            Happening::Purges(owner) => self.purges(owner),
            Happening::Tick(node) => {
                if let Some(machine) = self.machines.get_mut(&node) {
                    machine.last_tick = None;
                }
                self.show(node, Event::Tick)
            }
            Happening::Dies { node, is_cut } => {
                self.dies(node, is_cut);
                Ok(())
            }
            Happening::Declared(node) => {
                if let Some(member) = self.members.get_mut(&node) {
                    member.state = MemberState::Down;
                }
                self.oracle.node_gone(self.now, node, Time(self.now.0 + LEASE));
                self.agree();
                Ok(())
            }
            Happening::Fenced(node) => {
                if let Some(machine) = self.machines.get_mut(&node) {
                    machine.runs = false;
                }
                if let Some(member) = self.members.get_mut(&node) {
                    member.state = MemberState::Fenced;
                }
                self.oracle.fenced(node);
                self.agree();
                Ok(())
            }
            Happening::Returns(node) => {
                self.oracle.returns(node);
                let life = self.machines[&node].life;
                self.start(node, Incarnation(life.0 + 1));
                self.agree();
                Ok(())
            }
        }
    }

    fn user_acts(&mut self, node: NodeId, user: usize) -> Result<(), String> {
        let last = self.now.0 > BUSY;
        self.last_tag += 1;
        let (tag, now) = (self.last_tag, self.now);
        let Some(machine) = self.machines.get_mut(&node).filter(|machine| machine.runs && !machine.is_cut)
        else {
            return Ok(());
        };
        let acting = &mut machine.users[user];
        let is_idle = acting.doing == Doing::Nothing;
        if let Some(orphan) = machine.orphans.first().copied().filter(|_| is_idle)
            && (last || self.prng.one_in(4))
        {
            let event = acting.adopt(tag, &orphan);
            self.note(format!("{node} user {event:?}"));
            return self.show(node, Event::User(event));
        }
        if !last && self.prng.one_in(12) {
            let length = self.prng.below(3_000);
            self.at(Time(now.0 + length), Happening::Vanishes { node, user });
        }
        let Some(acting) = self.machines.get_mut(&node).map(|machine| &mut machine.users[user]) else {
            return Ok(());
        };
        let Some(event) = acting.step(&mut self.prng, now, tag, tag, last) else { return Ok(()) };
        let (key, owner) = (acting.key.unwrap(), acting.owner);
        self.oracle.asks(now, key, owner, &event, tag);
        self.note(format!("{node} user {event:?}"));
        self.show(node, Event::User(event))
    }

    fn show(&mut self, to: NodeId, event: Event) -> Result<(), String> {
        let Some(machine) = self.machines.get_mut(&to).filter(|machine| machine.runs) else { return Ok(()) };
        if let Event::Message(envelope) = &event {
            let line = format!("{} -> {to} era {}: {:?}", envelope.from, envelope.era, envelope.message);
            self.history.push_back(format!("{} {line}", self.now.0));
        }
        let mut effects = Vec::new();
        machine.node.handle(self.now, event, &mut effects);
        let due = machine.node.next_deadline();
        if let Some(due) = due.filter(|due| machine.last_tick.is_none_or(|tick| tick > *due)) {
            machine.last_tick = Some(due);
            self.at(Time(due.0.max(self.now.0 + 1)), Happening::Tick(to));
        }
        for effect in effects {
            match effect {
                Effect::Send { to: receiver, envelope } => self.send(to, receiver, envelope),
                Effect::User(told) => self.told(to, told)?,
            }
        }
        while self.history.len() > 400 {
            self.history.pop_front();
        }
        Ok(())
    }

    fn send(&mut self, from: NodeId, to: NodeId, envelope: Envelope) {
        let delay = 1 + if self.prng.one_in(20) { self.prng.below(2_000) } else { self.prng.below(60) };
        let last = self.last_arrival.get(&(from, to)).copied().unwrap_or_default();
        let when = Time((self.now.0 + delay).max(last.0 + 1));
        self.last_arrival.insert((from, to), when);
        self.at(when, Happening::Arrives { to, envelope: Box::new(envelope) });
    }

    fn told(&mut self, node: NodeId, told: Told) -> Result<(), String> {
        let machine = self.machines.get_mut(&node).unwrap();
        let owner = match told {
            Told::Granted(grant) => grant.owner,
            Told::Refused { owner, .. } | Told::Done { owner, .. } | Told::Purged { owner, .. } => owner,
            Told::Queued { .. } | Told::Blocking { .. } => return Ok(()),
        };
        let Some(at) = machine.users.iter().position(|user| user.owner == owner) else {
            if let Told::Purged { lock, .. } = told {
                self.orphan_purged(node, owner, lock);
            }
            return Ok(());
        };
        let user = &mut machine.users[at];
        if told.ended() != Some(user.tag) {
            return Err(format!("{user:?} is told {told:?}"));
        }
        let key: Key = user.key.unwrap();
        let mut verdict = Ok(());
        match told {
            Told::Granted(grant) => {
                if let Some(at) = machine.orphans.iter().position(|orphan| orphan.lock == grant.lock) {
                    let orphan = machine.orphans.remove(at);
                    self.oracle.adopted(key, orphan.owner, owner);
                    self.adopted += 1;
                }
                (user.doing, user.lock, user.mode) = (Doing::Holding, Some(grant.lock), Some(grant.mode));
                user.scope = Some(grant.scope);
                verdict = self.oracle.granted(self.now, key, &grant);
            }
            Told::Refused { mode, .. } if user.doing == Doing::Converting => {
                (user.doing, user.mode) = (Doing::Holding, mode);
                self.oracle.refused(key, owner);
            }
            Told::Refused { .. } if user.adopts => {
                return Err(format!("an orphan is lost: {user:?} is told {told:?}"));
            }
            _ => user.goes_up(),
        }
        self.note(format!("{node} told {told:?}"));
        let pause = 1 + self.prng.below(1_500);
        self.later(pause, Happening::UserActs { node, user: at });
        verdict
    }

    fn masters(&self) -> Result<(), String> {
        let serving = self.machines.iter().filter(|(_, machine)| machine.runs && !machine.is_cut);
        let mut masters: Vec<_> = serving
            .flat_map(|(id, machine)| machine.node.mastered().map(|key| (machine.node.era(), key, *id)))
            .collect();
        masters.sort_unstable();
        self.oracle.masters(&masters)
    }
}
