//! All lengths of time that membership waits, in one place.

use std::time::Duration;

/// The lengths of time. The defaults make a node DOWN within one second of its last sign of life, the election of a
/// new master included.
///
/// Invariant: `lease < down_after`, and `lease < election_min` by more than clocks can drift apart in that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// Between two heartbeats of a supervisor, and between two beats of the master.
    pub interval: Duration,
    /// How often the core looks at the clock.
    pub tick: Duration,
    /// A node whose supervisor is silent for so long is DOWN, unless its `ssid` answers; and no node is DOWN for silence
    /// so soon after it was granted a lease.
    pub down_after: Duration,
    /// A supervisor silent for so long is DOWN, whatever its `ssid` says: it hangs, and every process with it.
    pub hung_after: Duration,
    /// An answer of a node's `ssid` proves for so long that the node lives.
    pub witness: Duration,
    /// A node may serve for so long after it said what the master answered. The master itself: after it asked what a
    /// majority of the voters answered.
    pub lease: Duration,
    /// A node that has heard no master for so long asks the voters; so does one without a lease.
    pub master_after: Duration,
    /// A node whose `ssid` is connected but has not answered the master for so long is STALLED.
    pub stall_after: Duration,
    /// When one node is found dead, others that will be within this time are waited for: one cut is one transition.
    pub settle: Duration,
    /// A voter that has heard a master elects no other for so long.
    pub election_min: Duration,
    /// To this a random part of `election_spread` is added before a voter stands itself.
    pub election_spread: Duration,
    /// A voter that is DOWN for so long is replaced, if there is another node.
    pub heal_after: Duration,
    /// Between two attempts to change the voters, or to fence a node.
    pub again: Duration,
    /// Between two hellos of a node that is not in the view as it should be.
    pub hello: Duration,
    /// If we ourselves were away for longer than this we were paused or overloaded: others get that time on top.
    pub late_after: Duration,
}

impl Default for Timings {
    fn default() -> Timings {
        let ms = Duration::from_millis;
        Timings {
            interval: ms(50),
            tick: ms(25),
            down_after: ms(600),
            hung_after: ms(3_000),
            witness: ms(300),
            lease: ms(400),
            master_after: ms(600),
            stall_after: ms(2_000),
            settle: ms(50),
            election_min: ms(500),
            election_spread: ms(150),
            heal_after: ms(3_000),
            again: ms(1_000),
            hello: ms(200),
            late_after: ms(200),
        }
    }
}
