//! ptrace(2), only what a shadow needs. All by pid: a wrong pid is an error of the kernel's, never a hazard.
#![allow(unsafe_code)]

use std::io;
use std::ptr::null_mut;

/// Who sent a signal that a tracee is about to receive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// `si_code`.
    pub code: i32,
    /// `si_pid`; meaningful for signals sent by processes.
    pub pid: u32,
    /// `si_uid`.
    pub uid: u32,
    /// `si_value`.
    pub value: u64,
}

fn request(request: libc::c_uint, pid: u32, data: libc::c_ulong) -> io::Result<()> {
    // SAFETY: only requests whose data is a plain number come here; ptrace writes none of our memory for them.
    let result = unsafe { libc::ptrace(request as _, pid as libc::pid_t, null_mut::<u8>(), data) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Becomes the tracer of `pid` without stopping it.
///
/// # Errors
/// ESRCH: no such process; EPERM: somebody traces it already, or we may not.
pub fn seize(pid: u32) -> io::Result<()> {
    request(libc::PTRACE_SEIZE as _, pid, 0)
}

/// Lets the stopped tracee go on, receiving `signal` (0: none).
///
/// # Errors
/// ESRCH: it is not stopped, or gone.
pub fn proceed(pid: u32, signal: i32) -> io::Result<()> {
    request(libc::PTRACE_CONT as _, pid, signal as libc::c_ulong)
}

/// Leaves a tracee in its group-stop and listens for the SIGCONT that ends it.
///
/// # Errors
/// ESRCH: it is not stopped, or gone; EIO: it is not in a group-stop.
pub fn listen(pid: u32) -> io::Result<()> {
    request(libc::PTRACE_LISTEN as _, pid, 0)
}

/// Where the signal comes from that stopped the tracee for delivery.
///
/// # Errors
/// ESRCH: it is gone; EINVAL: it is in a group-stop, where there is none.
pub fn origin(pid: u32) -> io::Result<Origin> {
    let mut info = [0u64; size_of::<libc::siginfo_t>() / 8];
    // SAFETY: `info` is a live, aligned buffer of the size of siginfo_t, which is what the kernel fills.
    let result = unsafe {
        libc::ptrace(libc::PTRACE_GETSIGINFO as _, pid as libc::pid_t, null_mut::<u8>(), info.as_mut_ptr())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // Words: (signo, errno), (code, padding), (pid, uid), value; the earlier of a pair in the low half.
    let (pid, uid) = (info[2] as u32, (info[2] >> 32) as u32);
    Ok(Origin { code: info[1] as i32, pid, uid, value: info[3] })
}
