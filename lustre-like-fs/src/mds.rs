//! The metadata server: the namespace of the whole cluster, on one node.
//!
//! [`Namespace`] is the core: it reads and changes records of a [`store::Store`], knows no clock, socket or thread, and
//! makes each request one atomic batch. [`server`] runs it: one thread executes requests in the order of their arrival,
//! so the order of the batches is the order in which all nodes see them. [`purge`] destroys the objects of files that
//! are gone.

pub mod change;
pub mod namespace;
pub mod purge;
pub mod record;
pub mod server;
pub mod store;

mod ops {
    mod attributes;
    mod create;
    mod lookup;
    mod open;
    mod remove;
    mod rename;
    mod xattr;
}

pub use namespace::Namespace;
