//! All lengths of time and all numbers that watching at scale goes by, in one place.
//!
//! Invariant (checked by [`Pace::check`] and a test): a node's lease ends before anybody may declare it DOWN, and the
//! messages of an inner node of the tree stay within [`MESSAGES_PER_SECOND_MAX`].

use std::time::Duration;

/// Up to so many nodes every voter hears every node itself; the rings are for larger clusters.
pub const DIRECT_MAX: usize = 32;
/// What a node may send and receive in a second, all in all, while nothing is lost.
pub const MESSAGES_PER_SECOND_MAX: u64 = 150;
/// The most members that any message here may speak of.
pub const MEMBERS_MAX: usize = 65_536;

/// Lengths and numbers. The same on every node of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Watchers of each node (K).
    pub watchers: usize,
    /// Watchers that make a node surely suspected (H).
    pub high: usize,
    /// Watchers that make a node doubtful (L): a proposal waits for its doubt to be resolved.
    pub low: usize,
    /// Between two heartbeats from one node to the same watcher. It serves its watchers by turns.
    pub heartbeat: Duration,
    /// A watcher suspects a subject that it has not heard for so long.
    pub silence: Duration,
    /// How often the machines look at the clock.
    pub tick: Duration,
    /// The shortest time between two alarms of one watcher.
    pub alarm: Duration,
    /// The shortest time between two bundles of one relay.
    pub bundle: Duration,
    /// An alarm is said again after so long while it holds: it may have been lost.
    pub repeat: Duration,
    /// An alarm that was not repeated for so long counts no more.
    pub alarm_life: Duration,
    /// A proposal waits until for so long no further node has become doubtful.
    pub settle: Duration,
    /// One doubtful node holds a proposal back for so long at most.
    pub hold: Duration,
    /// A proposal that came to nothing is made again after so long.
    pub again: Duration,
    /// A watcher whose own loop was so late was paused or overloaded: the time is not held against its subjects.
    pub late: Duration,
    /// Between two rounds of the tree.
    pub round: Duration,
    /// Children of an inner node of the tree.
    pub fan_out: u64,
    /// A child that has not answered for so long is asked once more; after twice that it is passed over. After half of it a node
    /// whose part is not complete says that it lives.
    pub hop: Duration,
    /// Between two reports of an inner node while its part of a round is not complete.
    pub report: Duration,
    /// A lease lasts so long, from the moment when its holder sent the answer that renewed it.
    pub lease: Duration,
    /// The master waits so much longer than [`Pace::lease`]: clocks run apart by less.
    pub drift: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        let ms = Duration::from_millis;
        Pace {
            watchers: 10,
            high: 8,
            low: 3,
            heartbeat: ms(400),
            silence: ms(1_250),
            tick: ms(25),
            alarm: ms(100),
            bundle: ms(250),
            repeat: ms(600),
            alarm_life: ms(1_500),
            settle: ms(100),
            hold: ms(700),
            again: ms(1_000),
            late: ms(200),
            round: ms(400),
            fan_out: 8,
            hop: ms(50),
            report: ms(75),
            lease: ms(1_300),
            drift: ms(20),
        }
    }
}

impl Pace {
    /// Messages a second of an inner node with all its children, sent and received, while nothing is lost.
    pub fn messages_per_second(&self) -> u64 {
        let per_second =
            |length: Duration| 1_000_000 / u64::try_from(length.as_micros()).unwrap_or(u64::MAX).max(1);
        let heartbeats = 2 * self.watchers as u64 * per_second(self.heartbeat);
        let tree = 2 * (self.fan_out + 1) * per_second(self.round);
        heartbeats + tree
    }

    /// Says what is wrong with the numbers, if anything is.
    ///
    /// # Errors
    /// The rule that they break, in words.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.low < 1 || self.low > self.high || self.high > self.watchers {
            return Err("1 <= low <= high <= watchers must hold");
        }
        if self.fan_out < 2 {
            return Err("a tree needs a fan-out of at least 2");
        }
        if self.silence < self.heartbeat * 2 {
            return Err("one lost heartbeat must not be an alarm");
        }
        if self.lease < self.round * 3 {
            return Err("one lost round must not cost a lease");
        }
        if self.alarm_life < self.repeat * 2 {
            return Err("one lost alarm must not be taken back");
        }
        if self.messages_per_second() > MESSAGES_PER_SECOND_MAX {
            return Err("an inner node of the tree has too many messages a second");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_together() {
        assert_eq!(Pace::default().check(), Ok(()));
        let quiet = Pace::default().messages_per_second();
        assert!((50..=100).contains(&quiet), "{quiet}: the rest is for alarms and for the tree's repair");
    }

    #[test]
    fn numbers_that_break_a_rule_are_refused() {
        let good = Pace::default();
        for bad in [
            Pace { low: 9, ..good },
            Pace { high: 11, ..good },
            Pace { fan_out: 1, ..good },
            Pace { fan_out: 32, ..good },
            Pace { silence: good.heartbeat, ..good },
            Pace { lease: good.round, ..good },
            Pace { alarm_life: good.repeat, ..good },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
