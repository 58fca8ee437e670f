//! PMI-1: how the ranks of an MPI program find each other.
//!
//! Each rank speaks over a stream of its own, one line a message, and waits for the answer before it says more.
//! [`Server`] is the other end of all these streams: a key-value space with limits, and a barrier. Pure: bytes go in
//! with [`Server::receive`], bytes and verdicts come out; [`Server::tick`] tells it that time has passed.
//!
//! ```text
//!  rank                          server
//!   | cmd=init ...                 |     fresh -> joined
//!   | cmd=put kvsname= key= value= |     value= runs to the end of the line
//!   | cmd=barrier_in               |     answered when all ranks have said it (but see `barrier`)
//!   | cmd=get kvsname= key=        |     answered at once
//!   | cmd=finalize                 |     joined -> finalized
//! ```
//!
//! Invariant: whatever a rank sends, the table stays within its limits, and only that rank's job suffers.

mod barrier;
mod line;
mod mapping;
mod server;

pub use barrier::LINGER;
pub use mapping::process_mapping;
pub use server::{Output, Phase, Server};

/// Bytes of a key-value space's name.
pub const KVSNAME_MAX: usize = 256;
/// Bytes of a key.
pub const KEY_BYTES_MAX: usize = 64;
/// Bytes of a value.
pub const VALUE_BYTES_MAX: usize = 1024;
/// Bytes of a line: a put with everything at its largest fits.
pub const LINE_BYTES_MAX: usize = 2048;
/// Pairs that one rank may put on average. Open MPI needs six.
pub const PAIRS_PER_RANK_MAX: usize = 64;
