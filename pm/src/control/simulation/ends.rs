//! What the two ends do that own the truth: `ssi-init` and the clients.

use super::model::Process;
use super::world::{Happening, World};
use crate::control::{ClientId, Event, FENCE};
use crate::wire::client::{Event as Told, Hello, Request as Wish, Resume, Spawn, ToClient, ToDaemon};
use crate::wire::init::{FromInit, Report, Request as Order, ToInit};
use crate::wire::{Credentials, Mark, STDIN, STDOUT, Started, TaskSpec};

impl World {
    /// The model of `ssi-init`.
    pub(super) fn init(&mut self, node: u32, message: ToInit) {
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

    pub(super) fn run_processes(&mut self, node: u32) {
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

    pub(super) fn connect(&mut self, number: usize) {
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

    pub(super) fn disconnect(&mut self, number: usize) {
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
    pub(super) fn client(&mut self, connection: ClientId, message: ToClient) {
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
}
