//! A simulated network: endpoints of one process, in virtual time, with faults. The same seed gives the same run.
//!
//! ```text
//!   endpoint.call -> engine -> SimLink.push -> | Wire: due time, order, faults | -> SimLink.receive -> engine -> service
//!                                                   ^ the only clock
//! ```
//!
//! The engine, the sessions and the transfers are those of real endpoints; only links and time are simulated. [`Network::run`] polls futures until none
//! can go on, then moves the clock to whatever happens next. For the layers above: their shells run on endpoints of a [`Network`] as
//! they run on real ones, as long as they take their time from it, too ([`Network::sleep`]).
//!
//! Invariant: nothing here asks the real time, the system's randomness, or the order of a hash.

mod link;
mod network;
mod wire;

pub use network::Network;
pub use wire::Faults;

pub(crate) use link::SimLink;
pub(crate) use wire::{Arrival, End, Wire};
