//! A tree goes to the node that asks for it most.
//!
//! ```text
//!  master M                                        holders H                  new master T           directory D
//!  counts asks; one node has most, for long
//!  freezes: asks wait, drops are put aside --Moving--> no master known
//!                                          <--Noted--- (nothing more comes)
//!  all have noted: what it has -------------------------------------Tree----> places it
//!  forwards what still comes to T                  <--Moved------------------ serves      --Took--> T is the master
//!                             <---------------------------------Taken-------- <--Confirmed--------
//!  forgets it                 ----------------------------------Noted------->
//! ```
//!
//! Invariants: the state of a tree is at M, on its way, or at T; M says in each report that T has it, until D has noted T. A holder is told by M before anything is
//! on its way, and reports what it has if either of the two dies. M grants nothing after `Moving`, so what it sends is exactly what the holders have. A new era ends
//! each move that has not come to `Tree`.

mod receiving;

use super::Node;
use super::asks::Asks;
use super::master::Hand;
use super::master::Spot;
use crate::event::{Event, LockId, Unlock};
use crate::flags::Flags;
use crate::message::{Copy, Drop, Key, Message, Placed, ScopedCopy};
use crate::resource::Value;
use base::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// In place of a move's number: the former master has forgotten the tree.
const FORGOTTEN: u64 = 0;
/// Entries of one message.
const TREE_MAX: usize = 16_000;

/// A move that has begun.
#[derive(Clone, Debug)]
pub struct Move {
    to: NodeId,
    number: u64,
    nodes: BTreeSet<NodeId>,
    missing: BTreeSet<NodeId>,
    aside: Vec<(NodeId, Message)>,
}

/// A tree on its way.
#[derive(Clone, Debug, Default)]
pub struct Cargo {
    pub tokens: Vec<(NodeId, Copy)>,
    pub scoped: Vec<(NodeId, ScopedCopy)>,
}

/// What M sends, before it is in messages.
#[derive(Default)]
struct Load {
    tokens: BTreeMap<LockId, (NodeId, Copy)>,
    scoped: BTreeMap<LockId, (NodeId, ScopedCopy)>,
    values: BTreeMap<Key, Value>,
    floor: u64,
}

impl Load {
    fn take_value(&mut self, key: Key, value: Option<([u8; 32], bool)>) {
        let (Some((bytes, is_valid)), Some(held)) = (value, self.values.get_mut(&key)) else { return };
        let bytes = if is_valid { bytes } else { held.bytes };
        *held = Value { bytes, is_valid, serial: held.serial + 1 };
    }

    /// A holder had given something up before it knew of the move.
    fn drop(&mut self, drop: &Drop) {
        self.floor = self.floor.max(drop.floor);
        if !self.tokens.contains_key(&drop.lock) && !self.scoped.contains_key(&drop.lock) {
            return;
        }
        self.take_value(drop.key, drop.value);
        let Some(mode) = drop.mode else {
            self.tokens.remove(&drop.lock);
            self.scoped.remove(&drop.lock);
            return;
        };
        if let Some((_, copy)) = self.tokens.get_mut(&drop.lock) {
            copy.mode = mode;
        }
        if let Some((_, copy)) = self.scoped.get_mut(&drop.lock) {
            (copy.mode, copy.scope) = (mode, drop.scope.unwrap_or(copy.scope));
        }
    }
}

impl Node {
    /// Trees that this node has got from other masters.
    pub fn trees_taken(&self) -> u64 {
        self.trees_taken
    }

    /// An ask has come; perhaps the tree goes to those who ask so often.
    pub(super) fn count_ask(&mut self, from: NodeId, key: Key) {
        let (now, rule, me) = (self.now, self.config.remaster, self.me());
        let root = key.root();
        let Some(tree) = self.trees.get_mut(&root) else { return };
        let Some(to) = tree.asks.count(now, from, &rule).filter(|to| *to != me) else { return };
        let is_free = !tree.is_leaving && tree.moving.is_none() && tree.taken_from.is_none();
        // Nobody may be given anything by the clock meanwhile.
        if is_free && self.recovery.held_until().is_none() && self.cluster.is_live(to) {
            self.begin_move(root, to);
        }
    }

    fn begin_move(&mut self, root: Key, to: NodeId) {
        self.last_fetch += 1;
        let number = self.last_fetch;
        let spots = self.spots_of(root);
        let mut nodes = BTreeSet::new();
        for (_, spot) in spots {
            nodes.extend(spot.holders.keys().chain(spot.ahead.keys()));
            nodes.extend(spot.readers.iter().map(|reader| reader.from));
            nodes.extend(spot.scoped.keys().map(|(node, _)| node));
        }
        for node in &nodes {
            self.post(*node, Message::Moving { key: root, to, number });
        }
        if let Some(tree) = self.trees.get_mut(&root) {
            let missing = nodes.clone();
            tree.moving = Some(Move { to, number, nodes, missing, aside: Vec::new() });
        }
        self.hand_over_if_noted(root);
    }

    /// True if what a holder says is put aside: nothing is granted while a tree moves.
    pub(super) fn put_aside(&mut self, from: NodeId, key: &Key, message: Message) -> bool {
        let Some(tree) = self.trees.get_mut(&key.root()) else { return false };
        let Some(moving) = &mut tree.moving else { return false };
        moving.aside.push((from, message));
        true
    }

    /// The master wants to give a tree away: until somebody else says so, it has none.
    pub(super) fn note_move(&mut self, from: NodeId, root: Key, to: NodeId, number: u64) {
        for key in self.tokens.of_tree(root) {
            let Some(token) = self.tokens.get_mut(&key) else { continue };
            if token.master == Some(from) {
                // (What it has called for it does not call for again, if the tree stays with it.)
                (token.master, token.lock) = (None, None);
                token.moving = Some((from, to));
            }
            if let Some(asked) = token.asked.as_mut().filter(|asked| asked.to == Some(from)) {
                (asked.to, asked.is_cancelled) = (None, false);
            }
        }
        self.note_scoped_move(from, root, to);
        self.post(from, Message::Noted { key: root, number });
    }

    pub(super) fn noted(&mut self, from: NodeId, root: Key, number: u64) {
        let Some(tree) = self.trees.get_mut(&root) else { return };
        if number == FORGOTTEN {
            tree.taken_from.take_if(|former| *former == from);
            return self.note_empty(root);
        }
        if let Some(moving) = tree.moving.as_mut().filter(|moving| moving.number == number) {
            moving.missing.remove(&from);
            self.hand_over_if_noted(root);
        }
    }

    fn hand_over_if_noted(&mut self, root: Key) {
        let Some(tree) = self.trees.get_mut(&root) else { return };
        let Some(moving) = tree.moving.take_if(|moving| moving.missing.is_empty()) else { return };
        let to = moving.to;
        tree.handed = Some(Hand { to, ended: None });
        let waiting = std::mem::take(&mut tree.waiting);
        let mut load = self.unload(root);
        for (_, message) in &moving.aside {
            match message {
                Message::Drop(drop) => load.drop(drop),
                Message::Fetched { key, value, .. } => load.take_value(*key, *value),
                _ => {}
            }
        }
        self.send_tree(root, to, moving.nodes.iter().copied().collect(), load);
        // Those who have something of it ask again anyway, when they know the new master.
        for (from, ask) in waiting.into_iter().filter(|(from, _)| !moving.nodes.contains(from)) {
            self.post(from, Message::NotMaster { tag: ask.tag, key: ask.key });
        }
    }

    pub(super) fn is_handed(&self, key: &Key) -> bool {
        self.trees.get(&key.root()).is_some_and(|tree| tree.handed.is_some())
    }

    /// An ask that the directory has sent here, and is for the new master.
    pub(super) fn pass_on(&mut self, to: NodeId, from: NodeId, ask: crate::message::Ask) {
        if let Some(life) = self.cluster.life(from) {
            self.post(to, Message::Forward { from, life, ask });
        }
    }

    /// Takes all that is known of a tree out of this node's tables.
    fn unload(&mut self, root: Key) -> Load {
        let mut load = Load { floor: self.table.last_token(), ..Load::default() };
        for key in self.spots.of_tree(root) {
            let Some(spot) = self.spots.remove(&key) else { continue };
            let (space, name) = key.flat();
            let value = self.table.value(space, name).unwrap_or(Value::NEW);
            load.values.insert(key, value);
            for (node, holder) in &spot.holders {
                let copy = holder.mode.map(|mode| (*node, Copy { key, mode, value }));
                load.tokens.extend(copy.map(|copy| (holder.lock, copy)));
            }
            for ((node, name), holder) in &spot.scoped {
                let copy = self.scoped_copy(key, *name, holder.lock, value);
                load.scoped.extend(copy.map(|copy| (holder.lock, (*node, copy))));
            }
            // Only now: what goes lets others have what they wait for.
            let tokens = spot.holders.values().map(|holder| holder.lock);
            for lock in tokens.chain(spot.scoped.values().map(|holder| holder.lock)) {
                self.token_locks.remove(&lock);
                self.scoped_locks.remove(&lock);
                self.erase(lock);
            }
        }
        if let Some(tree) = self.trees.get_mut(&root) {
            tree.spots = 0;
        }
        load
    }

    /// Whoever gets anything by this is erased too: nobody hears of it.
    fn erase(&mut self, lock: LockId) {
        let Some(owner) = self.table.owner_of(lock) else { return };
        let (tag, flags, value) = (0, Flags::FORCEUNLOCK, None);
        self.table.handle(
            self.now,
            Event::Unlock(Unlock { tag, owner, lock, flags, value }),
            &mut Vec::new(),
        );
        self.token_may_wait_no_more(lock);
    }

    fn send_tree(&mut self, root: Key, to: NodeId, nodes: Vec<NodeId>, load: Load) {
        let Load { tokens, scoped, mut values, floor } = load;
        let with_value = |(node, mut copy): (NodeId, Copy)| {
            copy.value = values.get(&copy.key).copied().unwrap_or(copy.value);
            (node, copy)
        };
        let tokens: Vec<_> = tokens.into_values().map(with_value).collect();
        let mut scoped: Vec<_> = scoped.into_values().collect();
        for (_, copy) in &mut scoped {
            copy.value = values.remove(&copy.key).unwrap_or(copy.value);
            values.insert(copy.key, copy.value);
        }
        let key = root;
        for part in tokens.chunks(TREE_MAX) {
            let (tokens, scoped, nodes) = (part.to_vec(), Vec::new(), Vec::new());
            self.post(to, Message::Tree { key, tokens, scoped, nodes, floor, more: true });
        }
        for part in scoped.chunks(TREE_MAX) {
            let (tokens, scoped, nodes) = (Vec::new(), part.to_vec(), Vec::new());
            self.post(to, Message::Tree { key, tokens, scoped, nodes, floor, more: true });
        }
        let (tokens, scoped) = (Vec::new(), Vec::new());
        self.post(to, Message::Tree { key, tokens, scoped, nodes, floor, more: false });
    }

    /// A tree comes, or part of it.
    pub(super) fn tree_comes(&mut self, from: NodeId, root: Key, part: Cargo, floor: u64) {
        self.lift(floor);
        let cargo = self.arriving.entry((from, root)).or_default();
        cargo.tokens.extend(part.tokens);
        cargo.scoped.extend(part.scoped);
    }

    /// All of it is here: this node is its master.
    pub(super) fn take_over(&mut self, from: NodeId, root: Key, nodes: &[NodeId]) {
        let cargo = self.arriving.remove(&(from, root)).unwrap_or_default();
        self.trees_taken += 1;
        let asks = Asks::resting_until(self.now + self.config.remaster.rests);
        self.forget_hand(root);
        let tree = self.trees.or_default(root);
        tree.taken_from = Some(from);
        tree.asks = asks;
        let mut tokens: BTreeMap<NodeId, Vec<(Key, LockId)>> = BTreeMap::new();
        for (node, copy) in &cargo.tokens {
            self.place_token(*node, copy, &mut tokens);
            self.set_master_value(copy.key, copy.value);
        }
        let mut scoped: BTreeMap<NodeId, Vec<Placed>> = BTreeMap::new();
        for (node, copy) in &cargo.scoped {
            let placed = self.place_scoped(*node, copy, copy.mode);
            scoped.entry(*node).or_default().extend(placed);
            self.set_master_value(copy.key, copy.value);
        }
        for node in nodes {
            let (tokens, scoped) = (tokens.remove(node), scoped.remove(node));
            self.say_moved(*node, root, tokens.unwrap_or_default(), scoped.unwrap_or_default());
        }
        self.say_took(root);
        // Somebody may have died since it was packed.
        self.purge_strangers(root);
    }

    fn purge_strangers(&mut self, root: Key) {
        let spots = self.spots_of(root);
        let nodes = spots.flat_map(|(_, spot)| spot.holders.keys().chain(spot.scoped.keys().map(|(n, _)| n)));
        let strangers: BTreeSet<NodeId> =
            nodes.copied().filter(|node| !self.cluster.is_live(*node)).collect();
        for node in strangers {
            self.purge_dead(node);
        }
    }

    pub(super) fn say_took(&mut self, root: Key) {
        if let Some(owner) = self.cluster.owner(super::partition(&root)) {
            self.post(owner, Message::Took { key: root });
        }
    }

    fn say_moved(&mut self, node: NodeId, root: Key, tokens: Vec<(Key, LockId)>, scoped: Vec<Placed>) {
        let key = root;
        for part in tokens.chunks(TREE_MAX) {
            let (tokens, scoped) = (part.to_vec(), Vec::new());
            self.post(node, Message::Moved { key, tokens, scoped, more: true });
        }
        for part in scoped.chunks(TREE_MAX) {
            let (tokens, scoped) = (Vec::new(), part.to_vec());
            self.post(node, Message::Moved { key, tokens, scoped, more: true });
        }
        let (tokens, scoped) = (Vec::new(), Vec::new());
        self.post(node, Message::Moved { key, tokens, scoped, more: false });
    }

    /// A new era: what has not been sent stays. (Before anybody is purged: what comes of that is said after this.)
    pub(super) fn end_moves(&mut self) {
        let (mut aside, mut asks) = (Vec::new(), Vec::new());
        for root in self.trees.keys_that(|_, tree| tree.moving.is_some()) {
            let Some(tree) = self.trees.get_mut(&root) else { continue };
            let Some(moving) = tree.moving.take() else { continue };
            let waiting = std::mem::take(&mut tree.waiting);
            tree.asks = Asks::default();
            for node in &moving.nodes {
                let (tokens, scoped) = self.locks_of(*node, root);
                self.say_moved(*node, root, tokens, scoped);
            }
            aside.extend(moving.aside);
            asks.extend(waiting);
        }
        // What a node gave back it gave before it asked: with that goes the value.
        for (from, message) in aside {
            match message {
                Message::Drop(drop) => self.dropped(from, &drop),
                Message::Fetched { key, number, value } => self.fetched(from, key, number, value),
                Message::Cancel { tag, key } => self.cancel_ask(from, tag, key),
                _ => {}
            }
        }
        for (from, ask) in asks {
            self.asked(from, ask);
        }
    }

    /// What this master knows of a tree's resources, in the order of their keys.
    fn spots_of(&self, root: Key) -> impl Iterator<Item = (Key, &Spot)> {
        self.spots.of_tree(root).into_iter().filter_map(|key| Some((key, self.spots.get(&key)?)))
    }

    /// What a node has of a tree, by its locks here.
    fn locks_of(&self, node: NodeId, root: Key) -> (Vec<(Key, LockId)>, Vec<Placed>) {
        let (mut tokens, mut scoped) = (Vec::new(), Vec::new());
        for (key, spot) in self.spots_of(root) {
            let holder = spot.holders.get(&node).filter(|holder| holder.mode.is_some());
            tokens.extend(holder.map(|holder| (key, holder.lock)));
            for ((_, lock), held) in spot.scoped.iter().filter(|((at, _), _)| *at == node) {
                let placed = self.table.mode_of(held.lock).map(|mode| Placed {
                    key,
                    lock: *lock,
                    at_master: held.lock,
                    mode,
                });
                scoped.extend(placed);
            }
        }
        (tokens, scoped)
    }
}
