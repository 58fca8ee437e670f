//! Moving bytes between the nodes of one cluster: authenticated, framed request/reply with priorities, deadlines and
//! bulk. README.md holds the contract; wire.rs draws the bytes.
//!
//! Owns: sockets, their handshakes and encryption, the queues of messages that wait for a socket, the calls that
//! wait for a reply. Knows nothing of what a message means.
//!
//! Invariant: not a byte of a message is read from a connection whose other end has not proved, for this very
//! connection, that it holds the cluster key; and everything that can wait is bounded in number, in bytes and in time.
//!
//! ```text
//!  call --> link (peer) --> lane --> connection --> outbox --> sealed records --> socket
//!  reply <------------------------- pending calls <-- frames <-- opened records <-- socket
//!  a request: socket --> opened records --> frames --> serving --> Service::handle --> outbox
//! ```

mod assembly;
mod config;
mod connection;
mod dialler;
mod endpoint;
mod error;
pub mod frame;
mod gate;
mod handshake;
mod inbound;
mod key;
mod link;
mod outbox;
mod peer;
pub mod provider;
pub mod reactor;
mod record;
pub mod region;
mod serving;
pub mod session;
pub mod setup;
mod source;
mod status;
pub mod transfer;
#[doc(hidden)]
pub mod verbs;
mod wire;

pub use config::{Config, Limits};
pub use endpoint::Endpoint;
pub use error::{Error, Refusal, Stage, Target};
pub use key::{ClusterKey, KeyError};
pub use peer::{LinkEvent, Message, Peer, Priority, Reply, Role, Service, ServiceId, service};
pub use status::{PeerStatus, Refusals, Status};
