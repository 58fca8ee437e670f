//! wait4(2) of whatever child or tracee changed.
#![allow(unsafe_code)]

/// One change of one child or tracee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waited {
    /// Whose.
    pub pid: u32,
    /// The status word.
    pub status: u32,
    /// User time it consumed, microseconds.
    pub user_us: u64,
    /// System time it consumed, microseconds.
    pub system_us: u64,
    /// Peak resident set, KiB.
    pub rss_peak_kib: u64,
}

impl Waited {
    /// True if it has ended: by exit or by a signal.
    pub fn has_ended(&self) -> bool {
        self.status & 0xff != 0x7f && self.status != 0xffff
    }
}

/// The next change of any child, thread or tracee, without waiting; `None` if nothing has changed.
pub fn next() -> Option<Waited> {
    let options = libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED | libc::__WALL;
    let mut status = 0;
    // SAFETY: rusage is plain numbers, for which zero is a value; wait4 fills both live variables.
    let (pid, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::wait4(-1, &raw mut status, options, &raw mut usage), usage)
    };
    let micros = |t: libc::timeval| t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64;
    (pid > 0).then(|| Waited {
        pid: pid as u32,
        status: status as u32,
        user_us: micros(usage.ru_utime),
        system_us: micros(usage.ru_stime),
        rss_peak_kib: usage.ru_maxrss as u64,
    })
}
