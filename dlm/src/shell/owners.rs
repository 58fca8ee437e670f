//! Who is told what becomes of which locks.
//!
//! Invariant: an owner's effects reach it in the core's order; who has left is told nothing.

use crate::event::{Effect, Event, Owner};
use base::NodeId;
use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;
use tokio::sync::mpsc::UnboundedSender;

/// What follows from what was told.
#[derive(Debug, Default)]
pub struct Told {
    /// To the core, at once.
    pub events: Vec<Event>,
    /// To be woken when the core's lock is released.
    pub wakes: Vec<Waker>,
}

/// Somebody who is told, while the core's lock is held: it must not wait.
pub trait Listener: Send + Sync {
    /// Something has become of a lock of this owner.
    fn hear(&self, effect: Effect, told: &mut Told);
}

impl Listener for UnboundedSender<Effect> {
    fn hear(&self, effect: Effect, _: &mut Told) {
        // A program that has gone does not listen.
        let _ = self.send(effect);
    }
}

/// All owners of this node.
pub struct Owners {
    node: NodeId,
    by_holder: HashMap<u64, Arc<dyn Listener>, foldhash::fast::FixedState>,
    last_holder: u64,
}

impl Owners {
    /// None.
    pub fn new(node: NodeId) -> Owners {
        Owners { node, by_holder: HashMap::default(), last_holder: 0 }
    }

    /// One more.
    pub fn join(&mut self, listener: Arc<dyn Listener>) -> Owner {
        self.last_holder += 1;
        self.by_holder.insert(self.last_holder, listener);
        Owner { node: self.node, holder: self.last_holder }
    }

    /// This one is not told any more.
    pub fn leave(&mut self, owner: Owner) {
        self.by_holder.remove(&owner.holder);
    }

    /// Tells whom it concerns.
    pub fn tell(&mut self, effect: Effect, told: &mut Told) {
        if let Some(listener) = self.by_holder.get(&super::owner(&effect).holder) {
            listener.hear(effect, told);
        }
    }
}
