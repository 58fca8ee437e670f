//! The words every crate of the house shares: identities, time as a value, limits, frames, seeded randomness.
//!
//! Invariant: nothing here reads a clock, a socket, a file or the machine's randomness; all of it is a value.
//! It knows nothing of what the other crates do with it, and it is never a place for odds and ends.

pub mod codec;
pub mod ids;
pub mod limits;
pub mod prng;
pub mod regions;
pub mod time;

pub use codec::{FrameError, FrameReader, ServiceHello, encode_frame};
pub use ids::{Epoch, Incarnation, JobId, NodeId, ObjectId, Pid};
pub use prng::Prng;
pub use regions::PidRegions;
pub use time::Time;
