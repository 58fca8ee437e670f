//! What stands behind the socket: one table, or the locks of the whole cluster.

use crate::client::wire::Row;
use crate::deadlock::Sighting;
use crate::event::{Effect, Event, Owner};
use base::{NodeId, Time};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

/// The answer to [`Locks::survey`], as it comes.
pub type Surveying<'a> = Pin<Box<dyn Future<Output = Vec<Sighting>> + Send + 'a>>;

/// What is known of the locks of other nodes' programs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// Their locks.
    pub rows: Vec<Row>,
    /// Nodes that did not answer.
    pub silent: Vec<NodeId>,
}

/// The answer to [`Locks::list_elsewhere`], as it comes.
pub type Listed<'a> = Pin<Box<dyn Future<Output = Listing> + Send + 'a>>;

/// Gives the locks of this node's programs.
pub type Lister = Arc<dyn Fn() -> Vec<Row> + Send + Sync>;

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
    /// Other nodes that want a list are answered with this.
    fn list_with(&self, _lister: Lister) {}
    /// The locks of other nodes' programs. A node by itself has none.
    fn list_elsewhere(&self) -> Listed<'_> {
        Box::pin(std::future::ready(Listing::default()))
    }
}
