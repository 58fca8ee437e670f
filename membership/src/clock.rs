//! The one place where membership asks what time it is.

use base::Time;
use std::time::Instant;

/// Time since the shell was started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// Now. Never 0, so that a [`Time`] of 0 lies before everything.
    pub(crate) fn now(self) -> Time {
        Time(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)).max(Time(1))
    }
}
