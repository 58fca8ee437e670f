//! One pid space. (Under construction; `wire` is the contract.)

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
