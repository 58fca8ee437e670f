//! Moving bytes between the nodes of one cluster: calls with credits that are carried out once, one-sided reads and writes of
//! registered memory, over whatever both ends have. README.md holds the contract.
//!
//! Owns: links and how they are set up and protected, sessions, registered memory. Knows nothing of what a message means.
//!
//! Invariant: not a byte of a message is read from a connection whose other end has not proved, for this very connection, that it
//! holds the cluster key; everything that can wait is bounded in number, in bytes and in time; a request is carried out once.
//!
//! ```text
//!   endpoint    call, send, register, read, write        a task of a runtime, or whoever waits, drives
//!      engine   remotes, guests, ways, setups            one lock, never blocks
//!        session, transfer, region                       pure cores: frames in, frames out
//!        tcp, shm, verbs                                 links: they carry frames
//!          reactor                                       descriptors
//! ```

pub mod bystander;
mod config;
mod endpoint;
mod engine;
mod error;
pub mod frame;
mod key;
mod peer;
pub mod provider;
pub mod reactor;
pub mod region;
mod serving;
pub mod session;
pub mod setup;
pub mod shm;
pub mod sim;
mod status;
pub mod tcp;
pub mod transfer;
#[doc(hidden)]
pub mod verbs;

pub use config::{Config, Limits};
pub use endpoint::{Endpoint, Region, Wait};
pub use error::{Error, Refusal, Stage, Target};
pub use key::{ClusterKey, KeyError};
pub use peer::{LinkEvent, Message, NEWCOMER, Peer, Priority, Reply, Role, Service, ServiceId, service};
pub use provider::Provider;
pub use reactor::Io;
pub use region::{RemoteKey, Rights, Span};
pub use setup::{Keys, Security};
pub use status::{ChannelStatus, LinkStatus, PeerStatus, RailState, Refusals, Status};
