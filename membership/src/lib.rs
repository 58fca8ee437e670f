//! CLMS: who is in the cluster. (Under construction.)

mod error;
pub mod heartbeat;
pub mod wire;

pub use error::Error;
pub use heartbeat::Heartbeat;
pub use wire::{Node, NodeState, View};
