//! One replicated log: consensus among 1 to 7 voters, its crash-safe store, snapshots, changes of voters.
//!
//! Owns the order of entries that all members agree on, and what each has promised about it. The table of the cluster and
//! each metadata shard are one such log.
//!
//! Invariant: what was acknowledged is in the log of every later leader, at the same place; all members hand the same
//! entries, in the same order, to their state machines.
//!
//! [`Core`] is the pure state machine (`handle(now, event) -> effects`); README.md draws it, its messages and its disk.

mod config;
pub mod core;
mod entry;
mod error;
mod event;
mod ids;
mod log;
mod message;
mod progress;
mod session;
mod shell;
pub mod store;
mod voters;
pub mod wire;
mod writes;

pub use crate::core::{Core, Role, Status};
pub use config::Config;
pub use entry::{Committed, Entry, HardState, Origin, Payload, Recovered, SnapshotMeta, Write};
pub use error::Error;
pub use event::{Effect, Event, Proposal, Refusal};
pub use ids::{DiskId, Index, Member, RequestId, Stamp, Term, Ticket};
pub use message::{Envelope, Mark, Message};
pub use session::{SLOTS_MAX, Sessions, Turn};
pub use shell::{
    CHUNK_BYTES, Exchange, Handle, INBOX_MAX, Leadership, Outcome, Start, StateMachine, create, start,
};
pub use store::{Directory, Disk, Store};
pub use voters::{LEARNERS_MAX, VOTERS_MAX, Voters};

#[cfg(test)]
#[path = "../tests/sim/mod.rs"]
mod sim;
