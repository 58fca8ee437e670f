//! The home part, towards its clients: sessions, and what clients ask for their tasks.

use super::limits::{CLIENT_QUEUE_BYTES_MAX, SESSIONS_MAX, SPAWN_BYTES_MAX, SPAWN_LONGEST, SPEC_BYTES_MAX};
use super::session::{Session, SessionId, Task};
use super::{ClientId, Core, Due, Effect};
use crate::wire::client::{Event as Told, GRACE_MS, Hello, Request, Resume, Spawn, ToClient, ToDaemon};
use crate::wire::peer::{Body, Command, Order, SpawnMany, SpawnOne};
use crate::wire::{CHANNEL, Credentials, Failed, Mark, Piece, Signal, TaskId, TaskSpec};
use base::NodeId;
use base::limits::TASKS_PER_CLIENT_MAX;
use prost::Message;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a session outlives its connection.
pub(super) const GRACE: Duration = Duration::from_millis(GRACE_MS);

/// Spawns that arrived together, by the node they belong on.
type Spawns = BTreeMap<NodeId, Vec<SpawnOne>>;

pub(super) fn failed(errno: Errno, what: impl Into<String>, node: NodeId) -> Failed {
    Failed { errno: errno.raw_os_error() as u32, what: what.into(), node: node.0 }
}

impl Core {
    pub(super) fn task_id(&self, session: SessionId, index: u32) -> TaskId {
        TaskId { home: self.config.node.0, session: session.number, index, uid: session.uid }
    }

    pub(super) fn task(&mut self, id: TaskId) -> Option<&mut Task> {
        self.sessions.get_mut(&id.into())?.tasks.get_mut(&id.index)
    }

    pub(super) fn open_client(&mut self, client: ClientId, hello: &Hello, who: Credentials, pid: u32) {
        let id = SessionId { uid: who.uid, number: hello.session };
        let refusal = if id.number == 0 {
            "its session has the number 0"
        } else if self.sessions.len() >= SESSIONS_MAX && !self.sessions.contains_key(&id) {
            "there are too many sessions on this node"
        } else {
            ""
        };
        if !refusal.is_empty() {
            return self.close(client, refusal);
        }
        let session = self.sessions.entry(id).or_insert_with(|| Session::new(who.clone()));
        session.credentials = who;
        let before = session.client.replace(client);
        (session.away_until, session.client_pid, session.queued) = (None, pid, 0);
        session.again = hello.again;
        self.clients.insert(client, id);
        if let Some(before) = before {
            self.clients.remove(&before);
            self.close(before, "");
        }
    }

    /// Carries out a batch. Spawns that follow each other travel together, one message a node.
    pub(super) fn take_batch(&mut self, client: ClientId, batch: Vec<ToDaemon>) {
        let mut spawns = Spawns::new();
        for ToDaemon { index, request } in batch {
            let Some(session) = self.clients.get(&client).copied() else { return };
            if let Some(Request::Spawn(spawn)) = request {
                self.prepare(session, index, spawn, &mut spawns);
            } else if let Some(request) = request {
                self.send_spawns(std::mem::take(&mut spawns));
                self.take_wish(client, self.task_id(session, index), request);
            }
        }
        self.send_spawns(spawns);
    }

    fn take_wish(&mut self, client: ClientId, id: TaskId, request: Request) {
        match request {
            Request::Input(piece) => self.take_input(client, id, piece),
            Request::Acknowledge(mark) => self.take_acknowledgement(id, mark),
            Request::Signal(number) => self.take_signal(id, number),
            Request::Resize(size) => self.order(id, Order::Resize(size)),
            Request::Resume(resume) => self.resume(id, resume),
            Request::Forget(()) => self.forget(id),
            Request::Hello(_) => self.close(client, "it said hello twice"),
            Request::Spawn(_) => unreachable!("spawns are taken before"),
        }
    }

    fn prepare(&mut self, session: SessionId, index: u32, spawn: Spawn, spawns: &mut Spawns) {
        let id = self.task_id(session, index);
        let node = NodeId(spawn.node);
        if self.task(id).is_some() {
            // Sent again by a client that connected again: it wants to know what became of it.
            return self.resume(id, Resume { node: node.0, ..Resume::default() });
        }
        match self.check_spawn(session, node, spawn.spec) {
            Err(failed) => self.tell(id, Told::Failed(failed)),
            Ok(mut spec) => {
                self.unclaimed.remove(&id);
                let until = self.now + SPAWN_LONGEST;
                let bearer = spec.keep_pid;
                if node == self.config.node {
                    // The number is taken here, by the shadow itself: the task gets one of its own.
                    spec.keep_pid = 0;
                }
                self.add_task(id, Task::spawning(node, spec.clone(), until));
                self.due.insert((until, Due::Spawn(id)));
                if bearer != 0 {
                    self.seize(id, bearer, node);
                }
                let one = SpawnOne { task: Some(id), spec: Some(spec) };
                if self.sessions.get(&session).is_some_and(|session| session.again) {
                    // It may run already and have said something that nobody was there to hear.
                    self.post(node, Body::Spawn(SpawnMany { tasks: vec![one] }));
                    self.order(id, Order::Resume(Resume { node: node.0, ..Resume::default() }));
                } else {
                    spawns.entry(node).or_default().push(one);
                }
            }
        }
    }

    fn add_task(&mut self, id: TaskId, task: Task) {
        if let Some(session) = self.sessions.get_mut(&id.into()) {
            session.tasks.insert(id.index, task);
        }
    }

    fn check_spawn(
        &self,
        session: SessionId,
        node: NodeId,
        spec: Option<TaskSpec>,
    ) -> Result<TaskSpec, Failed> {
        let here = self.config.node;
        let session = self.sessions.get(&session).ok_or_else(|| failed(Errno::SRCH, "no session", here))?;
        if session.tasks.len() >= TASKS_PER_CLIENT_MAX {
            let what = format!("a command may start at most {TASKS_PER_CLIENT_MAX} tasks");
            return Err(failed(Errno::AGAIN, what, here));
        }
        if let Some(refusal) = self.routes.nodes.refusal(node) {
            return Err(refusal);
        }
        let mut spec = spec
            .filter(|spec| spec.argv.first().is_some_and(|program| !program.is_empty()))
            .ok_or_else(|| failed(Errno::INVAL, "no program was named", here))?;
        spec.credentials = Some(session.credentials.clone());
        if spec.encoded_len() > SPEC_BYTES_MAX {
            let what = format!("arguments and environment exceed {SPEC_BYTES_MAX} bytes");
            return Err(failed(Errno::TOOBIG, what, here));
        }
        if spec.keep_pid != 0 && spec.keep_pid != session.client_pid {
            let what = format!("pid {} is not the caller's own ({})", spec.keep_pid, session.client_pid);
            return Err(failed(Errno::PERM, what, here));
        }
        Ok(spec)
    }

    pub(super) fn send_spawns(&mut self, spawns: Spawns) {
        for (node, tasks) in spawns {
            let (mut many, mut bytes) = (SpawnMany::default(), 0);
            for task in tasks {
                let size = task.encoded_len();
                if bytes + size > SPAWN_BYTES_MAX && !many.tasks.is_empty() {
                    self.post(node, Body::Spawn(std::mem::take(&mut many)));
                    bytes = 0;
                }
                bytes += size;
                many.tasks.push(task);
            }
            self.post(node, Body::Spawn(many));
        }
    }

    fn take_input(&mut self, client: ClientId, id: TaskId, piece: Piece) {
        if piece.stream > CHANNEL {
            return self.close(client, "it sent input to a stream that no task has");
        }
        let Some(task) = self.task(id) else { return };
        match task.input.entry(piece.stream).or_default().offer(piece) {
            // Before its node has answered the task may not exist there; news of its start sends it.
            Ok(Some(new)) if task.started.is_some() => self.order(id, Order::Input(new)),
            Ok(_) => {}
            Err(error) => self.close(client, &error.to_string()),
        }
    }

    fn take_acknowledgement(&mut self, id: TaskId, mark: Mark) {
        let Some(task) = self.task(id) else { return };
        if let Some(output) = task.output.get_mut(&mark.stream) {
            output.acknowledged(mark.offset);
            self.order(id, Order::Acknowledge(mark));
        }
    }

    fn take_signal(&mut self, id: TaskId, number: u32) {
        let Some(session) = self.sessions.get(&id.into()) else { return };
        let uid = session.credentials.uid;
        let signal = Signal {
            number,
            sender: session.client_pid,
            sender_uid: uid,
            sender_euid: uid,
            privileged: uid == 0,
            ..Signal::default()
        };
        self.order(id, Order::Signal(signal));
    }

    /// The client is connected again and says where it left off.
    fn resume(&mut self, id: TaskId, resume: Resume) {
        self.unclaimed.remove(&id);
        let node = NodeId(resume.node);
        if self.task(id).is_none() {
            let full = self.sessions.get(&id.into()).is_none_or(|s| s.tasks.len() >= TASKS_PER_CLIENT_MAX);
            if full {
                return;
            }
            self.add_task(id, Task::resumed(node));
            if let Some(refusal) = self.routes.nodes.refusal(node) {
                return self.lose(id, refusal);
            }
            if resume.shadow {
                self.seize_again(id, resume.pid, node);
            }
        }
        let Some(task) = self.task(id) else { return };
        task.lagging = false;
        let received = task.take_marks(&resume.received);
        self.tell_state(id);
        // What it has it need not be kept for, and its acknowledgement may have died with a daemon on the way.
        for mark in received.iter().filter(|mark| mark.offset > 0) {
            self.order(id, Order::Acknowledge(mark.clone()));
        }
        self.order(id, Order::Resume(Resume { received, ..resume }));
    }

    /// The client has all it wants of the task.
    fn forget(&mut self, id: TaskId) {
        self.remove_task(id);
        let session = self.sessions.get(&id.into());
        if session.is_some_and(|session| session.client.is_none() && session.tasks.is_empty()) {
            self.sessions.remove(&id.into());
        }
    }

    /// Drops the task; if it still runs it is killed.
    pub(super) fn remove_task(&mut self, id: TaskId) {
        self.release_shadow(id);
        let Some(session) = self.sessions.get_mut(&id.into()) else { return };
        let Some(task) = session.tasks.remove(&id.index) else { return };
        if task.over.is_none() {
            let order = Command { task: Some(id), order: Some(Order::Forget(())) };
            self.post(task.node, Body::Command(order));
        }
    }

    /// Sends an order to where the task runs, unless there is nothing there any more.
    pub(super) fn order(&mut self, id: TaskId, order: Order) {
        let Some(task) = self.task(id).filter(|task| task.over.is_none()) else { return };
        let node = task.node;
        self.post(node, Body::Command(Command { task: Some(id), order: Some(order) }));
    }

    /// Tells the client if it is connected.
    pub(super) fn tell(&mut self, id: TaskId, event: Told) {
        let Some(session) = self.sessions.get_mut(&id.into()) else { return };
        let Some(client) = session.client else { return };
        let message = ToClient { index: id.index, event: Some(event) };
        session.queued += message.encoded_len();
        self.effects.push(Effect::Client { client, message });
    }

    /// Tells the client all that is known of the task, except output.
    fn tell_state(&mut self, id: TaskId) {
        let Some(task) = self.task(id) else { return };
        let marks = task.input.iter().filter(|(_, input)| input.mark() > 0);
        let accepted =
            marks.map(|(stream, input)| Told::Accepted(Mark { stream: *stream, offset: input.mark() }));
        let started = task.started.clone().map(Told::Started);
        let changed = task.change.clone().map(Told::Changed);
        let told: Vec<Told> = started.into_iter().chain(accepted).chain(changed).collect();
        for event in told {
            self.tell(id, event);
        }
        self.conclude(id);
    }

    /// Tells a connected client that nothing more will come from the task; with that both sides forget it. Should the
    /// message be lost with the connection, the client's next question about the task ends the same way.
    pub(super) fn conclude(&mut self, id: TaskId) {
        let Some(session) = self.sessions.get_mut(&id.into()).filter(|session| session.client.is_some())
        else {
            return;
        };
        if let Some(over) = session.tasks.get_mut(&id.index).and_then(|task| task.over.take()) {
            session.tasks.remove(&id.index);
            self.tell(id, over);
        }
    }

    /// True if the client may be sent more output.
    pub(super) fn has_room(&self, session: SessionId) -> bool {
        self.sessions
            .get(&session)
            .is_some_and(|session| session.client.is_some() && session.queued < CLIENT_QUEUE_BYTES_MAX)
    }

    pub(super) fn client_written(&mut self, client: ClientId, bytes: usize) {
        let Some(number) = self.clients.get(&client).copied() else { return };
        let Some(session) = self.sessions.get_mut(&number) else { return };
        session.queued = session.queued.saturating_sub(bytes);
        if session.queued >= CLIENT_QUEUE_BYTES_MAX / 2 {
            return;
        }
        let lagging: Vec<u32> =
            session.tasks.iter().filter(|(_, task)| task.lagging).map(|(index, _)| *index).collect();
        for index in lagging {
            let id = self.task_id(number, index);
            let Some(task) = self.task(id) else { continue };
            task.lagging = false;
            let resume = Resume { node: task.node.0, received: task.sent_marks(), ..Resume::default() };
            self.order(id, Order::Resume(resume));
        }
    }

    pub(super) fn client_closed(&mut self, client: ClientId) {
        let Some(number) = self.clients.remove(&client) else { return };
        let Some(session) = self.sessions.get_mut(&number) else { return };
        session.client = None;
        if session.tasks.is_empty() {
            self.sessions.remove(&number);
            return;
        }
        let until = self.now + GRACE;
        session.away_until = Some(until);
        self.due.insert((until, Due::Session(number)));
    }

    pub(super) fn session_due(&mut self, number: SessionId) {
        let Some(session) = self.sessions.get(&number) else { return };
        if session.away_until.is_none_or(|until| until > self.now) {
            return;
        }
        for index in session.tasks.keys().copied().collect::<Vec<_>>() {
            self.remove_task(self.task_id(number, index));
        }
        self.sessions.remove(&number);
    }

    pub(super) fn spawn_due(&mut self, id: TaskId) {
        let now = self.now;
        let Some(task) = self.task(id) else { return };
        if task.spec.is_none() || task.spawn_until > now {
            return;
        }
        let node = task.node;
        self.order(id, Order::Forget(()));
        let what = format!("node {node} did not start it within {} s", SPAWN_LONGEST.as_secs());
        self.lose(id, failed(Errno::TIMEDOUT, what, node));
    }

    pub(super) fn close(&mut self, client: ClientId, why: &str) {
        self.effects.push(Effect::CloseClient { client, why: why.to_owned() });
        self.client_closed(client);
    }
}
