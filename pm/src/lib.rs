//! One pid space. (Under construction; `wire` is the contract.)

pub mod client;
pub mod wire;
