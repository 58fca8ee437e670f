//! One table of resources and the locks on them: the heart of a master, and of a node's own users.
//!
//! ```text
//!            +--------- admit --> owner, resource, lock --> at once? --grant--> Granted
//!  Request --+                                              |  no: NOQUEUE? --> Refused
//!                                                           +--> queue, Queued --> call holders, Blocking
//!  Convert, Unlock, Cancel, Gone, Tick --> change --> serve the queues of the resource --> Granted ...
//! ```
//!
//! Invariants: no two locks with a granted mode on one resource are in each other's way; a resource is here exactly while it has a lock, a child
//! or a loss to tell; tokens only grow; nothing seen outside depends on the order of a hash.

mod admit;
mod call;
mod convert;
mod gone;
mod grant;
mod names;
mod owners;
mod request;
mod serve;
mod timers;
mod unlock;
mod waits;

pub(crate) use admit::{check_conversion, check_request};
pub use waits::{Edge, Held, HeldUp, LockInfo};

use crate::error::Error;
use crate::event::{Config, Effect, Event, LockId};
use crate::lock::Lock;
use crate::resource::Resource;
use crate::slab::Slab;
use base::{Epoch, Time};
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use owners::Possessions;
use std::collections::BTreeSet;
use timers::Timer;

/// Bits of a token that count; the epoch is above them.
pub const TOKEN_COUNT_BITS: u32 = 40;
/// Resources above one another at most.
pub const DEPTH_MAX: u8 = 8;

/// A table.
#[derive(Clone, Debug)]
pub struct Table {
    config: Config,
    now: Time,
    last_token: u64,
    last_wait: u64,
    locks: Slab<Lock>,
    resources: Slab<Resource>,
    owners: Slab<Possessions>,
    names: HashTable<u32>,
    owner_names: HashTable<u32>,
    hasher: FixedState,
    timers: BTreeSet<(Time, Timer)>,
}

impl Table {
    /// An empty table.
    ///
    /// # Errors
    /// [`Error::Limit`] if the configuration asks for what cannot be.
    pub fn new(config: Config) -> Result<Table, Error> {
        config.check()?;
        Ok(Table {
            hasher: FixedState::with_seed(config.seed),
            config,
            now: Time::default(),
            last_token: 0,
            last_wait: 0,
            locks: Slab::default(),
            resources: Slab::default(),
            owners: Slab::default(),
            names: HashTable::new(),
            owner_names: HashTable::new(),
            timers: BTreeSet::new(),
        })
    }

    /// Applies one event; what must be told is added to `effects`, in order.
    pub fn handle(&mut self, now: Time, event: Event, effects: &mut Vec<Effect>) {
        self.now = now;
        match event {
            Event::Request(request) => self.request(&request, effects),
            Event::Convert(convert) => self.convert(&convert, effects),
            Event::Unlock(unlock) => self.unlock(&unlock, effects),
            Event::Cancel { tag, owner, lock } => self.cancel(tag, owner, lock, effects),
            Event::Gone(gone) => self.gone(gone, effects),
            Event::Victim { lock, wait, why } => self.victim(lock, wait, why, effects),
            Event::Allow { lock, mode, scope, token, value } => {
                // Another one may have been given meanwhile; this lock's is the one that its master has given.
                let last = self.last_token;
                self.last_token = if token == 0 { last } else { token - 1 };
                self.allow(lock, mode, scope, value, effects);
                self.lift(last);
            }
            Event::Deny { lock, why } => {
                if let Some(lock) = self.locks.find(lock.0) {
                    self.give_up(lock, why, effects);
                }
            }
            Event::Value { lockspace, name, value } => self.set_value(lockspace, name, value),
            Event::Epoch(epoch) => self.lift(first_token(epoch)),
            Event::Floor(token) => self.lift(token),
            Event::Tick => self.tick(effects),
        }
    }

    /// The largest token given so far: the floor of whoever is master next.
    pub fn last_token(&self) -> u64 {
        self.last_token
    }

    /// Locks that there are.
    pub fn lock_count(&self) -> u32 {
        self.locks.count()
    }

    /// Resources that there are.
    pub fn resource_count(&self) -> u32 {
        self.resources.count()
    }

    fn lift(&mut self, token: u64) {
        self.last_token = self.last_token.max(token);
    }

    fn id(&self, lock: u32) -> LockId {
        LockId(self.locks.id(lock))
    }
}

/// The floor of the tokens of an epoch.
pub fn first_token(epoch: Epoch) -> u64 {
    epoch.0 << TOKEN_COUNT_BITS
}
