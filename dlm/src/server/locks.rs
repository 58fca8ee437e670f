//! What stands behind the socket: one table, or the locks of the whole cluster.

use crate::deadlock::Sighting;
use crate::event::{Effect, Event, Owner};
use base::{NodeId, Time};
use std::future::Future;
use std::pin::Pin;
use tokio::sync::mpsc::UnboundedSender;

/// The answer to [`Locks::survey`], as it comes.
pub type Surveying<'a> = Pin<Box<dyn Future<Output = Vec<Sighting>> + Send + 'a>>;

/// Somebody who grants locks.
///
/// What an owner waits for is bounded by its locks, so the channel of its effects is, too.
pub trait Locks: Send + Sync + 'static {
    /// The node whose programs these are.
    fn node(&self) -> NodeId;
    /// The time that deadlines are in.
    fn now(&self) -> Time;
    /// A new owner; what becomes of its locks is told to `effects`, in order.
    fn join(&self, effects: UnboundedSender<Effect>) -> Owner;
    /// Something in an owner's name.
    fn submit(&self, event: Event);
    /// The owner is gone: its locks go, its PERSISTENT ones stay as orphans.
    fn leave(&self, owner: Owner);
    /// Who waits for whom, at this moment.
    fn survey(&self) -> Surveying<'_>;
}
