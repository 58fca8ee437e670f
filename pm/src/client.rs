//! Running tasks from a command: the client's end of the conversation in [`crate::wire::client`].
//!
//! A command (`onnode`, `onall`, `ssirun`) is single-threaded and waits in poll(2). It owns the truth about its end of
//! every stream: how much output it has, and which input nobody has accepted yet. So `ssid` may die and come back
//! under a running command.
//!
//! ```text
//!   foreground, everywhere, ssirun          what the user sees: terminal, signals, exit status
//!        |            |
//!      Tasks        Outlet, LineMux, Signals, RawMode
//!        |   \
//!   Connection  Session (pure: offsets, windows, what is sent again)
//! ```
//!
//! Invariant: no byte of a stream is lost or doubled, whatever happens to the connection within the grace time; what
//! is not acknowledged yet is bounded by `limits::STREAM_WINDOW_BYTES` a stream.

mod connection;
mod ending;
mod error;
mod everywhere;
mod foreground;
mod here;
mod lines;
mod outlet;
mod outputs;
mod session;
mod signals;
mod tasks;
mod terminal;

pub use ending::{Ending, signal_text};
pub use error::Error;
pub use everywhere::{Everywhere, everywhere};
pub use foreground::{Foreground, foreground};
pub use lines::{LINE_BYTES_MAX, LineMux};
pub use outlet::{Credit, Outlet};
pub use outputs::Outputs;
pub use session::{News, Session, TaskEvent};
pub use signals::Signals;
pub use tasks::{Tasks, Watch};
pub use terminal::{RawMode, in_foreground};
