//! Everything that can go wrong with a log, in words for the one who reads them in a log file or on a terminal.

use crate::event::Refusal;

/// What failed, where, why.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Bytes of a peer or of a disk are not what they should be.
    #[error("a message or record of the replicated log does not decode: {0}")]
    Malformed(String),
    /// The disk does not do what it is told.
    #[error("cannot {action} {file} of the replicated log: {source}")]
    Disk {
        /// What was tried.
        action: &'static str,
        /// With which file.
        file: String,
        /// Why not.
        source: std::io::Error,
    },
    /// What is on the disk is damaged in a place where no crash can have done it.
    #[error(
        "{file} of the replicated log is damaged at byte {at} ({why}); this member cannot vote any more: remove its \
         directory and let it be replaced by a new one"
    )]
    Damaged {
        /// Which file.
        file: String,
        /// Where in it.
        at: u64,
        /// What is wrong.
        why: String,
    },
    /// There is no log in this directory.
    #[error("there is no replicated log here; create one first")]
    NoStore,
    /// There is a log in this directory already.
    #[error("there is a replicated log here already; it is not overwritten")]
    StoreExists,
    /// The log did not take a request.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// This member has ended.
    #[error("this member of the replicated log has ended: {0}")]
    Ended(String),
}
