//! RDMA verbs: libibverbs.so.1 behind safe functions, loaded while the program runs.
//!
//! Owns: devices, their queues and the memory that is registered with them. Decides nothing: no frames, credits or
//! rails, no polling policy. A machine without library, kernel support or device gets `Error::Unavailable`.
//!
//! Invariant: no function here has a contract that a safe caller could break. A device reaches memory through a
//! registration only, and a registration holds its memory alive until the kernel has confirmed its end (`memory.rs`);
//! everything that is made on something holds it alive (queue pair -> queues -> domain -> device).
//!
//! ```text
//!  Device -- ProtectionDomain -+- MemoryRegion (local, remote key)        requests: post -> sequence numbers
//!    |                         +- SharedReceiveQueue (slots) <--+         completions: poll -> Work::Send{sequence},
//!    +------ CompletionQueue (descriptor) <---- QueuePair ------+                              Work::Receive -> Received
//! ```

mod adapter;
mod attached;
mod completion;
mod connection;
mod device;
mod error;
mod event;
mod ffi;
mod incoming;
mod library;
mod link;
mod memory;
mod outgoing;
mod pending;
mod pool;
mod port;
mod probe;
mod queue_pair;
mod request;
mod srq;

pub use adapter::{Adapter, News};
pub use completion::{COMPLETIONS_MAX, Completion, CompletionQueue, Completions, Failure, Work};
pub use connection::{Coordinates, State};
pub use device::{Atomics, Device, Limits};
pub use error::Error;
pub use event::DeviceEvent;
pub use link::VerbsLink;
pub use memory::{Access, MemoryRegion, ProtectionDomain, RemotePlace, Segment};
pub use pending::Pending;
pub use port::{AddressKind, Mtu, PortAddress, PortStatus};
pub use probe::{Capabilities, probe};
pub use queue_pair::{QueuePair, QueuePairConfig};
pub use request::{Operation, Request, Source};
pub use srq::{REPOST_BATCH, Received, SharedReceiveQueue};

/// Bytes of a message of a link: what one receive buffer takes.
const SLOT_BYTES: usize = 8 << 10;
