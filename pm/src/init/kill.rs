//! kill(2) on behalf of a process that is not here: the same checks, the same errno.

use super::process::Procfs;
use crate::sys::signal;
use crate::wire::Signal;
use rustix::process::{Pid, PidfdFlags};
use std::os::fd::{AsFd, OwnedFd};

/// The largest signal number.
const SIGNAL_MAX: u32 = 64;

/// Delivers `order` to the process or the group that it names.
///
/// # Errors
/// The errno that kill(2) would give: EINVAL, ESRCH, EPERM; EAGAIN for a real-time signal whose queue is full.
pub fn deliver(procfs: &Procfs, order: &Signal) -> Result<(), i32> {
    if order.number > SIGNAL_MAX {
        return Err(libc::EINVAL);
    }
    match order.target {
        pid @ 1.. => to_process(procfs, order, pid as u32, order.start_time),
        ..=-2 => to_group(procfs, order, order.target.unsigned_abs()),
        -1 | 0 => Err(libc::ESRCH),
    }
}

/// As kill(2) does it: 0 if anybody got it, else EPERM if somebody was there, else ESRCH.
fn to_group(procfs: &Procfs, order: &Signal, group: u32) -> Result<(), i32> {
    let (mut outcome, mut delivered) = (libc::ESRCH, false);
    for pid in procfs.pids() {
        let Some(stat) = procfs.stat(pid).filter(|stat| stat.group == group) else { continue };
        match to_process(procfs, order, pid, stat.start_time) {
            Ok(()) => delivered = true,
            Err(libc::ESRCH) => {}
            Err(errno) => outcome = errno,
        }
    }
    if delivered { Ok(()) } else { Err(outcome) }
}

fn to_process(procfs: &Procfs, order: &Signal, pid: u32, start_time: u64) -> Result<(), i32> {
    let pidfd = open_process(procfs, pid)?;
    // From here on the pidfd names one process for ever; what /proc says of the number is of this process unless it
    // ended meanwhile, and then sending says ESRCH.
    let stat = procfs.stat(pid).ok_or(libc::ESRCH)?;
    if start_time != 0 && stat.start_time != start_time {
        return Err(libc::ESRCH);
    }
    let owner = procfs.owner(pid).ok_or(libc::ESRCH)?;
    let allowed = order.privileged
        || [order.sender_uid, order.sender_euid].iter().any(|id| [owner.uid, owner.saved_uid].contains(id));
    if !allowed {
        return Err(libc::EPERM);
    }
    let sent = signal::send(pidfd.as_fd(), order.number as i32, order.sender, order.sender_uid, order.value);
    sent.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
}

/// A thread's id names its process, as in kill(2).
fn open_process(procfs: &Procfs, pid: u32) -> Result<OwnedFd, i32> {
    let open = |pid: u32| {
        let pid = Pid::from_raw(pid as i32).ok_or(libc::ESRCH)?;
        rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| errno.raw_os_error())
    };
    match open(pid) {
        Err(libc::EINVAL | libc::ENOENT) => open(procfs.owner(pid).ok_or(libc::ESRCH)?.process),
        result => result,
    }
}
