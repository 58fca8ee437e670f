//! How loaded the nodes are, and where work should go.
//!
//! Owns: samples of what this node's view uses, their spreading to the other nodes, the table of all nodes' samples,
//! and the two decisions made from it: [`Handle::fastnode`] and [`placement`].
//!
//! Invariant: a load speaks of the processes of a node's *view* against the cores and memory that the node *gives* to
//! the cluster; what else runs on the machine is not its business. A decision is a pure function of table and view.
//!
//! ```text
//!  view's procfs --rows--> Sampler --Sample--> Table <--Spread-- other nodes
//!                             every 500 ms       |
//!                                                +--> loads, fastnode, placement
//! ```

mod error;
mod placement;
mod procfs;
mod sampler;
mod shell;
mod table;
mod wire;

pub use error::Error;
pub use placement::placement;
pub use sampler::{Row, Sampler};
pub use shell::{Config, Handle, INTERVAL, LoadLevel};
pub use table::{NodeLoad, STALE_AFTER, Table, cost};
pub use wire::{Sample, Spread};
