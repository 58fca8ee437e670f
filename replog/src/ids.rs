//! Who takes part, and where in the log something stands.
//!
//! Invariant: a [`Member`] names a node *and* the disk that holds its votes: a node whose disk was wiped is another
//! member, so it cannot vote a second time in a term in which it has voted.

use base::NodeId;
use std::fmt;

/// The number of a reign: grows with each election, at most one leader each. 0: before the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Term(pub u64);

/// The place of an entry in the log, from 1. 0: before the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Index(pub u64);

/// The identity of one disk's contents: drawn at random when a store is created, gone when the disk is wiped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DiskId(pub u128);

/// One that takes part in a log: a node with the disk on which it keeps its promises.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Member {
    /// Where it is reached.
    pub node: NodeId,
    /// Which contents of that node's disk.
    pub disk: DiskId,
}

/// An entry's term and index. Two logs that hold the same stamp are the same up to it. The order is that of "who has
/// more": later term first, then longer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp {
    /// The term in which the entry was proposed.
    pub term: Term,
    /// Its place.
    pub index: Index,
}

/// A caller's number for something that it asked of a [`Core`](crate::Core); the answer bears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RequestId(pub u64);

/// The number of a write that was ordered; writes are done in the order of their tickets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ticket(pub u64);

impl Term {
    /// The term after this one.
    pub fn next(self) -> Term {
        Term(self.0 + 1)
    }
}

impl Index {
    /// The place after this one.
    pub fn next(self) -> Index {
        Index(self.0.saturating_add(1))
    }
    /// The place before this one; of 0 it is 0.
    pub fn before(self) -> Index {
        Index(self.0.saturating_sub(1))
    }
}

macro_rules! number {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    )*};
}
number!(Term Index);

impl fmt::Debug for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} (disk {:?})", self.node, self.disk)
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:?}", self.node, self.disk)
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index.0, self.term.0)
    }
}
