//! What happens, one by one: ticks, beats, deliveries, starts. A machine that is paused has it all later.

use super::{MS, World};
use crate::sim::agenda::What;
use crate::talk::Request;
use crate::{Event, Heartbeat, RequestId};
use base::{Incarnation, NodeId, Time};
use std::time::Duration;

impl World {
    /// Until when the daemon that this is for is paused, if it is.
    fn pause_of(&self, what: &What) -> Option<Time> {
        let node = match what {
            What::Tick { node, .. }
            | What::Wake { node, .. }
            | What::Listen { node, .. }
            | What::Beat { node, .. }
            | What::Disk { node, .. }
            | What::Link { node, .. }
            | What::Closed { node, .. }
            | What::Fenced { node, .. } => node,
            What::Request { to, .. } | What::Answer { to, .. } | What::Log { to, .. } => to,
            What::Datagram { .. } | What::StartDaemon { .. } | What::StartNode { .. } => return None,
        };
        self.machines.get(node).map(|machine| machine.paused_until).filter(|&until| until > self.now)
    }

    pub(super) fn happen(&mut self, what: What) {
        if let Some(until) = self.pause_of(&what) {
            return self.agenda.plan(until, what);
        }
        let runs = |world: &World, node: u32, run: u64| world.machines[&node].run == run;
        match what {
            What::Tick { node, run } if runs(self, node, run) => {
                self.give(node, Event::Tick { wall_ms: self.now.0 / 1_000_000 });
                self.plan(self.timings.tick, What::Tick { node, run });
            }
            What::Wake { node, run } if runs(self, node, run) => {
                self.give(node, Event::Tick { wall_ms: self.now.0 / 1_000_000 });
            }
            What::Listen { node, run } if runs(self, node, run) => {
                let beats = std::mem::take(&mut self.machine(node).inbox);
                let at = self.machines[&node].clock.show(self.now);
                self.give(node, Event::Heard { beats, at });
                self.plan(self.timings.tick, What::Listen { node, run });
            }
            What::Disk { node, run } if runs(self, node, run) => self.turn_disk(node),
            What::Beat { node, life } => self.beat(node, life),
            What::Datagram { to, beat } => self.machine(to).inbox.push(beat),
            What::Request { from, run, to, request } => self.deliver(from, run, to, request),
            What::Answer { to, run, from, answer } if runs(self, to, run) => {
                self.give(to, Event::Answered { from: NodeId(from), answer });
            }
            What::Log { to, envelope } => self.give(to, Event::Log(envelope)),
            What::Link { node, run, peer, linked }
                if runs(self, node, run) && linked == self.machines[&peer].daemon.is_some() =>
            {
                self.give(node, Event::Link { peer: NodeId(peer), linked });
            }
            What::Closed { node, run, peer } if runs(self, node, run) => {
                self.give(node, Event::Link { peer: NodeId(peer), linked: false });
            }
            What::Fenced { node, run, of, life } if runs(self, node, run) => {
                let said = "its power is off".into();
                self.give(node, Event::Fenced { node: NodeId(of), life, done: true, said });
            }
            What::StartDaemon { node } => self.begin_daemon(node),
            What::StartNode { node } => self.begin_node(node),
            _ => {}
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
        machine.left = false;
        machine.sequence = 0;
        machine.paused_until = Time(0);
        self.plan(Duration::ZERO, What::Beat { node, life });
        self.begin_daemon(node);
    }

    fn begin_daemon(&mut self, node: u32) {
        let World { machines, prng, now, fencing, canary, .. } = self;
        let Some(machine) = machines.get_mut(&node) else { return };
        if !machine.alive || machine.daemon.is_some() {
            return;
        }
        machine.run += 1;
        let run = machine.run;
        machine.downs.clear();
        machine.start(node, *now, *fencing, prng);
        if let Some(daemon) = &mut machine.daemon {
            daemon.core.infect(*canary);
        }
        self.plan(Duration::ZERO, What::Tick { node, run });
        self.plan(Duration::ZERO, What::Listen { node, run });
        self.tell_links(node, true);
    }

    /// The links of a daemon that starts or dies: the other ends know soon, its own end when it starts.
    pub(super) fn tell_links(&mut self, node: u32, linked: bool) {
        let others: Vec<u32> = self.machines.keys().copied().filter(|&id| id != node).collect();
        for other in others {
            if self.machines[&other].daemon.is_none() || !self.cuts.connects(node, other) {
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
            for _ in 0..self.copies(node, to) {
                let delay = self.delay();
                self.plan(delay, What::Datagram { to, beat });
            }
        }
        self.plan(self.timings.interval, What::Beat { node, life });
    }

    fn deliver(&mut self, from: u32, run: u64, to: u32, request: Request) {
        if self.machines[&to].daemon.is_none() {
            return;
        }
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.machine(to).waiting.insert(id, (from, run));
        self.give(to, Event::Request { id, from: NodeId(from), request });
    }
}
