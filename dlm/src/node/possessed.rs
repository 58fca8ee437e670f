//! A node's tokens by key: found by hash, gone through in the order of their keys.
//!
//! Invariant: `order` has the keys of `by_key`, and everything that is seen one after another is seen in that order: no hash shows outside.

use super::tokens::Token;
use crate::key::Key;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::collections::BTreeSet;
use std::ops::Index;

/// The tokens.
#[derive(Clone, Debug)]
pub struct Tokens {
    by_key: HashMap<Key, Token, FixedState>,
    order: BTreeSet<Key>,
}

impl Tokens {
    /// None; `seed`: of the hashes.
    pub fn new(seed: u64) -> Tokens {
        Tokens { by_key: HashMap::with_hasher(FixedState::with_seed(seed)), order: BTreeSet::new() }
    }

    pub fn get(&self, key: &Key) -> Option<&Token> {
        self.by_key.get(key)
    }

    pub fn get_mut(&mut self, key: &Key) -> Option<&mut Token> {
        self.by_key.get_mut(key)
    }

    pub fn contains_key(&self, key: &Key) -> bool {
        self.by_key.contains_key(key)
    }

    pub fn insert(&mut self, key: Key, token: Token) {
        self.order.insert(key);
        self.by_key.insert(key, token);
    }

    pub fn remove(&mut self, key: &Key) -> Option<Token> {
        self.order.remove(key);
        self.by_key.remove(key)
    }

    /// All keys, in their order.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.order.iter()
    }

    /// The keys of a tree.
    pub fn of_tree(&self, root: Key) -> Vec<Key> {
        let keys = self.order.range(root..).copied();
        keys.take_while(|key| key.root() == root).collect()
    }

    /// All, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Token)> {
        self.order.iter().filter_map(|key| Some((key, self.by_key.get(key)?)))
    }

    /// Changes all. (In no order: `change` sees one at a time, and tells nobody.)
    pub fn for_each(&mut self, mut change: impl FnMut(&mut Token)) {
        self.by_key.values_mut().for_each(&mut change);
    }
}

impl Index<&Key> for Tokens {
    type Output = Token;
    fn index(&self, key: &Key) -> &Token {
        &self.by_key[key]
    }
}
