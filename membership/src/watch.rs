//! Watching at scale: who hears whom, what many watchers' alarms mean, and how the master reaches ten thousand nodes.
//!
//! Up to [`pace::DIRECT_MAX`] nodes every voter hears every node itself ([`crate::detection`]). In larger clusters each node has K = 10
//! watchers, and a tree carries the master's beats. `watch/README.md` draws it.
//!
//! Invariant: all of it is pure; what a node does is a function of the view, of what it was told, and of the time it was told.

pub mod beats;
pub mod cut;
pub mod health;
pub mod lease;
pub mod pace;
pub mod relay;
pub mod rings;
pub mod roster;
pub mod station;
pub mod tree;
pub mod watcher;
pub mod wire;

pub use beats::Beats;
pub use cut::Cut;
pub use lease::{Lease, Leases};
pub use pace::Pace;
pub use relay::Relay;
pub use roster::Roster;
pub use station::Station;
pub use tree::Tree;
pub use watcher::Watcher;
