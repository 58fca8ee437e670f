//! Nodes that are STALLED: they do nothing for a while, nobody declares them DOWN, and they go on in the same life.
//!
//! Invariant: what comes meanwhile is seen afterwards, in its order.

use super::{Happening, World};
use base::NodeId;
use std::collections::VecDeque;

impl Happening {
    /// The node that must be awake for it.
    pub(super) fn needs(&self) -> Option<NodeId> {
        match self {
            Happening::Arrives { to, .. } | Happening::View { to, .. } => Some(*to),
            Happening::UserActs { node, .. } | Happening::Vanishes { node, .. } => Some(*node),
            Happening::Tick(node) => Some(*node),
            _ => None,
        }
    }
}

impl World {
    pub(super) fn stalls(&mut self, node: NodeId, length: u64) {
        let machine = self.machines.get_mut(&node).filter(|machine| machine.runs);
        if let Some(machine) = machine.filter(|machine| machine.stalled.is_none()) {
            machine.stalled = Some(VecDeque::new());
            self.note(format!("{node} is stalled"));
            self.later(length, Happening::GoesOn(node));
        }
    }

    pub(super) fn goes_on(&mut self, node: NodeId) -> Result<(), String> {
        let machine = self.machines.get_mut(&node);
        let missed = machine.and_then(|machine| machine.stalled.take()).unwrap_or_default();
        missed.into_iter().try_for_each(|happening| self.happen(happening))
    }
}
