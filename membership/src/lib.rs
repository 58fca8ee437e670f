//! CLMS: who is in the cluster.
//!
//! Owns the cluster table: which nodes there are, which life of each, and whether it is UP, STALLED or DOWN, in agreed
//! and numbered views; detection by heartbeats and links; join, leave, removal.
//!
//! Invariant: two nodes that are told of the same epoch are told the same view, and on each node epochs only grow.
//! A life of a node that was DOWN in an agreed view is never UP again.
//!
//! [`Core`] is the pure state machine (`handle(now, event) -> effects`); `README.md` draws it.

pub mod agreement;
mod clock;
pub mod core;
pub mod detection;
mod error;
pub mod fencing;
mod following;
mod handle;
pub mod heartbeat;
mod joining;
mod peers;
mod receiver;
pub mod saved;
mod service;
mod shell;
pub mod table;
pub mod talk;
pub mod timings;
pub mod token;
pub mod watch;
pub mod wire;

pub use crate::core::{Core, Effect, Event, NodeStatus, RequestId, Status};
pub use error::Error;
pub use following::follow;
pub use handle::{CHANGE_DEADLINE, Handle};
pub use heartbeat::Heartbeat;
pub use joining::{init_table, join, persist_joined, saved_view};
pub use shell::{Config, Ended, INBOX_MAX, Membership};
pub use timings::Timings;
pub use wire::{Node, NodeState, View};
