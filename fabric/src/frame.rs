//! Frames: what every provider carries, byte by byte. All numbers are little-endian. README.md draws the same.
//!
//! ```text
//!  header of a frame
//!  0      1         2         4         5       6      8           16     20     24            28       32
//!  | kind | channel | service | verdict | flags | slot | sequence  | head | bulk | deadline ms | credit |
//!  followed by `carried` bytes: of head and bulk, head first; the whole of them, or a first chunk (flag MORE)
//!
//!  access: the head of every one-sided frame
//!  0        8       16      20      24       32       40        48
//!  | region | token | epoch | flags | offset | length | at      |
//! ```
//!
//! Invariant: bytes decode to a frame that means something, or to a [`WireError`]; nothing here panics or allocates.

mod access;
mod header;

pub use access::{ACCESS_BYTES, Access};
pub use header::{CHUNK_BYTES, Flags, HEADER_BYTES, Header, Kind, Verdict, WireError};
