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

/// The next end or stop of any child, thread or tracee, without waiting; `None` if there is none.
///
/// A tracee's continuing must not be asked for here: the kernel has one such state, and a tracer that takes it takes it
/// from the real parent. See [`continued`].
pub fn next() -> Option<Waited> {
    wait(-1, libc::WUNTRACED)
}

/// Whether our stopped child `pid` goes on (or has ended meanwhile), without waiting.
pub fn continued(pid: u32) -> Option<Waited> {
    wait(libc::pid_t::try_from(pid).ok()?, libc::WCONTINUED)
}

fn wait(which: libc::pid_t, states: libc::c_int) -> Option<Waited> {
    let options = libc::WNOHANG | libc::__WALL | states;
    let mut status = 0;
    // SAFETY: rusage is plain numbers, for which zero is a value; wait4 fills both live variables.
    let (pid, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::wait4(which, &raw mut status, options, &raw mut usage), usage)
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
