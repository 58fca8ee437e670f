//! The feeder: whether this node's watchdog device is fed.
//!
//! A watchdog device resets the machine when it was not fed for its timeout. It is the last line: a node that has lost its lease stops serving
//! and ends its view's processes itself; if it cannot (a hung disk, a stuck kernel, a stopped daemon), the device does.
//!
//! ```text
//!             the first lease                  lease over                       all has ended here
//!   IDLE (fed) --------------> SERVING (fed) -------------> STARVED (not fed) ---------------------> IDLE
//!     any state: the node is stopped in order -> DISARMED (the device is told to stand down)
//! ```
//!
//! Invariant: after a lease is over the device is not fed before everything that this node served has ended. So a node whose lease
//! ended at t is harmless at t + timeout of the device, whatever has become of its software.

use base::Time;
use std::time::Duration;

/// The device is fed so many times within its timeout.
pub const FEEDS: u32 = 4;

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The clock was looked at.
    Tick,
    /// The lease was renewed until then: this node serves.
    Lease(Time),
    /// Everything that this node served has ended: processes of the view, grants, mounts.
    Ended,
    /// The node is stopped in order, with all that it served.
    Stop,
}

/// What must be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write to the device.
    Feed,
    /// From now on the device is not fed: say so, loudly.
    Starve,
    /// Write the magic letter and close the device.
    Disarm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Serving,
    Starved,
    Disarmed,
}

/// Feeds one device.
#[derive(Clone, Copy, Debug)]
pub struct Feeder {
    state: State,
    interval: Duration,
    lease: Time,
    fed: Option<Time>,
}

impl Feeder {
    /// For a device that resets the machine after `timeout`.
    pub fn new(timeout: Duration) -> Feeder {
        Feeder { state: State::Idle, interval: timeout / FEEDS, lease: Time(0), fed: None }
    }

    /// How long after the end of its lease a node with such a device may still be alive.
    pub fn harmless_after(timeout: Duration) -> Duration {
        timeout
    }

    /// True while the device is not fed.
    pub fn is_starving(&self) -> bool {
        self.state == State::Starved
    }

    /// Something has happened.
    pub fn handle(&mut self, now: Time, event: Event, effects: &mut Vec<Effect>) {
        self.starve(now, effects);
        match (event, self.state) {
            (_, State::Disarmed) => return,
            (Event::Stop, _) => {
                self.state = State::Disarmed;
                return effects.push(Effect::Disarm);
            }
            // A lease that comes after the end of the one before it does not undo that things were not in order meanwhile.
            (Event::Lease(until), State::Idle | State::Serving) => {
                (self.state, self.lease) = (State::Serving, self.lease.max(until));
            }
            (Event::Ended, State::Serving | State::Starved) => self.state = State::Idle,
            _ => {}
        }
        self.starve(now, effects);
        let due = self.fed.is_none_or(|at| now.since(at) >= self.interval);
        if due && self.state != State::Starved {
            self.fed = Some(now);
            effects.push(Effect::Feed);
        }
    }

    fn starve(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if self.state == State::Serving && now >= self.lease {
            self.state = State::Starved;
            effects.push(Effect::Starve);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u32) -> Time {
        Time(0) + MS * ms
    }

    fn after(feeder: &mut Feeder, now: Time, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        feeder.handle(now, event, &mut effects);
        effects
    }

    #[test]
    fn it_is_fed_while_the_lease_holds_and_starves_after_it() {
        let mut feeder = Feeder::new(MS * 4_000);
        assert_eq!(after(&mut feeder, at(1), Event::Tick), [Effect::Feed], "an idle node is no danger");
        assert_eq!(after(&mut feeder, at(500), Event::Lease(at(2_000))), []);
        assert_eq!(after(&mut feeder, at(1_001), Event::Tick), [Effect::Feed]);
        assert_eq!(after(&mut feeder, at(2_000), Event::Tick), [Effect::Starve]);
        assert_eq!(after(&mut feeder, at(9_000), Event::Tick), []);
        assert!(feeder.is_starving());
    }

    #[test]
    fn a_lease_that_comes_too_late_does_not_feed_it() {
        let mut feeder = Feeder::new(MS * 4_000);
        after(&mut feeder, at(1), Event::Lease(at(1_000)));
        assert_eq!(after(&mut feeder, at(1_001), Event::Lease(at(9_000))), [Effect::Starve]);
        assert_eq!(after(&mut feeder, at(3_000), Event::Tick), []);
        assert_eq!(after(&mut feeder, at(3_001), Event::Ended), [Effect::Feed], "all has ended: no danger");
        assert_eq!(after(&mut feeder, at(3_002), Event::Lease(at(9_000))), []);
        assert_eq!(after(&mut feeder, at(8_999), Event::Tick), [Effect::Feed]);
    }

    #[test]
    fn a_node_that_is_stopped_in_order_disarms_it_once() {
        let mut feeder = Feeder::new(MS * 4_000);
        after(&mut feeder, at(1), Event::Lease(at(1_000)));
        assert_eq!(after(&mut feeder, at(2), Event::Stop), [Effect::Disarm]);
        assert_eq!(after(&mut feeder, at(5_000), Event::Tick), []);
        assert_eq!(after(&mut feeder, at(5_000), Event::Stop), []);
    }

    proptest! {
        #[test]
        fn after_a_lease_nothing_feeds_it_before_all_has_ended(steps in prop::collection::vec((0u8..4, 1u32..900), 0..200)) {
            let mut feeder = Feeder::new(MS * 1_000);
            let (mut now, mut lease, mut serving) = (at(1), at(0), false);
            for (step, ms) in steps {
                now = now + MS * ms;
                let event = match step {
                    0 => Event::Lease(now + MS * 300),
                    1 => Event::Ended,
                    _ => Event::Tick,
                };
                let over = serving && now >= lease;
                let effects = after(&mut feeder, now, event);
                match event {
                    Event::Ended => serving = false,
                    Event::Lease(until) if !over => (serving, lease) = (true, until),
                    _ => {}
                }
                let fed = effects.contains(&Effect::Feed);
                prop_assert!(!(fed && serving && now >= lease));
            }
        }
    }
}
