//! Why a job cannot be run.

/// What is wrong with a job before its first rank starts, or with the machinery under it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program's name is missing.
    #[error("no program to run")]
    NoProgram,
    /// No place for any rank.
    #[error("a job needs at least one rank")]
    NoRanks,
    /// More ranks than one job may have.
    #[error("{asked} ranks are asked for; one job has at most {max}")]
    TooManyRanks {
        /// How many were asked for.
        asked: usize,
        /// `limits::TASKS_PER_CLIENT_MAX`.
        max: usize,
    },
    /// An environment variable that cannot be set.
    #[error("-env {0}: a variable's name is not empty and holds no '='")]
    Variable(String),
    /// Starting tasks or talking to `ssid` failed.
    #[error(transparent)]
    Client(#[from] pm::client::Error),
}
