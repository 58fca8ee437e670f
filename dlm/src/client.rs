//! Programs and the lock manager of their node: the protocol on the local socket, and the programs' end of it.
//!
//! ```text
//!  program                                             server (crate::server)
//!    | connect, ServiceHello "locks"                     |
//!    |-------------------------------------------------->|
//!    | Welcome, and with it one end of a second socket   |
//!    |<--------------------------------------------------|
//!    | Call ------------ first socket -----------------> |
//!    | <---------------- first socket ------------ Reply |   one for each call, in their order, at once
//!    | <---------------- second socket ---------- Notice |   completions and blocking callbacks, when they happen
//! ```
//!
//! Invariant: a call is answered by one reply; a reply without an error promises one completion with the call's tag, and nothing else does.
//! The second socket can be polled: it is readable exactly when there is something to tell.
//!
//! A connection is a holder: when its last descriptor is closed, its locks go.

mod connection;
pub mod status;
pub mod wire;

pub use connection::{Calls, Connection, Notices, SOCKET_VARIABLE, default_socket};
