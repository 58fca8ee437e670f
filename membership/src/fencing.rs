//! Fencing: making sure that a node which is DOWN can touch nothing shared any more.
//!
//! | part | owns |
//! |---|---|
//! | [`device`] | what is configured: agents, levels, and the text that an agent reads |
//! | [`fencer`] | pure: which agent runs for which node, what next when it fails, when a node is FENCED |
//! | [`agent`] | runs one agent: a process, its time limit, its output |
//! | `guard` | the task that runs the two for membership |
//! | [`feeder`] | pure: whether this node's watchdog device is fed |
//!
//! An agent is any program that speaks as the stock `fence_*` programs do (ClusterLabs, FenceAgentAPI): it reads `key=value` lines, among
//! them `action=off`, and ends with 0 if the node is off.
//!
//! Invariant: a node is called FENCED only after every device of one level has said so, or an operator has.

pub mod agent;
pub mod device;
pub mod feeder;
pub mod fencer;
mod guard;

pub use agent::{Crew, Report};
pub use device::{Action, Device, Fault, Level, Plan};
pub use feeder::Feeder;
pub use fencer::{Effect, Event, Fencer, RunId};
pub(crate) use guard::{Guard, Wanted};
