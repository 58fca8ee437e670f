//! The last steps of a move: the directory hears of the new master, the former one forgets, the holders learn their new locks.
//!
//! Invariant: the former master forgets a tree only when the directory knows the new one.

use super::FORGOTTEN;
use crate::event::LockId;
use crate::message::{Key, Message, Placed};
use crate::node::Node;
use base::NodeId;

impl Node {
    /// To the directory: a tree has another master.
    pub(in crate::node) fn took(&mut self, from: NodeId, root: Key) {
        if self.cluster.owner(crate::node::partition(&root)) != Some(self.me()) {
            // It tells the new owner.
            return;
        }
        self.directory.entries.insert(root, from);
        self.recovery.lost.remove(&root);
        self.post(from, Message::Confirmed { key: root });
    }

    /// The directory knows: the former master may forget.
    pub(in crate::node) fn confirmed(&mut self, root: Key) {
        let Some(tree) = self.trees.get_mut(&root) else { return };
        match tree.taken_from {
            // (The tree is not given back before it has: otherwise it would say of a tree that is nowhere that it is here.)
            Some(former) if self.cluster.is_live(former) => self.post(former, Message::Taken { key: root }),
            _ => {
                tree.taken_from = None;
                self.note_empty(root);
            }
        }
    }

    pub(in crate::node) fn taken(&mut self, from: NodeId, root: Key) {
        if self.trees.get(&root).is_some_and(|tree| tree.handed.is_some_and(|hand| hand.to == from)) {
            self.trees.remove(&root);
        }
        self.post(from, Message::Noted { key: root, number: FORGOTTEN });
    }

    /// A tree has a master again: what this node has of it is known there by these locks, and what waits is asked for there.
    pub(in crate::node) fn moved(&mut self, from: NodeId, tokens: &[(Key, LockId)], scoped: &[Placed]) {
        for (key, lock) in tokens {
            self.token_placed(from, *key, *lock);
        }
        self.scoped_recovered(from, self.cluster.era(), scoped, false);
    }

    pub(in crate::node) fn ask_new_master(&mut self, from: NodeId, root: Key) {
        for key in self.tokens.of_tree(root) {
            let Some(token) = self.tokens.get_mut(&key) else { continue };
            token.moving = None;
            if token.asked.is_some_and(|asked| asked.to.is_none()) && token.mode.is_none() {
                token.master = Some(from);
            }
            if token.asked.is_some_and(|asked| asked.to.is_none()) && token.master == Some(from) {
                self.send_ask(key);
            }
            self.settle(key);
        }
        self.ask_new_scoped_master(from, root);
    }
}
