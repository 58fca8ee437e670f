//! The thin shell around the shadows: ptrace stops in, ptrace requests out.

use super::shadow::{Effect, Event, MARK, Shadow};
use crate::sys::wait::Waited;
use crate::sys::{ptrace, signal};
use crate::wire::init::Report;
use crate::wire::{Change, Signal, TaskId};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit};
use std::collections::BTreeMap;
use std::os::fd::AsFd;

/// Bytes of core file that a shadow may write when its task dumped core: enough for the bit in its status.
const CORE_BYTES: u64 = 4 << 10;
/// Too little for a core file, and the one value that also keeps a `core_pattern` program from being started.
const NO_CORE_BYTES: u64 = 1;
const CORES: &str = "/run/ssi/cores";
/// The event in a group-stop's status, in the third byte.
const PTRACE_EVENT_STOP: u32 = 128;

/// All shadows of this node.
#[derive(Debug, Default)]
pub struct Tracer {
    shadows: BTreeMap<u32, (TaskId, Shadow)>,
}

impl Tracer {
    /// Seizes the process `pid` as the shadow of `task`. `None`: done, or done before.
    ///
    /// What is told otherwise: the process is gone. One that another tracer holds (strace, gdb) is left alone: its
    /// task runs, unmirrored.
    pub fn seize(&mut self, task: TaskId, pid: u32) -> Option<Report> {
        if self.shadows.get(&pid).is_some_and(|(owner, _)| *owner == task) {
            return None;
        }
        match ptrace::seize(pid) {
            Ok(()) => {
                self.shadows.insert(pid, (task, Shadow::new(pid)));
                None
            }
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Some(Report::ShadowGone(0)),
            Err(error) => {
                tracing::warn!("cannot seize the shadow {pid}: {error}; its task is not mirrored");
                None
            }
        }
    }

    /// Lets the shadow of `task` mirror what the task did.
    pub fn mirror(&mut self, task: TaskId, change: &Change) -> Vec<Report> {
        let status = change.wait_status;
        let event = if change.ended {
            Event::TaskEnded(status & 0x80 != 0)
        } else if status == 0xffff {
            Event::TaskContinued
        } else {
            Event::TaskStopped((status >> 8 & 0xff) as i32)
        };
        self.tell(task, event)
    }

    /// Nobody wants the mirror any more: the shadow becomes a plain process.
    pub fn release(&mut self, task: TaskId) -> Vec<Report> {
        self.tell(task, Event::TaskEnded(false))
    }

    fn tell(&mut self, task: TaskId, event: Event) -> Vec<Report> {
        let found = self.shadows.iter_mut().find(|(_, (owner, _))| *owner == task);
        found.map(|(pid, (_, shadow))| carry_out(task, *pid, shadow.handle(event))).unwrap_or_default()
    }

    /// A child or tracee changed. If it is a shadow: its task, and what to tell.
    pub fn changed(&mut self, waited: &Waited) -> Option<(TaskId, Vec<Report>)> {
        let pid = waited.pid;
        let (task, shadow) = self.shadows.get_mut(&pid)?;
        let task = *task;
        if waited.has_ended() {
            self.shadows.remove(&pid);
            empty_cores();
            return Some((task, vec![Report::ShadowGone(waited.status)]));
        }
        if waited.status == 0xffff {
            return Some((task, Vec::new()));
        }
        let signal = (waited.status >> 8 & 0xff) as i32;
        let event = match (waited.status >> 16, signal) {
            (PTRACE_EVENT_STOP, libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU) => {
                Event::GroupStop(signal)
            }
            (0, _) => Event::Delivery { signal, origin: ptrace::origin(pid).unwrap_or_default() },
            _ => Event::Trap,
        };
        Some((task, carry_out(task, pid, shadow.handle(event))))
    }
}

/// Errors are left aside: the only one is ESRCH, because SIGKILL came in between, and that is told by the next wait.
fn carry_out(task: TaskId, pid: u32, effects: Vec<Effect>) -> Vec<Report> {
    let mut reports = Vec::new();
    for effect in effects {
        match effect {
            Effect::Proceed(signal) => {
                let _ = ptrace::proceed(pid, signal);
            }
            Effect::Listen => {
                let _ = ptrace::listen(pid);
            }
            Effect::Send(number) => send_marked(pid, number),
            Effect::Report { signal, pid: sender, uid, value } => {
                let (number, target) = (signal as u32, pid as i32);
                reports.push(Report::ShadowSignal(Signal {
                    target,
                    number,
                    sender,
                    sender_uid: uid,
                    sender_euid: task.uid,
                    // The kernel has checked that the sender may signal the shadow; the task may have become
                    // another user's since (sudo), and then it is checked there. A key on the terminal reaches both.
                    privileged: uid == 0,
                    start_time: 0,
                    value,
                }));
            }
            Effect::AllowCore(allowed) => limit_core(pid, allowed),
        }
    }
    reports
}

fn send_marked(pid: u32, number: i32) {
    let Some(raw) = Pid::from_raw(pid as i32) else { return };
    if let Ok(pidfd) = rustix::process::pidfd_open(raw, PidfdFlags::empty()) {
        let _ = signal::send(pidfd.as_fd(), number, 1, 0, MARK);
    }
}

fn limit_core(pid: u32, allowed: bool) {
    let bytes = Some(if allowed { CORE_BYTES } else { NO_CORE_BYTES });
    let limit = Rlimit { current: bytes, maximum: bytes };
    let _ = rustix::process::prlimit(Pid::from_raw(pid as i32), Resource::Core, limit);
}

/// A shadow goes to this directory before it ends by a signal that dumps core.
fn empty_cores() {
    for entry in std::fs::read_dir(CORES).into_iter().flatten().flatten() {
        let _ = std::fs::remove_file(entry.path());
    }
}
