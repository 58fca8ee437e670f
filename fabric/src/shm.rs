//! Links through memory that two processes of one host share.
//!
//! ```text
//!   push -> outgoing -> ring ........ shared memory ........ ring -> incoming -> sink      calls, small pieces
//!            \-> lent: (memory, offset) -> ring -> incoming: copies from the sender's region into the receiver's   bulk
//!   asleep:  bell (eventfd) in the reactor            dead: the Unix socket that brought them together hangs up
//! ```
//!
//! Owns the memory of its links, their bells and sockets, and mappings of what the other ends have lent. Knows nothing of sessions, and
//! not how the socket was found and authenticated.
//!
//! Invariant: the other process can end a link, never more: whatever it writes into the memory, nothing here panics, waits for it or reads
//! or writes outside of what was checked.

mod bell;
mod incoming;
mod lending;
mod link;
mod outgoing;
mod passing;
mod ring;
mod setup;
mod sys;
#[cfg(test)]
mod tests;
mod track;

pub use link::ShmLink;
pub use setup::{BULK_RING_BYTES, End, Setup, Step, URGENT_RING_BYTES};
