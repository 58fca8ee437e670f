//! CLMS: who is in the cluster.
//!
//! Owns the cluster table: which nodes there are, which life of each, and whether it is UP, STALLED, DOWN or FENCED; its
//! numbered transitions; detection by heartbeats and links; leases; join, leave, removal.
//!
//! Invariant: every node sees the same transitions in the same order and without holes. A life of a node that was DOWN in
//! an agreed view is never UP again, and its lease was over before it was DOWN.
//!
//! [`Core`] is the pure state machine (`handle(now, event) -> effects`); `README.md` draws it.

mod admission;
mod clock;
pub mod command;
pub mod core;
pub mod detection;
mod error;
pub mod fencing;
mod following;
mod handle;
pub mod heartbeat;
pub mod history;
mod joining;
mod keeping;
mod lease;
mod links;
pub mod machine;
mod peers;
mod receiver;
pub mod saved;
mod service;
mod shell;
pub mod table;
pub mod talk;
pub mod timings;
pub mod token;
pub mod transition;
pub mod watch;
pub mod wire;

pub use crate::core::{Core, Effect, Event, NodeStatus, RequestId, Status};
pub use admission::{Entered, enter};
pub use clock::now;
pub use command::{Act, Command, Outcome};
pub use error::Error;
pub use following::{follow, follow_transitions};
pub use handle::{CHANGE_DEADLINE, Handle};
pub use heartbeat::Heartbeat;
pub use history::{History, Missed, Transitions};
pub use joining::{init_table, join, log_dir, persist_joined, saved_table, saved_view};
pub use lease::Lease;
pub use shell::{Config, Ended, INBOX_MAX, Membership};
pub use table::{Feed, Table};
pub use timings::Timings;
pub use transition::{Change, ChangeKind, Transition};
pub use wire::{Node, NodeState, Property, View};

#[cfg(test)]
use replog::Disk;
#[cfg(test)]
#[path = "../tests/sim/mod.rs"]
mod sim;
