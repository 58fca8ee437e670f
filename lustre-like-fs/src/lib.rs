//! The parallel filesystem: one metadata server, an object server on every node, files striped over them, one mount.
//!
//! ```text
//!  program --write(2)--> kernel --FUSE--> mount -> client --stripes--> object servers -> disks
//!                                                    '---- names ----> metadata server -> fjall
//! ```
//!
//! Owns the namespace ([`mds`]), the bytes ([`ost`]), where they lie ([`layout`]), what is said between them
//! ([`wire`]), and what programs see ([`client`], [`mount`]). Invariant: every operation goes to the servers and nothing is
//! cached, so all nodes agree at every moment; each change of the namespace is one atomic batch and happens once,
//! however often it is asked for. See README.md.

pub mod client;
mod clock;
pub mod error;
pub mod layout;
pub mod mds;
pub mod mount;
pub mod ost;
pub mod peers;
pub mod servers;
pub mod wire;

pub use client::Client;
pub use client::stripes::{Figures, ServerSpace, Striping};
pub use error::Error;
pub use layout::{Layout, Pattern};
pub use mount::{fuse_config, mount_options};
pub use servers::{Config, Servers};
