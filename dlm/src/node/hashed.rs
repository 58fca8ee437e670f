//! Maps that are looked up by hash and gone through in the order of their keys.
//!
//! A key of a resource is 100 bytes: a search tree of 100,000 compares and moves them at each step, a hash table once. What is seen one after another
//! (in a new era, when a tree moves) is sorted then.
//!
//! Invariant: everything that is seen one after another is seen in the order of keys, so no hash shows outside.

use crate::key::{Branch, Key};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::collections::BTreeSet;
use std::fmt;
use std::hash::Hash;
use std::ops::Index;

/// A map by hash.
#[derive(Clone)]
pub struct Hashed<K, V>(HashMap<K, V, FixedState>);

impl<K: Copy + Ord + Hash, V> Hashed<K, V> {
    /// Nothing in it. `seed`: whoever may choose keys should not know it; nothing else depends on it.
    pub fn new(seed: u64) -> Self {
        Hashed(HashMap::with_hasher(FixedState::with_seed(seed)))
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key)
    }

    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.0.get_mut(key)
    }

    pub fn contains_key(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.0.insert(key, value)
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.0.remove(key)
    }

    /// The value of a key, made if there is none.
    pub fn or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        self.0.entry(key).or_default()
    }

    /// All, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.that(|_, _| true).into_iter()
    }

    /// Those of which `is_one` is true, in the order of their keys.
    pub fn that(&self, is_one: impl Fn(&K, &V) -> bool) -> Vec<(&K, &V)> {
        let mut all: Vec<(&K, &V)> = self.0.iter().filter(|(key, value)| is_one(key, value)).collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all
    }

    /// The keys of those.
    pub fn keys_that(&self, is_one: impl Fn(&K, &V) -> bool) -> Vec<K> {
        self.that(is_one).into_iter().map(|(key, _)| *key).collect()
    }

    /// Changes all. (In no order: `change` sees one at a time, and tells nobody.)
    pub fn for_each(&mut self, mut change: impl FnMut(&mut V)) {
        self.0.values_mut().for_each(&mut change);
    }

    /// Keeps only those. (In no order, as [`Hashed::for_each`].)
    pub fn retain(&mut self, mut stays: impl FnMut(&K, &mut V) -> bool) {
        self.0.retain(|key, value| stays(key, value));
    }
}

impl<K: Copy + Ord + Hash + fmt::Debug, V: fmt::Debug> fmt::Debug for Hashed<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Copy + Ord + Hash, V> Index<&K> for Hashed<K, V> {
    type Output = V;
    fn index(&self, key: &K) -> &V {
        &self.0[key]
    }
}

/// A map of resources, in which those of one tree are found together. (What it holds is large, and stays where it is when the map grows.)
///
/// Invariant: `below` has the keys of `all` that are no roots.
#[derive(Clone, Debug)]
pub struct Forest<V> {
    all: Hashed<Key, Box<V>>,
    below: BTreeSet<Key>,
}

impl<V> Forest<V> {
    /// Nothing in it; `seed` as for [`Hashed::new`].
    pub fn new(seed: u64) -> Forest<V> {
        Forest { all: Hashed::new(seed), below: BTreeSet::new() }
    }

    /// Those of which `is_one` is true, in the order of their keys.
    pub fn that(&self, is_one: impl Fn(&Key, &V) -> bool) -> impl Iterator<Item = (&Key, &V)> {
        let some = self.all.that(|key, value| is_one(key, value));
        some.into_iter().map(|(key, value)| (key, &**value))
    }

    /// The keys of those.
    pub fn keys_that(&self, is_one: impl Fn(&Key, &V) -> bool) -> Vec<Key> {
        self.all.keys_that(|key, value| is_one(key, value))
    }

    pub fn get(&self, key: &Key) -> Option<&V> {
        self.all.get(key).map(|value| &**value)
    }

    pub fn get_mut(&mut self, key: &Key) -> Option<&mut V> {
        self.all.get_mut(key).map(|value| &mut **value)
    }

    pub fn contains_key(&self, key: &Key) -> bool {
        self.all.contains_key(key)
    }

    pub fn insert(&mut self, key: Key, value: V) {
        if key.branch != Branch::ROOT {
            self.below.insert(key);
        }
        self.all.insert(key, Box::new(value));
    }

    pub fn remove(&mut self, key: &Key) -> Option<V> {
        if key.branch != Branch::ROOT {
            self.below.remove(key);
        }
        self.all.remove(key).map(|value| *value)
    }

    /// The keys of a tree that are here, in their order.
    pub fn of_tree(&self, root: Key) -> Vec<Key> {
        let top = self.contains_key(&root).then_some(root);
        let below = self.below.range(root..).copied().take_while(|key| key.root() == root);
        top.into_iter().chain(below).collect()
    }

    /// Changes all, as [`Hashed::for_each`].
    pub fn for_each(&mut self, mut change: impl FnMut(&mut V)) {
        self.all.for_each(|value| change(value));
    }
}

impl<V> Index<&Key> for Forest<V> {
    type Output = V;
    fn index(&self, key: &Key) -> &V {
        &self.all[key]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Lockspace;
    use crate::name::Name;

    fn root(name: &str) -> Key {
        Key::new(Lockspace(1), Name::new(name.as_bytes()).unwrap())
    }

    #[test]
    fn what_is_seen_is_sorted_whatever_the_seed() {
        let seen = |seed| {
            let mut map = Hashed::new(seed);
            for k in 0..1_000u32 {
                map.insert(k.wrapping_mul(7_919) % 1_000, k);
            }
            map.retain(|key, _| key % 2 == 0);
            (map.keys_that(|key, _| key % 3 == 0), format!("{map:?}"))
        };
        assert_eq!(seen(1), seen(2));
        assert!(seen(1).0.is_sorted() && seen(1).0.len() == 167);
    }

    #[test]
    fn a_tree_is_found_whether_its_root_is_there_or_not() {
        let mut forest = Forest::new(1);
        let below = |root: Key| root.child(Name::new(b"leaf").unwrap());
        for key in [root("a"), below(root("a")), below(root("b")), root("c")] {
            forest.insert(key, ());
        }
        let of_tree = |name| forest.of_tree(root(name));
        assert_eq!(of_tree("a"), [root("a"), below(root("a"))]);
        assert_eq!(of_tree("b"), [below(root("b"))]);
        assert_eq!(of_tree("c"), [root("c")]);
        forest.remove(&below(root("b")));
        assert!(forest.of_tree(root("b")).is_empty() && forest.of_tree(root("d")).is_empty());
    }
}
