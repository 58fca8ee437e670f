//! Users whose processes end, and what they leave behind.

use super::{Happening, World};
use crate::users::Doing;
use base::NodeId;
use dlm::node::Event;
use dlm::{LockId, Owner};

impl World {
    /// A user's process ends.
    pub(super) fn vanishes(&mut self, node: NodeId, user: usize) -> Result<(), String> {
        self.last_tag += 1;
        let running = self.machines.get_mut(&node).filter(|machine| machine.runs && !machine.is_cut);
        let Some(machine) = running.filter(|m| m.users[user].doing != Doing::Nothing) else {
            return Ok(());
        };
        let gone = machine.users[user].clone();
        let left = machine.users[user].vanish(u64::from(node.0) * 100_000 + self.last_tag);
        machine.orphans.extend(left);
        self.oracle.vanishes(self.now, gone.key.unwrap(), gone.owner, left.is_some());
        for (key, ..) in &gone.above {
            self.oracle.vanishes(self.now, *key, gone.owner, false);
        }
        self.note(format!("{node} {gone:?} vanishes, {left:?}"));
        self.show(node, Event::User(dlm::Event::Gone(dlm::Gone::Holder(gone.owner))))?;
        let pause = 1 + self.prng.below(1_500);
        self.later(pause, Happening::UserActs { node, user });
        if left.is_some() {
            let length = 500 + self.prng.below(8_000);
            self.later(length, Happening::Purges(gone.owner));
        }
        Ok(())
    }

    /// Somebody, anywhere, has an orphan taken away that nobody has adopted.
    pub(super) fn purges(&mut self, owner: Owner) -> Result<(), String> {
        let running = self.machines.iter().filter(|(_, machine)| machine.runs && !machine.is_cut);
        let nodes: Vec<NodeId> = running.map(|(node, _)| *node).collect();
        let is_there = |node: &NodeId| self.machines[node].orphans.iter().any(|o| o.owner == owner);
        if !nodes.iter().any(is_there) {
            return Ok(());
        }
        let from = nodes[self.prng.below(nodes.len() as u64) as usize];
        self.note(format!("{from} purges {owner:?}"));
        self.later(3_000, Happening::Purges(owner));
        self.show(from, Event::User(dlm::Event::Gone(dlm::Gone::OrphansOf(owner))))
    }

    pub(super) fn orphan_purged(&mut self, node: NodeId, owner: Owner, lock: LockId) {
        let Some(machine) = self.machines.get_mut(&node) else { return };
        if let Some(at) = machine.orphans.iter().position(|o| o.owner == owner && o.lock == lock) {
            // A conversion that ends with its user says so with the same words: the lock is still there then.
            if machine.node.users().place_of(lock).is_none() {
                let orphan = machine.orphans.remove(at);
                self.oracle.vanishes(self.now, orphan.key, owner, false);
            }
        }
    }
}
