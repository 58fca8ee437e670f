//! What can go wrong for a command that runs tasks.

use crate::wire::client::GRACE_MS;
use std::path::PathBuf;

/// Why a command cannot run its tasks (any more).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answered on the admin socket for the whole grace time.
    #[error("ssid on this node does not answer: {path} ({why}; tried for {} s)", GRACE_MS / 1000)]
    NoAnswer {
        /// The admin socket.
        path: PathBuf,
        /// What the last attempt met.
        why: String,
    },
    /// The admin socket may not be used.
    #[error("cannot reach ssid through {path}: {source}")]
    Connect {
        /// The admin socket.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// `ssid` sent what makes no sense.
    #[error("ssid on this node sent what cannot be understood: {0}")]
    Protocol(String),
    /// More tasks than one client may have.
    #[error("{asked} processes are asked for; one command starts at most {max}")]
    TooMany {
        /// How many were asked for.
        asked: usize,
        /// `limits::TASKS_PER_CLIENT_MAX`.
        max: usize,
    },
    /// A system call of this process failed.
    #[error("{what}: {source}")]
    System {
        /// Which step.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

impl Error {
    /// For `map_err`: the step `what` failed.
    pub(crate) fn system<E: Into<std::io::Error>>(what: &'static str) -> impl FnOnce(E) -> Error {
        move |source| Error::System { what, source: source.into() }
    }
}
