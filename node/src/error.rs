//! What a command or a daemon can fail with: what, where, why, and what to do.

use std::path::PathBuf;

/// Everything the composition root can report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A configuration value.
    #[error("configuration: {0}")]
    Config(String),
    /// A file or socket of the state directory.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Asking a daemon.
    #[error(transparent)]
    Admin(#[from] admin::Error),
    /// A step of starting or stopping.
    #[error("{what}: {source}")]
    Step {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Said by the daemon or by one of the crates below.
    #[error("{0}")]
    Said(String),
}

impl Error {
    /// For `map_err`: which step failed.
    pub fn step<E: Into<std::io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Error {
        let what = what.into();
        move |source| Error::Step { what, source: source.into() }
    }

    /// Wraps what a lower crate says.
    pub fn said(error: impl std::fmt::Display) -> Error {
        Error::Said(error.to_string())
    }
}
