//! The network, the daemons and the faults, in virtual time.

use super::model::{Process, Seen};
use super::{MILLISECOND, NODES};
use crate::control::lane::{Ticket, Track};
use crate::control::{ClientId, Core, CoreConfig, Effect, Event};
use crate::wire::client::ToClient;
use crate::wire::init::{FromInit, Report, TaskState, ToInit};
use crate::wire::peer::Request;
use crate::wire::{Mark, STDIN, Started, TaskId};
use base::{NodeId, PidRegions, Prng, Time};
use membership::{Node, NodeState, View};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Client {
    pub(super) node: u32,
    pub(super) session: u64,
    pub(super) connection: Option<ClientId>,
    pub(super) before: bool,
    pub(super) dead: bool,
    pub(super) tasks: Vec<Seen>,
}

#[derive(Debug)]
pub(super) enum Happening {
    ToCore { node: u32, life: u64, event: Event },
    Request { from: u32, life: u64, to: u32, track: Track, ticket: Ticket, request: Request },
    ToInit { node: u32, message: ToInit },
    ToClient { client: ClientId, message: ToClient },
    Connect(usize),
    Disconnect(usize),
    KillDaemon(u32),
    StartDaemon(u32),
    KillNode(u32),
}

pub(super) struct World {
    pub(super) prng: Prng,
    pub(super) now: u64,
    pub(super) count: u64,
    pub(super) queue: BTreeMap<(u64, u64), Happening>,
    /// The time of the last message in each direction of each stream, which keeps its order.
    pub(super) streams: BTreeMap<String, u64>,
    pub(super) cores: BTreeMap<u32, (u64, Core)>,
    pub(super) lives: u64,
    pub(super) processes: BTreeMap<u32, BTreeMap<TaskId, Process>>,
    pub(super) scripts: BTreeMap<TaskId, (Vec<u8>, u32)>,
    pub(super) read: BTreeMap<TaskId, Vec<u8>>,
    pub(super) clients: Vec<Client>,
    pub(super) connections: u64,
    pub(super) pids: u32,
    pub(super) dead: Option<u32>,
    pub(super) faulty_until: u64,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut world = World {
            prng: Prng::new(seed),
            now: 0,
            count: 0,
            queue: BTreeMap::new(),
            streams: BTreeMap::new(),
            cores: BTreeMap::new(),
            lives: 0,
            processes: (1..=NODES).map(|node| (node, BTreeMap::new())).collect(),
            scripts: BTreeMap::new(),
            read: BTreeMap::new(),
            clients: Vec::new(),
            connections: 0,
            pids: 0,
            dead: None,
            faulty_until: 3_000 * MILLISECOND,
        };
        for node in 1..=NODES {
            world.start_daemon(node);
        }
        for number in 0..4 {
            world.add_client(number);
        }
        world.plan_faults();
        world
    }

    pub(super) fn add_client(&mut self, number: u32) {
        let node = number % NODES + 1;
        let session = u64::from(number) + 100;
        let mut tasks = Vec::new();
        for index in 0..1 + self.prng.below(4) as u32 {
            let length = self.prng.below(400) as usize;
            let bytes = |prng: &mut Prng, n| (0..n).map(|_| prng.below(256) as u8).collect::<Vec<u8>>();
            let script = bytes(&mut self.prng, length);
            let typed = bytes(&mut self.prng, length / 3);
            let status = self.prng.below(256) as u32 * 256;
            self.scripts.insert(TaskId { home: node, session, index, uid: 0 }, (script, status));
            tasks.push(Seen { node: self.prng.below(u64::from(NODES)) as u32 + 1, typed, ..Seen::default() });
        }
        self.clients.push(Client { node, session, connection: None, before: false, dead: false, tasks });
        self.after(self.prng.clone().below(50), Happening::Connect(number as usize));
    }

    pub(super) fn plan_faults(&mut self) {
        for _ in 0..self.prng.below(6) {
            let node = self.prng.below(u64::from(NODES)) as u32 + 1;
            let at = self.prng.below(2_000);
            self.after(at, Happening::KillDaemon(node));
        }
        for _ in 0..self.prng.below(6) {
            let (client, at) = (self.prng.below(4) as usize, self.prng.below(2_000));
            self.after(at, Happening::Disconnect(client));
        }
        if self.prng.one_in(3) {
            let (node, at) = (self.prng.below(u64::from(NODES)) as u32 + 1, self.prng.below(1_000));
            self.after(at, Happening::KillNode(node));
        }
        if self.prng.one_in(3) {
            let client = self.prng.below(4) as usize;
            self.clients[client].dead = true;
            let at = self.prng.below(1_500);
            self.after(at, Happening::Disconnect(client));
        }
    }

    pub(super) fn after(&mut self, milliseconds: u64, happening: Happening) {
        self.count += 1;
        self.queue.insert((self.now + milliseconds * MILLISECOND, self.count), happening);
    }

    /// Delivers in the order of `stream`, some time from now.
    pub(super) fn send(&mut self, stream: String, happening: Happening) {
        let delay = self.prng.below(3 * MILLISECOND);
        let last = self.streams.entry(stream).or_default();
        let at = (self.now + delay).max(*last + 1);
        *last = at;
        self.count += 1;
        self.queue.insert((at, self.count), happening);
    }

    pub(super) fn view(&self) -> Arc<View> {
        let state = |id| if self.dead == Some(id) { NodeState::Down } else { NodeState::Up };
        let node = |id| Node {
            id,
            name: format!("n{id}"),
            state: state(id) as i32,
            incarnation: 1,
            ..Node::default()
        };
        let epoch = 1 + u64::from(self.dead.is_some());
        Arc::new(View { epoch, nodes: (1..=NODES).map(node).collect(), ..View::default() })
    }

    pub(super) fn start_daemon(&mut self, node: u32) {
        self.lives += 1;
        let regions = PidRegions::new(1024).unwrap();
        let config = CoreConfig { node: NodeId(node), regions, life: self.lives << 32 };
        let (core, effects) = Core::start(config, Time(self.now));
        self.cores.insert(node, (self.lives, core));
        let known: Vec<(TaskId, TaskState)> = self.processes[&node]
            .iter()
            .map(|(id, process)| {
                let started = Some(Started { pid: process.pid, start_time: 1, node });
                let offset = process.read.len() as u64 + u64::from(process.read_end);
                let accepted = vec![Mark { stream: STDIN, offset }];
                (*id, TaskState { started, change: process.change.clone(), accepted })
            })
            .collect();
        for (id, state) in known {
            self.report(node, id, Report::Task(state));
        }
        for process in self.processes.get_mut(&node).unwrap().values_mut() {
            process.sent = process.acknowledged as usize;
        }
        self.carry_out(node, effects);
        let view = self.view();
        self.tell_core(node, Event::View(view));
        self.run_processes(node);
    }

    pub(super) fn report(&mut self, node: u32, task: TaskId, report: Report) {
        let Some((life, _)) = self.cores.get(&node) else { return };
        let (life, event) =
            (*life, Event::Init(FromInit { task: Some(task), request_id: 0, report: Some(report) }));
        self.send(format!("init {node} {life}"), Happening::ToCore { node, life, event });
    }

    pub(super) fn tell_core(&mut self, node: u32, event: Event) {
        let Some((_, core)) = self.cores.get_mut(&node) else { return };
        let effects = core.handle(Time(self.now), event);
        self.carry_out(node, effects);
    }

    pub(super) fn carry_out(&mut self, node: u32, effects: Vec<Effect>) {
        let life = self.cores[&node].0;
        for effect in effects {
            match effect {
                Effect::Init(message) => {
                    self.send(format!("to init {node}"), Happening::ToInit { node, message });
                }
                Effect::Client { client, message } => {
                    self.send(format!("client {client:?}"), Happening::ToClient { client, message });
                }
                Effect::CloseClient { client, why } => assert_eq!(why, "", "{client:?} is turned away"),
                Effect::Call { to, track, ticket, request } => {
                    let call = Happening::Request { from: node, life, to: to.0, track, ticket, request };
                    match self.now < self.faulty_until && self.prng.one_in(30) {
                        true => self.after(self.prng.clone().below(20), call),
                        false => self.send(format!("{node} {} {track:?}", to.0), call),
                    }
                }
                Effect::Answer(_) => unreachable!("answers are taken where the request is delivered"),
            }
        }
    }

    pub(super) fn deliver(
        &mut self,
        from: u32,
        life: u64,
        to: u32,
        track: Track,
        ticket: Ticket,
        request: Request,
    ) {
        let faulty = self.now < self.faulty_until;
        let peer = NodeId(to);
        let mut outcome = Event::CallFailed { from: peer, track, ticket };
        let lost = faulty && self.prng.one_in(20);
        if let Some((_, core)) = self.cores.get_mut(&to).filter(|_| !lost) {
            let mut effects = core.handle(Time(self.now), Event::Peer { from: NodeId(from), request });
            let at =
                effects.iter().position(|effect| matches!(effect, Effect::Answer(_))).expect("an answer");
            let Effect::Answer(answer) = effects.remove(at) else { unreachable!() };
            self.carry_out(to, effects);
            if !(faulty && self.prng.one_in(20)) {
                outcome = Event::Answered { from: peer, track, ticket, errno: answer.errno };
            }
        }
        self.send(
            format!("answer {to} {from} {track:?}"),
            Happening::ToCore { node: from, life, event: outcome },
        );
    }

    pub(super) fn kill_daemon(&mut self, node: u32) {
        if self.dead == Some(node) || self.cores.remove(&node).is_none() {
            return;
        }
        self.after(10 + self.prng.clone().below(300), Happening::StartDaemon(node));
        for number in 0..self.clients.len() {
            if self.clients[number].node == node && self.clients[number].connection.is_some() {
                self.disconnect(number);
            }
        }
    }

    pub(super) fn kill_node(&mut self, node: u32) {
        self.dead = Some(node);
        self.cores.remove(&node);
        self.processes.get_mut(&node).unwrap().clear();
        let view = self.view();
        for other in (1..=NODES).filter(|other| *other != node) {
            self.tell_core(other, Event::View(view.clone()));
        }
    }

    pub(super) fn step(&mut self) -> bool {
        let due = self.cores.iter().filter_map(|(node, (_, core))| Some((core.deadline()?.0, *node))).min();
        let next = self.queue.first_key_value().map(|((at, _), _)| *at);
        match (due, next) {
            (None, None) => return false,
            (Some((at, node)), next) if next.is_none_or(|next| at < next) => {
                self.now = self.now.max(at);
                self.tell_core(node, Event::Tick);
                return true;
            }
            _ => {}
        }
        let ((at, _), happening) = self.queue.pop_first().expect("seen above");
        self.now = at.max(self.now);
        match happening {
            Happening::ToCore { node, life, event } => {
                if self.cores.get(&node).is_some_and(|(current, _)| *current == life) {
                    self.tell_core(node, event);
                }
            }
            Happening::Request { from, life, to, track, ticket, request } => {
                self.deliver(from, life, to, track, ticket, request);
            }
            Happening::ToInit { node, message } => {
                if self.dead != Some(node) {
                    self.init(node, message);
                }
            }
            Happening::ToClient { client, message } => self.client(client, message),
            Happening::Connect(number) => self.connect(number),
            Happening::Disconnect(number) => self.disconnect(number),
            Happening::KillDaemon(node) => self.kill_daemon(node),
            Happening::StartDaemon(node) => {
                if self.dead != Some(node) && !self.cores.contains_key(&node) {
                    self.start_daemon(node);
                }
            }
            Happening::KillNode(node) => self.kill_node(node),
        }
        true
    }

    pub(super) fn check(&self) {
        for client in self.clients.iter().filter(|client| !client.dead && self.dead != Some(client.node)) {
            for (index, seen) in client.tasks.iter().enumerate() {
                let id = TaskId { home: client.node, session: client.session, index: index as u32, uid: 0 };
                if seen.lost {
                    continue;
                }
                let (script, status) = &self.scripts[&id];
                assert_eq!(seen.status, Some(*status), "the status of {id:?} (node {:?} is dead)", self.dead);
                assert_eq!(&seen.printed, script, "the output of {id:?}");
                assert_eq!(self.read.get(&id), Some(&seen.typed), "the input of {id:?}");
            }
        }
        for (node, processes) in self.processes.iter().filter(|(node, _)| self.dead != Some(**node)) {
            assert!(processes.is_empty(), "orphans on node {node}: {processes:?}");
            let core = &self.cores[node].1;
            assert_eq!(core.counts(), (0, 0), "node {node} still knows tasks");
            assert!(core.unclaimed.is_empty() && core.early.is_empty());
        }
    }
}
