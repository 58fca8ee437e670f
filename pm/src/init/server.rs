//! The loop: whatever is ready is served, then the daemons are told, then it waits again.

use super::connection::{Broken, Connection};
use super::cursor::Cursor;
use super::heartbeat::Heart;
use super::poller::{Key, Poller, Ready, Registration};
use super::process::Procfs;
use super::task::Task;
use super::tracer::Tracer;
use super::{Error, InitConfig};
use crate::sys::signal;
use crate::wire::TaskId;
use crate::wire::init::{FromInit, Report};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

/// How often the pid cursor is looked after.
const TIDY_INTERVAL: Duration = Duration::from_millis(50);
/// Connections that have not said who they are.
const STRANGERS_MAX: usize = 16;

/// Which daemon a connection belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Speaker {
    /// It has not said yet.
    Stranger,
    /// `ssid`.
    Control,
    /// `ssid --data`.
    Data,
}

/// What an event is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    Listener,
    Signals,
    Daemon,
    Endpoint(TaskId),
    ErrorPipe(TaskId),
}

#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) speaker: Speaker,
    pub(super) connection: Connection,
    pub(super) registration: Registration,
}

/// What outlives every daemon, to be handed to each.
#[derive(Debug)]
pub(super) struct Heirlooms {
    pub(super) listener: OwnedFd,
    pub(super) ledger: OwnedFd,
    pub(super) proc_fuse: Option<OwnedFd>,
    pub(super) fs_fuse: Option<OwnedFd>,
    /// What each of the two daemons agreed with the kernel on its FUSE descriptor: control, data.
    pub(super) fuse_states: [Vec<u8>; 2],
}

/// The supervisor.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) config: InitConfig,
    pub(super) poller: Poller,
    pub(super) sources: BTreeMap<Key, Source>,
    pub(super) procfs: Procfs,
    pub(super) cursor: Cursor,
    pub(super) heart: Heart,
    pub(super) tracer: Tracer,
    pub(super) heirlooms: Heirlooms,
    pub(super) daemons: BTreeMap<Key, Daemon>,
    pub(super) tasks: BTreeMap<TaskId, Task>,
    pub(super) pids: BTreeMap<u32, TaskId>,
    /// Tasks whose output may have something that the control daemon was not told.
    pub(super) talkative: BTreeSet<TaskId>,
    /// Limits that tasks get where their description names none: (resource, soft, hard).
    pub(super) limits: Vec<(u32, u64, u64)>,
    pub(super) ending: bool,
    /// The kernel may have more changes of children than were taken.
    pub(super) unreaped: bool,
    socket: UnixListener,
    signals: OwnedFd,
    /// Held: while they are registered, their events come.
    _registrations: [Registration; 2],
    tidy_due: Instant,
}

impl Server {
    /// Puts the parts together and begins to watch `socket` and `signals`.
    pub(super) fn new(
        config: InitConfig,
        procfs: Procfs,
        heirlooms: Heirlooms,
        socket: UnixListener,
        signals: OwnedFd,
        limits: Vec<(u32, u64, u64)>,
    ) -> Result<Server, Error> {
        let failed = |source| Error::Start { what: "watch the sockets".into(), source };
        let cursor = Cursor::new(&procfs, config.regions.home(config.node))?;
        let mut poller = Poller::new().map_err(failed)?;
        let mut sources = BTreeMap::new();
        let (mut listening, mut signalled) = (poller.register(), poller.register());
        poller.watch(&mut listening, &socket, Ready::READ).map_err(failed)?;
        poller.watch(&mut signalled, &signals, Ready::READ).map_err(failed)?;
        sources.insert(listening.key(), Source::Listener);
        sources.insert(signalled.key(), Source::Signals);
        Ok(Server {
            heart: Heart::new(&config),
            config,
            poller,
            sources,
            procfs,
            cursor,
            tracer: Tracer::default(),
            heirlooms,
            daemons: BTreeMap::new(),
            tasks: BTreeMap::new(),
            pids: BTreeMap::new(),
            talkative: BTreeSet::new(),
            limits,
            ending: false,
            unreaped: false,
            socket,
            signals,
            _registrations: [listening, signalled],
            tidy_due: Instant::now(),
        })
    }

    /// Lets the daemons connect.
    pub(super) fn listen(&self, waiting_max: i32) -> Result<(), Error> {
        rustix::net::listen(&self.socket, waiting_max)
            .map_err(|errno| Error::Start { what: "listen for the daemons".into(), source: errno.into() })
    }

    /// Serves until it is told to end.
    pub(super) fn serve(&mut self) -> Result<(), Error> {
        while !self.ending {
            self.tell_output();
            self.flush_daemons();
            let now = Instant::now();
            let due = self.heart.due().map_or(self.tidy_due, |beat| beat.min(self.tidy_due));
            let due = if self.unreaped { now } else { due };
            let events = self
                .poller
                .wait(due.saturating_duration_since(now))
                .map_err(|source| Error::Start { what: "wait for events".into(), source })?;
            for (key, ready) in events {
                self.dispatch(key, ready);
                // However much there is to do, the heart does not wait for it.
                self.heart.beat(Instant::now());
            }
            if self.unreaped {
                self.reap();
            }
            let now = Instant::now();
            self.heart.beat(now);
            if now >= self.tidy_due {
                self.cursor.tidy();
                self.tidy_due = now + TIDY_INTERVAL;
            }
        }
        Ok(())
    }

    fn dispatch(&mut self, key: Key, ready: Ready) {
        match self.sources.get(&key).copied() {
            Some(Source::Listener) => self.accept(),
            Some(Source::Signals) => self.signalled(),
            Some(Source::Daemon) if ready.read => self.hear(key),
            Some(Source::Daemon) => {}
            Some(Source::Endpoint(task)) => self.endpoint_ready(task, key, ready),
            Some(Source::ErrorPipe(task)) => self.judge(task),
            None => {}
        }
    }

    fn signalled(&mut self) {
        while let Some((number, sender)) = signal::next(self.signals.as_fd()) {
            // Only the keeper may end the node by a signal: a sender outside the view has no pid in it.
            self.ending |= number != libc::SIGCHLD && sender == 0;
        }
        self.reap();
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.socket.accept() {
            let strangers = self.daemons.values().filter(|d| d.speaker == Speaker::Stranger).count();
            if strangers >= STRANGERS_MAX {
                continue;
            }
            let Ok(connection) = Connection::new(stream) else { continue };
            let mut registration = self.poller.register();
            if self.poller.watch(&mut registration, &connection, Ready::READ).is_err() {
                continue;
            }
            let key = registration.key();
            self.sources.insert(key, Source::Daemon);
            self.daemons.insert(key, Daemon { speaker: Speaker::Stranger, connection, registration });
        }
    }

    fn hear(&mut self, key: Key) {
        let Some(daemon) = self.daemons.get_mut(&key) else { return };
        match daemon.connection.receive() {
            Ok(messages) => {
                for message in messages {
                    self.request(key, message);
                }
            }
            Err(broken) => self.hang_up(key, &broken),
        }
    }

    /// The daemon is gone; everything of its is kept for the next.
    pub(super) fn hang_up(&mut self, key: Key, why: &Broken) {
        self.sources.remove(&key);
        if let Some(mut daemon) = self.daemons.remove(&key) {
            let _ = self.poller.watch(&mut daemon.registration, &daemon.connection, Ready::default());
            tracing::info!("{:?} connection ends: {why}", daemon.speaker);
        }
    }

    fn endpoint_ready(&mut self, id: TaskId, key: Key, ready: Ready) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let found = task.endpoints.iter_mut().find(|end| end.registration().key() == key);
        let Some(endpoint) = found else { return };
        if ready.read && endpoint.read() {
            self.talkative.insert(id);
        }
        let accepted = ready.write && endpoint.write();
        let mark = endpoint.input.as_ref().map(|input| input.mark());
        let _ = endpoint.watch(&self.poller);
        if let (true, Some(mark)) = (accepted, mark) {
            self.tell(id, Report::Accepted(mark));
        }
    }

    /// Tells the control daemon about a task. Without a daemon nothing is lost: a new one asks for all that counts.
    pub(super) fn tell(&mut self, task: TaskId, report: Report) {
        let message = FromInit { task: Some(task), request_id: 0, report: Some(report) };
        if let Some(daemon) = self.daemons.values_mut().find(|d| d.speaker == Speaker::Control) {
            daemon.connection.send(&message);
        }
    }

    /// One piece of each stream in turn, as long as the daemon keeps up.
    fn tell_output(&mut self) {
        let Some(daemon) = self.daemons.values_mut().find(|d| d.speaker == Speaker::Control) else { return };
        while let Some(id) = self.talkative.pop_first() {
            if !daemon.connection.has_room() {
                self.talkative.insert(id);
                return;
            }
            let Some(task) = self.tasks.get_mut(&id).filter(|task| task.launching.is_none()) else {
                continue;
            };
            for output in task.endpoints.iter_mut().filter_map(|end| end.output.as_mut()) {
                while let Some(piece) = output.next_piece() {
                    let report = Some(Report::Output(piece));
                    daemon.connection.send(&FromInit { task: Some(id), request_id: 0, report });
                }
            }
        }
    }

    fn flush_daemons(&mut self) {
        let mut broken = Vec::new();
        for (key, daemon) in &mut self.daemons {
            let flushed = daemon.connection.flush();
            let wanted = Ready { read: true, write: daemon.connection.is_waiting() };
            let _ = self.poller.watch(&mut daemon.registration, &daemon.connection, wanted);
            if let Err(why) = flushed {
                broken.push((*key, why));
            }
        }
        for (key, why) in broken {
            self.hang_up(key, &why);
        }
    }
}
