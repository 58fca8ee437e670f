//! What can keep a supervisor from starting. Once it runs, nothing does: it tells errors and goes on.

use std::io;

/// Why the view could not be made or `ssi-init` could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration that was handed over is unusable.
    #[error("ssi-init: bad configuration: {0}")]
    Config(String),
    /// A step of making the view that it cannot do without.
    #[error("ssi-init: cannot make the view: {step}: {source}{advice}")]
    View {
        /// What was tried.
        step: String,
        /// What the kernel said.
        source: io::Error,
        /// What the user can do; empty if nothing is known.
        advice: &'static str,
    },
    /// The filter that traps foreign pids could not be installed.
    #[error(
        "ssi-init: cannot install the system call filter: {0}; it needs CAP_SYS_ADMIN in its user namespace, a \
         kernel with CONFIG_SECCOMP_FILTER, and no other user-notification filter above it (as container \
         runtimes install)"
    )]
    Filter(io::Error),
    /// Something else that is needed from the start.
    #[error("ssi-init: {what}: {source}")]
    Start {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
}
