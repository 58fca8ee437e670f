//! Locks that threads of this process hold, and those that they have let go and that are kept for the next one.
//!
//! ```text
//!  (none) --granted--> used --put back--> idle --taken, without a word to the core--> used
//!                        |                  |  somebody wants it, or too many are idle
//!                        | wanted           v
//!                        +--put back--> (unlocked at the core)
//! ```
//!
//! Each is a lock of the core with one user at a time. So whoever finds an idle one that covers his mode has what the core would grant him: nobody
//! else has anything incompatible, because the core says so.
//!
//! Invariants: a hold that somebody wants is given to nobody new; the core's lock is never waited for while a shard's is held.

use crate::event::LockId;
use crate::message::Key;
use crate::mode::Mode;
use crate::slab::Slab;
use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashTable};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::task::Waker;

/// Threads that use different names seldom meet.
const SHARDS: usize = 16;
/// Idle holds of one shard at most.
const IDLE_MAX: usize = 2_048;

/// A lock of the core.
#[derive(Debug)]
pub struct Hold {
    key: Key,
    lock: LockId,
    mode: Mode,
    token: u64,
    /// Who uses it does so in this mode.
    user: Option<Mode>,
    /// What somebody wants, since the core's last grant.
    wanted: Option<Mode>,
    waker: Option<Waker>,
    /// It goes with its user.
    is_single: bool,
    /// Taken since the hand of the clock went by.
    was_used: bool,
    is_on_clock: bool,
}

/// A hold that was taken: where it is, its lock and its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub(super) shard: u32,
    pub(super) id: u64,
    /// The core's lock.
    pub lock: LockId,
    /// The token of its last grant.
    pub token: u64,
}

#[derive(Default)]
struct Shard {
    holds: Slab<Hold>,
    names: HashTable<u32>,
    clock: VecDeque<u64>,
}

/// What the core must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// This lock goes.
    Unlock(LockId),
    /// This lock is needed in this weaker mode only.
    Lower(LockId, Mode),
}

/// All of them.
pub struct Holds {
    shards: [Mutex<Shard>; SHARDS],
    /// Where the core's locks are. Never waited for while a shard is held the other way round: shard first, then this.
    places: Mutex<HashMap<LockId, (u32, u64), FixedState>>,
    hasher: FixedState,
}

impl Holds {
    /// None. `seed`: nobody who may choose names should know it.
    pub fn new(seed: u64) -> Holds {
        let shards = std::array::from_fn(|_| Mutex::default());
        Holds { shards, places: Mutex::default(), hasher: FixedState::with_seed(seed) }
    }

    fn shard(&self, hash: u64) -> (u32, &Mutex<Shard>) {
        // The table inside uses the other end of the hash.
        let shard = (hash >> 48) as usize % SHARDS;
        (shard as u32, &self.shards[shard])
    }

    /// An idle hold that covers `mode`, which the caller uses from now on.
    pub fn take(&self, key: &Key, mode: Mode) -> Option<Place> {
        let hash = self.hasher.hash_one(key);
        let (number, shard) = self.shard(hash);
        let mut shard = shard.lock();
        let Shard { holds, names, .. } = &mut *shard;
        let fits = |index: &u32| {
            let hold = &holds[*index];
            hold.user.is_none() && hold.mode.covers(mode) && hold.key == *key
        };
        let index = *names.find(hash, fits)?;
        let id = holds.id(index);
        let hold = &mut holds[index];
        hold.user = Some(mode);
        hold.was_used = true;
        Some(Place { shard: number, id, lock: hold.lock, token: hold.token })
    }

    /// The core has granted a lock; its user is the caller. `is_single`: it is not kept when it is let go.
    pub fn granted(&self, key: Key, lock: LockId, mode: Mode, token: u64, is_single: bool) -> Place {
        let hash = self.hasher.hash_one(key);
        let (number, shard) = self.shard(hash);
        let mut shard = shard.lock();
        let Shard { holds, names, .. } = &mut *shard;
        let index = holds.insert(Hold {
            key,
            lock,
            mode,
            token,
            user: Some(mode),
            wanted: None,
            waker: None,
            is_single,
            was_used: true,
            is_on_clock: false,
        });
        let id = holds.id(index);
        names.insert_unique(hash, index, |index| self.hasher.hash_one(holds[*index].key));
        self.places.lock().insert(lock, (number, id));
        Place { shard: number, id, lock, token }
    }

    fn remove(&self, shard: &mut Shard, index: u32) {
        let (hash, lock) = (self.hasher.hash_one(shard.holds[index].key), shard.holds[index].lock);
        if let Ok(entry) = shard.names.find_entry(hash, |other| *other == index) {
            entry.remove();
        }
        shard.holds.remove(index);
        self.places.lock().remove(&lock);
    }

    /// The user has done with it. Kept, unless somebody wants it.
    pub fn put_back(&self, place: Place) -> Option<Follows> {
        let mut shard = self.shards[place.shard as usize].lock();
        let index = shard.holds.find(place.id)?;
        let hold = &mut shard.holds[index];
        hold.user = None;
        hold.waker = None;
        if hold.wanted.is_some() || hold.is_single {
            self.remove(&mut shard, index);
            return Some(Follows::Unlock(place.lock));
        }
        if !std::mem::replace(&mut hold.is_on_clock, true) {
            shard.clock.push_back(place.id);
        }
        if shard.clock.len() > IDLE_MAX {
            return self.evict(&mut shard);
        }
        None
    }

    /// One that has been idle for a round of the clock goes.
    fn evict(&self, shard: &mut Shard) -> Option<Follows> {
        // Twice round: the first time all may have been used.
        for _ in 0..2 * shard.clock.len() {
            let id = shard.clock.pop_front()?;
            let Some(index) = shard.holds.find(id) else { continue };
            let hold = &mut shard.holds[index];
            if hold.user.is_some() {
                hold.is_on_clock = false;
                continue;
            }
            if std::mem::take(&mut hold.was_used) {
                shard.clock.push_back(id);
                continue;
            }
            let lock = hold.lock;
            self.remove(shard, index);
            return Some(Follows::Unlock(lock));
        }
        None
    }

    /// Takes a hold out: its user says himself what becomes of the core's lock.
    pub fn take_out(&self, place: Place) {
        let mut shard = self.shards[place.shard as usize].lock();
        if let Some(index) = shard.holds.find(place.id) {
            self.remove(&mut shard, index);
        }
    }

    /// The core has granted a conversion.
    pub fn converted(&self, place: Place, mode: Mode, token: u64) {
        let mut shard = self.shards[place.shard as usize].lock();
        if let Some(index) = shard.holds.find(place.id) {
            let hold = &mut shard.holds[index];
            (hold.mode, hold.user, hold.token, hold.wanted) = (mode, Some(mode), token, None);
        }
    }

    /// Somebody wants `mode`, and this lock is in the way.
    pub fn wanted(&self, lock: LockId, mode: Mode) -> (Option<Follows>, Option<Waker>) {
        let Some((shard, id)) = self.places.lock().get(&lock).copied() else { return (None, None) };
        let mut shard = self.shards[shard as usize].lock();
        let Some(index) = shard.holds.find(id) else { return (None, None) };
        let hold = &mut shard.holds[index];
        let Some(user) = hold.user else {
            self.remove(&mut shard, index);
            return (Some(Follows::Unlock(lock)), None);
        };
        let lower = (hold.mode != user && hold.mode.covers(user)).then(|| {
            hold.mode = user;
            Follows::Lower(lock, user)
        });
        if lower.is_some() && user.goes_with(mode) {
            return (lower, None);
        }
        hold.wanted = Some(hold.wanted.map_or(mode, |wanted| wanted.join(mode)));
        (lower, hold.waker.take())
    }

    /// What somebody wants of it; otherwise `waker` is woken when somebody does.
    pub fn poll_wanted(&self, place: Place, waker: &Waker) -> Option<Mode> {
        let mut shard = self.shards[place.shard as usize].lock();
        let index = shard.holds.find(place.id)?;
        let hold = &mut shard.holds[index];
        if hold.wanted.is_none() {
            hold.waker = Some(waker.clone());
        }
        hold.wanted
    }

    /// It does not outlive its user.
    pub fn set_single(&self, place: Place) {
        let mut shard = self.shards[place.shard as usize].lock();
        if let Some(index) = shard.holds.find(place.id) {
            shard.holds[index].is_single = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Lockspace;
    use crate::name::Name;

    fn key(k: u32) -> Key {
        Key::new(Lockspace(1), Name::new(&k.to_le_bytes()).unwrap())
    }

    #[test]
    fn an_idle_hold_has_one_user_at_a_time_and_goes_when_it_is_wanted() {
        let holds = Holds::new(7);
        let place = holds.granted(key(1), LockId(10), Mode::EX, 5, false);
        assert_eq!(holds.take(&key(1), Mode::EX), None, "it is used");
        assert_eq!(holds.put_back(place), None);
        let again = holds.take(&key(1), Mode::PR).unwrap();
        assert_eq!((again.lock, again.token), (LockId(10), 5));
        assert_eq!(holds.take(&key(1), Mode::PR), None);
        // It is used in PR: readers are let in by lowering it, a writer has to wait for the user.
        assert_eq!(holds.wanted(LockId(10), Mode::PR).0, Some(Follows::Lower(LockId(10), Mode::PR)));
        assert_eq!(holds.poll_wanted(again, Waker::noop()), None);
        assert_eq!(holds.wanted(LockId(10), Mode::EX).0, None);
        assert_eq!(holds.poll_wanted(again, Waker::noop()), Some(Mode::EX));
        assert_eq!(holds.put_back(again), Some(Follows::Unlock(LockId(10))));
        assert_eq!(holds.take(&key(1), Mode::PR), None, "it is gone");
    }

    #[test]
    fn idle_holds_are_bounded() {
        let holds = Holds::new(7);
        let all = (2 * SHARDS * IDLE_MAX) as u32;
        let mut gone = 0;
        for k in 0..all {
            let place = holds.granted(key(k), LockId(u64::from(k)), Mode::EX, 1, false);
            gone += usize::from(holds.put_back(place).is_some());
            // One is used again and again.
            let again = holds.take(&key(0), Mode::EX);
            gone += usize::from(again.and_then(|place| holds.put_back(place)).is_some());
        }
        let kept: usize = holds.shards.iter().map(|shard| shard.lock().holds.count() as usize).sum();
        assert_eq!(kept + gone, all as usize);
        assert!(kept <= SHARDS * (IDLE_MAX + 1), "{kept}");
    }
}
