//! `errno`, and what it is for each of our errors.

#![allow(unsafe_code)]

use admin::Error;
use admin::wire::Why;
use libc::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Sets `errno`.
pub fn set(value: c_int) {
    // SAFETY: the address is this thread's own, for as long as it lives.
    unsafe { *libc::__errno_location() = value };
}

/// The number for an error.
pub fn of(error: &Error) -> c_int {
    match error {
        Error::NoNode(_) => libc::ENOSYS,
        Error::NoDaemon { .. } | Error::Closed => libc::ENOTCONN,
        Error::Broken(source) if source.kind() == std::io::ErrorKind::TimedOut => libc::ETIMEDOUT,
        Error::Broken(_) => libc::EIO,
        Error::Frame(_) => libc::EPROTO,
        Error::Refused { why, .. } => of_refusal(*why),
        Error::Interrupted => libc::EINTR,
        Error::Invalid(_) => libc::EINVAL,
        Error::Unsupported(_) => libc::EOPNOTSUPP,
        Error::NoTransition => libc::ENOENT,
        Error::TooOld(_) => libc::ESTALE,
    }
}

fn of_refusal(why: Why) -> c_int {
    match why {
        Why::Failed => libc::EIO,
        Why::Unknown => libc::EOPNOTSUPP,
        Why::NotPermitted => libc::EPERM,
        Why::Invalid => libc::EINVAL,
        Why::Busy => libc::EBUSY,
        Why::NoQuorum => libc::EAGAIN,
        Why::TooOld => libc::ESTALE,
        Why::Full => libc::ENOSPC,
    }
}

/// Runs the body of a C function: an error becomes `failed` and `errno`, a panic EIO.
pub fn guard<T>(failed: T, body: impl FnOnce() -> Result<T, c_int>) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => value,
        Ok(Err(number)) => {
            set(number);
            failed
        }
        Err(_) => {
            set(libc::EIO);
            failed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_of_the_call() {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        assert_eq!(guard(-1, || -> Result<c_int, c_int> { panic!("ours") }), -1);
        std::panic::set_hook(hook);
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EIO));
    }

    #[test]
    fn success_leaves_errno_alone() {
        set(libc::EXDEV);
        assert_eq!(guard(-1, || Ok(3)), 3);
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EXDEV));
    }
}
