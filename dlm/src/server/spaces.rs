//! Lockspaces by name: who may use them, and how often they were made.
//!
//! Invariant: two lockspaces of one node never have one number. On all nodes a name has the same number: it is the name's hash.

use super::session::Peer;
use crate::client::status;
use crate::client::wire::SPACE_BYTES_MAX;
use crate::event::Lockspace;
use std::collections::BTreeMap;

/// The lockspace that is always there, and open to every user.
pub const OPEN_SPACE: &str = "ssi";
/// Lockspaces of one node at most.
const SPACES_MAX: usize = 4_096;

/// A lockspace.
#[derive(Clone, Debug)]
pub struct Space {
    pub number: Lockspace,
    pub name: Vec<u8>,
    uid: u32,
    gid: u32,
    mode: u32,
    /// How often it was made and not yet released.
    made: u32,
}

/// All of them.
#[derive(Debug)]
pub struct Spaces {
    by_name: BTreeMap<Vec<u8>, Space>,
    /// The user who runs the node.
    owner: u32,
}

/// The number of the lockspace with this name: 31 bits of FNV-1a, on every node the same. 0 is nobody's.
pub fn lockspace(name: &[u8]) -> Lockspace {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    Lockspace((name.iter().fold(0x811c_9dc5, step) & 0x7fff_ffff).max(1))
}

impl Spaces {
    /// The open lockspace alone; `owner` runs the node and may do what root may.
    pub fn new(owner: u32) -> Spaces {
        let name = OPEN_SPACE.as_bytes().to_vec();
        let open = Space { number: lockspace(&name), name, uid: owner, gid: 0, mode: 0o666, made: 1 };
        Spaces { by_name: BTreeMap::from([(open.name.clone(), open)]), owner }
    }

    /// True for root and for who runs the node.
    pub fn is_privileged(&self, peer: &Peer) -> bool {
        peer.uid == 0 || peer.uid == self.owner
    }

    /// The lockspace, if it is there and `peer` may use it.
    ///
    /// # Errors
    /// A status.
    pub fn open(&self, name: &[u8], peer: &Peer) -> Result<Space, u32> {
        let space = self.by_name.get(name).ok_or(status::NOT_THERE)?;
        let shift = if peer.uid == space.uid {
            6
        } else if peer.gid == space.gid {
            3
        } else {
            0
        };
        let may = space.mode >> shift & 0o6 == 0o6;
        if may || self.is_privileged(peer) { Ok(space.clone()) } else { Err(status::NO_ACCESS) }
    }

    /// Makes the lockspace, or counts one more who made it.
    ///
    /// # Errors
    /// A status.
    pub fn create(&mut self, name: &[u8], peer: &Peer, mode: u32, exclusive: bool) -> Result<Space, u32> {
        let is_name = (1..=SPACE_BYTES_MAX).contains(&name.len());
        if !is_name || name.iter().any(|byte| *byte == b'/' || *byte == 0) {
            return Err(status::INVALID);
        }
        if !self.is_privileged(peer) {
            return Err(status::NOT_PERMITTED);
        }
        if let Some(space) = self.by_name.get_mut(name) {
            if exclusive {
                return Err(status::EXISTS);
            }
            space.made = space.made.saturating_add(1);
            return Ok(space.clone());
        }
        let number = lockspace(name);
        if self.by_name.len() >= SPACES_MAX {
            return Err(status::NO_ROOM);
        }
        if self.by_name.values().any(|other| other.number == number) {
            return Err(status::EXISTS);
        }
        let space =
            Space { number, name: name.to_vec(), uid: peer.uid, gid: peer.gid, mode: mode & 0o777, made: 1 };
        self.by_name.insert(name.to_vec(), space.clone());
        Ok(space)
    }

    /// Counts one less; true if that was the last one and the lockspace is gone. `is_used`: somebody has locks in it.
    ///
    /// # Errors
    /// A status.
    pub fn release(&mut self, name: &[u8], peer: &Peer, is_used: bool, force: bool) -> Result<bool, u32> {
        if !self.is_privileged(peer) {
            return Err(status::NOT_PERMITTED);
        }
        let space = self.by_name.get_mut(name).ok_or(status::NOT_THERE)?;
        if space.made > 1 {
            space.made -= 1;
            return Ok(false);
        }
        if name == OPEN_SPACE.as_bytes() || is_used && !force {
            return Err(status::BUSY);
        }
        self.by_name.remove(name);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Peer = Peer { pid: 1, uid: 0, gid: 0 };
    const ANN: Peer = Peer { pid: 2, uid: 1000, gid: 100 };
    const BOB: Peer = Peer { pid: 3, uid: 1001, gid: 100 };

    #[test]
    fn the_mode_says_who_may_use_a_lockspace() {
        let mut spaces = Spaces::new(1000);
        spaces.create(b"s", &ANN, 0o660, false).unwrap();
        assert!(spaces.open(b"s", &ROOT).is_ok() && spaces.open(b"s", &BOB).is_ok());
        assert_eq!(spaces.open(b"s", &Peer { gid: 7, ..BOB }).unwrap_err(), status::NO_ACCESS);
        assert!(spaces.open(OPEN_SPACE.as_bytes(), &Peer { gid: 7, ..BOB }).is_ok());
    }

    #[test]
    fn only_root_and_who_runs_the_node_make_and_release() {
        let mut spaces = Spaces::new(1000);
        assert_eq!(spaces.create(b"s", &BOB, 0o666, false).unwrap_err(), status::NOT_PERMITTED);
        spaces.create(b"s", &ROOT, 0o600, false).unwrap();
        assert_eq!(spaces.release(b"s", &BOB, false, true).unwrap_err(), status::NOT_PERMITTED);
        assert!(spaces.release(b"s", &ANN, false, false).unwrap());
    }

    #[test]
    fn a_lockspace_goes_when_it_is_released_as_often_as_made() {
        let mut spaces = Spaces::new(0);
        spaces.create(b"s", &ROOT, 0o600, true).unwrap();
        assert_eq!(spaces.create(b"s", &ROOT, 0o600, true).unwrap_err(), status::EXISTS);
        spaces.create(b"s", &ROOT, 0o600, false).unwrap();
        assert!(!spaces.release(b"s", &ROOT, true, false).unwrap());
        assert_eq!(spaces.release(b"s", &ROOT, true, false).unwrap_err(), status::BUSY);
        assert!(spaces.release(b"s", &ROOT, true, true).unwrap());
        assert_eq!(spaces.open(b"s", &ROOT).unwrap_err(), status::NOT_THERE);
    }

    #[test]
    fn names_that_are_none_make_nothing() {
        let mut spaces = Spaces::new(0);
        for name in [&b""[..], &[b'a'; 65], b"a/b", b"a\0"] {
            assert_eq!(spaces.create(name, &ROOT, 0o600, false).unwrap_err(), status::INVALID);
        }
    }
}
