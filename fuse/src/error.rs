//! What can go wrong between this crate and the kernel.

use rustix::io::Errno;
use std::path::PathBuf;

/// Errors of mounting and of a session. What concerns one request only is answered to the kernel and never seen here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `/dev/fuse` could not be opened.
    #[error("/dev/fuse cannot be opened: {0} (is the fuse module loaded?)")]
    Device(#[source] Errno),
    /// mount(2) refused.
    #[error("FUSE cannot be mounted on {}: {errno}", target.display())]
    Mount {
        /// Where it was to be mounted.
        target: PathBuf,
        /// Why not.
        #[source]
        errno: Errno,
    },
    /// A system call on the device or its helpers failed.
    #[error("the FUSE session's {call} failed: {errno}")]
    Call {
        /// Which call.
        call: &'static str,
        /// Why.
        #[source]
        errno: Errno,
    },
    /// A thread could not be started.
    #[error("a FUSE thread cannot be started: {0}")]
    Thread(#[source] std::io::Error),
    /// The kernel speaks a protocol older than this crate understands.
    #[error("the kernel speaks FUSE {major}.{minor}; 7.{least} is the oldest that is understood")]
    TooOld {
        /// The kernel's major version.
        major: u32,
        /// The kernel's minor version.
        minor: u32,
        /// The least minor version.
        least: u32,
    },
    /// Stored bytes are no [`crate::Agreed`].
    #[error("the stored FUSE agreement does not decode ({0} bytes)")]
    Agreed(usize),
}
