//! The world: machines, network and clients in virtual time, all from one seed.
//!
//! Invariant: one seed is one run, to the last message.

mod clients;
mod effects;

use super::machine::Machine;
use super::network::Network;
use super::oracle::Oracle;
use crate::core::Canary;
use crate::{Config, Core, Envelope, Event, Index, Member, SnapshotMeta, Ticket, Voters};
use base::{NodeId, Prng, Time};
use bytes::Bytes;
use clients::Client;
use std::collections::BTreeMap;
use std::time::Duration;

/// How many bytes of a snapshot travel in one piece.
const CHUNK_BYTES: usize = 100;

/// What is going to happen.
pub enum What {
    Tick { node: u32, run: u64 },
    Arrive(Envelope),
    Synced { node: u32, run: u64, ticket: Ticket },
    Made { node: u32, run: u64, meta: SnapshotMeta, bytes: Bytes },
    Start { node: u32 },
    Act { client: usize },
    Unlinked { node: u32 },
    Wake { node: u32 },
}

/// The world.
pub struct World {
    pub now: Time,
    pub prng: Prng,
    pub machines: BTreeMap<u32, Machine>,
    pub network: Network,
    pub oracle: Oracle,
    pub clients: Vec<Client>,
    pub canary: Canary,
    pub append_bytes_max: usize,
    /// Where it is written down: what happened, if anybody wants to know.
    pub trace: Option<Vec<String>>,
    pub steps: u64,
    agenda: BTreeMap<(Time, u64), What>,
    order: u64,
    disks: u128,
    size: u32,
}

pub fn millis(length: u64) -> Duration {
    Duration::from_millis(length)
}

impl World {
    /// `voters` voters and two machines more, all off.
    pub fn new(seed: u64, voters: u32) -> World {
        let mut prng = Prng::new(seed ^ 0x5eed);
        let members = (1..=voters).map(|node| member(node, u128::from(node)));
        let first = Voters::of(members);
        let machine = |node: u32| {
            let first = (node <= voters).then(|| first.clone());
            let mut machine = Machine::new(node, u128::from(node), first);
            machine.drift_ppm = prng.below(100_001) as i64 - 50_000;
            (node, machine)
        };
        let machines = (1..=voters + 2).map(machine).collect();
        let clients = (1..=2).map(Client::new).collect();
        World {
            now: Time(1),
            prng,
            machines,
            network: Network::default(),
            oracle: Oracle::default(),
            clients,
            canary: Canary::None,
            append_bytes_max: 1_000,
            trace: None,
            steps: 0,
            agenda: BTreeMap::new(),
            order: 0,
            disks: 1_000,
            size: voters,
        }
    }

    /// All machines on, clients at work.
    pub fn started(seed: u64, voters: u32) -> World {
        let mut world = World::new(seed, voters);
        world.start_all();
        (0..world.clients.len()).for_each(|client| world.plan(millis(1), What::Act { client }));
        world
    }

    pub fn start_all(&mut self) {
        (1..=self.nodes()).for_each(|node| self.start(node));
    }

    /// How many voters it began with.
    pub fn size(&self) -> u32 {
        self.size
    }

    pub fn nodes(&self) -> u32 {
        self.size + 2
    }

    pub fn plan(&mut self, after: Duration, what: What) {
        self.plan_at(self.now + after, what);
    }

    fn plan_at(&mut self, at: Time, what: What) {
        self.order += 1;
        self.agenda.insert((at.max(self.now), self.order), what);
    }

    pub fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{} {}", self.now.0, what()));
        }
    }

    fn config(&mut self, me: Member) -> Config {
        Config {
            heartbeat: millis(20),
            election_min: millis(120),
            election_spread: millis(80),
            lease: millis(90),
            append_bytes_max: self.append_bytes_max,
            inflight_bytes_max: 4_000,
            inflight_max: 8,
            snapshot_after_bytes: 3_000,
            keep_bytes: 500,
            catch_up: millis(2_000),
            ..Config::new(me, self.prng.next_u64())
        }
    }

    /// Switches a machine on, if it is off.
    pub fn start(&mut self, node: u32) {
        let Some(machine) = self.machines.get(&node).filter(|machine| machine.core.is_none()) else { return };
        let me = machine.me;
        let config = self.config(me);
        let Some(machine) = self.machines.get_mut(&node) else { return };
        machine.run += 1;
        machine.state = super::state::State::default();
        machine.commit = Index(0);
        machine.alarm = None;
        let recovered = match machine.store.open() {
            Ok(recovered) => recovered,
            Err(error) => return self.oracle.fault(self.now, format!("node {node}: {error}")),
        };
        let mut core = Core::new(machine.clock(self.now), config, recovered);
        core.infect(self.canary);
        machine.core = Some(core);
        self.note(|| format!("start {node}"));
        self.give(node, Event::Tick);
    }

    /// Cuts a machine's power.
    pub fn crash(&mut self, node: u32) {
        let Some(machine) = self.machines.get_mut(&node).filter(|machine| machine.core.is_some()) else {
            return;
        };
        machine.core = None;
        machine.store.crash(&mut self.prng);
        self.note(|| format!("crash {node}"));
    }

    /// Takes a machine's disk away and gives it an empty one: it is somebody else now.
    pub fn wipe(&mut self, node: u32) {
        self.crash(node);
        self.disks += 1;
        if let Some(machine) = self.machines.get_mut(&node) {
            let drift_ppm = machine.drift_ppm;
            let run = machine.run;
            *machine = Machine { drift_ppm, run, ..Machine::new(node, self.disks, None) };
        }
        self.note(|| format!("wipe {node}"));
    }

    /// The connections of others to a machine are closed; one in `spared` keeps its own (0: none).
    pub fn close_links(&mut self, to: u32, spared: u64) {
        for node in (1..=self.nodes()).filter(|&node| node != to) {
            if spared == 0 || !self.prng.one_in(spared) {
                let after = std::time::Duration::from_micros(self.prng.below(self.network.delay_us_max));
                self.plan(after, What::Unlinked { node });
            }
        }
        self.note(|| format!("close links to {to}"));
    }

    /// Stops a machine for a while; it does not notice.
    pub fn pause(&mut self, node: u32, length: Duration) {
        let until = self.now + length;
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.paused = machine.paused.max(until);
        }
        // Somebody asks it in the moment in which it wakes, before it has looked at its clock.
        self.plan(length, What::Wake { node });
        self.note(|| format!("pause {node}"));
    }

    /// Gives a running core an event.
    pub fn give(&mut self, node: u32, event: Event) {
        let Some(machine) = self.machines.get_mut(&node) else { return };
        let own = machine.clock(self.now);
        let Some(core) = machine.core.as_mut() else { return };
        let mut effects = Vec::new();
        core.handle(own, event, &mut effects);
        self.check(node);
        for effect in effects {
            self.carry_out(node, effect);
        }
        self.set_alarm(node);
    }

    fn set_alarm(&mut self, node: u32) {
        let Some(machine) = self.machines.get_mut(&node) else { return };
        let Some(deadline) = machine.core.as_ref().and_then(Core::next_deadline) else { return };
        let at = machine.when(deadline).max(self.now);
        if machine.alarm.is_none_or(|alarm| at < alarm || alarm <= self.now) {
            machine.alarm = Some(at);
            let run = machine.run;
            self.plan_at(at, What::Tick { node, run });
        }
    }

    /// What must hold of one core, and of all leases.
    fn check(&mut self, node: u32) {
        let now = self.now;
        let machine = &self.machines[&node];
        let (Some(core), me) = (&machine.core, machine.me) else { return };
        self.oracle.leads(now, core, me);
        if core.commit() < machine.commit {
            self.oracle.fault(now, format!("{me} takes back entry {}, which was agreed", machine.commit));
        }
        let commit = core.commit();
        if core.lease_until().is_some() {
            self.check_leases();
        }
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.commit = commit;
        }
    }

    fn check_leases(&mut self) {
        let valid = |machine: &&Machine| {
            let until = machine.core.as_ref().and_then(Core::lease_until);
            until.is_some_and(|until| machine.clock(self.now) < until)
        };
        let holders: Vec<Member> = self.machines.values().filter(valid).map(|machine| machine.me).collect();
        if holders.len() > 1 {
            self.oracle.fault(self.now, format!("two leaders have a lease: {holders:?}"));
        }
    }

    /// Lets the next thing happen. False if nothing will.
    pub fn step(&mut self) -> bool {
        let Some(((at, _), what)) = self.agenda.pop_first() else { return false };
        self.now = self.now.max(at);
        self.steps += 1;
        let node = match &what {
            What::Tick { node, .. } | What::Synced { node, .. } | What::Made { node, .. } => Some(*node),
            What::Arrive(envelope) => Some(envelope.to.node.0),
            What::Start { .. } | What::Act { .. } | What::Unlinked { .. } | What::Wake { .. } => None,
        };
        let paused = node.and_then(|node| self.machines.get(&node)).map_or(Time(0), |machine| machine.paused);
        if paused > self.now {
            self.plan_at(paused, what);
            return true;
        }
        self.happen(what);
        true
    }

    fn is_run(&self, node: u32, run: u64) -> bool {
        self.machines.get(&node).is_some_and(|machine| machine.run == run && machine.core.is_some())
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Tick { node, run } if self.is_run(node, run) => self.give(node, Event::Tick),
            What::Arrive(envelope) => {
                self.note(|| format!("{} hears {:?}", envelope.to, envelope.body));
                self.give(envelope.to.node.0, Event::Message(envelope));
            }
            What::Synced { node, run, ticket } if self.is_run(node, run) => self.synced(node, ticket),
            What::Made { node, run, meta, bytes } if self.is_run(node, run) => {
                let saved =
                    self.machines.get_mut(&node).map(|machine| machine.store.save_snapshot(&meta, &bytes));
                let event =
                    if let Some(Ok(())) = saved { Event::SnapshotMade(meta) } else { Event::SnapshotFailed };
                self.give(node, event);
            }
            What::Start { node } => self.start(node),
            What::Unlinked { node } => self.give(node, Event::LeaderUnlinked),
            What::Act { client } => self.act(client),
            What::Wake { node } => {
                (0..self.clients.len()).for_each(|client| self.ask_at(client, node));
            }
            What::Tick { .. } | What::Synced { .. } | What::Made { .. } => {}
        }
    }

    /// Runs for a while.
    pub fn run(&mut self, length: Duration) {
        let end = self.now + length;
        while self.agenda.first_key_value().is_some_and(|((at, _), _)| *at <= end) && self.is_sound() {
            self.step();
        }
        self.now = self.now.max(end);
    }

    /// Runs until `done`, for `limit` at most. True if it came to that.
    pub fn run_until(&mut self, limit: Duration, done: impl Fn(&World) -> bool) -> bool {
        let end = self.now + limit;
        while !done(self) {
            let next = self.agenda.first_key_value().is_some_and(|((at, _), _)| *at <= end);
            if !next || !self.is_sound() || !self.step() {
                return false;
            }
        }
        true
    }

    pub fn is_sound(&self) -> bool {
        self.oracle.faults.is_empty()
    }

    /// The leader of the latest term.
    pub fn leader(&self) -> Option<u32> {
        let leads = |machine: &&Machine| machine.core.as_ref().is_some_and(Core::is_leader);
        let leaders = self.machines.values().filter(leads);
        leaders.max_by_key(|machine| machine.core.as_ref().map(Core::term)).map(|machine| machine.me.node.0)
    }

    /// How it stands, for a message.
    pub fn describe(&self) -> String {
        let mut text = format!("\nat {} us", self.now.0 / 1_000);
        for machine in self.machines.values() {
            match machine.core.as_ref().map(Core::status) {
                None => text += &format!("\n{} off", machine.me),
                Some(status) => {
                    text += &format!(
                        "\n{} {:?} term {} leader {:?} commit {} last {:?} safe {} applied {} voters {:?} halted {:?}",
                        machine.me,
                        status.role,
                        status.term,
                        status.leader,
                        status.commit,
                        status.last,
                        status.safe,
                        machine.state.index,
                        status.voters,
                        status.halted
                    );
                }
            }
        }
        text
    }
}

pub fn member(node: u32, disk: u128) -> Member {
    Member { node: NodeId(node), disk: crate::DiskId(disk) }
}
