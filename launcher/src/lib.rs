//! Parallel jobs: one program, many ranks, one command.
//!
//! Owns what a job is: which rank runs where, how ranks find each other (PMI-1), what becomes of their output and
//! input, when a job is over and with which exit code. It starts processes through [`pm::client`]; where they shall
//! run is decided by who calls it.
//!
//! ```text
//!   run() ---- Shell: poll(2), streams, signals ----- pm::client::Tasks ----- ssid ...
//!                |                  |
//!              Job (pure)        pmi::Server (pure)
//!   ranks' states, exit code     key-value space, barrier
//! ```
//!
//! Invariant: when [`run`] returns, every rank has ended or is being killed; if this process dies, the session's
//! grace time kills them.

mod error;
mod job;
mod options;
pub mod pmi;
mod run;
mod shell;

pub use error::Error;
pub use job::{Config, Effect, Event, Job, Severity};
pub use options::Options;
pub use run::run;
