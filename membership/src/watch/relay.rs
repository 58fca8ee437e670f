//! A relay: a node that bundles alarms on their way to the master, so that a large cut costs the master few messages.
//!
//! Invariant: at most one bundle per `bundle` leaves; of each watcher only the newest alarm is in it; what waits is bounded.

use super::pace::Pace;
use super::wire::{ALARMS_MAX, Alarm, Alarms};
use base::Time;
use std::collections::BTreeMap;

/// What waits at one relay.
#[derive(Clone, Debug)]
pub struct Relay {
    pace: Pace,
    waiting: BTreeMap<u32, Alarm>,
    sent: Option<Time>,
}

impl Relay {
    /// Nothing waits.
    pub fn new(pace: Pace) -> Relay {
        Relay { pace, waiting: BTreeMap::new(), sent: None }
    }

    /// An alarm has come; what must go to the master now, if anything. Beyond [`ALARMS_MAX`] watchers it is dropped: its
    /// watcher repeats it over another way.
    pub fn take(&mut self, now: Time, alarm: Alarm) -> Option<Alarms> {
        let stamp = |alarm: &Alarm| (alarm.incarnation, alarm.sequence);
        let full = self.waiting.len() >= ALARMS_MAX && !self.waiting.contains_key(&alarm.watcher);
        let newer = self.waiting.get(&alarm.watcher).is_none_or(|known| stamp(known) < stamp(&alarm));
        if newer && !full {
            self.waiting.insert(alarm.watcher, alarm);
        }
        self.tick(now)
    }

    /// The clock was looked at; what must go to the master now, if anything.
    pub fn tick(&mut self, now: Time) -> Option<Alarms> {
        if self.waiting.is_empty() || self.sent.is_some_and(|at| now.since(at) < self.pace.bundle) {
            return None;
        }
        self.sent = Some(now);
        Some(Alarms { alarms: std::mem::take(&mut self.waiting).into_values().collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn alarm(watcher: u32, sequence: u64) -> Alarm {
        Alarm { watcher, incarnation: 1, sequence, ..Alarm::default() }
    }

    #[test]
    fn the_first_goes_at_once_and_the_next_ones_in_one_bundle() {
        let mut relay = Relay::new(Pace::default());
        let at = |ms| Time(0) + Duration::from_millis(ms);
        assert_eq!(relay.take(at(1), alarm(1, 1)), Some(Alarms { alarms: vec![alarm(1, 1)] }));
        assert_eq!(relay.take(at(2), alarm(3, 4)), None);
        assert_eq!(relay.take(at(3), alarm(2, 2)), None);
        assert_eq!(relay.take(at(4), alarm(3, 3)), None, "an older one says nothing");
        assert_eq!(relay.tick(at(250)), None);
        assert_eq!(relay.tick(at(251)), Some(Alarms { alarms: vec![alarm(2, 2), alarm(3, 4)] }));
        assert_eq!(relay.tick(at(500)), None);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut relay = Relay::new(Pace::default());
        relay.take(Time(1), alarm(0, 1));
        for watcher in 1..10_000 {
            relay.take(Time(2), alarm(watcher, 1));
        }
        assert_eq!(relay.tick(Time(1_000_000_000)).unwrap().alarms.len(), ALARMS_MAX);
    }
}
