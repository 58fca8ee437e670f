//! The processes of a node's present life, on file: so that the next keeper can end them if this one is killed.
//!
//! Invariant: a process is named by its pid and its start time; one that has the pid by chance is left alone.

use crate::config::StateDir;
use crate::error::Error;
use crate::local::start_time;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::path::PathBuf;

/// Seconds that a killed process may take to be gone.
const GONE_WITHIN_S: i64 = 10;

/// Processes, each with its start time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Life {
    processes: Vec<(i32, u64)>,
}

impl Life {
    /// These processes; those that have ended are left out.
    pub(super) fn of(pids: impl Iterator<Item = Pid>) -> Life {
        let pids = pids.map(Pid::as_raw_pid);
        Life { processes: pids.filter_map(|pid| Some((pid, start_time(pid)?))).collect() }
    }

    fn file(state: &StateDir) -> PathBuf {
        state.0.join("life")
    }

    /// What is on file; nothing if there is no file, or none that can be read.
    pub(super) fn load(state: &StateDir) -> Life {
        let text = std::fs::read_to_string(Life::file(state)).unwrap_or_default();
        let Some(text) = text.strip_prefix(&boot()) else { return Life::default() };
        let parse = |line: &str| {
            let (pid, start) = line.split_once(' ')?;
            Some((pid.parse().ok()?, start.parse().ok()?))
        };
        Life { processes: text.lines().filter_map(parse).collect() }
    }

    /// Puts it on file.
    pub(super) fn store(&self, state: &StateDir) -> Result<(), Error> {
        let path = Life::file(state);
        let text: String = self.processes.iter().map(|(pid, start)| format!("{pid} {start}\n")).collect();
        std::fs::write(&path, boot() + &text).map_err(|source| Error::File { path, source })
    }

    /// Kills those that still run and waits until they are gone. How many there were.
    pub(super) fn end(&self) -> usize {
        self.processes.iter().filter(|(pid, start)| end_process(*pid, *start)).count()
    }
}

/// This run of the machine: start times count from its boot.
fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

fn end_process(pid: i32, start: u64) -> bool {
    let Some(Ok(fd)) = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
        return false;
    };
    // Looked at after the descriptor was opened: from here on it is that process or none.
    if start_time(pid) != Some(start) || pidfd_send_signal(&fd, Signal::KILL).is_err() {
        return false;
    }
    let limit = Timespec { tv_sec: GONE_WITHIN_S, tv_nsec: 0 };
    let _ = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit));
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_next_keeper_ends_what_the_last_one_left_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir(dir.path().into());
        assert_eq!(Life::load(&state), Life::default());
        let mut left = Command::new("sleep").arg("100").spawn().unwrap();
        let mut stranger = Command::new("sleep").arg("100").spawn().unwrap();
        let mut life = Life::of([Pid::from_child(&left)].into_iter());
        // A process that has a recorded pid, but started at another time.
        life.processes.push((stranger.id() as i32, 1));
        life.store(&state).unwrap();
        assert_eq!(Life::load(&state), life);
        assert_eq!(Life::load(&state).end(), 1);
        assert!(!left.wait().unwrap().success());
        assert_eq!(stranger.try_wait().unwrap(), None);
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}
