//! One pid space: processes are started, signalled and shown on every node as if the cluster were one machine.
//!
//! ```text
//!   command (client) ==Unix==> ssid (control) ==fabric==> ssid (control) ==Unix==> ssi-init (init) --> task
//! ```
//!
//! Owns: the view and its pid 1 ([`init`], [`view`], [`filter`]), the tasks of all clients and their streams
//! ([`control`], [`link`]), kill(2) of a foreign pid, the view's /proc ([`procfs`], [`table`]), and a command's end of a
//! conversation ([`client`]). [`wire`] is what these parts say to each other. README.md has states, messages and failure
//! cases.
//!
//! Invariant: a task's streams and its end are owned by its two ends, the client and `ssi-init`; the daemons between hold
//! nothing that cannot be asked for again, so they may die and come back under running commands.
//!
//! For the composition root: [`init::main`] and [`init::spawn`] (the supervisor and who starts it), [`Pm::start`] and
//! [`Handle`] (in `ssid`), [`procfs::ProcFs`] (what is served at /proc), [`link::Link`] (a daemon and its `ssi-init`). For
//! commands: [`client::foreground()`], [`client::everywhere()`], [`client::Tasks`].

pub mod client;
pub mod control;
pub mod filter;
pub mod init;
pub mod link;
mod notify;
pub mod procfs;
pub mod sys;
pub mod table;
pub mod view;
pub mod wire;

pub use control::{Config, Handle, Pm};
