//! A world of cores: virtual time, clocks that drift, a network that delays, loses, doubles and is cut, disks that keep only
//! what was made safe.

mod effects;
mod happening;

use super::agenda::{Agenda, What};
use super::machine::{Machine, row};
use super::network::{Cuts, Network};
use super::oracle::Oracle;
use crate::core::Canary;
use crate::table::rules;
use crate::talk::{Ask, Change, Request};
use crate::{Act, Command, Event, NodeState, RequestId, Table, Timings, View, table};
use base::{NodeId, Prng, Time};
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
    /// The longest that a disk takes, microseconds.
    pub disk_us_max: u64,
    pub fencing: bool,
    pub canary: Canary,
    pub steps: u64,
    cuts: Cuts,
    agenda: Agenda,
    next_request: u64,
    next_life: u64,
    timings: Timings,
}

impl World {
    /// `size` machines that are in the table and start now; the first has founded the cluster.
    pub fn new(seed: u64, size: u32) -> World {
        let mut view = table::founded("blue", &row(1), 16_384);
        for id in 2..=size {
            rules::join(&mut view, &row(id)).unwrap();
        }
        let mut world = World {
            now: Time(1),
            prng: Prng::new(seed),
            network: Network::default(),
            machines: BTreeMap::new(),
            oracle: Oracle::default(),
            torn_one_in: 0,
            disk_us_max: 2_000,
            fencing: false,
            canary: Canary::None,
            steps: 0,
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
        World::settled_with(seed, size, Canary::None)
    }

    pub fn settled_with(seed: u64, size: u32, canary: Canary) -> World {
        let mut world = World::new(seed, size);
        world.canary = canary;
        assert!(world.run_until(10_000, World::at_rest), "seed {seed}: {}", world.describe());
        world
    }

    pub fn add_machine(&mut self, id: u32, view: &View) {
        let table = Table::from_view(view.clone());
        let machine = Machine::new(id, &table, id == 1, &mut self.prng);
        self.machines.insert(id, machine);
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
            self.steps += 1;
            self.happen(what);
        }
        done(self)
    }

    /// SIGKILL for everything of a node at once, or its power.
    pub fn kill_node(&mut self, node: u32) {
        self.machine(node).alive = false;
        self.stop_daemon(node, true);
    }

    /// SIGKILL for `ssid` alone.
    pub fn kill_daemon(&mut self, node: u32) {
        self.stop_daemon(node, false);
    }

    fn stop_daemon(&mut self, node: u32, power: bool) {
        let World { machines, prng, .. } = self;
        let Some(machine) = machines.get_mut(&node) else { return };
        machine.stop(power, prng);
        machine.run += 1;
        machine.waiting.clear();
        self.tell_links(node, false);
    }

    /// A node that is off loses the disk with its log; the file `table` stays.
    pub fn wipe(&mut self, node: u32) {
        let World { machines, prng, .. } = self;
        let Some(machine) = machines.get_mut(&node) else { return };
        assert!(machine.daemon.is_none(), "only of one that is off");
        machine.make_disk(node, false, prng);
    }

    /// SIGSTOP for everything of a node, for a while.
    pub fn pause(&mut self, node: u32, ms: u32) {
        let until = self.now + MS * ms;
        self.machine(node).paused_until = until;
    }

    pub fn start_daemon(&mut self, node: u32, after_ms: u32) {
        self.plan(MS * after_ms, What::StartDaemon { node });
    }

    pub fn start_node(&mut self, node: u32, after_ms: u32) {
        self.plan(MS * after_ms, What::StartNode { node });
    }

    /// Cuts the link between two nodes, or heals it. Nobody is told: packets just vanish.
    pub fn set_cut(&mut self, one: u32, other: u32, cut: bool) {
        self.cuts.set_way(one, other, cut);
        self.cuts.set_way(other, one, cut);
    }

    /// Cuts one way only.
    pub fn set_way(&mut self, from: u32, to: u32, cut: bool) {
        self.cuts.set_way(from, to, cut);
    }

    pub fn isolate(&mut self, node: u32, cut: bool) {
        self.isolate_all(&[node], cut);
    }

    /// Cuts some nodes off from the rest.
    pub fn isolate_all(&mut self, nodes: &[u32], cut: bool) {
        let others: Vec<u32> = self.machines.keys().copied().filter(|id| !nodes.contains(id)).collect();
        for other in others {
            nodes.iter().for_each(|&node| self.set_cut(node, other, cut));
        }
    }

    /// Connections to a daemon are closed by somebody on the way although it lives, but one in `spared` (0: all are); they come
    /// back soon.
    pub fn lose_links(&mut self, node: u32, spared: u64) {
        let others: Vec<u32> = self.machines.keys().copied().filter(|&id| id != node).collect();
        for other in others {
            if spared > 0 && self.prng.one_in(spared) {
                continue;
            }
            let (run, lost) = (self.machines[&other].run, self.delay());
            self.plan(lost, What::Closed { node: other, run, peer: node });
            self.plan(lost + MS * 30, What::Link { node: other, run, peer: node, linked: true });
        }
    }

    /// Heals all cuts; daemons that could not reach each other connect.
    pub fn heal(&mut self) {
        self.cuts.heal();
        let running: Vec<u32> =
            self.machines.iter().filter(|(_, machine)| machine.daemon.is_some()).map(|(&id, _)| id).collect();
        running.into_iter().for_each(|node| self.tell_links(node, true));
    }

    /// Gives a core an event now.
    pub fn give(&mut self, node: u32, event: Event) {
        let now = self.now;
        let machine = self.machine(node);
        let shown = machine.clock.show(now);
        let Some(daemon) = machine.daemon.as_mut() else { return };
        let effects = daemon.core.handle(shown, event);
        let mastership = daemon.core.mastership(shown);
        let run = machine.run;
        self.carry_out(node, effects);
        if let Some(term) = mastership {
            let sure = self.surely_masters();
            self.oracle.master(node, term, &sure);
        }
        self.wake(node, run);
    }

    fn wake(&mut self, node: u32, run: u64) {
        let now = self.now;
        let machine = self.machine(node);
        let clock = machine.clock;
        let Some(daemon) = machine.daemon.as_mut().filter(|_| machine.run == run) else { return };
        let Some(deadline) = daemon.core.next_deadline() else { return };
        let at = clock.truly(deadline).max(now + Duration::from_micros(10));
        if daemon.wake <= now || at < daemon.wake {
            daemon.wake = at;
            self.agenda.plan(at, What::Wake { node, run });
        }
    }

    /// All who are master at this moment.
    pub fn masters(&self) -> Vec<u32> {
        let is_master = |machine: &Machine| {
            let shown = machine.clock.show(self.now);
            machine.daemon.as_ref().is_some_and(|daemon| {
                daemon.core.log().is_leader() && daemon.core.mastership(shown).is_some()
            })
        };
        self.machines.iter().filter(|(_, machine)| is_master(machine)).map(|(&id, _)| id).collect()
    }

    /// All whose log has a lease: they are sure of being the only master.
    fn surely_masters(&self) -> Vec<u32> {
        let is_sure = |machine: &Machine| {
            let until = machine.daemon.as_ref().and_then(|daemon| daemon.core.log().lease_until());
            until.is_some_and(|until| machine.clock.show(self.now) < until)
        };
        self.machines.iter().filter(|(_, machine)| is_sure(machine)).map(|(&id, _)| id).collect()
    }

    /// Asks a node something in its own name; the answer goes to `answers`.
    pub fn ask(&mut self, node: u32, ask: Ask) {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        let incarnation = self.machines[&node].life;
        let request = Request { sender: node, incarnation, epoch: 0, ask: Some(ask) };
        self.machine(node).waiting.insert(id, (0, 0));
        self.give(node, Event::Request { id, from: NodeId(node), request });
    }

    /// Asks a node for a change of the table.
    pub fn change(&mut self, node: u32, act: Act) {
        let session = self.prng.next_u64();
        let command = Some(Command { at_ms: 0, act: Some(act) });
        self.ask(node, Ask::Change(Change { command, session, forwarded: false }));
    }

    pub fn view(&self, node: u32) -> &View {
        self.machines[&node].table().view()
    }

    pub fn state(&self, at: u32, of: u32) -> Option<NodeState> {
        self.view(at).node(NodeId(of)).map(crate::Node::state)
    }

    pub fn master(&self) -> Option<u32> {
        self.masters().first().copied()
    }

    pub fn is_leased(&self, node: u32) -> bool {
        let machine = &self.machines[&node];
        let shown = machine.clock.show(self.now);
        machine.daemon.as_ref().is_some_and(|daemon| daemon.core.lease(shown).is_some())
    }

    /// Every machine runs, is UP in its present life in every machine's view, and all views are one.
    pub fn all_up(&self) -> bool {
        let first = self.machines.values().next().map(|machine| machine.table().view());
        self.machines.iter().all(|(&id, machine)| {
            let view = machine.table().view();
            let row = view.node(NodeId(id));
            machine.daemon.is_some()
                && row.is_some_and(|row| row.state() == NodeState::Up && row.incarnation == machine.life)
                && Some(view) == first
        })
    }

    /// All are UP, may serve, and as many vote as should.
    pub fn at_rest(&self) -> bool {
        let few = self.machines.len().min(3);
        let voters = if few == 2 { 1 } else { few };
        self.all_up()
            && self.machines.keys().all(|&id| self.is_leased(id))
            && self.machines.keys().all(|&id| self.view(id).voters.len() == voters)
            && self.masters().len() == 1
    }

    /// The voters are those of all machines' disks as they are now, on all of them.
    pub fn keeps_all_promises(&self) -> bool {
        let voters = |machine: &Machine| {
            let log = machine.daemon.as_ref().map(|daemon| daemon.core.log().voters().clone());
            log.filter(|voters| !voters.is_joint()).map(|voters| voters.voters).unwrap_or_default()
        };
        let Some(master) = self.master() else { return false };
        let present = voters(&self.machines[&master]);
        present.iter().all(|member| {
            let machine = &self.machines[&member.node.0];
            machine.disk_id == member.disk && voters(machine) == present
        })
    }

    pub fn describe(&self) -> String {
        let machine = |(id, machine): (&u32, &Machine)| {
            let view = machine.table().view();
            let rows: Vec<String> =
                view.nodes.iter().map(|n| format!("{}:{:?}/{}", n.id, n.state(), n.incarnation)).collect();
            let (running, life) = (machine.daemon.is_some(), machine.life);
            let core = machine.daemon.as_ref().map(|daemon| &daemon.core);
            let status = core.map(|core| (core.status(machine.clock.show(self.now)), core.log().status()));
            let status = status.map(|(status, log)| {
                (status.master, status.lease, log.role, log.term, log.voters.voters, log.commit, log.last)
            });
            let (epoch, voters) = (view.epoch, &view.voters);
            format!("\n  {id}: runs {running} life {life} epoch {epoch} {rows:?} {voters:?} {status:?}")
        };
        let machines: String = self.machines.iter().map(machine).collect();
        format!("\n  at {:?}{machines}", self.now)
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
        self.network.lost_per_mille > 0 && self.prng.below(1_000) < self.network.lost_per_mille
    }

    /// How often a message from one to another arrives.
    fn copies(&mut self, from: u32, to: u32) -> u32 {
        if !self.cuts.connects(from, to) || self.is_lost() {
            return 0;
        }
        let doubled = self.network.doubled_per_mille;
        1 + u32::from(doubled > 0 && self.prng.below(1_000) < doubled)
    }
}
