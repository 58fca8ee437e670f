//! Keys: a resource by its whole path, in a fixed number of bytes.
//!
//! ```text
//!  root      lockspace | name | 0
//!  below it  lockspace | name of the root | SHA-256 over the path: each step hashes the step above it and the name
//! ```
//!
//! Invariant: two resources have one key only if SHA-256 gives the same digest for two paths. (A path may have 8 names of 64 bytes: too much for each
//! message and each map.)

use crate::event::Lockspace;
use crate::name::Name;
use sha2::{Digest, Sha256};
use std::fmt;

/// The bit of a lockspace's number that no lockspace has: a master's table keeps what is below a root there, under its digest.
const BELOW: u32 = 1 << 31;

/// Where below its root a resource is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Branch(pub [u8; 32]);

impl Branch {
    /// The root itself.
    pub const ROOT: Branch = Branch([0; 32]);

    /// One step down, from a resource with this branch below the root `root`.
    pub fn step(&self, root: Name, name: Name) -> Branch {
        let mut hash = Sha256::new();
        if *self == Branch::ROOT {
            hash.update([0, root.as_bytes().len() as u8]);
            hash.update(root.as_bytes());
        } else {
            hash.update([1]);
            hash.update(self.0);
        }
        hash.update(name.as_bytes());
        Branch(hash.finalize().into())
    }
}

impl fmt::Debug for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self == Branch::ROOT {
            true => f.write_str("root"),
            false => self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

/// A resource: its tree, and where in it. A root's key is also that of its tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The lockspace.
    pub lockspace: Lockspace,
    /// The root's name.
    pub name: Name,
    /// Where below it.
    pub branch: Branch,
}

impl Key {
    /// The key of a root.
    pub fn new(lockspace: Lockspace, name: Name) -> Key {
        Key { lockspace, name, branch: Branch::ROOT }
    }

    /// The key of the root above.
    pub fn root(&self) -> Key {
        Key { branch: Branch::ROOT, ..*self }
    }

    /// The key of what has this name below it.
    pub fn child(&self, name: Name) -> Key {
        Key { branch: self.branch.step(self.name, name), ..*self }
    }

    /// Where a master's table has it: all resources of all trees are roots there.
    pub(crate) fn flat(&self) -> (Lockspace, Name) {
        match self.branch {
            Branch::ROOT => (self.lockspace, self.name),
            Branch(digest) => (Lockspace(self.lockspace.0 | BELOW), Name::new(&digest).unwrap_or(self.name)),
        }
    }

    /// True if a lockspace may have this number.
    pub(crate) fn may_be(lockspace: Lockspace) -> bool {
        lockspace.0 & BELOW == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_has_a_key_of_its_own() {
        let name = |text: &str| Name::new(text.as_bytes()).unwrap();
        let root = |text| Key::new(Lockspace(1), name(text));
        let keys = [
            root("a"),
            root("ab"),
            root("a").child(name("b")),
            root("a").child(name("bc")),
            root("ab").child(name("c")),
            root("a").child(name("b")).child(name("c")),
            Key::new(Lockspace(2), name("a")).child(name("b")),
        ];
        let distinct: std::collections::BTreeSet<_> = keys.iter().map(Key::flat).collect();
        assert_eq!(distinct.len(), keys.len());
        assert!(keys.iter().all(|key| key.root().branch == Branch::ROOT));
    }
}
