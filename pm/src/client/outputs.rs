//! This process's stdout and stderr, as the places where tasks' output goes.

use super::{Credit, Outlet, Tasks, Watch};
use crate::wire::STDERR;
use rustix::event::PollFlags;
use rustix::stdio::{stderr, stdout};
use std::os::fd::{AsRawFd, BorrowedFd};

/// The two outlets of a command.
#[derive(Debug)]
pub struct Outputs {
    outlets: [Outlet<BorrowedFd<'static>>; 2],
}

impl Outputs {
    /// Our own stdout and stderr.
    pub fn here() -> Outputs {
        Outputs { outlets: [Outlet::new(stdout()), Outlet::new(stderr())] }
    }

    /// Queues output of a stream: what is not [`STDERR`] goes to stdout.
    pub fn push(&mut self, stream: u32, data: &[u8], credit: Option<Credit>) {
        self.outlets[usize::from(stream == STDERR)].push(data, credit);
    }

    /// Queues a line of our own for stderr.
    pub fn say(&mut self, line: &str) {
        self.push(STDERR, format!("{line}\n").as_bytes(), None);
    }

    /// True while something waits to be written.
    pub fn is_waiting(&self) -> bool {
        self.outlets.iter().any(Outlet::is_waiting)
    }

    /// Adds the descriptors that something waits for.
    pub fn watch(&self, watches: &mut Vec<Watch<'_>>) {
        let waiting =
            [stdout(), stderr()].into_iter().zip(&self.outlets).filter(|(_, outlet)| outlet.is_waiting());
        watches.extend(waiting.map(|(fd, _)| Watch::new(fd, PollFlags::OUT)));
    }

    /// Writes to the descriptors named in `ready`, and acknowledges what is written.
    ///
    /// # Errors
    /// One of the two is broken (EPIPE, ENOSPC, ...): told once, later output for it is dropped.
    pub fn write(&mut self, ready: &[i32], tasks: &mut Tasks) -> std::io::Result<()> {
        let mut outcome = Ok(());
        for outlet in &mut self.outlets {
            if ready.contains(&outlet.fd().as_raw_fd()) {
                outcome = outcome.and(outlet.write());
            }
            for credit in outlet.take_credits() {
                tasks.written(credit.index, credit.stream, credit.bytes);
            }
        }
        outcome
    }
}
