//! Registered memory: what other ends may be allowed to reach.
//!
//! Owns the memory of regions, who may reach it, and how long (epochs). Invariant: memory that a link may still touch is
//! never given back to the system; a key is good for one peer, one region and one epoch.

mod memory;

pub use memory::{Memory, Span};
