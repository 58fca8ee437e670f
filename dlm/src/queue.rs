//! Chains of locks, linked through the locks themselves, so that a lock enters and leaves any of them without allocating.
//!
//! Invariant: a lock is in one queue of its resource ([`QUEUE`]) and in the chain of its owner ([`OWNED`]), in each once.

use crate::lock::Lock;
use crate::slab::{NONE, Slab};

/// The link of a resource's queues.
pub const QUEUE: usize = 0;
/// The link of an owner's locks.
pub const OWNED: usize = 1;

/// A lock's neighbours in one chain.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    before: u32,
    after: u32,
}

impl Link {
    /// In no chain.
    pub const NOWHERE: Link = Link { before: NONE, after: NONE };
}

/// A chain by its ends.
#[derive(Clone, Copy, Debug)]
pub struct Chain<const WHICH: usize> {
    head: u32,
    tail: u32,
    length: u32,
}

impl<const WHICH: usize> Chain<WHICH> {
    /// An empty one.
    pub const EMPTY: Self = Chain { head: NONE, tail: NONE, length: 0 };

    /// How many locks are in it.
    pub fn len(&self) -> u32 {
        self.length
    }

    /// True if none is.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The first.
    pub fn head(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }

    /// The one after `index`.
    pub fn after(locks: &Slab<Lock>, index: u32) -> Option<u32> {
        let after = locks[index].links[WHICH].after;
        (after != NONE).then_some(after)
    }

    /// All from the head on.
    pub fn iter<'a>(&self, locks: &'a Slab<Lock>) -> impl Iterator<Item = u32> + use<'a, WHICH> {
        std::iter::successors(self.head(), move |index| Self::after(locks, *index))
    }

    /// Adds `index` behind all others.
    pub fn push_back(&mut self, locks: &mut Slab<Lock>, index: u32) {
        locks[index].links[WHICH] = Link { before: self.tail, after: NONE };
        match self.tail {
            NONE => self.head = index,
            tail => locks[tail].links[WHICH].after = index,
        }
        self.tail = index;
        self.length += 1;
    }

    /// Adds `index` before all others.
    pub fn push_front(&mut self, locks: &mut Slab<Lock>, index: u32) {
        locks[index].links[WHICH] = Link { before: NONE, after: self.head };
        match self.head {
            NONE => self.tail = index,
            head => locks[head].links[WHICH].before = index,
        }
        self.head = index;
        self.length += 1;
    }

    /// Takes `index`, which is in this chain, out of it.
    pub fn remove(&mut self, locks: &mut Slab<Lock>, index: u32) {
        let Link { before, after } = std::mem::replace(&mut locks[index].links[WHICH], Link::NOWHERE);
        match before {
            NONE => self.head = after,
            before => locks[before].links[WHICH].after = after,
        }
        match after {
            NONE => self.tail = before,
            after => locks[after].links[WHICH].before = before,
        }
        self.length -= 1;
    }
}
