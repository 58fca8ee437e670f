//! Everything of process management that Rust cannot check: raw system calls behind safe functions.
//!
//! Invariant: no function here has a contract that a safe caller could break; each `unsafe` block names what
//! makes it sound. Nothing here decides anything.

pub mod clone;
pub mod ledger;
pub mod notify;
pub mod ptrace;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod task;
pub mod wait;
