//! The composition root: the daemons, the keeper, the local cluster, and `ssi`, the command line.
//!
//! Only this crate knows every other one. It decides nothing that a core below could decide: it reads configuration,
//! opens sockets, wires the parts together and talks to people.

pub mod admin;
pub mod capture;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod error;
pub mod keeper;
pub mod local;
pub mod sys;
pub mod verb;
pub mod watchdog;

pub use error::Error;
