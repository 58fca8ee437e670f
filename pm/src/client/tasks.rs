//! The shell around [`Session`]: its connection, poll(2), and connecting again.

use super::connection::{Connection, Received, Refused};
use super::{Error, Session, TaskEvent};
use crate::wire::client::{GRACE_MS, ToClient, ToDaemon};
use crate::wire::{TaskSpec, WindowSize};
use base::NodeId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(50);
/// A connection that lived this long starts a new grace time when it breaks.
const STABLE: Duration = Duration::from_millis(1_000);

/// A descriptor that [`Tasks::wait`] shall watch beside its own.
#[derive(Debug)]
pub struct Watch<'a> {
    /// The descriptor.
    pub fd: BorrowedFd<'a>,
    /// What to wait for.
    pub wanted: PollFlags,
    /// Filled in: what is the case.
    pub ready: PollFlags,
}

impl<'a> Watch<'a> {
    /// Waits for `wanted` (or an error) on `fd`.
    pub fn new(fd: BorrowedFd<'a>, wanted: PollFlags) -> Watch<'a> {
        Watch { fd, wanted, ready: PollFlags::empty() }
    }

    /// True if it is worth reading or writing the descriptor now: ready, at its end, or broken.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }
}

/// Tasks of this process, run through the `ssid` of its node.
#[derive(Debug)]
pub struct Tasks {
    path: PathBuf,
    session: Session,
    link: Link,
    /// Signals and sizes that were to be sent while there was no connection.
    held: Vec<ToDaemon>,
}

#[derive(Debug)]
enum Link {
    Up { connection: Connection, since: Instant, grace_end: Instant },
    Down { grace_end: Instant, next_attempt: Instant, why: String },
}

/// Signals and sizes held for the next connection, at most; the oldest go first.
const HELD_MAX: usize = 256;

impl Tasks {
    /// Connects to the `ssid` that listens at `socket`; waits for one that is just being restarted.
    ///
    /// # Errors
    /// [`Error::NoAnswer`], [`Error::Connect`], or no randomness.
    pub fn open(socket: &Path) -> Result<Tasks, Error> {
        let id = getrandom::u64().map_err(|error| Error::System {
            what: "random number for the session",
            source: std::io::Error::other(error.to_string()),
        })?;
        let now = Instant::now();
        let link = Link::Down { grace_end: now + grace(), next_attempt: now, why: String::new() };
        let mut tasks =
            Tasks { path: socket.to_owned(), session: Session::new(id.max(1)), link, held: Vec::new() };
        while let Link::Down { next_attempt, .. } = &tasks.link {
            pause_until(*next_attempt)?;
            tasks.connect(false)?;
        }
        Ok(tasks)
    }

    /// Starts a task; its number is its place in the order of the calls, from 0. Sent by the next [`Tasks::wait`].
    ///
    /// # Errors
    /// [`Error::TooMany`].
    pub fn spawn(&mut self, node: NodeId, spec: TaskSpec) -> Result<u32, Error> {
        let (index, message) = self.session.spawn(node, spec)?;
        self.send(&message);
        Ok(index)
    }

    /// How many bytes of input the task takes at the moment.
    pub fn input_room(&self, index: u32, stream: u32) -> usize {
        self.session.input_room(index, stream)
    }

    /// Input for a task; gives back how much of `data` was taken.
    pub fn input(&mut self, index: u32, stream: u32, data: &[u8]) -> usize {
        let (taken, messages) = self.session.input(index, stream, data);
        messages.iter().for_each(|message| self.send(message));
        taken
    }

    /// No more input on this stream.
    pub fn end_input(&mut self, index: u32, stream: u32) {
        let messages = self.session.end_input(index, stream);
        messages.iter().for_each(|message| self.send(message));
    }

    /// `bytes` more of the output told of are written where they belong.
    pub fn written(&mut self, index: u32, stream: u32, bytes: usize) {
        if let Some(message) = self.session.written(index, stream, bytes) {
            self.send(&message);
        }
    }

    /// Sends the task a signal. Without a connection it is held until there is one.
    pub fn signal(&mut self, index: u32, number: u32) {
        let message = self.session.signal(index, number);
        self.send_or_hold(message);
    }

    /// Tells the task its terminal's size.
    pub fn resize(&mut self, index: u32, size: WindowSize) {
        let message = self.session.resize(index, size);
        self.send_or_hold(message);
    }

    /// The task's end is dealt with, or nobody wants it any more: then it is killed.
    pub fn forget(&mut self, index: u32) {
        if let Some(message) = self.session.forget(index) {
            self.send(&message);
        }
    }

    /// Sends what is queued and waits until something happened to a task, one of `others` is ready, or `timeout` is
    /// over (then nothing comes back). Connects again when it must.
    ///
    /// # Errors
    /// [`Error::NoAnswer`] after the grace time, [`Error::Connect`], or poll(2) failed.
    pub fn wait(
        &mut self,
        others: &mut [Watch<'_>],
        timeout: Option<Duration>,
    ) -> Result<Vec<TaskEvent>, Error> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            if let Link::Up { connection, .. } = &mut self.link
                && let Err(error) = connection.flush()
            {
                self.lost(error.to_string());
            }
            let own = self.poll_once(others, deadline)?;
            let events = if own { self.receive() } else { Vec::new() };
            if let Link::Down { next_attempt, .. } = &self.link
                && *next_attempt <= Instant::now()
            {
                self.connect(true)?;
            }
            let over = deadline.is_some_and(|deadline| deadline <= Instant::now());
            if !events.is_empty() || over || others.iter().any(Watch::is_ready) {
                return Ok(events);
            }
        }
    }

    /// False while `ssid` is away and the grace time runs.
    pub fn is_connected(&self) -> bool {
        matches!(self.link, Link::Up { .. })
    }

    /// Sends what is queued, waiting for room at most `timeout`. A command's last act.
    pub fn flush(&mut self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        while let Link::Up { connection, .. } = &mut self.link {
            if connection.flush().is_err() || !connection.has_outgoing() || Instant::now() >= deadline {
                return;
            }
            let mut fds = [PollFd::new(&*connection, PollFlags::OUT)];
            let left = until(deadline);
            let _ = poll(&mut fds, Some(&left));
        }
    }

    fn send(&mut self, message: &ToDaemon) {
        // While the link is down nothing need be queued: the session says it all again.
        if let Link::Up { connection, .. } = &mut self.link {
            connection.send(message);
        }
    }

    fn send_or_hold(&mut self, message: Option<ToDaemon>) {
        match (message, &mut self.link) {
            (Some(message), Link::Up { connection, .. }) => connection.send(&message),
            (Some(message), Link::Down { .. }) if self.held.len() < HELD_MAX => self.held.push(message),
            _ => {}
        }
    }

    /// One poll(2). True if our own connection has something to read.
    fn poll_once(&mut self, others: &mut [Watch<'_>], deadline: Option<Instant>) -> Result<bool, Error> {
        let mut fds: Vec<PollFd<'_>> =
            others.iter().map(|other| PollFd::from_borrowed_fd(other.fd, other.wanted)).collect();
        let wake = match &self.link {
            Link::Up { connection, .. } => {
                let mut wanted = PollFlags::IN;
                wanted.set(PollFlags::OUT, connection.has_outgoing());
                fds.push(PollFd::from_borrowed_fd(connection.as_fd(), wanted));
                deadline
            }
            Link::Down { next_attempt, .. } => Some(deadline.map_or(*next_attempt, |d| d.min(*next_attempt))),
        };
        let left = wake.map(until);
        match poll(&mut fds, left.as_ref()) {
            Ok(_) => {}
            // The caller's signals come through a descriptor of their own, which is ready now.
            Err(rustix::io::Errno::INTR) => return Ok(false),
            Err(error) => return Err(Error::system("poll")(error)),
        }
        let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        for (other, ready) in others.iter_mut().zip(&ready) {
            other.ready = *ready;
        }
        let own = ready.get(others.len()).copied().unwrap_or(PollFlags::empty());
        Ok(own.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR))
    }

    fn receive(&mut self) -> Vec<TaskEvent> {
        let Link::Up { connection, .. } = &mut self.link else { return Vec::new() };
        let (messages, closed) = match connection.receive() {
            Received::Messages(messages) => (messages, None),
            Received::Closed(messages, why) => (messages, Some(why)),
        };
        match self.hear(messages) {
            (events, None) => {
                if let Some(why) = closed {
                    self.lost(why);
                }
                events
            }
            (events, Some(why)) => {
                self.lost(why);
                events
            }
        }
    }

    fn hear(&mut self, messages: Vec<ToClient>) -> (Vec<TaskEvent>, Option<String>) {
        let mut all = Vec::new();
        for message in messages {
            match self.session.receive(message) {
                Ok((events, answer)) => {
                    all.extend(events);
                    if let Some(answer) = answer {
                        self.send(&answer);
                    }
                }
                Err(why) => return (all, Some(why)),
            }
        }
        (all, None)
    }

    fn lost(&mut self, why: String) {
        let now = Instant::now();
        // One that breaks at once counts as no connection at all: it neither extends the grace nor spins.
        let (grace_end, next_attempt) = match &self.link {
            Link::Up { since, grace_end, .. } if now.duration_since(*since) < STABLE => {
                (*grace_end, now + RETRY)
            }
            Link::Up { .. } => (now + grace(), now),
            Link::Down { grace_end, next_attempt, .. } => (*grace_end, *next_attempt),
        };
        self.link = Link::Down { grace_end, next_attempt, why };
    }

    /// One attempt to connect.
    fn connect(&mut self, again: bool) -> Result<(), Error> {
        let Link::Down { grace_end, next_attempt, why } = &mut self.link else { return Ok(()) };
        let now = Instant::now();
        if now >= *grace_end {
            let why = std::mem::take(why);
            return Err(Error::NoAnswer { path: self.path.clone(), why });
        }
        match Connection::open(&self.path) {
            Ok(mut connection) => {
                connection.send(&self.session.hello(again));
                let resume = if again { self.session.resume() } else { Vec::new() };
                resume.iter().chain(&self.held).for_each(|message| connection.send(message));
                self.held.clear();
                self.link = Link::Up { connection, since: now, grace_end: *grace_end };
                Ok(())
            }
            Err(Refused::Absent(error)) => {
                *why = error.to_string();
                *next_attempt = now + RETRY;
                Ok(())
            }
            Err(Refused::Final(error)) => Err(error),
        }
    }
}

fn grace() -> Duration {
    Duration::from_millis(GRACE_MS)
}

fn until(deadline: Instant) -> Timespec {
    let left = deadline.saturating_duration_since(Instant::now());
    Timespec { tv_sec: left.as_secs().min(1 << 30) as i64, tv_nsec: i64::from(left.subsec_nanos()) }
}

/// Waits for nothing but a moment, between two attempts to connect.
fn pause_until(moment: Instant) -> Result<(), Error> {
    let left = until(moment);
    match poll(&mut [], Some(&left)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(Error::system("poll")(error)),
    }
}

#[cfg(test)]
#[path = "tasks_tests.rs"]
mod tests;
