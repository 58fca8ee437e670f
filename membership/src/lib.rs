//! CLMS: who is in the cluster. (Under construction.)

pub mod wire;

pub use wire::{Node, NodeState, View};
