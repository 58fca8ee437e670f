//! Resources by name: found, made, dropped.
//!
//! Invariant: `names` holds exactly the resources of the slab, by (lockspace, parent, name).

use super::Table;
use crate::event::{LockId, Lockspace};
use crate::key::{Branch, Key};
use crate::mode::ModeSet;
use crate::name::Name;
use crate::policy::Policy;
use crate::queue::Chain;
use crate::resource::{Counts, Resource, Value};
use crate::slab::NONE;
use std::hash::BuildHasher;

/// Where a name is looked for.
#[derive(Clone, Copy)]
pub struct Place {
    pub lockspace: Lockspace,
    /// The resource above it, or `NONE`.
    pub parent: u32,
    pub name: Name,
}

impl Table {
    fn place_hash(&self, place: &Place) -> u64 {
        self.hasher.hash_one((place.lockspace, place.parent, place.name))
    }

    fn find_by_hash(&self, hash: u64, place: &Place) -> Option<u32> {
        let same = |index: &u32| {
            let resource = &self.resources[*index];
            resource.name == place.name
                && resource.lockspace == place.lockspace
                && resource.parent == place.parent
        };
        self.names.find(hash, same).copied()
    }

    /// The resource at `place`.
    pub(super) fn find_resource(&self, place: &Place) -> Option<u32> {
        self.find_by_hash(self.place_hash(place), place)
    }

    /// The resource at `place`, made with this policy if it is not there; `None` if there are too many.
    pub(super) fn resource(&mut self, place: &Place, policy: Policy) -> Option<u32> {
        let hash = self.place_hash(place);
        if let Some(found) = self.find_by_hash(hash, place) {
            return Some(found);
        }
        if self.resources.count() >= self.config.resources_max {
            return None;
        }
        let (mut depth, mut branch) = (1, Branch::ROOT);
        if place.parent != NONE {
            branch = self.resources[place.parent].branch.step(self.root_of(place.parent), place.name);
            self.resources[place.parent].children += 1;
            depth += self.resources[place.parent].depth;
        }
        let index = self.resources.insert(Resource {
            lockspace: place.lockspace,
            name: place.name,
            hash,
            parent: place.parent,
            children: 0,
            depth,
            branch,
            policy,
            granted: Chain::EMPTY,
            converting: Chain::EMPTY,
            waiting: Chain::EMPTY,
            granted_count: Counts::default(),
            wanted_count: Counts::default(),
            passing: 0,
            flexible: 0,
            value: Value::NEW,
            loss_until: None,
            extents: (policy == Policy::Extent).then(Box::default),
        });
        let resources = &self.resources;
        self.names.insert_unique(hash, index, |other| resources[*other].hash);
        Some(index)
    }

    /// The value of a root resource.
    pub fn value(&self, lockspace: Lockspace, name: Name) -> Option<Value> {
        let index = self.find_resource(&Place { lockspace, parent: NONE, name })?;
        Some(self.resources[index].value)
    }

    /// The value of a lock's resource.
    pub fn value_of(&self, lock: LockId) -> Option<Value> {
        Some(self.resources[self.locks[self.locks.find(lock.0)?].resource].value)
    }

    /// The key of a lock's resource.
    pub fn key_of(&self, lock: LockId) -> Option<Key> {
        let index = self.locks[self.locks.find(lock.0)?].resource;
        let resource = &self.resources[index];
        Some(Key { lockspace: resource.lockspace, name: self.root_of(index), branch: resource.branch })
    }

    fn root_of(&self, mut index: u32) -> Name {
        while self.resources[index].parent != NONE {
            index = self.resources[index].parent;
        }
        self.resources[index].name
    }

    pub(super) fn set_value(&mut self, lockspace: Lockspace, name: Name, value: Value) {
        if let Some(index) = self.find_resource(&Place { lockspace, parent: NONE, name }) {
            self.resources[index].value = value;
        }
    }

    /// Drops `index` if nothing keeps it, and then what was above it for its sake alone.
    pub(super) fn drop_if_idle(&mut self, mut index: u32) {
        while index != NONE {
            let resource = &self.resources[index];
            let has_loss = resource.loss_until.is_some_and(|until| until > self.now);
            if !resource.has_no_lock() || resource.children > 0 || has_loss {
                return;
            }
            debug_assert!(resource.granted_count.modes() == ModeSet::default());
            if let Ok(entry) = self.names.find_entry(resource.hash, |other| *other == index) {
                entry.remove();
            }
            let parent = resource.parent;
            self.resources.remove(index);
            if parent != NONE {
                self.resources[parent].children -= 1;
            }
            index = parent;
        }
    }
}
