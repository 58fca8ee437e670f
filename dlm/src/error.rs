//! What can be wrong with what a user, a peer or a configuration says.

use std::path::PathBuf;

/// Errors of this crate that are no answer to a request (those are [`crate::Refusal`]s).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A resource name is empty or too long.
    #[error("a resource name has {length} bytes: give it 1 to 64")]
    NameLength {
        /// Its bytes.
        length: usize,
    },
    /// A limit of a table is zero, or larger than its ids can count.
    #[error("{name} = {value} is out of range: it must be 1 to {most}")]
    Limit {
        /// The setting's name.
        name: &'static str,
        /// What was set.
        value: u32,
        /// What is possible.
        most: u32,
    },
    /// What a peer says is no message.
    #[error("a message of another node's lock manager is malformed: {0}")]
    Wire(&'static str),
    /// A peer speaks another version.
    #[error(
        "another node's lock manager speaks version {spoken}, this one {known}: run one version on all nodes"
    )]
    Version {
        /// What it speaks.
        spoken: u8,
        /// What this node speaks.
        known: u8,
    },
    /// A thread cannot be started.
    #[error("start the lock manager's thread: {0}")]
    Thread(std::io::Error),
    /// Nobody answers on the lock manager's socket.
    #[error("no lock manager answers at {}: {source} (is the node started? is this inside the cluster, or is SSI_DLM_SOCKET set?)", path.display())]
    NoServer {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The lock manager refuses a call.
    #[error("the lock manager of this node refuses: {}", crate::client::status::words(*status))]
    Refused {
        /// Why (see [`crate::client::status`]).
        status: u32,
    },
    /// The conversation with the lock manager broke.
    #[error(
        "the conversation with the lock manager of this node broke, and the locks that it was for are gone: {0}"
    )]
    Broken(std::io::Error),
}
