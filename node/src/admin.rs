//! The daemons' end of the admin protocol (crate `admin` has the protocol and the asking end).

pub mod server;
