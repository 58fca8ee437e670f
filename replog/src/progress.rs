//! How far one follower is, as its leader sees it.
//!
//! ```text
//!            refused, or nothing known             answered
//!     Probe <---------------------------- Pipeline <-------- Probe (one message, its answer decides)
//!       | it lacks what is compacted          ^
//!       v                                     | it has the snapshot
//!    Snapshot (one piece at a time) ----------+
//! ```
//!
//! Invariant: `matched < next`; what is up to `matched` is on that follower's disk.

use crate::config::Config;
use crate::ids::{Index, Stamp};
use crate::message::Mark;
use base::Time;
use std::collections::VecDeque;

/// What is sent to a follower, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// Where the logs agree is not known: one message at a time.
    Probe {
        /// It is on its way.
        waiting: bool,
    },
    /// Entries are sent without waiting for answers.
    Pipeline,
    /// It gets the snapshot.
    Snapshot {
        /// Which.
        stamp: Stamp,
        /// The next piece.
        offset: u64,
        /// When that piece was sent; `None`: it is not on its way.
        sent: Option<Time>,
    },
}

/// One follower.
#[derive(Clone, Debug)]
pub struct Progress {
    /// It has the log up to here on its disk.
    pub matched: Index,
    /// What is sent next.
    pub next: Index,
    /// How it is sent.
    pub mode: Mode,
    /// When the newest message that it has answered was sent, and its round of reads.
    pub acked: Option<Mark>,
    /// The newest commit place it was told.
    pub told: Index,
    inflight: VecDeque<(Index, usize)>,
    inflight_bytes: usize,
}

impl Progress {
    /// A follower of whom nothing is known.
    pub fn new(next: Index) -> Progress {
        Progress {
            matched: Index(0),
            next,
            mode: Mode::Probe { waiting: false },
            acked: None,
            told: Index(0),
            inflight: VecDeque::new(),
            inflight_bytes: 0,
        }
    }

    /// It has answered.
    pub fn heard(&mut self, mark: Mark) {
        let before = self.acked.unwrap_or_default();
        self.acked = Some(Mark { sent: before.sent.max(mark.sent), round: before.round.max(mark.round) });
    }

    /// It has the log up to `matched`.
    pub fn matched(&mut self, matched: Index) {
        self.matched = self.matched.max(matched);
        self.next = self.next.max(self.matched.next());
        while let Some(&(last, bytes)) = self.inflight.front().filter(|(last, _)| *last <= self.matched) {
            debug_assert!(last > Index(0));
            self.inflight_bytes -= bytes;
            self.inflight.pop_front();
        }
        match self.mode {
            Mode::Probe { .. } => self.mode = Mode::Pipeline,
            Mode::Snapshot { stamp, .. } if self.matched >= stamp.index => self.mode = Mode::Pipeline,
            Mode::Pipeline | Mode::Snapshot { .. } => {}
        }
    }

    /// It has refused what follows `prev`; the logs may agree at `agreement`. False if that is old news.
    pub fn mismatched(&mut self, prev: Index, agreement: Index) -> bool {
        let fresh = match self.mode {
            Mode::Probe { .. } => prev == self.next.before(),
            Mode::Pipeline => prev > self.matched,
            Mode::Snapshot { .. } => false,
        };
        if fresh && prev > self.matched {
            self.probe(agreement.next().clamp(self.matched.next(), prev));
            return true;
        }
        false
    }

    /// Starts anew at `next`.
    pub fn probe(&mut self, next: Index) {
        self.next = next;
        self.mode = Mode::Probe { waiting: false };
        self.inflight.clear();
        self.inflight_bytes = 0;
    }

    /// True if entries may be sent now.
    pub fn may_send(&self, config: &Config) -> bool {
        match self.mode {
            Mode::Probe { waiting } => !waiting,
            Mode::Pipeline => {
                self.inflight.len() < config.inflight_max && self.inflight_bytes < config.inflight_bytes_max
            }
            Mode::Snapshot { .. } => false,
        }
    }

    /// True if nothing with entries is on its way.
    pub fn is_idle(&self) -> bool {
        self.inflight.is_empty() && self.mode == Mode::Pipeline
    }

    /// Entries up to `last` are on their way.
    pub fn sent(&mut self, last: Index, bytes: usize) {
        match &mut self.mode {
            Mode::Probe { waiting } => *waiting = true,
            Mode::Pipeline if bytes > 0 => {
                self.inflight.push_back((last, bytes));
                self.inflight_bytes += bytes;
                self.next = last.next();
            }
            Mode::Pipeline | Mode::Snapshot { .. } => {}
        }
    }
}
