//! One connection: its locks by their numbers, and what it has under way.
//!
//! ```text
//!              lock                     granted                      unlock
//!  (none) ------------> requested -----------------> has a mode ----------------> unlocking ---> (none)
//!                          | refused, cancelled          | ^
//!                          v                     convert v | granted, refused
//!                        (none)                       converting
//! ```
//!
//! Invariant: a call that was accepted is in `doing` until its one completion. A lock that the table has not named yet (`id` is `None`) has at most
//! one thing to be said to it as soon as it is.

use super::told::Told;
use crate::client::status;
use crate::client::wire::{self, Row};
use crate::event::{Convert, Event, LockId, Lockspace, Owner, Request, Transaction, Unlock, VALUE_BYTES};
use crate::flags::Flags;
use crate::mode::Mode;
use crate::name::Name;
use crate::policy::Scope;
use crate::table::{check_conversion, check_request};
use base::Time;
use std::collections::BTreeMap;
use std::time::Duration;

/// Locks of one connection at most.
const LOCKS_MAX: usize = 65_536;
/// Flags that this server understands; a program's others are none of the table's business.
const KNOWN: u32 = 0x7_fff9;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
}

/// What a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Lock,
    Convert,
    Unlock,
    Cancel,
}

/// A call that has not come to its end.
#[derive(Clone, Copy, Debug)]
pub struct Doing {
    /// The program's tag.
    pub tag: u64,
    pub lkid: u32,
    pub kind: Kind,
    /// An unlock has overtaken it: its own end is not told.
    pub is_overtaken: bool,
    /// If it is cancelled: as the victim of a deadlock.
    pub as_deadlock: bool,
}

/// A lock.
#[derive(Clone, Debug)]
pub struct Held {
    /// Its name in the table, when that is known.
    pub id: Option<LockId>,
    pub name: Name,
    pub parent: u32,
    pub granted: Option<Mode>,
    pub wanted: Option<Mode>,
    /// The request or conversion under way.
    pub pending: Option<u64>,
    pub is_unlocking: bool,
    pub since: Time,
    pub token: u64,
    pub flags: Flags,
    /// What to say as soon as the table has named it.
    pub early: Option<Early>,
}

/// What waits for the lock's name.
#[derive(Clone, Copy, Debug)]
pub enum Early {
    Cancel(u64),
    Unlock(u64, Flags),
}

/// A connection.
#[derive(Debug)]
pub struct Session {
    pub owner: Owner,
    pub peer: Peer,
    /// Where its names are.
    pub space: Option<(Lockspace, Vec<u8>)>,
    pub(super) locks: BTreeMap<u32, Held>,
    pub(super) names: BTreeMap<LockId, u32>,
    pub(super) doing: BTreeMap<u64, Doing>,
    last_tag: u64,
}

fn mode(number: u32) -> Result<Mode, u32> {
    Mode::from_number(number).ok_or(status::INVALID)
}

fn value(bytes: &[u8]) -> Result<Option<[u8; VALUE_BYTES]>, u32> {
    match bytes {
        [] => Ok(None),
        bytes => bytes.try_into().map(Some).map_err(|_| status::INVALID),
    }
}

/// The flags for the table, and the deadline.
fn patience(flags: u32, timeout_ms: u64, now: Time) -> (Flags, Option<Time>) {
    let flags = Flags(flags & KNOWN & !Flags::TIMEOUT.0);
    match timeout_ms {
        0 => (flags, None),
        ms => (flags | Flags::TIMEOUT, Some(now + Duration::from_millis(ms))),
    }
}

impl Session {
    /// A connection that has said nothing yet.
    pub fn new(owner: Owner, peer: Peer) -> Session {
        Session {
            owner,
            peer,
            space: None,
            locks: BTreeMap::new(),
            names: BTreeMap::new(),
            doing: BTreeMap::new(),
            last_tag: 0,
        }
    }

    /// True if it has locks, or asks for some.
    pub fn has_locks(&self) -> bool {
        !self.locks.is_empty()
    }

    pub fn has_lock(&self, lkid: u32) -> bool {
        self.locks.contains_key(&lkid)
    }

    fn begin(&mut self, tag: u64, lkid: u32, kind: Kind) -> u64 {
        self.last_tag += 1;
        let doing = Doing { tag, lkid, kind, is_overtaken: false, as_deadlock: false };
        self.doing.insert(self.last_tag, doing);
        self.last_tag
    }

    /// A new lock, which is to be called `lkid`.
    ///
    /// # Errors
    /// A status; nothing has changed.
    pub fn lock(&mut self, tag: u64, lkid: u32, call: &wire::Lock, now: Time) -> Result<Event, u32> {
        let (lockspace, _) = *self.space.as_ref().ok_or(status::INVALID)?;
        let (mode, name) = (mode(call.mode)?, Name::new(&call.name).map_err(|_| status::INVALID)?);
        let (flags, deadline) = patience(call.flags, call.timeout_ms, now);
        check_request(flags, mode, deadline.is_some()).map_err(status::of)?;
        if self.locks.len() >= LOCKS_MAX {
            return Err(status::NO_ROOM);
        }
        let parent = match call.parent {
            0 => None,
            above => {
                let above = self.locks.get(&above).filter(|held| held.granted.is_some());
                Some(above.and_then(|held| held.id).ok_or(status::INVALID)?)
            }
        };
        let tag = self.begin(tag, lkid, Kind::Lock);
        let held = Held {
            id: None,
            name,
            parent: call.parent,
            granted: None,
            wanted: Some(mode),
            pending: Some(tag),
            is_unlocking: false,
            since: now,
            token: 0,
            flags,
            early: None,
        };
        self.locks.insert(lkid, held);
        // Without a transaction nobody knows whether this wait keeps the program from anything: it is an actor by itself.
        let alone = 1 << 63 | u64::from(self.owner.node.0) << 32 | u64::from(lkid);
        let transaction = Transaction(if call.transaction == 0 { alone } else { call.transaction });
        Ok(Event::Request(Request {
            tag,
            owner: self.owner,
            transaction,
            lockspace,
            parent,
            name,
            mode,
            scope: Scope::Plain,
            flags,
            deadline,
        }))
    }

    /// Another mode.
    ///
    /// # Errors
    /// A status; nothing has changed.
    pub fn convert(&mut self, tag: u64, call: &wire::Convert, now: Time) -> Result<Event, u32> {
        let (mode, value) = (mode(call.mode)?, value(&call.value)?);
        let (flags, deadline) = patience(call.flags, call.timeout_ms, now);
        let held = self.locks.get(&call.lkid).ok_or(status::NOT_THERE)?;
        let (Some(granted), Some(lock), None, false) =
            (held.granted, held.id, held.pending, held.is_unlocking)
        else {
            return Err(status::BUSY);
        };
        check_conversion(flags, granted, mode, deadline.is_some()).map_err(status::of)?;
        let tag = self.begin(tag, call.lkid, Kind::Convert);
        if let Some(held) = self.locks.get_mut(&call.lkid) {
            (held.pending, held.wanted, held.since) = (Some(tag), Some(mode), now);
        }
        let owner = self.owner;
        Ok(Event::Convert(Convert { tag, owner, lock, mode, scope: None, flags, value, deadline }))
    }

    /// A lock goes; what it waits for with it, if FORCEUNLOCK says so.
    ///
    /// # Errors
    /// A status; nothing has changed.
    pub fn unlock(&mut self, tag: u64, call: &wire::Unlock) -> Result<Option<Event>, u32> {
        let value = value(&call.value)?;
        let flags = Flags(call.flags & KNOWN);
        let is_parent = self.locks.values().any(|other| other.parent == call.lkid);
        let held = self.locks.get(&call.lkid).ok_or(status::NOT_THERE)?;
        let is_forced = flags.has(Flags::FORCEUNLOCK);
        if held.is_unlocking {
            return Err(status::UNLOCKING);
        }
        if held.pending.is_some() && !is_forced || held.early.is_some() {
            return Err(status::BUSY);
        }
        if is_parent && !is_forced {
            return Err(status::HAS_CHILDREN);
        }
        let (id, pending) = (held.id, held.pending);
        let tag = self.begin(tag, call.lkid, Kind::Unlock);
        if let Some(doing) = pending.and_then(|pending| self.doing.get_mut(&pending)) {
            doing.is_overtaken = true;
        }
        if let Some(held) = self.locks.get_mut(&call.lkid) {
            held.is_unlocking = true;
            held.early = id.is_none().then_some(Early::Unlock(tag, flags));
        }
        Ok(id.map(|lock| Event::Unlock(Unlock { tag, owner: self.owner, lock, flags, value })))
    }

    /// What a lock waits for is to end.
    ///
    /// # Errors
    /// A status: there is nothing to end.
    pub fn cancel(&mut self, tag: u64, lkid: u32, as_deadlock: bool) -> Result<Option<Event>, u32> {
        let held = self.locks.get(&lkid).ok_or(status::NOT_THERE)?;
        let Some(pending) = held.pending.filter(|_| !held.is_unlocking && held.early.is_none()) else {
            return Err(status::BUSY);
        };
        let id = held.id;
        if let Some(doing) = self.doing.get_mut(&pending) {
            doing.as_deadlock = as_deadlock;
        }
        let tag = self.begin(tag, lkid, Kind::Cancel);
        if let Some(held) = self.locks.get_mut(&lkid) {
            held.early = id.is_none().then_some(Early::Cancel(tag));
        }
        Ok(id.map(|lock| Event::Cancel { tag, owner: self.owner, lock }))
    }

    /// Forgets everything, without a word to the program.
    pub fn clear(&mut self) {
        self.locks.clear();
        self.names.clear();
        self.doing.clear();
    }

    /// Its locks, for a list.
    pub fn rows(&self, now: Time) -> impl Iterator<Item = Row> {
        let space = self.space.as_ref().map(|(_, name)| name.clone()).unwrap_or_default();
        self.locks.iter().map(move |(lkid, held)| self.row(*lkid, held, &space, now))
    }

    /// The lock with this name in the table, for a list.
    pub fn row_of(&self, lock: LockId, now: Time) -> Option<Row> {
        let lkid = self.names.get(&lock)?;
        let (_, space) = self.space.as_ref()?;
        Some(self.row(*lkid, self.locks.get(lkid)?, space, now))
    }

    fn row(&self, lkid: u32, held: &Held, space: &[u8], now: Time) -> Row {
        Row {
            space: space.to_vec(),
            name: held.name.as_bytes().to_vec(),
            node: self.owner.node.0,
            pid: self.peer.pid,
            uid: self.peer.uid,
            lkid,
            granted: held.granted.map(|mode| mode as u32),
            wanted: held.wanted.map(|mode| mode as u32),
            since_ms: u64::try_from(now.since(held.since).as_millis()).unwrap_or(u64::MAX),
            token: held.token,
            orphan: false,
            parent: held.parent,
        }
    }

    /// Its locks that outlive it, with their names in the table.
    pub fn lasting(&self, now: Time) -> Vec<(LockId, Row)> {
        let space = self.space.as_ref().map(|(_, name)| name.clone()).unwrap_or_default();
        let lasting = self.locks.iter().filter(|(_, held)| {
            held.flags.has(Flags::PERSISTENT) && held.granted.is_some() && !held.is_unlocking
        });
        let as_orphan = |(lkid, held): (&u32, &Held)| {
            Some((held.id?, Row { orphan: true, wanted: None, ..self.row(*lkid, held, &space, now) }))
        };
        lasting.filter_map(as_orphan).collect()
    }

    /// What is to be said when something has become of a lock.
    pub fn effect(&mut self, effect: crate::event::Effect, now: Time) -> Told {
        super::told::apply(self, effect, now)
    }
}
