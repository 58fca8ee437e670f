//! The one place where a log asks what time it is.

use base::Time;
use rustix::time::{ClockId, clock_gettime};

/// Time since the machine was started. It goes on while the machine sleeps: a leader that wakes must not think that its lease
/// has not run out. Never 0.
pub(super) fn now() -> Time {
    let time = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) =
        (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    Time(seconds.saturating_mul(1_000_000_000).saturating_add(nanos)).max(Time(1))
}
