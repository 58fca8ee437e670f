//! What wakes an end that sleeps: a counter of the kernel (eventfd) in its reactor, which the other end raises.
//!
//! It is watched edge-triggered: each ring is reported once, and nobody ever reads it. Whether it has to be rung is decided in the
//! shared memory ([`super::ring`]); a ring too many does no harm.
//!
//! Invariant: ringing never blocks.

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{OFlags, fcntl_getfl};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// One end's bell.
pub struct Bell(OwnedFd);

impl Bell {
    /// A new bell.
    ///
    /// # Errors
    /// The system gives no descriptor.
    pub fn new() -> io::Result<Bell> {
        Ok(Bell(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// A bell that the other end passed over.
    ///
    /// # Errors
    /// Ringing it could block.
    pub fn from_peer(descriptor: OwnedFd) -> io::Result<Bell> {
        let flags = fcntl_getfl(&descriptor)?;
        let fits = flags.contains(OFlags::NONBLOCK) && flags.contains(OFlags::RDWR);
        fits.then_some(Bell(descriptor)).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the other end passed a descriptor that is no bell")
        })
    }

    /// Wakes whoever watches it.
    pub fn ring(&self) {
        // The only failure of a bell is a counter at its maximum, which is as good as a ring. Whoever passes something else as a bell
        // is not woken, which is his own loss.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
