//! Installing a filter on the calling process.
#![allow(unsafe_code)]

use crate::filter::Instruction;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

const FLAG_NEW_LISTENER: libc::c_ulong = 1 << 3;
const FLAG_WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;

/// Installs `program` on this (single-threaded) process and all it will start, and gives back the listener.
/// Needs CAP_SYS_ADMIN in the own user namespace; `no_new_privs` is left alone, so setuid programs go on working.
///
/// # Errors
/// seccomp(2) refused: EACCES without the capability, EBUSY if a listener is there already, EINVAL for a program
/// the kernel does not accept.
pub fn install(program: &[Instruction]) -> io::Result<OwnedFd> {
    match set_filter(program, FLAG_NEW_LISTENER | FLAG_WAIT_KILLABLE_RECV) {
        // Before Linux 5.19 there was no such flag; there a signal repeats the notification.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => set_filter(program, FLAG_NEW_LISTENER),
        result => result,
    }
}

fn set_filter(program: &[Instruction], flags: libc::c_ulong) -> io::Result<OwnedFd> {
    let mut filter: Vec<libc::sock_filter> = program
        .iter()
        .map(|i| libc::sock_filter { code: i.code, jt: i.when_true, jf: i.when_false, k: i.operand })
        .collect();
    let len = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let bpf = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: `bpf` points to `len` instructions that live until the call returns; the kernel copies them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER as libc::c_ulong,
            flags,
            &raw const bpf,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: with NEW_LISTENER a result that is no error is a new descriptor, which is ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(result as RawFd) })
}
