//! The few system calls that the standard library does not offer: signals, poll, pidfd.
//!
//! Invariant: once [`catch_interrupts`] has run, ^C, a request to end and a hang-up never end this process by
//! themselves; they make [`interruption`] readable, for ever. Children start with the default dispositions again.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

/// The descriptor that a signal handler writes to; -1 before [`catch_interrupts`].
static INTERRUPTION: AtomicI32 = AtomicI32::new(-1);

/// The signals by which somebody asks this program to end.
const REQUESTS_TO_END: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// From now on a request to end is an event, not an end.
pub fn catch_interrupts() -> io::Result<()> {
    // SAFETY: eventfd takes no pointer.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    INTERRUPTION.store(fd, Ordering::SeqCst);
    for signal in REQUESTS_TO_END {
        // SAFETY: an all-zero sigaction is valid; the handler only calls write, which is async-signal-safe.
        let outcome = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = note_interruption as *const () as libc::sighandler_t;
            libc::sigaction(signal, &action, std::ptr::null_mut())
        };
        if outcome != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

extern "C" fn note_interruption(_signal: libc::c_int) {
    let one = 1u64;
    // SAFETY: `one` lives through the call and is 8 bytes long; the descriptor is never closed.
    unsafe { libc::write(INTERRUPTION.load(Ordering::SeqCst), (&raw const one).cast(), 8) };
}

/// Readable once somebody has asked this program to end. `None` before [`catch_interrupts`].
pub fn interruption() -> Option<BorrowedFd<'static>> {
    let fd = INTERRUPTION.load(Ordering::SeqCst);
    // SAFETY: the descriptor was opened by `catch_interrupts` and is never closed.
    (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Waits until one of `fds` is readable or hung up, or the time is over; says which are. A signal ends the wait early.
pub fn poll(fds: &[BorrowedFd<'_>], limit: Duration) -> io::Result<Vec<bool>> {
    let mut polled: Vec<libc::pollfd> =
        fds.iter().map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect();
    let limit = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the array is as long as we say and lives through the call.
    let outcome = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, limit) };
    match (outcome, io::Error::last_os_error()) {
        (-1, error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        (-1, _) => Ok(vec![false; fds.len()]),
        _ => Ok(polled.iter().map(|fd| fd.revents != 0).collect()),
    }
}

/// A descriptor that becomes readable when our child `pid` ends.
pub fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes no pointer.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just given us this descriptor; nobody else has it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Reads of `fd` that would wait fail with `WouldBlock` from now on.
pub fn unblock(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: F_GETFL and F_SETFL take no pointer.
    let outcome = unsafe {
        let flags = libc::fcntl(fd.as_raw_fd(), libc::F_GETFL);
        libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK)
    };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whom a signal is for.
#[derive(Clone, Copy)]
pub enum Whom {
    /// One process.
    Process(u32),
    /// Every process of a group.
    Group(u32),
}

/// A signal that this program sends.
#[derive(Clone, Copy)]
pub enum Signal {
    /// Please end.
    Terminate,
    /// End.
    Kill,
}

/// Sends a signal. That nobody is there any more is not an error.
pub fn send(whom: Whom, signal: Signal) {
    let signal = match signal {
        Signal::Terminate => libc::SIGTERM,
        Signal::Kill => libc::SIGKILL,
    };
    let target = match whom {
        Whom::Process(pid) => pid as libc::pid_t,
        Whom::Group(group) => -(group as libc::pid_t),
    };
    // 0 and -1 would mean ourselves and everybody.
    assert!(!(-1..=1).contains(&target), "a child has a number of its own");
    // SAFETY: kill takes no pointer.
    unsafe { libc::kill(target, signal) };
}

/// True if this process may do what root may.
pub fn is_root() -> bool {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn poll_tells_the_readable_from_the_silent() {
        let (silent, _open) = std::io::pipe().unwrap();
        let (closed, end) = std::io::pipe().unwrap();
        drop(end);
        let ready = poll(&[silent.as_fd(), closed.as_fd()], Duration::from_secs(5)).unwrap();
        assert_eq!(ready, [false, true]);
    }

    #[test]
    fn a_pidfd_tells_the_end_of_a_child() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pidfd = open_pidfd(child.id()).unwrap();
        assert_eq!(poll(&[pidfd.as_fd()], Duration::from_secs(10)).unwrap(), [true]);
        assert!(child.wait().unwrap().success());
    }
}
