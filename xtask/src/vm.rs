//! A virtual machine with Soft-RoCE, whose files are those of this machine: nothing is installed in it.
//!
//! Invariant: the machine sees this machine's files read-only, ends when its job or its time is over, and everything that
//! outlives a run stands in one directory under the build's.
//!
//! `kernel` (downloaded once) -> `guest` (what happens inside) -> `machine` (boots it, reads its report).

mod cpio;
mod guest;
mod kernel;
mod machine;

pub use guest::{Outcome, Part, quoted};
pub use machine::Machine;
