//! The one place where membership asks what time it is.

use base::Time;
use rustix::time::{ClockId, clock_gettime};
use std::time::SystemTime;

/// Time since the machine was started. It goes on while the machine sleeps: one that wakes must not think that its lease
/// has not run out. Never 0, so that a [`Time`] of 0 lies before everything.
pub fn now() -> Time {
    let time = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) =
        (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    Time(seconds.saturating_mul(1_000_000_000).saturating_add(nanos)).max(Time(1))
}

/// The wall clock, milliseconds since 1970: only to be written down.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
