//! The filesystem from outside: against a model, over three nodes, killed, and mounted.

mod cluster;
mod common;
mod crash;
mod mount;
mod namespace_model;
