//! `errno`, and what it is for each of our errors.

#![allow(unsafe_code)]

use dlm::client::status;
use libc::c_int;

/// Sets `errno`.
pub fn set(value: c_int) {
    // SAFETY: the address is this thread's own, for as long as it lives.
    unsafe { *libc::__errno_location() = value };
}

/// Sets `errno` and gives back what C functions give then.
pub fn fail(value: c_int) -> c_int {
    set(value);
    -1
}

/// The number for an error of the client.
pub fn of(error: &dlm::Error) -> c_int {
    let number = match error {
        dlm::Error::Refused { status } => *status,
        dlm::Error::NoServer { source, .. } => return source.raw_os_error().unwrap_or(libc::ENOENT),
        _ => status::GONE,
    };
    c_int::try_from(number).unwrap_or(libc::EIO)
}
