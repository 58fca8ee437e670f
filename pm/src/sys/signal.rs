//! Signals of the supervisor itself, and signals it sends for others.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `si_code` of everything we send: the only one that the kernel lets carry somebody else's pid.
const SI_QUEUE: i32 = -1;

/// siginfo_t as rt_sigqueueinfo(2) and its kin take it on 64-bit machines.
#[repr(C)]
struct QueuedSignal {
    number: i32,
    errno: i32,
    code: i32,
    padding: i32,
    pid: i32,
    uid: u32,
    value: u64,
    rest: [u64; 12],
}

/// A descriptor that becomes readable when one of our children or tracees changed, or we are asked to end.
/// The signals SIGCHLD, SIGTERM, SIGINT and SIGHUP are blocked from then on.
///
/// # Errors
/// signalfd(2) failed: no descriptor free.
pub fn listen() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before anything reads it; a result >= 0 of signalfd is a new
    // descriptor that is ours alone.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// The next signal that came in on [`listen`]'s descriptor, if any is there: its number, and the sender's pid (0 for one
/// outside our pid namespace).
pub fn next(fd: BorrowedFd<'_>) -> Option<(i32, u32)> {
    let mut record = [0u8; size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(fd, &mut record) {
        Ok(n) if n == record.len() => {}
        _ => return None,
    }
    // struct signalfd_siginfo: signo, errno, code, pid.
    let number = i32::from_ne_bytes(*record.first_chunk()?);
    Some((number, u32::from_ne_bytes(*record[12..].first_chunk()?)))
}

/// Sends `number` to the process of `pidfd`, as coming from `pid` and `uid`, with `value` in its siginfo.
/// `number` 0 only checks that the process is there.
///
/// # Errors
/// pidfd_send_signal(2): ESRCH, EPERM, EINVAL, or EAGAIN when a real-time signal finds its queue full.
pub fn send(pidfd: BorrowedFd<'_>, number: i32, pid: u32, uid: u32, value: u64) -> io::Result<()> {
    let (pid, code) = (pid as i32, SI_QUEUE);
    let info = QueuedSignal { number, errno: 0, code, padding: 0, pid, uid, value, rest: [0; 12] };
    // SAFETY: `info` is a live siginfo_t of the kernel's size (asserted below), all of it initialised.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, &raw const info, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

const _: () = assert!(size_of::<QueuedSignal>() == size_of::<libc::siginfo_t>());

/// Lets this process run before ordinary ones when both want a processor, without passing that on to what it starts.
/// Where that is not permitted, it runs like any other.
pub fn run_first() {
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    let param = libc::sched_param { sched_priority: 1 };
    // SAFETY: `param` is live; the call only changes how this process is scheduled.
    unsafe {
        libc::sched_setscheduler(0, policy, &raw const param);
    }
}
