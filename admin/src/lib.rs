//! The admin protocol: what commands and programs ask of the daemons of their node, and the asking end of it.
//!
//! A client connects to a Unix socket in the node's run directory, names the service it wants
//! (`base::codec::ServiceHello`), and from then on both ends speak that service's frames. This crate has the service
//! `admin`: its requests and answers ([`wire`]), where its sockets are ([`Place`]), a client that blocks and needs no
//! runtime ([`Client`]), and over it the cluster API of OpenSSI's libcluster ([`Cluster`]). Who may ask what is decided by
//! the daemon, by the peer credentials of the socket.
//!
//! Invariant: whoever follows transitions by [`Cluster::wait`] gets every one, in order and once, or is told
//! [`Error::TooOld`]; a daemon that is restarted meanwhile makes no difference.

pub mod api;
mod client;
mod error;
mod place;
pub mod wire;

pub use api::{Cause, Change, Cluster, Membership, NodeInfo, State, TransId, Which};
pub use client::Client;
pub use error::Error;
pub use place::{LOCK_SOCKET, Place, default_local_dir, default_state_dir};
