//! The life of a job: which ranks live, when it is over, and with which exit code. Pure.
//!
//! ```text
//!              first trouble                     every rank is over
//!   Running -----------------> Ending(cause) -------------------------> Done(code)
//!      |                          | SIGTERM, after `grace` SIGKILL, after `grace` again: forgotten
//!      '--------------------------------- every rank is over ---------^
//! ```
//!
//! | what happens                                             | job                  | exit code            |
//! |----------------------------------------------------------|----------------------|----------------------|
//! | every rank exits with 0                                  | done                 | 0                    |
//! | a rank exits with c (not MPI, or after MPI_Finalize)     | others run on        | the first such c     |
//! | a rank exits with c in an MPI job, not finalized         | SIGTERM, SIGKILL     | c, or 1 if c is 0    |
//! | a rank is killed by signal s                             | SIGKILL at once      | 128 + s              |
//! | a rank calls MPI_Abort(c)                                | SIGTERM, SIGKILL     | c, or 1 if c is 0    |
//! | a rank sends what is no PMI                              | SIGTERM, SIGKILL     | 1                    |
//! | a rank cannot be started                                 | SIGKILL at once      | 127, 126 or 255      |
//! | a node goes DOWN                                         | SIGKILL at once      | 255                  |
//! | ^C, SIGTERM, SIGHUP to ssirun (a second one: SIGKILL)    | SIGTERM, SIGKILL     | 128 + s              |
//!
//! The ranks of a killed rank or of a dead node often abort before the news of that death has come: so a cause that
//! begins with SIGTERM is told when the job is over or SIGKILL is due, and until then a death by another signal, or a
//! node that goes DOWN, takes its place.
//!
//! Invariant: one cause decides the code and is the only one told; [`Effect::Done`] comes exactly once.

use crate::pmi::Phase;
use base::{NodeId, Time};
use pm::client::{Ending, signal_text};
use std::time::Duration;

/// What a job is from the start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where each rank runs, and that node's name.
    pub placement: Vec<(NodeId, String)>,
    /// Between SIGTERM and SIGKILL, and between SIGKILL and giving up.
    pub grace: Duration,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The rank runs, under this pid.
    Started(u32, u32),
    /// The rank has ended, and how far it had come with PMI.
    Ended(u32, Ending, Phase),
    /// The rank has said `init` to PMI: this is an MPI job.
    Joined(u32),
    /// The rank called MPI_Abort with this code and message.
    Abort(u32, u8, String),
    /// The rank sent what is no PMI.
    Broken(u32, String),
    /// `ssirun` was sent this signal to end the job.
    Interrupted(u8),
    /// Time has passed (see [`Effect::Wake`]).
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send the rank a signal.
    Signal(u32, u8),
    /// The rank does not end: drop it, which has it killed.
    Forget(u32),
    /// Tell the user this line.
    Say(String),
    /// Call with [`Event::Tick`] at this time.
    Wake(Time),
    /// Every rank is over: end with this exit code.
    Done(u8),
}

/// How a job that goes wrong is brought to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// SIGTERM first: whoever listens may clean up.
    Terminate,
    /// SIGKILL at once.
    Kill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    /// SIGTERM was sent; SIGKILL at this time.
    Terminating(Time),
    /// SIGKILL was sent; given up at this time.
    Killing(Time),
    Done,
}

#[derive(Clone, Debug, Default)]
struct Rank {
    pid: u32,
    over: bool,
    /// It ended without ever having used PMI.
    ended_fresh: bool,
}

/// A job that runs.
#[derive(Debug)]
pub struct Job {
    config: Config,
    ranks: Vec<Rank>,
    state: State,
    is_mpi: bool,
    /// The exit code as far as it is decided.
    code: Option<u8>,
    /// The cause, while a death may yet turn out to be the reason for it.
    untold: Option<String>,
}

impl Job {
    /// A job whose ranks are being started.
    pub fn new(config: Config) -> Job {
        let ranks = vec![Rank::default(); config.placement.len()];
        Job { config, ranks, state: State::Running, is_mpi: false, code: None, untold: None }
    }

    /// One event at time `now`; see the table of [`crate::job`].
    pub fn handle(&mut self, now: Time, event: Event) -> Vec<Effect> {
        let mut effects = match event {
            Event::Started(rank, pid) => self.started(rank, pid),
            Event::Ended(rank, ending, phase) => self.ended(now, rank, &ending, phase),
            Event::Joined(_) => self.joined(now),
            Event::Abort(rank, code, message) => self.aborted(now, rank, code, &message),
            Event::Broken(rank, why) => {
                let text = format!("{} broke the wire-up protocol (PMI-1): {why}", self.who(rank));
                self.end(now, Severity::Terminate, 1, Some(text))
            }
            Event::Interrupted(signal) => self.interrupted(now, signal),
            Event::Tick => self.tick(now),
        };
        if self.state != State::Done && self.ranks.iter().all(|rank| rank.over) {
            self.state = State::Done;
            effects.extend(self.tell());
            effects.push(Effect::Done(self.code.unwrap_or(0)));
        }
        effects
    }

    /// True if this rank may still run.
    pub fn is_alive(&self, rank: u32) -> bool {
        self.ranks.get(rank as usize).is_some_and(|rank| !rank.over)
    }

    /// The ranks that may still run.
    pub fn alive(&self) -> Vec<u32> {
        (0..self.ranks.len() as u32).filter(|&rank| self.is_alive(rank)).collect()
    }

    fn started(&mut self, rank: u32, pid: u32) -> Vec<Effect> {
        let Some(entry) = self.ranks.get_mut(rank as usize) else { return Vec::new() };
        entry.pid = pid;
        // A signal that was sent before it ran may have met nobody.
        match self.state {
            State::Terminating(_) => vec![Effect::Signal(rank, libc::SIGTERM as u8)],
            State::Killing(_) => vec![Effect::Signal(rank, libc::SIGKILL as u8)],
            _ => Vec::new(),
        }
    }

    fn ended(&mut self, now: Time, rank: u32, ending: &Ending, phase: Phase) -> Vec<Effect> {
        if !self.is_alive(rank) {
            return Vec::new();
        }
        self.ranks[rank as usize].over = true;
        self.ranks[rank as usize].ended_fresh = phase == Phase::Fresh;
        match ending {
            Ending::Exited(code) => self.exited(now, rank, *code, phase),
            Ending::Killed { signal, core } => {
                let dumped = if *core { ", core dumped" } else { "" };
                let text = format!(
                    "{} was killed by signal {signal} ({}{dumped})",
                    self.who(rank),
                    signal_text(*signal)
                );
                if i32::from(*signal) != libc::SIGTERM {
                    self.doubt();
                }
                self.end(now, Severity::Kill, ending.code(), Some(text))
            }
            Ending::NotStarted { code, message } => {
                self.end(now, Severity::Kill, *code, Some(format!("rank {rank}: {message}")))
            }
            Ending::Lost { message } => self.lost(now, rank, message),
        }
    }

    fn exited(&mut self, now: Time, rank: u32, code: u8, phase: Phase) -> Vec<Effect> {
        if self.is_mpi && phase != Phase::Finalized {
            let text = format!("{} exited with code {code} without MPI_Finalize", self.who(rank));
            return self.end(now, Severity::Terminate, code.max(1), Some(text));
        }
        if code != 0 {
            self.code.get_or_insert(code);
        }
        Vec::new()
    }

    /// A rank counts on all others from now on; one that has ended already will never come.
    fn joined(&mut self, now: Time) -> Vec<Effect> {
        if std::mem::replace(&mut self.is_mpi, true) {
            return Vec::new();
        }
        let Some(gone) = self.ranks.iter().position(|rank| rank.over && rank.ended_fresh) else {
            return Vec::new();
        };
        let text = format!("{} ended before MPI_Init", self.who(gone as u32));
        let code = self.code.unwrap_or(1);
        self.end(now, Severity::Terminate, code, Some(text))
    }

    fn aborted(&mut self, now: Time, rank: u32, code: u8, message: &str) -> Vec<Effect> {
        let colon = if message.is_empty() { "" } else { ": " };
        let text = format!("{} aborted the job with code {code}{colon}{message}", self.who(rank));
        self.end(now, Severity::Terminate, code.max(1), Some(text))
    }

    /// The node of `rank` is DOWN: with it go all its ranks, told in one line.
    fn lost(&mut self, now: Time, rank: u32, message: &str) -> Vec<Effect> {
        let node = self.config.placement[rank as usize].0;
        let mut gone = Vec::new();
        for (other, entry) in self.ranks.iter_mut().enumerate() {
            if self.config.placement[other].0 == node && (!entry.over || other == rank as usize) {
                entry.over = true;
                gone.push(other as u32);
            }
        }
        self.doubt();
        let noun = if gone.len() == 1 { "rank" } else { "ranks" };
        let text = format!("{message}: {noun} {} lost", ranges(&gone));
        self.end(now, Severity::Kill, 255, Some(text))
    }

    fn interrupted(&mut self, now: Time, signal: u8) -> Vec<Effect> {
        match self.state {
            State::Running => {
                // The user has said it: what failed before does not matter any more.
                self.code = None;
                self.end(now, Severity::Terminate, 128 + signal, None)
            }
            State::Terminating(_) => self.kill(now),
            State::Killing(_) | State::Done => Vec::new(),
        }
    }

    fn tick(&mut self, now: Time) -> Vec<Effect> {
        match self.state {
            State::Terminating(at) if now >= at => self.kill(now),
            State::Killing(at) if now >= at => {
                let rest = self.alive();
                self.ranks.iter_mut().for_each(|rank| rank.over = true);
                rest.into_iter().map(Effect::Forget).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Begins the end, unless it has begun.
    fn end(&mut self, now: Time, severity: Severity, code: u8, why: Option<String>) -> Vec<Effect> {
        if self.state != State::Running {
            // Whoever dies now dies because we said so.
            return Vec::new();
        }
        self.code = Some(code);
        self.untold = why;
        if severity == Severity::Kill {
            return self.kill(now);
        }
        let at = now + self.config.grace;
        self.state = State::Terminating(at);
        self.signal_all(libc::SIGTERM, at)
    }

    /// A death that we have not caused: if the job ends for what may be its consequence, it ends for this instead.
    fn doubt(&mut self) {
        if self.untold.take().is_some() {
            self.state = State::Running;
        }
    }

    fn tell(&mut self) -> Option<Effect> {
        self.untold.take().map(|why| Effect::Say(format!("ssirun: {why}")))
    }

    fn kill(&mut self, now: Time) -> Vec<Effect> {
        let at = now + self.config.grace;
        self.state = State::Killing(at);
        let told = self.tell();
        told.into_iter().chain(self.signal_all(libc::SIGKILL, at)).collect()
    }

    fn signal_all(&self, number: i32, wake: Time) -> Vec<Effect> {
        let signals = self.alive().into_iter().map(|rank| Effect::Signal(rank, number as u8));
        signals.chain([Effect::Wake(wake)]).collect()
    }

    /// `rank 3 on node1 (pid 16399)`.
    fn who(&self, rank: u32) -> String {
        let Some((_, node)) = self.config.placement.get(rank as usize) else { return format!("rank {rank}") };
        match self.ranks[rank as usize].pid {
            0 => format!("rank {rank} on {node}"),
            pid => format!("rank {rank} on {node} (pid {pid})"),
        }
    }
}

/// `0-2, 5`: ascending numbers in short.
fn ranges(numbers: &[u32]) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => parts.push((number, number)),
        }
    }
    let texts = parts.iter().map(|&(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") });
    texts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
