//! A world of cores: virtual time, a network that delays, loses and is cut, disks that keep only what was persisted.

mod effects;

use crate::agenda::{Agenda, What};
use crate::machine::{Machine, row};
use crate::network::{Cuts, Network};
use crate::oracle::Oracle;
use base::{Incarnation, NodeId, Prng, Time};
use membership::core::Config;
use membership::saved::Register;
use membership::talk::Request;
use membership::{Core, Event, Heartbeat, Node, NodeState, RequestId, Timings, View, table};
use std::collections::BTreeMap;
use std::time::Duration;

pub const MS: Duration = Duration::from_millis(1);

pub struct World {
    pub now: Time,
    pub prng: Prng,
    pub network: Network,
    pub machines: BTreeMap<u32, Machine>,
    pub oracle: Oracle,
    /// Crashes may strike between two effects, one time in so many; 0: never.
    pub torn_one_in: u64,
    /// Disks that lose everything, to see that the oracle would notice.
    pub forgetful: bool,
    cuts: Cuts,
    agenda: Agenda,
    next_request: u64,
    next_life: u64,
    timings: Timings,
}

impl World {
    /// `size` machines that are in the table and start now.
    pub fn new(seed: u64, size: u32) -> World {
        let mut view = table::founded("blue", &row(1), 16_384);
        for id in 2..=size {
            table::join(&mut view, &row(id)).unwrap();
        }
        let mut world = World {
            now: Time(1),
            prng: Prng::new(seed),
            network: Network::default(),
            machines: BTreeMap::new(),
            oracle: Oracle::default(),
            torn_one_in: 0,
            forgetful: false,
            cuts: Cuts::default(),
            agenda: Agenda::default(),
            next_request: 0,
            next_life: 10,
            timings: Timings::default(),
        };
        for id in 1..=size {
            world.add_machine(id, &view);
        }
        world
    }

    /// A world whose nodes are all UP and agree.
    pub fn settled(seed: u64, size: u32) -> World {
        let mut world = World::new(seed, size);
        assert!(world.run_until(10_000, World::all_up), "seed {seed}: {}", world.describe());
        world
    }

    pub fn add_machine(&mut self, id: u32, view: &View) {
        self.machines.insert(id, Machine::new(view));
        self.plan(Duration::ZERO, What::StartNode { node: id });
    }

    /// Lets `ms` pass.
    pub fn run(&mut self, ms: u32) {
        self.run_until(ms, |_| false);
    }

    /// Lets time pass until `done`, at most `ms`; false if it was never done.
    pub fn run_until(&mut self, ms: u32, done: impl Fn(&World) -> bool) -> bool {
        let end = self.now + MS * ms;
        while !done(self) {
            let Some(at) = self.agenda.next_time() else { break };
            if at > end {
                self.now = end;
                return done(self);
            }
            let Some((at, what)) = self.agenda.take_next() else { break };
            self.now = at;
            self.happen(what);
        }
        done(self)
    }

    /// SIGKILL for everything of a node at once.
    pub fn kill_node(&mut self, node: u32) {
        self.machine(node).alive = false;
        self.kill_daemon(node);
    }

    /// SIGKILL for `ssid` alone.
    pub fn kill_daemon(&mut self, node: u32) {
        let machine = self.machine(node);
        machine.core = None;
        machine.run += 1;
        machine.waiting.clear();
        if self.forgetful {
            let view = self.machines[&node].disk.committed.clone();
            self.machine(node).disk = Register::agreed(view);
        }
        self.tell_links(node, false);
    }

    pub fn start_daemon(&mut self, node: u32, after_ms: u32) {
        self.plan(MS * after_ms, What::StartDaemon { node });
    }

    pub fn start_node(&mut self, node: u32, after_ms: u32) {
        self.plan(MS * after_ms, What::StartNode { node });
    }

    /// Cuts the link between two nodes, or heals it. Nobody is told: packets just vanish.
    pub fn set_cut(&mut self, one: u32, other: u32, cut: bool) {
        self.cuts.set(one, other, cut);
    }

    pub fn isolate(&mut self, node: u32, cut: bool) {
        let others: Vec<u32> = self.machines.keys().copied().filter(|&id| id != node).collect();
        others.into_iter().for_each(|other| self.set_cut(node, other, cut));
    }

    /// Heals all cuts; daemons that could not reach each other connect.
    pub fn heal(&mut self) {
        self.cuts.heal();
        let running: Vec<u32> =
            self.machines.iter().filter(|(_, machine)| machine.core.is_some()).map(|(&id, _)| id).collect();
        running.into_iter().for_each(|node| self.tell_links(node, true));
    }

    /// Gives a core an event now.
    pub fn give(&mut self, node: u32, event: Event) {
        let now = self.now;
        let Some(core) = self.machine(node).core.as_mut() else { return };
        let effects = core.handle(now, event);
        let mastership = core.mastership();
        self.carry_out(node, effects);
        self.oracle.master(node, mastership);
    }

    /// Asks a node something in its own name; the answer goes to `answers`.
    pub fn ask(&mut self, node: u32, ask: membership::talk::Ask) {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        let incarnation = self.machines[&node].life;
        let request = Request { sender: node, incarnation, epoch: 0, ask: Some(ask) };
        self.machine(node).waiting.insert(id, (0, 0));
        self.give(node, Event::Request { id, from: NodeId(node), request });
    }

    pub fn view(&self, node: u32) -> &View {
        &self.machines[&node].disk.committed
    }

    pub fn state(&self, at: u32, of: u32) -> Option<NodeState> {
        self.view(at).node(NodeId(of)).map(Node::state)
    }

    pub fn master(&self) -> Option<u32> {
        self.machines
            .iter()
            .find(|(_, m)| m.core.as_ref().is_some_and(|c| c.mastership().is_some()))
            .map(|(&id, _)| id)
    }

    /// Every machine runs, is UP in its present life in every machine's view, and all views are one.
    pub fn all_up(&self) -> bool {
        let first = self.machines.values().next().map(|machine| &machine.disk.committed);
        self.machines.iter().all(|(&id, machine)| {
            let row = machine.disk.committed.node(NodeId(id));
            machine.core.is_some()
                && row.is_some_and(|row| row.state() == NodeState::Up && row.incarnation == machine.life)
                && Some(&machine.disk.committed) == first
        })
    }

    pub fn describe(&self) -> String {
        let machine = |(id, machine): (&u32, &Machine)| {
            let view = &machine.disk.committed;
            let rows: Vec<String> =
                view.nodes.iter().map(|n| format!("{}:{:?}/{}", n.id, n.state(), n.incarnation)).collect();
            let (running, life) = (machine.core.is_some(), machine.life);
            let status = machine.core.as_ref().map(|core| core.status(self.now));
            let master = status.map(|status| (status.master, status.term));
            format!("\n  {id}: runs {running} life {life} epoch {} {rows:?} {master:?}", view.epoch)
        };
        self.machines.iter().map(machine).collect()
    }

    fn machine(&mut self, node: u32) -> &mut Machine {
        self.machines.get_mut(&node).expect("the test names machines that exist")
    }

    fn plan(&mut self, after: Duration, what: What) {
        self.agenda.plan(self.now + after, what);
    }

    fn delay(&mut self) -> Duration {
        Duration::from_micros(50 + self.prng.below(self.network.delay_us_max))
    }

    fn is_lost(&mut self) -> bool {
        self.prng.below(1_000) < self.network.lost_per_mille
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Tick { node, run } if self.machines[&node].run == run => {
                self.give(node, Event::Tick);
                self.plan(self.timings.tick, What::Tick { node, run });
            }
            What::Listen { node, run } if self.machines[&node].run == run => {
                let beats = std::mem::take(&mut self.machine(node).inbox);
                let at = self.now;
                self.give(node, Event::Heard { beats, at });
                self.plan(self.timings.tick, What::Listen { node, run });
            }
            What::Tick { .. } | What::Listen { .. } => {}
            What::Beat { node, life } => self.beat(node, life),
            What::Datagram { to, beat } => self.machine(to).inbox.push(beat),
            What::Request { from, run, to, request } => self.deliver(from, run, to, request),
            What::Answer { to, run, from, answer } if self.machines[&to].run == run => {
                self.give(to, Event::Answered { from: NodeId(from), answer });
            }
            What::Link { node, run, peer, linked } if self.machines[&node].run == run => {
                if linked == self.machines[&peer].core.is_some() {
                    self.give(node, Event::Link { peer: NodeId(peer), linked });
                }
            }
            What::Answer { .. } | What::Link { .. } => {}
            What::StartDaemon { node } => self.begin_daemon(node),
            What::StartNode { node } => self.begin_node(node),
        }
    }

    fn begin_node(&mut self, node: u32) {
        if self.machines[&node].alive {
            return;
        }
        self.next_life += 1;
        let life = self.next_life;
        let machine = self.machine(node);
        machine.life = life;
        machine.alive = true;
        machine.sequence = 0;
        self.plan(Duration::ZERO, What::Beat { node, life });
        self.begin_daemon(node);
    }

    fn begin_daemon(&mut self, node: u32) {
        let (now, timings) = (self.now, self.timings);
        let daemon = self.prng.next_u64();
        let machine = self.machine(node);
        if !machine.alive || machine.core.is_some() {
            return;
        }
        machine.run += 1;
        let run = machine.run;
        machine.downs.clear();
        let row = Node { incarnation: machine.life, ..row(node) };
        machine.core = Some(Core::new(Config { row, daemon, timings }, machine.disk.clone(), now));
        self.plan(Duration::ZERO, What::Tick { node, run });
        self.plan(Duration::ZERO, What::Listen { node, run });
        self.tell_links(node, true);
    }

    /// The links of a daemon that starts or dies: the other ends know soon, its own end when it starts.
    fn tell_links(&mut self, node: u32, linked: bool) {
        let others: Vec<u32> = self.machines.keys().copied().filter(|&id| id != node).collect();
        for other in others {
            if self.machines[&other].core.is_none() || !self.cuts.connects(node, other) {
                continue;
            }
            let after = self.delay() + if linked { MS * 20 } else { Duration::ZERO };
            let run = self.machines[&other].run;
            self.plan(after, What::Link { node: other, run, peer: node, linked });
            if linked {
                let run = self.machines[&node].run;
                self.plan(after, What::Link { node, run, peer: other, linked });
            }
        }
    }

    fn beat(&mut self, node: u32, life: u64) {
        let machine = self.machine(node);
        if !machine.alive || machine.life != life {
            return;
        }
        machine.sequence += 1;
        let beat =
            Heartbeat { node: NodeId(node), incarnation: Incarnation(life), sequence: machine.sequence };
        let others: Vec<u32> = self.machines.keys().copied().filter(|&id| id != node).collect();
        for to in others {
            if self.cuts.connects(node, to) && !self.is_lost() {
                let delay = self.delay();
                self.plan(delay, What::Datagram { to, beat });
            }
        }
        self.plan(self.timings.interval, What::Beat { node, life });
    }

    fn deliver(&mut self, from: u32, run: u64, to: u32, request: Request) {
        if self.machines[&to].core.is_none() {
            return;
        }
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.machine(to).waiting.insert(id, (from, run));
        self.give(to, Event::Request { id, from: NodeId(from), request });
    }
}
