//! Health: how far a watcher trusts itself (as in HashiCorp's Lifeguard).
//!
//! A score that grows with every sign that this very node is slow, starved or cut off, and falls by one for each good second. The
//! higher it is, the longer the watcher waits before it suspects anybody.
//!
//! Invariant: 0 (well) to [`SCORE_MAX`]; at 0 the declared times hold as they are.

use base::Time;
use std::time::Duration;

/// The worst score: then a watcher waits five times as long.
pub const SCORE_MAX: u32 = 8;
/// The score falls by one after so long without trouble.
const RECOVERY: Duration = Duration::from_secs(1);

/// The health of one watcher.
#[derive(Clone, Copy, Debug)]
pub struct Health {
    score: u32,
    since: Time,
}

impl Health {
    /// In good health.
    pub fn new(now: Time) -> Health {
        Health { score: 0, since: now }
    }

    /// A sign of trouble.
    pub fn trouble(&mut self, now: Time) {
        self.score = (self.score + 1).min(SCORE_MAX);
        self.since = now;
    }

    /// Time passes.
    pub fn pass(&mut self, now: Time) {
        while self.score > 0 && now.since(self.since) >= RECOVERY {
            self.score -= 1;
            self.since = self.since + RECOVERY;
        }
    }

    /// The score.
    pub fn score(&self) -> u32 {
        self.score
    }

    /// How long to wait where one in good health waits for `length`.
    pub fn stretched(&self, length: Duration) -> Duration {
        length + length * self.score / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn trouble_makes_patient_and_good_seconds_heal() {
        let mut health = Health::new(Time(0));
        assert_eq!(health.stretched(S), S);
        for _ in 0..20 {
            health.trouble(Time(0));
        }
        assert_eq!((health.score(), health.stretched(S)), (SCORE_MAX, S * 5));
        health.pass(Time(0) + S * 3);
        assert_eq!(health.score(), SCORE_MAX - 3);
        health.pass(Time(0) + S * 100);
        assert_eq!((health.score(), health.stretched(S)), (0, S));
    }
}
