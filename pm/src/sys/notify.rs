//! The listener of a user-notification filter: taking trapped calls and answering them.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

// linux/seccomp.h: _IOWR('!', 0, 80), _IOWR('!', 1, 24), _IOW('!', 2, 8), _IOW('!', 4, 8).
const RECV: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;
const ID_VALID: libc::c_ulong = 0x4008_2102;
const SET_FLAGS: libc::c_ulong = 0x4008_2104;
const SYNC_WAKE_UP: libc::c_ulong = 1;
const RESPONSE_CONTINUE: u32 = 1;

/// A call that was trapped; its caller waits for [`Listener::respond`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The kernel's id for it.
    pub id: u64,
    /// The calling thread, in the pid namespace of whoever receives this. 0 if it is not visible there.
    pub pid: u32,
    /// System call number.
    pub nr: u32,
    /// `AUDIT_ARCH_*` of the call.
    pub arch: u32,
    /// Its arguments.
    pub args: [u64; 6],
}

/// What the caller gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// The call returns this, 0 or more.
    Value(i64),
    /// The call fails with this errno (> 0).
    Errno(i32),
    /// The kernel carries the call out as if it had never been trapped.
    Continue,
}

/// The listening end. Any number of threads may use it.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
}

impl From<OwnedFd> for Listener {
    fn from(fd: OwnedFd) -> Listener {
        Listener { fd }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Listener {
    /// Waits for the next trapped call (poll the descriptor first if you cannot wait). `None`: the caller died
    /// before we could take it; go on.
    ///
    /// # Errors
    /// The ioctl failed for another reason: no process with this filter is left, or the descriptor is wrong.
    pub fn receive(&self) -> io::Result<Option<Notification>> {
        // The kernel refuses a buffer that is not all zero.
        let mut raw = libc::seccomp_notif {
            id: 0,
            pid: 0,
            flags: 0,
            data: libc::seccomp_data { nr: 0, arch: 0, instruction_pointer: 0, args: [0; 6] },
        };
        // SAFETY: `raw` is a live struct seccomp_notif, the size that the request number carries.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), RECV as _, &raw mut raw) };
        if result < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::ENOENT | libc::EINTR) => Ok(None),
                _ => Err(error),
            };
        }
        let libc::seccomp_notif { id, pid, data, .. } = raw;
        Ok(Some(Notification { id, pid, nr: data.nr as u32, arch: data.arch, args: data.args }))
    }

    /// Answers the call `id`. False if its caller is gone.
    ///
    /// # Errors
    /// The ioctl failed for another reason.
    pub fn respond(&self, id: u64, response: Response) -> io::Result<bool> {
        let (val, error, flags) = match response {
            Response::Value(value) => (value, 0, 0),
            Response::Errno(errno) => (0, -errno, 0),
            Response::Continue => (0, 0, RESPONSE_CONTINUE),
        };
        let raw = libc::seccomp_notif_resp { id, val, error, flags };
        // SAFETY: `raw` is a live struct seccomp_notif_resp, the size that the request number carries.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), SEND as _, &raw const raw) };
        gone_or(result)
    }

    /// True while the caller of `id` still waits: what was read of its memory or of /proc was its own.
    ///
    /// # Errors
    /// The ioctl failed for another reason.
    pub fn is_valid(&self, id: u64) -> io::Result<bool> {
        // SAFETY: the request reads one u64, which `id` is.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), ID_VALID as _, &raw const id) };
        gone_or(result)
    }

    /// Asks the kernel to hand the processor straight over between caller and listener (Linux 6.6). False: this
    /// kernel cannot; all else works, slower.
    pub fn wake_up_synchronously(&self) -> bool {
        // SAFETY: the request takes its argument by value.
        unsafe { libc::ioctl(self.fd.as_raw_fd(), SET_FLAGS as _, SYNC_WAKE_UP) == 0 }
    }
}

fn gone_or(result: libc::c_int) -> io::Result<bool> {
    if result >= 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ENOENT) { Ok(false) } else { Err(error) }
}
