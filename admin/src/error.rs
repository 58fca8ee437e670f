//! What asking can fail with.

use crate::wire::Why;
use std::io;
use std::path::PathBuf;

/// Why there is no answer, or not the one that was wanted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no node here.
    #[error("no cluster in {}: start one with `ssi cluster up`, or name it with --dir or SSI_DIR", .0.display())]
    NoNode(PathBuf),
    /// The daemon does not answer.
    #[error("no ssid answers at {}: {source} (is the node started? `ssi node start`, `ssi cluster up`)", path.display())]
    NoDaemon {
        /// The admin socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The conversation broke.
    #[error("ask ssid: {0}")]
    Broken(#[source] io::Error),
    /// The daemon ended before it answered.
    #[error("ssid closed the connection before it answered; ask again")]
    Closed,
    /// The other end speaks something else.
    #[error("the other end of the admin socket does not speak our protocol: {0}")]
    Frame(#[from] base::FrameError),
    /// The daemon says no.
    #[error("{text}")]
    Refused {
        /// Which kind of no.
        why: Why,
        /// For people.
        text: String,
    },
    /// A signal came while we waited.
    #[error("interrupted by a signal")]
    Interrupted,
    /// An argument that makes no sense, whatever the cluster is like.
    #[error("{0}")]
    Invalid(String),
    /// This system does not do that.
    #[error("{0}")]
    Unsupported(&'static str),
    /// There is no such transition (yet).
    #[error("there is no such transition")]
    NoTransition,
    /// What followed this transition is no longer kept: look at the membership anew.
    #[error("the transitions after {0} are no longer kept; ask for the membership anew")]
    TooOld(u64),
}

impl Error {
    /// Which kind of refusal this is, if it is one.
    pub fn why(&self) -> Option<Why> {
        match self {
            Error::Refused { why, .. } => Some(*why),
            _ => None,
        }
    }
}
