//! One task as the supervisor has it: from its start until it is forgotten.
//!
//! ```text
//!  Launching --error pipe closes--> Running --wait4--> Ended --Forget--> (gone)
//!      +------a failure is read----> (gone, Failed was told)
//! ```

use super::endpoint::Endpoint;
use super::launch;
use super::poller::{Key, Poller, Ready, Registration};
use crate::sys::task::Step;
use crate::sys::wait::Waited;
use crate::wire::init::{Report, TaskState};
use crate::wire::{Change, Failed, Mark, Started, TaskSpec};
use rustix::io::Errno;
use std::os::fd::OwnedFd;

/// What the error pipe says.
#[derive(Debug)]
pub enum Verdict {
    /// Nothing yet.
    Unknown,
    /// It closed: the program runs.
    Runs,
    /// The program could not be started.
    Failed(Failed),
}

/// A child that has not become its program yet.
#[derive(Debug)]
pub struct Launching {
    /// Where a failure is told.
    pub error_pipe: OwnedFd,
    /// Its place in the poller.
    pub registration: Registration,
    /// Kept to say what failed.
    pub spec: TaskSpec,
}

/// A task.
#[derive(Debug)]
pub struct Task {
    /// Its process.
    pub started: Started,
    /// Present until the program runs.
    pub launching: Option<Launching>,
    /// The last change.
    pub change: Option<Change>,
    /// Our ends of its descriptors.
    pub endpoints: Vec<Endpoint>,
}

impl Task {
    /// Begins to watch a child just born.
    ///
    /// # Errors
    /// epoll_ctl(2) failed.
    pub fn new(
        started: Started,
        mut launching: Launching,
        endpoints: Vec<Endpoint>,
        poller: &Poller,
    ) -> std::io::Result<Task> {
        poller.watch(&mut launching.registration, &launching.error_pipe, Ready::READ)?;
        Ok(Task { started, launching: Some(launching), change: None, endpoints })
    }

    /// Stops watching everything of the task's.
    pub fn close(&mut self, poller: &Poller) {
        self.endpoints.iter_mut().for_each(|endpoint| endpoint.close(poller));
        self.settle(poller);
    }

    /// The error pipe has said what it had to say.
    pub fn settle(&mut self, poller: &Poller) -> Option<Key> {
        let mut launching = self.launching.take()?;
        let _ = poller.watch(&mut launching.registration, &launching.error_pipe, Ready::default());
        Some(launching.registration.key())
    }

    /// True once the process is gone.
    pub fn has_ended(&self) -> bool {
        self.change.as_ref().is_some_and(|change| change.ended)
    }

    /// True between a stop and the continuing.
    pub fn is_stopped(&self) -> bool {
        self.change.as_ref().is_some_and(|change| change.wait_status & 0xff == 0x7f)
    }

    /// Reads the error pipe.
    pub fn verdict(&self) -> Verdict {
        let Some(launching) = &self.launching else { return Verdict::Runs };
        let mut report = [0; 8];
        match rustix::io::read(&launching.error_pipe, &mut report) {
            Ok(0) => Verdict::Runs,
            Ok(n) => {
                let (step, errno) = Step::decode(&report[..n]).unwrap_or((Step::Exec, libc::EIO));
                let what = launch::describe(step, &launching.spec);
                Verdict::Failed(Failed { errno: errno as u32, what, node: self.started.node })
            }
            Err(Errno::AGAIN | Errno::INTR) => Verdict::Unknown,
            Err(_) => Verdict::Runs,
        }
    }

    /// The process changed as `waited` says.
    pub fn changed(&mut self, waited: &Waited, poller: &Poller) {
        let ended = waited.has_ended();
        let mut change = Change { wait_status: waited.status, ended, ..Change::default() };
        if ended {
            change.user_us = waited.user_us;
            change.system_us = waited.system_us;
            change.rss_peak_kib = waited.rss_peak_kib;
            for endpoint in &mut self.endpoints {
                endpoint.abandon_input();
                let _ = endpoint.watch(poller);
            }
        }
        self.change = Some(change);
    }

    /// How much input was accepted, of every stream.
    pub fn accepted(&self) -> Vec<Mark> {
        self.endpoints.iter().filter_map(|end| Some(end.input.as_ref()?.mark())).collect()
    }

    /// What a new daemon is told first.
    pub fn state(&self) -> Report {
        Report::Task(TaskState {
            started: Some(self.started.clone()),
            change: self.change.clone(),
            accepted: self.accepted(),
        })
    }

    /// The endpoint whose output is this stream.
    pub fn output_of(&mut self, mark: &Mark) -> Option<&mut Endpoint> {
        self.endpoints.iter_mut().find(|end| end.output.as_ref().is_some_and(|o| o.number() == mark.stream))
    }

    /// The endpoint whose input is this stream.
    pub fn input_of(&mut self, stream: u32) -> Option<&mut Endpoint> {
        self.endpoints.iter_mut().find(|end| end.input.as_ref().is_some_and(|i| i.mark().stream == stream))
    }
}
