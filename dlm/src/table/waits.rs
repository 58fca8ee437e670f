//! Looking at a table: its locks, and who waits for whom.
//!
//! Invariant: an edge names its wait and what holds it up by numbers that are never used again, so an edge that is seen twice has been there
//! all the time between.

use super::Table;
use crate::event::{Actor, LockId, Lockspace, Owner, Transaction};
use crate::flags::Flags;
use crate::lock::{Lock, Pending, State, Wish};
use crate::mode::Mode;
use crate::name::Name;
use crate::policy::{Policy, Scope};
use base::Time;

/// A lock, for lists and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockInfo {
    /// The lock.
    pub lock: LockId,
    /// Whose.
    pub owner: Owner,
    /// Where its resource, or that resource's root, is.
    pub lockspace: Lockspace,
    /// Its resource's name.
    pub name: Name,
    /// In which queue it is.
    pub state: State,
    /// What it has.
    pub granted: Option<Mode>,
    /// What it waits for.
    pub wanted: Option<Mode>,
    /// About what.
    pub scope: Scope,
    /// Its last grant's token.
    pub token: u64,
    /// Its owner's node is DOWN and perhaps not harmless yet.
    pub held_over: bool,
    /// Its owner is gone and nobody has adopted it.
    pub orphan: bool,
}

/// What makes somebody wait: it ends with this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Held {
    /// This grant of a lock.
    Grant {
        /// The lock.
        lock: LockId,
        /// The grant's token.
        token: u64,
    },
    /// A wait that is ahead in the queue.
    Wait(u64),
}

/// Somebody waits for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// Who waits.
    pub waiter: Actor,
    /// With which lock.
    pub lock: LockId,
    /// The number of the wait: unlike that of every other wait of this table.
    pub wait: u64,
    /// For whom.
    pub blocker: Actor,
    /// And until what ends.
    pub held: Held,
}

/// A wait that would end if one lock were not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldUp {
    /// The lock that waits.
    pub lock: LockId,
    /// The wait's number.
    pub wait: u64,
    /// What it waits for.
    pub mode: Mode,
    /// True if it converts.
    pub converts: bool,
}

impl Table {
    /// Where a lock's resource is, and its name.
    pub fn place_of(&self, lock: LockId) -> Option<(Lockspace, Name)> {
        let resource = &self.resources[self.locks[self.locks.find(lock.0)?].resource];
        Some((resource.lockspace, resource.name))
    }

    /// Whose a lock is.
    pub fn owner_of(&self, lock: LockId) -> Option<Owner> {
        Some(self.locks[self.locks.find(lock.0)?].owner)
    }

    /// On whose behalf a lock was asked for.
    pub fn transaction_of(&self, lock: LockId) -> Option<Transaction> {
        Some(self.locks[self.locks.find(lock.0)?].transaction)
    }

    /// What a lock is about.
    pub fn scope_of(&self, lock: LockId) -> Option<Scope> {
        Some(self.locks[self.locks.find(lock.0)?].scope)
    }

    /// The first wait on the resource of `lock` that no granted lock but this one forbids.
    pub fn held_up_by(&self, lock: LockId) -> Option<HeldUp> {
        let index = self.locks.find(lock.0)?;
        let resource = self.locks[index].resource;
        let held = &self.resources[resource];
        let waits = held.converting.iter(&self.locks).chain(held.waiting.iter(&self.locks));
        let mut ahead: Vec<&Wish> = Vec::new();
        for other in waits.filter(|other| *other != index) {
            let waiter = &self.locks[other];
            let Some(pending) = &waiter.pending else { continue };
            let wish = &pending.wish;
            let stops = |first: &&Wish| {
                held.policy == Policy::Plain
                    || !first.mode.goes_with(wish.mode) && first.scope.meets(wish.scope)
            };
            let blocks = |holder: u32| {
                let holds = &self.locks[holder];
                holds.granted.is_some_and(|mode| !mode.goes_with(wish.mode)) && holds.scope.meets(wish.scope)
            };
            let mut holders = held.granted.iter(&self.locks).chain(held.converting.iter(&self.locks));
            let is_stopped = !wish.flags.has(Flags::NOORDER) && ahead.iter().any(stops);
            if !is_stopped
                && blocks(index)
                && !holders.any(|holder| holder != index && holder != other && blocks(holder))
            {
                let (lock, converts) = (self.id(other), waiter.state == State::Converting);
                return Some(HeldUp { lock, wait: pending.number, mode: wish.mode, converts });
            }
            ahead.push(wish);
            if held.policy == Policy::Plain && held.passing == 0 {
                return None;
            }
        }
        None
    }

    /// The weakest mode that covers what everybody but `lock` has on its resource; `None` if nobody has anything.
    pub fn joined_besides(&self, lock: LockId) -> Option<Mode> {
        let index = self.locks.find(lock.0)?;
        let held = &self.resources[self.locks[index].resource];
        let holders = held.granted.iter(&self.locks).chain(held.converting.iter(&self.locks));
        let modes = holders.filter(|holder| *holder != index).filter_map(|holder| self.locks[holder].granted);
        modes.reduce(Mode::join)
    }

    /// The number of the last wait of this table.
    pub fn last_wait(&self) -> u64 {
        self.last_wait
    }

    /// The last wait on the resource of `lock` that will read the value in a mode beside which others may write it.
    pub fn last_read_wait(&self, lock: LockId) -> Option<u64> {
        let held = &self.resources[self.locks[self.locks.find(lock.0)?].resource];
        let waits = held.converting.iter(&self.locks).chain(held.waiting.iter(&self.locks));
        let pending = waits.filter_map(|other| self.locks[other].pending);
        let reads = pending.filter(|p| p.wish.mode < Mode::CW && p.wish.flags.has(Flags::VALBLK));
        reads.map(|pending| pending.number).max()
    }

    /// True if somebody waits for `mode` on the resource of `lock`.
    pub fn is_wanted(&self, lock: LockId, mode: Mode) -> bool {
        let index = self.locks.find(lock.0);
        index.is_some_and(|index| self.resources[self.locks[index].resource].wanted_count.modes().has(mode))
    }

    /// True if somebody waits or converts on the resource of `lock`.
    pub fn has_pending(&self, lock: LockId) -> bool {
        let index = self.locks.find(lock.0);
        index.is_some_and(|index| self.resources[self.locks[index].resource].has_pending())
    }

    /// True if nobody but `lock` has or wants anything on its resource.
    pub fn is_alone(&self, lock: LockId) -> bool {
        self.locks.find(lock.0).is_some_and(|index| {
            let held = &self.resources[self.locks[index].resource];
            held.granted.len() + held.converting.len() + held.waiting.len() == 1
        })
    }

    /// All locks.
    pub fn locks(&self) -> impl Iterator<Item = LockInfo> {
        self.locks.iter().map(|(index, lock)| {
            let resource = &self.resources[lock.resource];
            LockInfo {
                lock: self.id(index),
                owner: lock.owner,
                lockspace: resource.lockspace,
                name: resource.name,
                state: lock.state,
                granted: lock.granted,
                wanted: lock.pending.map(|pending| pending.wish.mode),
                scope: lock.scope,
                token: lock.token,
                held_over: lock.held_over,
                orphan: lock.orphan,
            }
        })
    }

    /// Who waits for whom, of the waits that began before `since_before`. Waits and holders that asked to be left out (NODLCKWT, NODLCKBLK)
    /// are.
    pub fn edges(&self, since_before: Time) -> Vec<Edge> {
        let mut edges = Vec::new();
        for (index, lock) in self.locks.iter() {
            let Some(pending) = &lock.pending else { continue };
            let left_out = (pending.wish.flags | lock.lasting).has_any(Flags::NODLCKWT | Flags::AWAIT);
            if pending.since < since_before && !left_out {
                self.edges_of(index, lock, pending, &mut edges);
            }
        }
        edges
    }

    /// Whom one lock waits for; `all`: even if it asked to be left out.
    pub fn edges_of_lock(&self, lock: LockId, all: bool) -> Vec<Edge> {
        let mut edges = Vec::new();
        let Some(index) = self.locks.find(lock.0) else { return edges };
        let lock = &self.locks[index];
        let Some(pending) = &lock.pending else { return edges };
        if all || !(pending.wish.flags | lock.lasting).has_any(Flags::NODLCKWT | Flags::AWAIT) {
            self.edges_of(index, lock, pending, &mut edges);
        }
        edges
    }

    /// Since when a lock has waited; `None`: it does not.
    pub fn waits_since(&self, lock: LockId) -> Option<Time> {
        self.locks[self.locks.find(lock.0)?].pending.map(|pending| pending.since)
    }

    /// Who acts through a lock.
    pub fn actor_of(&self, lock: LockId) -> Option<Actor> {
        Some(self.locks[self.locks.find(lock.0)?].actor())
    }

    /// The mode that a lock has.
    pub fn mode_of(&self, lock: LockId) -> Option<Mode> {
        self.locks[self.locks.find(lock.0)?].granted
    }

    /// Whose grants besides `lock`'s on its resource forbid `mode`: without those who asked to be left out.
    pub fn in_the_way(&self, lock: LockId, mode: Mode) -> Vec<(Actor, Held)> {
        let Some(index) = self.locks.find(lock.0) else { return Vec::new() };
        let held = &self.resources[self.locks[index].resource];
        let holders = held.granted.iter(&self.locks).chain(held.converting.iter(&self.locks));
        let blocks = |holder: &u32| {
            let lock = &self.locks[*holder];
            *holder != index
                && !lock.lasting.has(Flags::NODLCKBLK)
                && lock.granted.is_some_and(|granted| !granted.goes_with(mode))
        };
        let named = |holder: u32| {
            let lock = &self.locks[holder];
            (lock.actor(), Held::Grant { lock: self.id(holder), token: lock.token })
        };
        holders.filter(blocks).map(named).collect()
    }

    fn edges_of(&self, index: u32, lock: &Lock, pending: &Pending, edges: &mut Vec<Edge>) {
        let held = &self.resources[lock.resource];
        let wish = &pending.wish;
        let mut edge = |other: &Lock, held: Held| {
            let (waiter, blocker) = (lock.actor(), other.actor());
            edges.push(Edge { waiter, lock: self.id(index), wait: pending.number, blocker, held });
        };
        let rank = (lock.state == State::Waiting, pending.place);
        let queues = [held.granted, held.converting, held.waiting];
        for other in queues.iter().flat_map(|queue| queue.iter(&self.locks)).filter(|other| *other != index) {
            let (id, other) = (self.id(other), &self.locks[other]);
            let blocks = other.granted.is_some_and(|mode| !mode.goes_with(wish.mode));
            if blocks && other.scope.meets(wish.scope) && !other.lasting.has(Flags::NODLCKBLK) {
                edge(other, Held::Grant { lock: id, token: other.token });
            }
            let Some(ahead) = other.pending else { continue };
            let is_ahead = (other.state == State::Waiting, ahead.place) < rank;
            let in_the_way = held.policy == Policy::Plain
                || !ahead.wish.mode.goes_with(wish.mode) && ahead.wish.scope.meets(wish.scope);
            let is_passed = lock.state == State::Converting && ahead.wish.flags.has(Flags::YIELD);
            if is_ahead && in_the_way && !is_passed && !wish.flags.has(Flags::NOORDER) {
                edge(other, Held::Wait(ahead.number));
            }
        }
    }
}
