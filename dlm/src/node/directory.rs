//! The directory of this node's partitions: which node is master of which tree.
//!
//! Invariant: a tree of a partition that serves has at most one entry, and whoever is named there is the only one who may be its master.

use super::hashed::Hashed;
use super::{Node, partition};
use crate::message::{Ask, Key, Message};
use base::{Incarnation, NodeId};

/// Entries, and what waits for a partition to serve.
#[derive(Clone, Debug)]
pub struct Directory {
    pub entries: Hashed<Key, NodeId>,
    /// The largest fencing token of any tree that was given back here.
    pub floor: u64,
    pub waiting: Vec<(NodeId, Incarnation, Ask)>,
}

impl Directory {
    /// Nothing yet; `seed`: of its hashes.
    pub fn new(seed: u64) -> Directory {
        Directory { entries: Hashed::new(seed), floor: 0, waiting: Vec::new() }
    }
}

impl Node {
    /// Lookup and request in one: the master is asked, or the asker made master.
    pub(super) fn lookup(&mut self, from: NodeId, life: Incarnation, ask: Ask) {
        if self.cluster.owner(partition(&ask.key)) != Some(self.me()) {
            // The asker has an older view: its next one says whom to ask.
            return;
        }
        let root = ask.key.root();
        let master = self.directory.entries.get(&root).copied();
        let is_orphan = self.recovery.lost.contains(&root);
        if self.is_frozen(partition(&ask.key)) || is_orphan || (master.is_none() && self.is_held(&ask.key)) {
            self.directory.waiting.push((from, life, ask));
            return;
        }
        match master {
            Some(master) => self.post(master, Message::Forward { from, life, ask }),
            None => {
                self.directory.entries.insert(root, from);
                self.post(from, Message::Yours { key: ask.key, floor: self.directory.floor });
            }
        }
    }

    /// A master has let go of a tree.
    pub(super) fn release(&mut self, from: NodeId, key: Key, floor: u64) {
        if self.cluster.owner(partition(&key)) != Some(self.me()) {
            // The new owner hears of the tree from its master.
            return;
        }
        if self.is_frozen(partition(&key)) {
            self.recovery.releases.push((from, key, floor));
            return;
        }
        if self.directory.entries.get(&key) == Some(&from) {
            self.directory.entries.remove(&key);
            self.directory.floor = self.directory.floor.max(floor);
        }
        self.post(from, Message::Released { key });
    }
}
