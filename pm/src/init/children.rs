//! The supervisor and its children: starting them, hearing how they do, reaping orphans.

use super::launch::{Launch, Refused};
use super::server::{Server, Source};
use super::task::{Launching, Task, Verdict};
use crate::sys::task as birth;
use crate::sys::wait::{self, Waited};
use crate::wire::init::Report;
use crate::wire::{Failed, Started, TaskId, TaskSpec};

/// Tasks that one node may have, ended ones that nobody has forgotten included.
pub const TASKS_MAX: usize = 16_384;
/// Changes taken in one round: a storm of forks whose orphans come here must not keep everything else waiting.
const REAPED_MAX: usize = 256;

impl Server {
    /// Starts a task, or tells what is known of one that was started before.
    pub(super) fn spawn(&mut self, id: TaskId, spec: TaskSpec) {
        if let Some(task) = self.tasks.get(&id) {
            if task.launching.is_none() {
                let reports =
                    [Some(Report::Started(task.started.clone())), task.change.clone().map(Report::Changed)];
                reports.into_iter().flatten().for_each(|report| self.tell(id, report));
            }
            return;
        }
        match self.launch(id, spec) {
            Ok(task) => {
                self.pids.insert(task.started.pid, id);
                self.tasks.insert(id, task);
            }
            Err(Refused { errno, what }) => {
                let node = self.config.node.0;
                self.tell(id, Report::Failed(Failed { errno: errno as u32, what, node }));
            }
        }
    }

    fn launch(&mut self, id: TaskId, spec: TaskSpec) -> Result<Task, Refused> {
        let refused = |errno: i32, what: String| Refused { errno, what };
        if self.tasks.len() >= TASKS_MAX {
            return Err(refused(libc::EAGAIN, format!("start a task: this node has {TASKS_MAX} already")));
        }
        let launch = Launch::prepare(&spec, &self.limits)?;
        self.cursor.tidy();
        let born = match spec.keep_pid {
            0 => birth::start(&launch.plan, None),
            pid => self.cursor.with_room_for(pid, || birth::start(&launch.plan, Some(pid))),
        };
        let failed = |error: std::io::Error| {
            let home = self.config.regions.home(self.config.node);
            let what = match spec.keep_pid {
                0 if error.raw_os_error() == Some(libc::EAGAIN) => format!(
                    "start a process: no pid is free in the home region {}-{} nor in the node-local one, or a limit on \
                     processes is reached",
                    home.start,
                    home.end - 1
                ),
                0 => "start a process".into(),
                pid => format!("start a process with pid {pid}"),
            };
            refused(error.raw_os_error().unwrap_or(libc::EIO), what)
        };
        let pid = born.map_err(failed)?;
        let start_time = self.procfs.stat(pid).map_or(0, |stat| stat.start_time);
        let started = Started { pid, start_time, node: self.config.node.0 };
        let unwatched =
            |error: std::io::Error| refused(error.raw_os_error().unwrap_or(libc::EIO), "watch it".into());
        let (endpoints, error_pipe) = launch.attach(&mut self.poller).map_err(unwatched)?;
        let launching = Launching { error_pipe, registration: self.poller.register(), spec };
        for endpoint in &endpoints {
            self.sources.insert(endpoint.registration().key(), Source::Endpoint(id));
        }
        self.sources.insert(launching.registration.key(), Source::ErrorPipe(id));
        Task::new(started, launching, endpoints, &self.poller).map_err(unwatched)
    }

    /// The error pipe has something to say, or its writer is gone.
    pub(super) fn judge(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get_mut(&id).filter(|task| task.launching.is_some()) else { return };
        match task.verdict() {
            Verdict::Unknown => {}
            Verdict::Failed(failed) => {
                self.drop_task(id);
                self.tell(id, Report::Failed(failed));
            }
            Verdict::Runs => {
                if let Some(key) = task.settle(&self.poller) {
                    self.sources.remove(&key);
                }
                let (started, change) = (task.started.clone(), task.change.clone());
                self.talkative.insert(id);
                self.tell(id, Report::Started(started));
                if let Some(change) = change {
                    self.tell(id, Report::Changed(change));
                }
            }
        }
    }

    /// Drops all that is kept of a task. Its process, if any, is reaped like an orphan.
    pub(super) fn drop_task(&mut self, id: TaskId) -> Option<Task> {
        let mut task = self.tasks.remove(&id)?;
        if !task.has_ended() {
            self.pids.remove(&task.started.pid);
        }
        for endpoint in &task.endpoints {
            self.sources.remove(&endpoint.registration().key());
        }
        if let Some(launching) = &task.launching {
            self.sources.remove(&launching.registration.key());
        }
        self.talkative.remove(&id);
        task.close(&self.poller);
        Some(task)
    }

    /// Takes the changes of children and shadows that the kernel has; if there are many, the rest comes next round.
    pub(super) fn reap(&mut self) {
        self.unreaped = true;
        for _ in 0..REAPED_MAX {
            let Some(waited) = wait::next() else {
                self.unreaped = false;
                break;
            };
            self.changed(&waited);
        }
        let stopped = self.tasks.values().filter(|task| task.is_stopped()).map(|task| task.started.pid);
        for pid in stopped.collect::<Vec<_>>() {
            if let Some(waited) = wait::continued(pid) {
                self.changed(&waited);
            }
        }
    }

    fn changed(&mut self, waited: &Waited) {
        if let Some((task, reports)) = self.tracer.changed(waited) {
            reports.into_iter().for_each(|report| self.tell(task, report));
            // A task of ours that is itself the shadow of another: its stops are told when it is in them.
            let in_group_stop =
                waited.status >> 16 == 128 && waited.status >> 8 & 0xff != libc::SIGTRAP as u32;
            if !(waited.has_ended() || in_group_stop || waited.status == 0xffff) {
                return;
            }
        }
        let Some(id) = self.pids.get(&waited.pid).copied() else { return };
        if waited.has_ended() {
            // The kernel has closed the error pipe before: what it says comes first.
            self.judge(id);
            self.pids.remove(&waited.pid);
        }
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let status = waited.status & 0xffff;
        task.changed(&Waited { status, ..*waited }, &self.poller);
        let change = task.change.clone().filter(|_| task.launching.is_none());
        if let Some(change) = change {
            self.tell(id, Report::Changed(change));
        }
    }
}
