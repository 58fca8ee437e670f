//! Trees that were given away, until the directory knows: and what becomes of one whose new master has died.
//!
//! ```text
//!  serves --Tree--> handed: asks are passed on --Taken--> (none)
//!                     | the new master's life ends
//!                     v
//!                   handed, ended: asks wait; told in each report --Recovered--> (none): they are bounced
//! ```
//!
//! Invariant: while a tree is in no table its former master says so to each owner of its partition, until one has rebuilt it.

use super::master::{Hand, Tree};
use super::{Node, partition};
use crate::message::{Handed, Key, Message, Report};
use base::NodeId;
use std::collections::BTreeMap;

impl Node {
    /// Lives have ended: perhaps of those to whom trees were given.
    pub(super) fn end_hands(&mut self, ended: &[NodeId]) {
        let era = self.cluster.era();
        self.arriving.retain(|(from, _), _| !ended.contains(from));
        self.trees.for_each(|tree| {
            if let Some(hand) = tree.handed.as_mut().filter(|hand| ended.contains(&hand.to)) {
                hand.ended.get_or_insert(era);
            }
        });
    }

    /// In a new era: trees that were given away. (Until the directory has heard of it in an era that was recovered.)
    pub(super) fn report_handed(&mut self) -> Vec<Handed> {
        for key in self.trees.keys_that(|_, tree| tree.taken_from.is_some()) {
            self.say_took(key);
        }
        let handed = self.trees.that(|_, tree| tree.handed.is_some()).into_iter();
        let told = handed
            .filter_map(|(key, tree)| tree.handed.map(|Hand { to, ended }| Handed { key: *key, to, ended }));
        told.collect()
    }

    /// The directory has rebuilt what was lost with those to whom it was given.
    pub(super) fn forget_lost_hands(&mut self, owner: NodeId) {
        let is_lost = |tree: &Tree| tree.handed.is_some_and(|hand| hand.ended.is_some());
        for key in self.trees.keys_that(|_, tree| is_lost(tree)) {
            if self.cluster.owner(partition(&key)) == Some(owner) {
                self.forget_hand(key);
                self.trees.remove(&key);
            }
        }
    }

    /// A tree that was given away is given by the directory, or comes back: what has waited for that asks again.
    pub(super) fn forget_hand(&mut self, root: Key) {
        let Some(tree) = self.trees.get_mut(&root) else { return };
        if tree.handed.take().is_some() {
            for (from, ask) in std::mem::take(&mut tree.waiting) {
                self.post(from, Message::NotMaster { tag: ask.tag, key: ask.key });
            }
        }
    }

    /// Trees that were on their way: their former master passes on what comes, until the new one says that it has them. If that one is dead, nobody has them.
    pub(super) fn find_receivers(&mut self, reports: &BTreeMap<NodeId, Report>) {
        let (frozen, last) = (&self.recovery.frozen, self.recovery.last_done);
        let mut handed: BTreeMap<Key, BTreeMap<NodeId, Option<NodeId>>> = BTreeMap::new();
        for (from, report) in reports {
            for Handed { key, to, ended } in &report.handed {
                // What this owner has rebuilt since is newer.
                let is_settled =
                    ended.is_some_and(|ended| ended <= last) && !frozen.contains(&partition(key));
                if !is_settled {
                    let alive = ended.is_none().then_some(*to);
                    handed.entry(*key).or_default().insert(*from, alive);
                }
            }
        }
        for (key, hands) in handed {
            let is_last = |to: &Option<NodeId>| to.is_none_or(|to| !hands.contains_key(&to));
            let Some((from, to)) = hands.iter().find(|(_, to)| is_last(to)) else { continue };
            let entry = self.directory.entries.get(&key);
            if entry.is_some_and(|master| !hands.contains_key(master)) {
                continue;
            }
            if to.is_some() {
                // (Where the partition serves, the entry is newer.)
                if frozen.contains(&partition(&key)) {
                    self.directory.entries.insert(key, *from);
                }
            } else {
                self.directory.entries.remove(&key);
                self.recovery.held_keys.insert(key);
            }
        }
    }
}
