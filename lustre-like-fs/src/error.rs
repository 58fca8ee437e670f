//! What can go wrong in the filesystem, and which errno a program sees for it.

use base::NodeId;
use rustix::io::Errno;

/// A failure of a filesystem operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operation is not allowed or cannot be done: the program gets exactly this errno.
    #[error("{0}")]
    Errno(Errno),
    /// The metadata store's files failed.
    #[error("metadata store: {0}")]
    Store(#[from] fjall::Error),
    /// A record of the metadata store is not what it should be.
    #[error("metadata record {key:02x?}: {what}")]
    Record {
        /// The record's key.
        key: Vec<u8>,
        /// What is wrong with it.
        what: String,
    },
    /// The directory of a server cannot be prepared.
    #[error("{path}: {source}")]
    Directory {
        /// The directory.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// No answer from a server until the deadline.
    #[error("no answer from the {service} on node {node}: {source}")]
    Unreachable {
        /// Where the server runs.
        node: NodeId,
        /// Which server.
        service: &'static str,
        /// What the fabric says.
        source: fabric::Error,
    },
    /// The server's node is DOWN, or in no view.
    #[error("the {service} on node {node} is down")]
    Down {
        /// Where the server ran.
        node: NodeId,
        /// Which server.
        service: &'static str,
    },
    /// The server's answer does not decode.
    #[error("the {service} on node {node} answers in words that are not understood: {what}")]
    Malformed {
        /// Where the server runs.
        node: NodeId,
        /// Which server.
        service: &'static str,
        /// What is wrong.
        what: String,
    },
    /// This daemon, or the server that was asked, is being stopped: its successor is to be asked.
    #[error("the daemon is being stopped")]
    Stopped,
}

impl Error {
    /// What a program sees in `errno`.
    pub fn errno(&self) -> Errno {
        match self {
            Error::Errno(errno) => *errno,
            Error::Down { .. } => Errno::NOTCONN,
            // Never reaches a program: whoever asked asks the successor.
            Error::Stopped => Errno::RESTART,
            Error::Store(fjall::Error::Io(source)) => Errno::from_io_error(source).unwrap_or(Errno::IO),
            _ => Errno::IO,
        }
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Error {
        Error::Errno(errno)
    }
}
