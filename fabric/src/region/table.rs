//! The owner's table: which regions there are, and whom it has given which key.
//!
//! Owns regions, their grants, epochs and arrival counters. Invariant: [`Regions::check`] yields a part of a region only to the
//! peer to whom the key was granted, within its rights, within the region, and in the epoch of the grant.

use super::key::{KEY_DEVICES_MAX, RemoteKey, Rights};
use super::memory::{Memory, Span};
use crate::Peer;
use crate::frame::{Access, Verdict};
use std::fmt;
use std::sync::Arc;

/// Regions of one endpoint.
pub const REGIONS_MAX: usize = 1 << 16;
/// Keys of one region that are good at once.
pub const GRANTS_MAX: usize = 1_024;

/// A region's number at its owner; never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionId(pub u64);

impl fmt::Display for RegionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "region {}", self.0)
    }
}

/// Why there is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotGranted {
    /// No such region, or it was dropped.
    #[error("the region is gone")]
    Gone,
    /// [`GRANTS_MAX`] keys are good already.
    #[error("{GRANTS_MAX} keys of this region are in use; revoke it first")]
    TooMany,
    /// The token is in use for this region. Draw another.
    #[error("the token is in use")]
    TokenInUse,
}

#[derive(Debug)]
struct Grant {
    token: u64,
    peer: Peer,
    rights: Rights,
}

#[derive(Debug)]
struct Region {
    memory: Arc<Memory>,
    length: usize,
    epoch: u32,
    /// In order of their tokens.
    grants: Vec<Grant>,
    arrivals: u64,
}

#[derive(Debug, Default)]
struct Slot {
    /// How many regions had this slot before.
    former: u64,
    region: Option<Region>,
}

/// The regions of one endpoint.
#[derive(Debug)]
pub struct Regions {
    owner: Peer,
    slots: Vec<Slot>,
    free: Vec<usize>,
}

const SLOT_BITS: u32 = REGIONS_MAX.trailing_zeros();

impl Regions {
    /// No regions yet.
    pub fn new(owner: Peer) -> Regions {
        Regions { owner, slots: Vec::new(), free: Vec::new() }
    }

    /// A region of the first `length` bytes of a memory. `None` if there are [`REGIONS_MAX`] already, or the memory is shorter.
    pub fn register(&mut self, memory: Arc<Memory>, length: usize) -> Option<RegionId> {
        if length > memory.length() {
            return None;
        }
        let at = match self.free.pop() {
            Some(at) => at,
            None if self.slots.len() < REGIONS_MAX => {
                self.slots.push(Slot::default());
                self.slots.len() - 1
            }
            None => return None,
        };
        let slot = &mut self.slots[at];
        slot.region = Some(Region { memory, length, epoch: 1, grants: Vec::new(), arrivals: 0 });
        Some(RegionId(slot.former << SLOT_BITS | at as u64))
    }

    /// Forgets a region: all its keys are dead, and its memory is given back. As after [`Regions::revoke`], transfers under way must
    /// be ended before the memory serves another use.
    pub fn unregister(&mut self, id: RegionId) -> Option<Arc<Memory>> {
        let at = self.index(id)?;
        let slot = &mut self.slots[at];
        slot.former += 1;
        self.free.push(at);
        slot.region.take().map(|region| region.memory)
    }

    /// A key for this peer. `token` comes from a source that peers cannot guess. If the peer has a key with the same rights, it gets
    /// that key again, so asking often costs nothing. Device keys are the caller's to add.
    ///
    /// # Errors
    /// See [`NotGranted`].
    pub fn grant(
        &mut self,
        id: RegionId,
        peer: Peer,
        rights: Rights,
        token: u64,
    ) -> Result<RemoteKey, NotGranted> {
        let owner = self.owner;
        let region = self.region_mut(id).ok_or(NotGranted::Gone)?;
        let same = region.grants.iter().find(|grant| grant.peer == peer && grant.rights == rights);
        let token = match same {
            Some(grant) => grant.token,
            None => region.add(Grant { token, peer, rights })?,
        };
        Ok(RemoteKey {
            owner,
            region: id.0,
            token,
            epoch: region.epoch,
            length: region.length as u64,
            rights,
            devices: [None; KEY_DEVICES_MAX],
        })
    }

    /// The part of a region that this peer names, if it may. Who asks is known to be `peer`: the link is authenticated. Tokens are
    /// compared as numbers, not in constant time: a guess costs a trip over the network, whose jitter is far above what
    /// one comparison could betray, and the holder of a foreign token is still not the peer it was given to.
    ///
    /// # Errors
    /// The verdict that the initiator gets: `Denied`, `Revoked`, `OutOfBounds`.
    pub fn check(&self, peer: Peer, access: &Access, write: bool) -> Result<Span, Verdict> {
        let Some(region) = self.region(RegionId(access.region)) else {
            let slot = self.slots.get(access.region as usize % REGIONS_MAX);
            let was = slot.is_some_and(|slot| access.region >> SLOT_BITS < slot.former);
            return Err(if was { Verdict::Revoked } else { Verdict::Denied });
        };
        if access.epoch < region.epoch {
            return Err(Verdict::Revoked);
        }
        let grant = region.grants.binary_search_by_key(&access.token, |grant| grant.token);
        let grant = grant.map_or(None, |at| region.grants.get(at));
        let good = grant.is_some_and(|grant| grant.peer == peer && grant.rights.allow(write));
        if !good || access.epoch > region.epoch {
            return Err(Verdict::Denied);
        }
        let end = access.offset.checked_add(access.length).ok_or(Verdict::OutOfBounds)?;
        if end > region.length as u64 {
            return Err(Verdict::OutOfBounds);
        }
        // Both fit: they are not beyond the length of memory of this process.
        let (offset, length) = (access.offset as usize, access.length as usize);
        Span::of(&region.memory, offset, length).ok_or(Verdict::OutOfBounds)
    }

    /// Ends the region's epoch: every key handed out so far is dead. Yields the new epoch; `None` if there is no such region.
    /// What is under way is not stopped by this: see [`crate::transfer::Target::forsake`].
    pub fn revoke(&mut self, id: RegionId) -> Option<u32> {
        let region = self.region_mut(id)?;
        // After four thousand million epochs an old key would be `Denied` in place of `Revoked`; its token is gone all the same.
        region.epoch = region.epoch.wrapping_add(1);
        region.grants.clear();
        Some(region.epoch)
    }

    /// One write with a notification is complete. False if there is no such region (any more).
    pub fn notify(&mut self, id: RegionId) -> bool {
        self.region_mut(id).map(|region| region.arrivals += 1).is_some()
    }

    /// How many notifying writes are complete; `None` if there is no such region.
    pub fn arrivals(&self, id: RegionId) -> Option<u64> {
        self.region(id).map(|region| region.arrivals)
    }

    /// A part of a region, for its owner. `None` if there is no such region or part.
    pub fn span(&self, id: RegionId, offset: usize, length: usize) -> Option<Span> {
        let region = self.region(id)?;
        let end = offset.checked_add(length)?;
        (end <= region.length).then(|| Span::of(&region.memory, offset, length))?
    }

    /// The memory of a region.
    pub fn memory(&self, id: RegionId) -> Option<&Arc<Memory>> {
        self.region(id).map(|region| &region.memory)
    }

    /// How many regions there are.
    pub fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn index(&self, id: RegionId) -> Option<usize> {
        let at = id.0 as usize % REGIONS_MAX;
        let slot = self.slots.get(at)?;
        (slot.region.is_some() && slot.former == id.0 >> SLOT_BITS).then_some(at)
    }

    fn region(&self, id: RegionId) -> Option<&Region> {
        self.index(id).and_then(|at| self.slots[at].region.as_ref())
    }

    fn region_mut(&mut self, id: RegionId) -> Option<&mut Region> {
        self.index(id).and_then(|at| self.slots[at].region.as_mut())
    }
}

impl Region {
    /// Adds a grant; yields its token.
    fn add(&mut self, grant: Grant) -> Result<u64, NotGranted> {
        if self.grants.len() >= GRANTS_MAX {
            return Err(NotGranted::TooMany);
        }
        let token = grant.token;
        match self.grants.binary_search_by_key(&token, |grant| grant.token) {
            Ok(_) => Err(NotGranted::TokenInUse),
            Err(at) => {
                self.grants.insert(at, grant);
                Ok(token)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Role;
    use base::NodeId;

    fn peer(node: u32) -> Peer {
        Peer { node: NodeId(node), role: Role::Data }
    }

    fn access(key: &RemoteKey, offset: u64, length: u64) -> Access {
        let (region, token, epoch) = (key.region, key.token, key.epoch);
        Access { region, token, epoch, notify: false, offset, length, at: 0 }
    }

    fn one() -> (Regions, RegionId) {
        let mut regions = Regions::new(peer(1));
        let id = regions.register(Memory::new(8192).unwrap(), 5000).unwrap();
        (regions, id)
    }

    #[test]
    fn a_key_is_good_for_its_peer_its_rights_and_its_region_only() {
        let (mut regions, id) = one();
        let read = Rights { read: true, write: false };
        let key = regions.grant(id, peer(2), read, 77).unwrap();
        assert_eq!(regions.grant(id, peer(2), read, 78), Ok(key), "asking again costs no second grant");
        let good = access(&key, 1, 4999);
        assert_eq!(regions.check(peer(2), &good, false).unwrap().length(), 4999);
        let verdict = |peer, access: Access, write| regions.check(peer, &access, write).unwrap_err();
        assert_eq!(verdict(peer(3), good, false), Verdict::Denied);
        assert_eq!(verdict(peer(2), good, true), Verdict::Denied);
        assert_eq!(verdict(peer(2), Access { token: 78, ..good }, false), Verdict::Denied);
        assert_eq!(verdict(peer(2), Access { epoch: 9, ..good }, false), Verdict::Denied);
        assert_eq!(verdict(peer(2), Access { region: id.0 + 1, ..good }, false), Verdict::Denied);
        assert_eq!(verdict(peer(2), access(&key, 1, 5000), false), Verdict::OutOfBounds);
        assert_eq!(verdict(peer(2), access(&key, u64::MAX, 5000), false), Verdict::OutOfBounds);
    }

    #[test]
    fn a_revoked_or_dropped_region_knows_its_old_keys_as_revoked() {
        let (mut regions, id) = one();
        let old = regions.grant(id, peer(2), Rights::ALL, 1).unwrap();
        assert_eq!(regions.revoke(id), Some(2));
        let new = regions.grant(id, peer(2), Rights::ALL, 2).unwrap();
        assert_eq!(regions.check(peer(2), &access(&old, 0, 1), true).unwrap_err(), Verdict::Revoked);
        assert!(regions.check(peer(2), &access(&new, 0, 1), true).is_ok());
        assert!(regions.unregister(id).is_some() && regions.unregister(id).is_none());
        assert_eq!(regions.grant(id, peer(2), Rights::ALL, 1), Err(NotGranted::Gone));
        let next = regions.register(Memory::new(1).unwrap(), 1).unwrap();
        assert_ne!(next, id);
        assert_eq!(regions.check(peer(2), &access(&new, 0, 1), true).unwrap_err(), Verdict::Revoked);
        assert_eq!(regions.count(), 1);
    }

    #[test]
    fn arrivals_are_counted_and_grants_are_bounded() {
        let (mut regions, id) = one();
        assert!(regions.notify(id) && regions.notify(id) && !regions.notify(RegionId(5)));
        assert_eq!((regions.arrivals(id), regions.arrivals(RegionId(5))), (Some(2), None));
        for node in 0..GRANTS_MAX as u32 {
            regions.grant(id, peer(node), Rights::ALL, u64::from(node)).unwrap();
        }
        assert_eq!(regions.grant(id, peer(9999), Rights::ALL, 1 << 40), Err(NotGranted::TooMany));
        regions.revoke(id);
        assert!(regions.grant(id, peer(9999), Rights::ALL, 1).is_ok());
        assert_eq!(regions.grant(id, peer(9998), Rights::ALL, 1), Err(NotGranted::TokenInUse));
        assert!(regions.span(id, 4999, 1).is_some() && regions.span(id, 5000, 1).is_none());
    }
}
