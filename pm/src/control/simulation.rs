//! Several cores, wired together by a network that delays, loses and reorders, with daemons that are killed and clients
//! that come and go; all from one seed. `ssi-init` and the clients are small models that keep the truth:
//! what a task printed and read, and what its client saw of it.
//!
//! Checked at the end of each run: every client that lived saw each of its tasks whole (every byte of output once and in
//! order, the right status; the task read exactly what was typed) or lost with its node, and nothing is left anywhere.

use super::lane::Ticket;
use super::*;
use crate::wire::client::{Event as Told, Hello, Request as Wish, Resume, Spawn, ToClient, ToDaemon};
use crate::wire::init::{FromInit, Report, Request as Order, TaskState};
use crate::wire::{Change, Credentials, Mark, Piece, STDIN, STDOUT, Started, TaskSpec};
use base::{PidRegions, Prng};
use membership::{Node, NodeState};
use std::time::Duration;

const NODES: u32 = 3;
/// Bytes of output that a model task keeps unacknowledged: small, so that windows matter.
const WINDOW: usize = 64;
const MILLISECOND: u64 = 1_000_000;

/// A task as the model of `ssi-init` has it.
#[derive(Clone, Debug, Default)]
struct Process {
    pid: u32,
    printed: Vec<u8>,
    to_print: Vec<u8>,
    read: Vec<u8>,
    read_end: bool,
    sent: usize,
    acknowledged: u64,
    change: Option<Change>,
}

impl Process {
    /// Prints more if the window allows, ends when all is printed and all input was read.
    fn live(&mut self, status: u32) -> bool {
        let room = WINDOW - (self.printed.len() - self.acknowledged.min(self.printed.len() as u64) as usize);
        let take = room.min(self.to_print.len());
        self.printed.extend(self.to_print.drain(..take));
        let over = self.to_print.is_empty() && self.read_end && self.change.is_none();
        if over {
            self.change = Some(Change { wait_status: status, ended: true, ..Change::default() });
        }
        over
    }

    fn unsent(&mut self, size: usize) -> Option<Piece> {
        let end = self.to_print.is_empty();
        let whole = self.printed.len() + usize::from(end);
        if self.sent >= whole {
            return None;
        }
        let stop = (self.sent + size).min(self.printed.len());
        let data = self.printed[self.sent.min(stop)..stop].to_vec();
        let piece =
            Piece { stream: STDOUT, offset: self.sent as u64, end: end && stop == self.printed.len(), data };
        self.sent = stop + usize::from(piece.end);
        Some(piece)
    }
}

/// A task as its client sees it.
#[derive(Debug, Default)]
struct Seen {
    node: u32,
    typed: Vec<u8>,
    accepted: u64,
    printed: Vec<u8>,
    end: bool,
    started: bool,
    status: Option<u32>,
    lost: bool,
    forgotten: bool,
}

impl Seen {
    fn received(&self) -> u64 {
        self.printed.len() as u64 + u64::from(self.end)
    }

    fn input(&self) -> Option<Piece> {
        let whole = self.typed.len() as u64 + 1;
        let data = self.typed.get(self.accepted as usize..).unwrap_or_default().to_vec();
        (self.accepted < whole).then_some(Piece { stream: STDIN, offset: self.accepted, data, end: true })
    }
}

#[derive(Debug)]
struct Client {
    node: u32,
    session: u64,
    connection: Option<ClientId>,
    before: bool,
    dead: bool,
    tasks: Vec<Seen>,
}

#[derive(Debug)]
enum Happening {
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

struct World {
    prng: Prng,
    now: u64,
    count: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    /// The time of the last message in each direction of each stream, which keeps its order.
    streams: BTreeMap<String, u64>,
    cores: BTreeMap<u32, (u64, Core)>,
    lives: u64,
    processes: BTreeMap<u32, BTreeMap<TaskId, Process>>,
    scripts: BTreeMap<TaskId, (Vec<u8>, u32)>,
    read: BTreeMap<TaskId, Vec<u8>>,
    clients: Vec<Client>,
    connections: u64,
    pids: u32,
    dead: Option<u32>,
    faulty_until: u64,
}

impl World {
    fn new(seed: u64) -> World {
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

    fn add_client(&mut self, number: u32) {
        let node = number % NODES + 1;
        let session = u64::from(number) + 100;
        let mut tasks = Vec::new();
        for index in 0..1 + self.prng.below(4) as u32 {
            let length = self.prng.below(400) as usize;
            let bytes = |prng: &mut Prng, n| (0..n).map(|_| prng.below(256) as u8).collect::<Vec<u8>>();
            let script = bytes(&mut self.prng, length);
            let typed = bytes(&mut self.prng, length / 3);
            let status = self.prng.below(256) as u32 * 256;
            self.scripts.insert(TaskId { home: node, session, index }, (script, status));
            tasks.push(Seen { node: self.prng.below(u64::from(NODES)) as u32 + 1, typed, ..Seen::default() });
        }
        self.clients.push(Client { node, session, connection: None, before: false, dead: false, tasks });
        self.after(self.prng.clone().below(50), Happening::Connect(number as usize));
    }

    fn plan_faults(&mut self) {
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

    fn after(&mut self, milliseconds: u64, happening: Happening) {
        self.count += 1;
        self.queue.insert((self.now + milliseconds * MILLISECOND, self.count), happening);
    }

    /// Delivers in the order of `stream`, some time from now.
    fn send(&mut self, stream: String, happening: Happening) {
        let delay = self.prng.below(3 * MILLISECOND);
        let last = self.streams.entry(stream).or_default();
        let at = (self.now + delay).max(*last + 1);
        *last = at;
        self.count += 1;
        self.queue.insert((at, self.count), happening);
    }

    fn view(&self) -> Arc<View> {
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

    fn start_daemon(&mut self, node: u32) {
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

    fn report(&mut self, node: u32, task: TaskId, report: Report) {
        let Some((life, _)) = self.cores.get(&node) else { return };
        let (life, event) =
            (*life, Event::Init(FromInit { task: Some(task), request_id: 0, report: Some(report) }));
        self.send(format!("init {node} {life}"), Happening::ToCore { node, life, event });
    }

    fn tell_core(&mut self, node: u32, event: Event) {
        let Some((_, core)) = self.cores.get_mut(&node) else { return };
        let effects = core.handle(Time(self.now), event);
        self.carry_out(node, effects);
    }

    fn carry_out(&mut self, node: u32, effects: Vec<Effect>) {
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

    fn deliver(&mut self, from: u32, life: u64, to: u32, track: Track, ticket: Ticket, request: Request) {
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

    /// The model of `ssi-init`.
    fn init(&mut self, node: u32, message: ToInit) {
        if message.request_id == FENCE {
            let Some((life, _)) = self.cores.get(&node) else { return };
            let report = FromInit { task: None, request_id: FENCE, report: Some(Report::Errno(0)) };
            let (life, event) = (*life, Event::Init(report));
            return self.send(format!("init {node} {life}"), Happening::ToCore { node, life, event });
        }
        let (Some(id), Some(request)) = (message.task, message.request) else { return };
        let processes = self.processes.get_mut(&node).unwrap();
        match request {
            Order::Spawn(_) => {
                let (pids, scripts) = (&mut self.pids, &self.scripts);
                let process = processes.entry(id).or_insert_with(|| {
                    *pids += 1;
                    Process { pid: *pids, to_print: scripts[&id].0.clone(), ..Process::default() }
                });
                let started = Started { pid: process.pid, start_time: 1, node };
                let change = process.change.clone();
                self.report(node, id, Report::Started(started));
                if let Some(change) = change {
                    self.report(node, id, Report::Changed(change));
                }
            }
            Order::Input(piece) => {
                let Some(process) = processes.get_mut(&id) else { return };
                let have = process.read.len();
                if piece.offset <= have as u64 && !process.read_end {
                    process.read.extend(&piece.data[(have - piece.offset as usize).min(piece.data.len())..]);
                    process.read_end = piece.end;
                }
                let offset = process.read.len() as u64 + u64::from(process.read_end);
                self.read.insert(id, process.read.clone());
                self.report(node, id, Report::Accepted(Mark { stream: STDIN, offset }));
            }
            Order::Acknowledge(mark) => {
                let Some(process) = processes.get_mut(&id) else { return };
                process.acknowledged = process.acknowledged.max(mark.offset);
            }
            Order::Rewind(mark) if mark.stream == STDOUT => {
                let Some(process) = processes.get_mut(&id) else { return };
                process.sent = mark.offset.max(process.acknowledged) as usize;
            }
            Order::Forget(()) => {
                processes.remove(&id);
            }
            _ => {}
        }
        self.run_processes(node);
    }

    fn run_processes(&mut self, node: u32) {
        let mut reports = Vec::new();
        for (id, process) in self.processes.get_mut(&node).unwrap() {
            let ended = process.live(self.scripts[id].1);
            while let Some(piece) = process.unsent(1 + self.prng.below(30) as usize) {
                reports.push((*id, Report::Output(piece)));
            }
            if ended {
                reports.push((*id, Report::Changed(process.change.clone().unwrap())));
            }
        }
        for (id, report) in reports {
            self.report(node, id, report);
        }
    }

    fn connect(&mut self, number: usize) {
        let node = self.clients[number].node;
        if !self.cores.contains_key(&node) {
            if self.dead != Some(node) {
                self.after(50, Happening::Connect(number));
            }
            return;
        }
        self.connections += 1;
        let connection = ClientId(self.connections);
        let client = &mut self.clients[number];
        client.connection = Some(connection);
        let hello = Hello { session: client.session, again: std::mem::replace(&mut client.before, true) };
        let mut batch = Vec::new();
        for (index, seen) in client.tasks.iter().enumerate().filter(|(_, seen)| !seen.forgotten) {
            let received = vec![Mark { stream: STDOUT, offset: seen.received() }];
            let wish = if seen.started {
                Wish::Resume(Resume { node: seen.node, received, ..Resume::default() })
            } else {
                let spec = TaskSpec { argv: vec![b"task".to_vec()], ..TaskSpec::default() };
                Wish::Spawn(Spawn { node: seen.node, spec: Some(spec) })
            };
            let input = seen.input().map(Wish::Input);
            let wishes = std::iter::once(wish).chain(input);
            batch.extend(wishes.map(|wish| ToDaemon { index: index as u32, request: Some(wish) }));
        }
        let opened =
            Event::ClientOpened { client: connection, hello, credentials: Credentials::default(), pid: 0 };
        self.tell_core(node, opened);
        self.tell_core(node, Event::ClientSaid { client: connection, batch });
    }

    fn disconnect(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let (node, dead) = (client.node, client.dead);
        if let Some(connection) = client.connection.take() {
            self.tell_core(node, Event::ClientClosed(connection));
        }
        if !dead {
            self.after(self.prng.clone().below(1_000), Happening::Connect(number));
        }
    }

    /// The model of a client.
    fn client(&mut self, connection: ClientId, message: ToClient) {
        let Some(number) = self.clients.iter().position(|client| client.connection == Some(connection))
        else {
            return;
        };
        let client = &mut self.clients[number];
        let (node, seen) = (client.node, &mut client.tasks[message.index as usize]);
        let mut answers = Vec::new();
        match message.event.expect("an event") {
            _ if seen.forgotten => return,
            Told::Started(_) => seen.started = true,
            Told::Failed(failed) | Told::Lost(failed) => {
                assert_eq!(self.dead, Some(seen.node), "{failed:?}");
                (seen.lost, seen.forgotten) = (true, true);
            }
            Told::Output(piece) => {
                assert_eq!(piece.offset, seen.received(), "a byte is lost or doubled");
                seen.printed.extend(&piece.data);
                seen.end |= piece.end;
                answers.push(Wish::Acknowledge(Mark { stream: STDOUT, offset: seen.received() }));
            }
            Told::Accepted(mark) => seen.accepted = seen.accepted.max(mark.offset),
            Told::Changed(change) => seen.status = Some(change.wait_status),
        }
        if seen.status.is_some() && seen.end && !seen.forgotten {
            seen.forgotten = true;
            answers.push(Wish::Forget(()));
        }
        let batch =
            answers.into_iter().map(|wish| ToDaemon { index: message.index, request: Some(wish) }).collect();
        self.tell_core(node, Event::ClientSaid { client: connection, batch });
    }

    fn kill_daemon(&mut self, node: u32) {
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

    fn kill_node(&mut self, node: u32) {
        self.dead = Some(node);
        self.cores.remove(&node);
        self.processes.get_mut(&node).unwrap().clear();
        let view = self.view();
        for other in (1..=NODES).filter(|other| *other != node) {
            self.tell_core(other, Event::View(view.clone()));
        }
    }

    fn step(&mut self) -> bool {
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

    fn check(&self) {
        for client in self.clients.iter().filter(|client| !client.dead && self.dead != Some(client.node)) {
            for (index, seen) in client.tasks.iter().enumerate() {
                let id = TaskId { home: client.node, session: client.session, index: index as u32 };
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

fn run(seed: u64) {
    let mut world = World::new(seed);
    let mut steps = 0;
    while world.step() {
        steps += 1;
        assert!(steps < 200_000, "it does not come to rest");
        assert!(world.now < 60_000 * MILLISECOND, "it takes for ever");
    }
    world.check();
}

#[test]
fn no_byte_no_status_is_lost_and_no_orphan_left_whatever_dies() {
    let seeds = if std::env::var_os("SSI_TEST_LONG").is_some() { 20_000 } else { 400 };
    for seed in 0..seeds {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "seed {seed} fails");
    }
}

#[test]
fn a_client_that_never_comes_back_has_its_tasks_killed_after_the_grace_time() {
    let mut world = World::new(1);
    world.queue.clear();
    world.faulty_until = 0;
    for client in &mut world.clients[1..] {
        client.dead = true;
    }
    world.clients[0].tasks.iter_mut().for_each(|seen| seen.typed.clear());
    world.connect(0);
    world.clients[0].dead = true;
    let gone = Duration::from_millis(20);
    while world.now < gone.as_nanos() as u64 && world.step() {}
    world.disconnect(0);
    while world.step() {}
    assert!(world.processes.values().all(BTreeMap::is_empty));
}
