//! `libssi.so.1`: the cluster for C programs, as OpenSSI's libcluster told it. `include/ssi/cluster.h` declares it, `man/` describes it.
//!
//! ```text
//!  C program --- nodes.rs, transitions.rs --- admin::Cluster --- admin socket --- ssid
//! ```
//!
//! Invariants: no call keeps anything but the name that `cluster_name` gives, so all may be called by any thread and after fork(2);
//! a pointer is written to only if the call succeeds, and never beyond the size that was given; a panic of ours ends as EIO, not in the program.

mod errno;
mod layout;
mod nodes;
mod transitions;

pub use layout::{NodeInfo, TransInfo};
