//! The life of a tree at its master: empty, kept for a while, let go; and asks that are taken back.
//!
//! Invariant: `empty` holds the trees that serve and have nothing in them.

use super::canary::sings;
use super::master::NO_ANSWER;
use super::scoped::ScopedHolder;
use super::{Node, partition};
use crate::event::{Event, LockId, Owner, Refusal};
use crate::message::{Key, Message};
use base::NodeId;

impl Node {
    /// An ask is not wanted any more.
    pub(super) fn cancel_ask(&mut self, from: NodeId, tag: u64, key: Key) {
        let Some(tree) = self.trees.get_mut(&key.root()) else { return };
        if let Some(at) = tree.waiting.iter().position(|(node, ask)| *node == from && ask.tag == tag) {
            tree.waiting.remove(at);
            return self.post(from, Message::Denied { tag, key, why: Refusal::Cancelled });
        }
        if self.put_aside(from, &key, Message::Cancel { tag, key }) {
            return;
        }
        let Some(spot) = self.spots.get_mut(&key) else { return };
        let is_it = |(node, _): &(NodeId, LockId), lock: &ScopedHolder| *node == from && lock.tag == tag;
        if let Some(lock) = spot.scoped.iter().find(|(name, lock)| is_it(name, lock)).map(|(_, l)| l.lock) {
            return self.cancel_scoped(from, lock);
        }
        if spot.ahead.get(&from).is_some_and(|ask| ask.tag == tag) {
            spot.ahead.remove(&from);
            return self.post(from, Message::Denied { tag, key, why: Refusal::Cancelled });
        }
        if let Some(at) = spot.readers.iter().position(|reader| reader.from == from && reader.ask.tag == tag)
        {
            spot.readers.remove(at);
            return self.post(from, Message::Denied { tag, key, why: Refusal::Cancelled });
        }
        let holder = spot.holders.get(&from).filter(|holder| holder.tag == tag && holder.wants.is_some());
        if let Some(lock) = holder.map(|holder| holder.lock) {
            self.master(Event::Cancel { tag: NO_ANSWER, owner: Owner { node: from, holder: 0 }, lock });
            self.note_empty(key);
        }
    }

    /// Remembers since when a tree is empty; lets the one go that has been longest, if there are too many.
    pub(super) fn note_empty(&mut self, key: Key) {
        self.forget_spot(key);
        let key = key.root();
        let Some(tree) = self.trees.get_mut(&key) else { return };
        let goes = tree.moving.is_some() || tree.handed.is_some() || tree.taken_from.is_some();
        let is_empty = tree.spots == 0 && !tree.is_leaving && !goes;
        match (is_empty, tree.empty_since) {
            (true, None) => {
                self.last_idle += 1;
                tree.empty_since = Some(self.last_idle);
                self.empty.insert((self.last_idle, key));
            }
            (false, Some(since)) => {
                tree.empty_since = None;
                self.empty.remove(&(since, key));
            }
            _ => {}
        }
        while self.empty.len() > self.config.trees_idle_max {
            let Some((_, key)) = self.empty.pop_first() else { return };
            self.leave(key);
        }
    }

    /// Asks the directory to forget a tree.
    pub(super) fn leave(&mut self, key: Key) {
        let Some(tree) = self.trees.get_mut(&key) else { return };
        tree.is_leaving = true;
        tree.left_in = self.cluster.era();
        tree.empty_since = None;
        let floor = self.table.last_token();
        if let Some(to) = self.cluster.owner(partition(&key)) {
            self.post(to, Message::Release { key, floor });
        }
    }

    /// The directory has forgotten a tree of this node.
    pub(super) fn released(&mut self, key: Key) {
        if self.trees.get(&key).is_none_or(|tree| !tree.is_leaving) {
            return;
        }
        let waiting = self.trees.remove(&key).map(|tree| tree.waiting).unwrap_or_default();
        for (from, ask) in waiting {
            self.post(from, Message::NotMaster { tag: ask.tag, key: ask.key });
        }
    }

    /// The directory has made this node the master.
    pub(super) fn become_master(&mut self, key: Key, floor: u64) {
        if !sings!(self, TokensGoBack) {
            self.lift(floor);
        }
        self.trees.or_default(key.root());
        self.forget_hand(key.root());
        self.note_empty(key);
        self.ask_myself(key);
        self.ask_myself_scoped(key);
    }
}
