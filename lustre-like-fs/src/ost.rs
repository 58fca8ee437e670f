//! The object server of a node: the bytes of files, as objects on the node's own disk.
//!
//! [`objects`] keeps them in files, [`append`] orders appends to a file whose object 0 is here, [`server`] answers requests.

pub mod append;
pub mod objects;
pub mod server;

pub use server::ObjectServer;
