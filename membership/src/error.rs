//! Everything that can go wrong with membership, in words for the one who reads the log or the terminal.

use base::NodeId;
use std::path::PathBuf;

/// What failed, where, why.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A datagram that is no heartbeat of this cluster.
    #[error("a heartbeat is refused: {0}")]
    Heartbeat(&'static str),
    /// A message of another node does not decode.
    #[error("a membership message does not decode: {0}")]
    Malformed(String),
    /// The saved table cannot be read or written.
    #[error("cannot {action} the cluster table {path}: {source}")]
    Store {
        /// What was tried: `read`, `write`, `remove`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The saved table is there, but it is damaged.
    #[error("the cluster table {path} is damaged ({why}); restore it, or remove the node and join again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is no saved table: this machine is in no cluster.
    #[error("no cluster table in {0}: this machine is in no cluster yet (ssi cluster init, ssi node join)")]
    NoTable(PathBuf),
    /// The log of the table cannot be opened or written.
    #[error("the log of the cluster table: {0}")]
    Log(#[from] replog::Error),
    /// The saved table does not speak of this node.
    #[error("the cluster table does not hold node {0}: it was removed; join again")]
    NotInTable(NodeId),
    /// The life that shall start is older than one that the table knows (the clock was set back).
    #[error(
        "life {life} of node {node} is not later than life {known} in the cluster table; is the clock right?"
    )]
    OldLife {
        /// This node.
        node: NodeId,
        /// The life that shall start.
        life: u64,
        /// The life in the table.
        known: u64,
    },
    /// A thread or a socket of ours cannot be set up.
    #[error("cannot start membership: {what}: {source}")]
    Start {
        /// Which part.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The cluster said no, and will say no again.
    #[error("{0}")]
    Refused(String),
    /// Nobody answered in time, or nobody who could decide.
    #[error("the cluster did not decide within the deadline: {0}")]
    Undecided(String),
    /// This node's membership has ended (evicted, left, failed).
    #[error("membership on this node has ended: {0}")]
    Ended(String),
}
