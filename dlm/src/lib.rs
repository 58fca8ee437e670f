//! Who may touch what: a lock manager with VMS's semantics. Resources are opaque names with value blocks.
//!
//! Invariant: no two holders of one resource have incompatible modes on anything they have in common; what is granted carries a token that
//! only grows. See `README.md` for the whole contract.
//!
//! The surface: [`Table`] takes [`Event`]s and gives [`Effect`]s, and reads no clock, socket or file. [`server`] lets the programs of a node
//! at it over a local socket, [`client`] is their end.

pub mod client;
pub mod deadlock;
mod error;
mod event;
mod extents;
mod flags;
mod handle;
mod key;
mod lock;
mod message;
pub mod mode;
mod name;
pub mod node;
mod policy;
mod queue;
mod resource;
pub mod server;
mod shell;
mod slab;
pub mod table;
pub mod wire;

pub use error::Error;
pub use event::{
    Actor, Config, Convert, Effect, Event, Gone, Grant, LockId, Lockspace, Owner, Refusal, Request, Status,
    Transaction, Unlock, VALUE_BYTES,
};
pub use flags::Flags;
pub use handle::{Handle, Lock, Locking};
pub use key::{Branch, Key};
pub use lock::State;
pub use message::{Ask, Copy, Drop, Envelope, Message, Placed, Report, Scoped, ScopedCopy, Search};
pub use mode::{Mode, ModeSet};
pub use name::{NAME_BYTES_MAX, Name};
pub use node::Node;
pub use policy::{Policy, Scope, Span};
pub use resource::Value;
pub use shell::life;
pub use table::Table;

#[cfg(test)]
#[path = "../tests/sim/mod.rs"]
mod sim;
