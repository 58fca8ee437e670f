//! What the daemons ask for.

use super::connection::Broken;
use super::kill;
use super::launch::window_size;
use super::poller::Key;
use super::server::{Server, Speaker};
use super::suspend::asks_to_suspend;
use crate::wire::init::{FromInit, Hello, Report, Request, Shadow, ToInit, VERSION, Welcome};
use crate::wire::{Mark, Piece, Signal, TaskId, WindowSize};
use rustix::mount::UnmountFlags;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

/// Bytes that a daemon may leave for its next life.
const FUSE_STATE_BYTES_MAX: usize = 64 << 10;

impl Server {
    /// One message of the daemon behind `key`.
    pub(super) fn request(&mut self, key: Key, message: ToInit) {
        let Some(speaker) = self.daemons.get(&key).map(|daemon| daemon.speaker) else { return };
        match (message.request, speaker) {
            (Some(Request::Hello(hello)), Speaker::Stranger) => self.welcome(key, &hello),
            (Some(Request::FuseState(state)), Speaker::Control | Speaker::Data) => {
                if state.len() <= FUSE_STATE_BYTES_MAX {
                    self.heirlooms.fuse_states[usize::from(speaker == Speaker::Data)] = state;
                }
            }
            (Some(request), Speaker::Control) => self.control(key, message.task, message.request_id, request),
            _ => {
                let error = io::Error::new(io::ErrorKind::InvalidData, "a message out of turn");
                self.hang_up(key, &Broken::Io(error));
            }
        }
    }

    fn control(&mut self, key: Key, task: Option<TaskId>, request_id: u64, request: Request) {
        match (request, task) {
            (Request::Spawn(spec), Some(id)) => self.spawn(id, spec),
            (Request::Signal(signal), task) => self.signal(key, task, request_id, signal),
            (Request::Input(piece), Some(id)) => self.input(id, &piece),
            (Request::Acknowledge(mark), Some(id)) => self.acknowledge(id, &mark),
            (Request::Rewind(mark), Some(id)) => self.rewind(id, &mark),
            (Request::Resize(size), Some(id)) => self.resize(id, &size),
            (Request::Forget(()), Some(id)) => self.forget(id),
            (Request::Shadow(shadow), Some(id)) => self.shadow(id, &shadow),
            (Request::Heartbeat(order), _) => self.heart.beat_for(&order, Instant::now()),
            (Request::Key(key), _) => self.heart.sign_with(&key),
            (Request::Shutdown(()), _) => self.ending = true,
            (other, _) => tracing::warn!("a request that names no task, or comes twice: {other:?}"),
        }
    }

    /// A daemon says who it is: it gets the descriptors, and a control daemon all that it has to know.
    fn welcome(&mut self, key: Key, hello: &Hello) {
        let speaker = if hello.data { Speaker::Data } else { Speaker::Control };
        let older = self.daemons.iter().find(|(_, daemon)| daemon.speaker == speaker).map(|(key, _)| *key);
        if let Some(older) = older {
            self.hang_up(older, &Broken::Closed);
        }
        let descriptors = match self.descriptors(speaker) {
            Ok(descriptors) => descriptors,
            Err(error) => return self.hang_up(key, &Broken::Io(error)),
        };
        let welcome = Welcome {
            version: VERSION,
            descriptors: descriptors.len() as u32,
            incarnation: self.config.incarnation.0,
            fuse_state: self.heirlooms.fuse_states[usize::from(hello.data)].clone(),
        };
        if hello.version != VERSION {
            tracing::warn!("a daemon speaks version {}, this ssi-init version {VERSION}", hello.version);
        }
        let Some(daemon) = self.daemons.get_mut(&key) else { return };
        daemon.speaker = speaker;
        let report = Some(Report::Welcome(welcome));
        daemon.connection.welcome(&FromInit { task: None, request_id: 0, report }, descriptors);
        if speaker == Speaker::Control {
            self.tell_everything();
        }
    }

    fn descriptors(&self, speaker: Speaker) -> io::Result<Vec<OwnedFd>> {
        let kept = &self.heirlooms;
        if speaker == Speaker::Data {
            return kept.fs_fuse.iter().map(OwnedFd::try_clone).collect();
        }
        let proc_fuse = match &kept.proc_fuse {
            Some(device) => device.try_clone()?,
            // Keeps the places of the others: /proc is the node's own, nobody will ask on this one.
            None => std::fs::File::open("/dev/null")?.into(),
        };
        let procfs = self.procfs.root().try_clone()?;
        Ok(vec![kept.listener.try_clone()?, proc_fuse, procfs, kept.ledger.try_clone()?])
    }

    fn tell_everything(&mut self) {
        let running = self.tasks.iter_mut().filter(|(_, task)| task.launching.is_none());
        let mut states = Vec::new();
        for (id, task) in running {
            task.endpoints
                .iter_mut()
                .filter_map(|end| end.output.as_mut())
                .for_each(|output| output.rewind(0));
            self.talkative.insert(*id);
            states.push((*id, task.state()));
        }
        for (id, state) in states {
            self.tell(id, state);
        }
    }

    fn signal(&mut self, key: Key, task: Option<TaskId>, request_id: u64, mut signal: Signal) {
        let own = task.and_then(|id| self.tasks.get(&id));
        if signal.target == 0
            && let Some(own) = own
        {
            (signal.target, signal.start_time) = (own.started.pid as i32, own.started.start_time);
        }
        let errno = kill::deliver(&self.procfs, &signal).err().unwrap_or(0);
        let answer = FromInit { task, request_id, report: Some(Report::Errno(errno as u32)) };
        if let Some(daemon) = self.daemons.get_mut(&key) {
            daemon.connection.send(&answer);
        }
    }

    fn input(&mut self, id: TaskId, piece: &Piece) {
        let suspends = self.asks_to_suspend(id, piece);
        let Some(endpoint) = self.tasks.get_mut(&id).and_then(|task| task.input_of(piece.stream)) else {
            return;
        };
        let Some(input) = &mut endpoint.input else { return };
        input.push(piece);
        endpoint.write();
        let _ = endpoint.watch(&self.poller);
        // Always answered, also if nothing is new: the asker may not know what was accepted.
        let mark = endpoint.input.as_ref().map(|input| input.mark());
        if let Some(mark) = mark {
            self.tell(id, Report::Accepted(mark));
        }
        if let Some(group) = suspends {
            let stop = Signal {
                target: -group,
                number: libc::SIGSTOP as u32,
                privileged: true,
                ..Signal::default()
            };
            let _ = kill::deliver(&self.procfs, &stop);
        }
    }

    /// The task's group, if `piece` holds a new ^Z for it that the kernel would discard.
    fn asks_to_suspend(&self, id: TaskId, piece: &Piece) -> Option<i32> {
        let task = self.tasks.get(&id)?;
        let leader = task.started.pid;
        let endpoint = task.endpoints.iter().find(|end| end.terminal().is_some())?;
        let known = endpoint.input.as_ref()?.mark().offset.saturating_sub(piece.offset);
        let fresh = piece.data.get(usize::try_from(known).ok()?..)?;
        let asked = asks_to_suspend(endpoint.terminal()?, fresh, leader) && self.procfs.obeys_sigtstp(leader);
        asked.then_some(leader as i32)
    }

    fn acknowledge(&mut self, id: TaskId, mark: &Mark) {
        let Some(endpoint) = self.tasks.get_mut(&id).and_then(|task| task.output_of(mark)) else { return };
        if let Some(output) = &mut endpoint.output {
            output.acknowledge(mark.offset);
        }
        let _ = endpoint.watch(&self.poller);
    }

    fn rewind(&mut self, id: TaskId, mark: &Mark) {
        let Some(endpoint) = self.tasks.get_mut(&id).and_then(|task| task.output_of(mark)) else { return };
        if let Some(output) = &mut endpoint.output {
            output.rewind(mark.offset);
            self.talkative.insert(id);
        }
    }

    fn resize(&mut self, id: TaskId, size: &WindowSize) {
        let Some(task) = self.tasks.get(&id) else { return };
        for terminal in task.endpoints.iter().filter_map(|end| end.terminal()) {
            let _ = rustix::termios::tcsetwinsize(terminal, window_size(size.rows, size.columns));
        }
    }

    /// Nobody wants the task any more. If it runs, it is killed with its process group.
    fn forget(&mut self, id: TaskId) {
        for report in self.tracer.release(id) {
            self.tell(id, report);
        }
        let Some(task) = self.drop_task(id) else { return };
        if task.has_ended() {
            return;
        }
        let pid = task.started.pid as i32;
        let number = libc::SIGKILL as u32;
        let order = Signal { number, privileged: true, sender: 1, ..Signal::default() };
        // The group first: killing the process itself would leave the others without their leader's number.
        let _ = kill::deliver(&self.procfs, &Signal { target: -pid, ..order.clone() });
        let start_time = task.started.start_time;
        let _ = kill::deliver(&self.procfs, &Signal { target: pid, start_time, ..order });
    }

    fn shadow(&mut self, id: TaskId, shadow: &Shadow) {
        let reports = match &shadow.change {
            Some(change) => self.tracer.mirror(id, change),
            None if shadow.release || shadow.pid == 0 => self.tracer.release(id),
            // The number may be another user's process by now, or one that has become another user's.
            None if self.procfs.owner(shadow.pid).is_none_or(|owner| owner.saved_uid != id.uid) => {
                vec![Report::ShadowGone(0)]
            }
            None => self.tracer.seize(id, shadow.pid).into_iter().collect(),
        };
        reports.into_iter().for_each(|report| self.tell(id, report));
    }

    /// Ends the view: whoever waits for FUSE is let go first, then everybody is killed by the kernel as pid 1 exits.
    pub(super) fn tear_down(&self) {
        let flags = UnmountFlags::FORCE | UnmountFlags::DETACH;
        let points = [self.config.cluster_proc.then_some("/proc".as_ref()), self.config.fs_mount.as_deref()];
        for point in points.into_iter().flatten() {
            let _ = rustix::mount::unmount(point, flags);
        }
    }
}
