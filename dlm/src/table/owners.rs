//! Owners: how many locks each has, and which.
//!
//! Invariant: an owner is here exactly while it has a lock.

use super::Table;
use crate::event::Owner;
use crate::queue::{Chain, OWNED};
use base::NodeId;
use std::hash::BuildHasher;

/// What one owner has.
#[derive(Clone, Debug)]
pub struct Possessions {
    pub owner: Owner,
    pub locks: Chain<OWNED>,
}

impl Table {
    fn owner_hash(&self, owner: Owner) -> u64 {
        self.hasher.hash_one(owner)
    }

    /// The place of `owner`, if it has a lock.
    pub(super) fn owner_slot(&self, owner: Owner) -> Option<u32> {
        let same = |slot: &u32| self.owners[*slot].owner == owner;
        self.owner_names.find(self.owner_hash(owner), same).copied()
    }

    /// How many locks `owner` has.
    pub fn locks_of(&self, owner: Owner) -> u32 {
        self.owner_slot(owner).map_or(0, |slot| self.owners[slot].locks.len())
    }

    /// Makes `lock` one of its owner's, whose place is `slot`, if he has one.
    pub(super) fn own(&mut self, lock: u32, slot: Option<u32>) {
        let owner = self.locks[lock].owner;
        let slot = slot.unwrap_or_else(|| {
            let slot = self.owners.insert(Possessions { owner, locks: Chain::EMPTY });
            let (owners, hasher) = (&self.owners, &self.hasher);
            let rehash = |slot: &u32| hasher.hash_one(owners[*slot].owner);
            self.owner_names.insert_unique(hasher.hash_one(owner), slot, rehash);
            slot
        });
        self.locks[lock].owner_slot = slot;
        self.owners[slot].locks.push_back(&mut self.locks, lock);
    }

    /// Makes `lock` nobody's.
    pub(super) fn disown(&mut self, lock: u32) {
        let slot = self.locks[lock].owner_slot;
        let possessions = &mut self.owners[slot];
        possessions.locks.remove(&mut self.locks, lock);
        if possessions.locks.is_empty() {
            let hash = self.owner_hash(self.locks[lock].owner);
            if let Ok(entry) = self.owner_names.find_entry(hash, |other| *other == slot) {
                entry.remove();
            }
            self.owners.remove(slot);
        }
    }

    /// The locks of `owner`, oldest first.
    pub(super) fn possessions(&self, owner: Owner) -> Vec<u32> {
        let slot = self.owner_slot(owner);
        slot.map_or_else(Vec::new, |slot| self.owners[slot].locks.iter(&self.locks).collect())
    }

    /// All locks of all owners on `node`, owner by owner.
    pub(super) fn possessions_of_node(&self, node: NodeId) -> Vec<u32> {
        let here = self.owners.iter().map(|(_, possessions)| possessions.owner);
        let mut owners: Vec<Owner> = here.filter(|owner| owner.node == node).collect();
        owners.sort_unstable();
        owners.into_iter().flat_map(|owner| self.possessions(owner)).collect()
    }
}
