//! All lengths of time that membership waits, in one place.

use std::time::Duration;

/// The lengths of time. The defaults make a node DOWN within one second of its last sign of life, the election of a
/// new master included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// Between two heartbeats of a supervisor, and between two beats of the master.
    pub interval: Duration,
    /// How often the core looks at the clock.
    pub tick: Duration,
    /// A node whose supervisor is silent for so long is DOWN, unless its `ssid` answers.
    pub down_after: Duration,
    /// A supervisor silent for so long is DOWN, whatever its `ssid` says: it hangs, and every process with it.
    pub hung_after: Duration,
    /// An answer of a node's `ssid` proves for so long that the node lives.
    pub witness: Duration,
    /// A master whose supervisor and whose `ssid` are both silent for so long is replaced; a master that has heard
    /// neither answers nor heartbeats of a majority for so long gives up.
    pub suspect_after: Duration,
    /// A master whose `ssid` alone is silent for so long (it hangs) is replaced; a master that has no answer of a
    /// majority for so long gives up, heartbeats or not.
    pub lead_after: Duration,
    /// A node whose `ssid` is connected but has not answered the master for so long is STALLED.
    pub stall_after: Duration,
    /// Each voter waits so much longer than the one before it, so that they do not stand for election at once.
    pub stagger: Duration,
    /// After an election without a winner.
    pub retry: Duration,
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
            suspect_after: ms(400),
            lead_after: ms(1_500),
            stall_after: ms(2_000),
            stagger: ms(40),
            retry: ms(150),
            hello: ms(200),
            late_after: ms(200),
        }
    }
}
