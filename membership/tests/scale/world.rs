//! A world of many nodes: virtual time, a network that delays, loses and is cut, and the production machines of every node.
//!
//! Stands in for two things: heartbeats travel as decoded values (no signatures), and the voters' agreement on a transition is a fixed time.

use crate::agenda::{Agenda, Message, What};
use crate::machine::{LIFE, Machine};
use crate::traffic::{Kind, Traffic};
use base::{Epoch, NodeId, Prng, Time};
use membership::Heartbeat;
use membership::watch::station::{Effect, Event};
use membership::watch::wire::{Body, Say, Transition};
use membership::watch::{Cut, Pace, Roster};
use std::sync::Arc;
use std::time::Duration;

pub const MS: Duration = Duration::from_millis(1);
pub const MASTER: NodeId = NodeId(1);
/// The voters write a transition to their disks and answer.
const AGREEMENT: Duration = Duration::from_millis(20);
const START: Time = Time(1_000_000_000);

pub struct World {
    pub now: Time,
    pub pace: Pace,
    pub prng: Prng,
    pub lost_per_mille: u64,
    pub delay_us_max: u64,
    /// By number; 0 is nobody.
    pub machines: Vec<Machine>,
    pub traffic: Traffic,
    /// What was decided, and when.
    pub decisions: Vec<(Time, Vec<NodeId>)>,
    /// What must not be.
    pub faults: Vec<String>,
    pub roster: Arc<Roster>,
    rosters: Vec<Arc<Roster>>,
    agenda: Agenda,
}

impl World {
    /// Nodes 1 to `size`, all UP, whose machines have run for two seconds.
    pub fn new(seed: u64, size: u32) -> World {
        let pace = Pace::default();
        let alive = (1..=size).map(|id| (NodeId(id), LIFE));
        let roster = Arc::new(Roster::new(Epoch(1), MASTER, alive, &pace));
        let mut prng = Prng::new(seed);
        let phase =
            |prng: &mut Prng, of: Duration| START + Duration::from_nanos(prng.below(of.as_nanos() as u64));
        let machines = (0..=size)
            .map(|id| Machine::new(NodeId(id), pace, START, phase(&mut prng, pace.heartbeat)))
            .collect();
        let mut world = World {
            now: START,
            pace,
            prng,
            lost_per_mille: 0,
            delay_us_max: 2_000,
            machines,
            traffic: Traffic::new(size as usize, MASTER, START),
            decisions: Vec::new(),
            faults: Vec::new(),
            roster: roster.clone(),
            rosters: vec![roster],
            agenda: Agenda::default(),
        };
        for id in (1..=size).map(NodeId) {
            world.give_roster(id, 1);
            let tick = phase(&mut world.prng, pace.tick);
            world.agenda.plan(tick, What::Tick(id));
            if let Some(due) = world.machines[id.0 as usize].beats.due() {
                world.agenda.plan(due, What::Pulse(id));
            }
        }
        world.tell(MASTER, Event::Lead(Some(1)));
        world.run(2_000);
        world.machines.iter_mut().for_each(|machine| machine.lapsed = 0);
        world
    }

    pub fn machine(&mut self, id: NodeId) -> &mut Machine {
        &mut self.machines[id.0 as usize]
    }

    /// `count` members, chosen at random.
    pub fn choose(&mut self, count: usize) -> Vec<NodeId> {
        let mut members = self.roster.members().to_vec();
        for at in 0..count {
            let other = at + self.prng.below((members.len() - at) as u64) as usize;
            members.swap(at, other);
        }
        members.truncate(count);
        members
    }

    pub fn events(&self) -> u64 {
        self.agenda.count()
    }

    pub fn run(&mut self, ms: u32) {
        let end = self.now + MS * ms;
        while let Some((at, what)) = self.agenda.take_before(end) {
            self.now = at;
            self.happen(what);
        }
        self.now = end;
    }

    /// The daemon of `id`, and its supervisor if `frozen`, do not run for `ms`.
    pub fn pause(&mut self, id: NodeId, frozen: bool, ms: u32) {
        let machine = self.machine(id);
        (machine.paused, machine.frozen) = (true, frozen);
        self.agenda.plan(self.now + MS * ms, What::Resume(id));
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Tick(id) => self.tick(id),
            What::Pulse(id) => self.pulse(id),
            What::Arrive { from, to, message } => {
                if self.machine(to).deaf {
                    return;
                }
                self.traffic.count(to, kind(&message), self.now);
                if self.machine(to).paused {
                    self.machine(to).keep(from, message);
                } else {
                    self.arrive(from, to, message);
                }
            }
            What::Agreed(down) => self.agreed(&down),
            What::Resume(id) => {
                let machine = self.machine(id);
                (machine.paused, machine.frozen) = (false, false);
                // The clock first, then what has waited: the worse order for whoever trusts the clock.
                self.look(id);
                for (from, message) in std::mem::take(&mut self.machine(id).inbox) {
                    self.arrive(from, id, message);
                }
            }
        }
    }

    fn tick(&mut self, id: NodeId) {
        self.agenda.plan(self.now + self.pace.tick, What::Tick(id));
        if !self.machine(id).paused {
            self.look(id);
        }
    }

    /// A daemon looks at the clock and reads its socket.
    fn look(&mut self, id: NodeId) {
        let now = self.now;
        let machine = self.machine(id);
        machine.lapsed += u32::from(id != MASTER && now >= machine.station.lease_until());
        self.tell(id, Event::Tick);
        self.tell(id, Event::Heard { beats: &[], at: now });
    }

    fn pulse(&mut self, id: NodeId) {
        let now = self.now;
        let machine = self.machine(id);
        let to = if machine.frozen { None } else { machine.beats.next(now) };
        let due = machine.beats.due().unwrap_or(now).max(now + MS);
        machine.sequence += 1;
        let heartbeat = Heartbeat { node: id, incarnation: LIFE, sequence: machine.sequence };
        self.agenda.plan(due, What::Pulse(id));
        if let Some(to) = to {
            self.send(id, to, Message::Heartbeat(heartbeat));
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        self.traffic.count(from, kind(&message), self.now);
        let lost = self.prng.below(1_000) < self.lost_per_mille;
        if lost || self.machine(from).mute {
            return;
        }
        let delay = Duration::from_micros(100 + self.prng.below(self.delay_us_max));
        self.agenda.plan(self.now + delay, What::Arrive { from, to, message });
    }

    fn arrive(&mut self, from: NodeId, to: NodeId, message: Message) {
        match message {
            Message::Heartbeat(beat) => self.tell(to, Event::Heard { beats: &[beat], at: self.now }),
            Message::Note(say) => self.tell(to, Event::Note { from, say: *say }),
        }
    }

    fn tell(&mut self, id: NodeId, event: Event<'_>) {
        let mut effects = Vec::new();
        self.machines[id.0 as usize].station.handle(self.now, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Send { to, say } => self.send(id, to, Message::Note(say.into())),
                Effect::Apply(transition) => self.give_roster(id, transition.epoch),
                // It asks a voter for the table, and has it.
                Effect::Behind(epoch) => self.give_roster(id, epoch),
                Effect::Lease(_) => {}
                Effect::Down(down) => self.decided(down.into_iter().map(|(node, _)| node).collect()),
            }
        }
    }

    fn decided(&mut self, down: Vec<NodeId>) {
        for node in &down {
            if self.machines[node.0 as usize].station.lease_until() > self.now {
                self.faults.push(format!("node {node} is declared DOWN and holds a lease"));
            }
        }
        self.agenda.plan(self.now + AGREEMENT, What::Agreed(down.clone()));
        self.decisions.push((self.now, down));
    }

    /// The master's cut detector.
    pub fn cut(&self) -> &Cut {
        self.machines[MASTER.0 as usize].station.cut().expect("node 1 is master all the time")
    }

    fn agreed(&mut self, down: &[NodeId]) {
        let epoch = self.roster.epoch.0 + 1;
        let left = self.roster.members().iter().filter(|node| !down.contains(node));
        let alive: Vec<_> = left.map(|node| (*node, LIFE)).collect();
        self.roster = Arc::new(Roster::new(Epoch(epoch), MASTER, alive, &self.pace));
        self.rosters.push(self.roster.clone());
        let transition = Transition { after: epoch - 1, epoch, body: bytes(down) };
        self.tell(MASTER, Event::Transition(transition));
        self.give_roster(MASTER, epoch);
    }

    fn give_roster(&mut self, id: NodeId, epoch: u64) {
        let roster = self.rosters[epoch as usize - 1].clone();
        let now = self.now;
        if epoch <= self.machine(id).epoch {
            self.faults.push(format!("node {id} is told of epoch {epoch} again"));
        }
        self.machine(id).follow(&roster, id, now);
        self.tell(id, Event::Roster(roster));
    }
}

/// The body of a transition: which nodes it ends.
fn bytes(down: &[NodeId]) -> Body {
    down.iter().flat_map(|node| node.0.to_le_bytes()).collect::<Vec<u8>>().into()
}

fn kind(message: &Message) -> Kind {
    match message {
        Message::Heartbeat(_) => Kind::Heartbeat,
        Message::Note(say) => match **say {
            Say::Alarm(_) | Say::Alarms(_) => Kind::Alarm,
            Say::Beat(_) | Say::Ack(_) => Kind::Tree,
        },
    }
}
