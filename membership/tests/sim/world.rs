//! A world of cores: virtual time, a network that delays, loses and is cut, disks that keep only what was persisted.

use crate::oracle::Oracle;
use base::{Incarnation, NodeId, Prng, Time};
use membership::core::Config;
use membership::saved::Register;
use membership::talk::{Answer, Request};
use membership::{Core, Effect, Event, Heartbeat, Node, NodeState, RequestId, Timings, View, table};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub const MS: Duration = Duration::from_millis(1);

/// What the network does to a message.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// The longest delay, microseconds.
    pub delay_us_max: u64,
    /// Of a thousand messages and datagrams so many are lost.
    pub lost_per_mille: u64,
}

impl Default for Network {
    fn default() -> Network {
        Network { delay_us_max: 2_000, lost_per_mille: 0 }
    }
}

/// What is going to happen.
enum What {
    Tick { node: u32, run: u64 },
    Listen { node: u32, run: u64 },
    Beat { node: u32, life: u64 },
    Datagram { to: u32, beat: Heartbeat },
    Request { from: u32, run: u64, to: u32, request: Request },
    Answer { to: u32, run: u64, from: u32, answer: Answer },
    Link { node: u32, run: u64, peer: u32, linked: bool },
    StartDaemon { node: u32 },
    StartNode { node: u32 },
}

/// One machine.
pub struct Machine {
    pub core: Option<Core>,
    pub disk: Register,
    pub life: u64,
    /// The supervisor lives.
    pub alive: bool,
    run: u64,
    sequence: u64,
    inbox: Vec<Heartbeat>,
    waiting: BTreeMap<RequestId, (u32, u64)>,
    downs: BTreeSet<NodeId>,
    /// The end of this life is known here; the node starts a new one.
    pub evictions: u32,
    /// Answers to requests made by the test itself.
    pub answers: Vec<Answer>,
}

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
    cuts: BTreeSet<(u32, u32)>,
    agenda: BTreeMap<(Time, u64), What>,
    order: u64,
    next_request: u64,
    next_life: u64,
    timings: Timings,
}

pub fn row(id: u32) -> Node {
    Node {
        id,
        name: format!("node{id}"),
        control_address: format!("10.0.0.{id}:7100"),
        data_address: format!("10.0.0.{id}:7101"),
        cpus: 2,
        ..Node::default()
    }
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
            cuts: BTreeSet::new(),
            agenda: BTreeMap::new(),
            order: 0,
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
        self.machines.insert(
            id,
            Machine {
                core: None,
                disk: Register::agreed(view.clone()),
                life: 0,
                alive: false,
                run: 0,
                sequence: 0,
                inbox: Vec::new(),
                waiting: BTreeMap::new(),
                downs: BTreeSet::new(),
                evictions: 0,
                answers: Vec::new(),
            },
        );
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
            let Some((&(at, _), _)) = self.agenda.first_key_value() else { break };
            if at > end {
                self.now = end;
                return done(self);
            }
            let ((at, _), what) = self.agenda.pop_first().unwrap();
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
        for pair in [(one, other), (other, one)] {
            if cut {
                self.cuts.insert(pair)
            } else {
                self.cuts.remove(&pair)
            };
        }
    }

    pub fn isolate(&mut self, node: u32, cut: bool) {
        let others: Vec<u32> = self.machines.keys().copied().filter(|&id| id != node).collect();
        others.into_iter().for_each(|other| self.set_cut(node, other, cut));
    }

    /// Heals all cuts; daemons that could not reach each other connect.
    pub fn heal(&mut self) {
        self.cuts.clear();
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
        self.order += 1;
        self.agenda.insert((self.now + after, self.order), what);
    }

    fn delay(&mut self) -> Duration {
        Duration::from_micros(50 + self.prng.below(self.network.delay_us_max))
    }

    fn is_lost(&mut self) -> bool {
        self.prng.below(1_000) < self.network.lost_per_mille
    }

    fn connects(&self, from: u32, to: u32) -> bool {
        !self.cuts.contains(&(from, to))
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
            if self.machines[&other].core.is_none() || !self.connects(node, other) {
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
            if self.connects(node, to) && !self.is_lost() {
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

    fn carry_out(&mut self, node: u32, effects: Vec<Effect>) {
        for effect in effects {
            if self.torn_one_in > 0 && self.prng.one_in(self.torn_one_in) {
                self.kill_daemon(node);
                self.start_daemon(node, 150);
                return;
            }
            match effect {
                Effect::Persist(register) => {
                    self.oracle.persisted(node, &self.machines[&node].disk, &register);
                    self.machine(node).disk = register;
                }
                Effect::Publish(view) => self.oracle.published(node, &view),
                Effect::Down { peer, down } => {
                    let downs = &mut self.machine(node).downs;
                    if down {
                        downs.insert(peer)
                    } else {
                        downs.remove(&peer)
                    };
                }
                Effect::Reach(_) => {}
                Effect::Ask { to, request } => self.send(node, to, request),
                Effect::Answer { id, answer } => self.send_answer(node, id, answer),
                Effect::Evicted(_) => {
                    self.machine(node).evictions += 1;
                    self.kill_node(node);
                    self.start_node(node, 100);
                    return;
                }
            }
        }
    }

    fn send(&mut self, from: u32, to: NodeId, request: Request) {
        let lost = self.machines[&from].downs.contains(&to) || !self.connects(from, to.0) || self.is_lost();
        if !lost && self.machines.contains_key(&to.0) {
            let (delay, run) = (self.delay(), self.machines[&from].run);
            self.plan(delay, What::Request { from, run, to: to.0, request });
        }
    }

    fn send_answer(&mut self, from: u32, id: RequestId, answer: Answer) {
        let Some((to, run)) = self.machine(from).waiting.remove(&id) else { return };
        if to == 0 {
            return self.machine(from).answers.push(answer);
        }
        if self.connects(from, to) && !self.is_lost() {
            let delay = self.delay();
            self.plan(delay, What::Answer { to, run, from, answer });
        }
    }
}
