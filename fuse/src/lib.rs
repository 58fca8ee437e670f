//! The kernel's FUSE protocol on a descriptor that somebody else opened, mounted and holds.
//!
//! ```text
//!   ssi-init: mount() ──── descriptor ────> daemon: Session::adopt() ── Request ──> Filesystem
//!                                              ^                                        │
//!                          kernel <────────────┴────────────── Reply <──────────────────┘
//! ```
//!
//! Owns the layouts ([`abi`]), their decoding ([`Operation`]), the handshake ([`Agreed`]) and the threads that read the
//! device ([`Session`]). It knows nothing of what the files hold.
//!
//! Invariants: every request that the kernel waits for is answered exactly once, by whom it is given to or, when it is
//! dropped, with EIO. A mount outlives the daemon that serves it: the next daemon adopts the descriptor, and what the
//! dead one had taken and not answered is delivered again (`FUSE_NOTIFY_RESEND`, kernel 6.9).
//! Bytes of the kernel that do not decode become EIO, never a panic.

pub mod abi;
mod decode;
mod directory;
mod error;
mod handshake;
mod mounting;
mod operation;
mod pool;
mod reply;
mod session;

pub use abi::{init_flags, open_flags};
pub use directory::{DirBuffer, FileType};
pub use error::Error;
pub use handshake::{Agreed, Config};
pub use mounting::{MountOptions, mount};
pub use operation::{Forgotten, Header, Lock, Operation, SetAttr, SetTime, Timestamp};
pub use reply::{Attr, EntryOut, Reply, StatFs};
pub use rustix::io::Errno;
pub use session::{Filesystem, Request, Session, Stopper};

/// The node id of the root of every mount.
pub const ROOT_ID: u64 = 1;
