//! The users of a node: each asks for locks, holds them, converts them, gives them back, and so on.
//!
//! Invariant: a user has one thing under way at a time, besides a cancel of it.

use crate::{
    Convert, Event, Flags, Key, LockId, Lockspace, Mode, Name, Owner, Request, Scope, Transaction, Unlock,
};
use base::{NodeId, Prng, Time};

/// The lockspace whose locks guard storage.
pub const GUARDED: Lockspace = Lockspace(2);

/// How users behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// One lock at a time, in any mode, converted now and then.
    One,
    /// Up to three locks in EX, in any order; nobody waits with a deadline.
    Exclusive,
    /// Up to three locks in any order and mode, converted now and then.
    Several,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    Nothing,
    Requesting,
    Converting,
    Unlocking,
}

/// A lock that a user has.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub key: Key,
    pub lock: LockId,
    pub mode: Mode,
}

#[derive(Clone, Debug)]
pub struct User {
    pub owner: Owner,
    pub transaction: Transaction,
    habit: Habit,
    keys: u64,
    pub doing: Doing,
    pub held: Vec<Held>,
    /// What it does that to, and which mode it wants.
    pub key: Option<Key>,
    pub wanted: Option<Mode>,
    pub tag: u64,
    /// When it asked.
    pub since: Time,
    /// The lock that waits.
    pub queued: Option<LockId>,
    /// The cancel that is under way.
    pub cancels: Option<u64>,
    /// It lets everything go before it asks for more.
    gives_up: bool,
    /// Its wait is in a circle of waits since then; or was, or may have been, in one.
    pub in_circle: Option<Time>,
    pub was_in_circle: bool,
}

impl User {
    pub fn new(node: NodeId, holder: u64, habit: Habit, keys: u64) -> User {
        User {
            owner: Owner { node, holder },
            transaction: Transaction(0),
            habit,
            keys,
            doing: Doing::Nothing,
            held: Vec::new(),
            key: None,
            wanted: None,
            tag: 0,
            since: Time(0),
            queued: None,
            cancels: None,
            gives_up: false,
            in_circle: None,
            was_in_circle: false,
        }
    }

    /// True if it waits for an answer that may take long.
    pub fn waits(&self) -> bool {
        matches!(self.doing, Doing::Requesting | Doing::Converting)
    }

    /// The mode of a key that it has.
    pub fn has(&self, key: &Key) -> Option<Mode> {
        self.held.iter().find(|held| held.key == *key).map(|held| held.mode)
    }

    /// The next thing that it does. `clock`: its node's. `last`: it begins nothing new.
    pub fn step(&mut self, prng: &mut Prng, now: Time, clock: Time, tag: u64, last: bool) -> Option<Event> {
        if self.doing != Doing::Nothing {
            return None;
        }
        let most = if self.habit == Habit::One { 1 } else { 3 };
        self.gives_up = (self.gives_up || last || self.held.len() >= most) && !self.held.is_empty();
        let converts = self.habit != Habit::Exclusive && !last && prng.one_in(2);
        (self.tag, self.since, self.in_circle, self.was_in_circle) = (tag, now, None, false);
        if self.held.is_empty() && last {
            return None;
        }
        if !self.held.is_empty() && converts {
            return Some(self.convert(prng, tag));
        }
        if self.gives_up || (self.habit == Habit::One && !self.held.is_empty()) {
            return Some(self.unlock(prng, tag));
        }
        if self.held.is_empty() && self.habit != Habit::One && prng.one_in(2) {
            self.transaction = Transaction(tag);
        }
        Some(self.request(prng, clock, tag))
    }

    /// Somebody waits for it: it lets go, and begins anew.
    pub fn is_victim(&mut self) {
        self.gives_up = true;
    }

    fn mode(&self, prng: &mut Prng) -> Mode {
        let modes = [Mode::NL, Mode::CR, Mode::CW, Mode::PR, Mode::PR, Mode::PW, Mode::EX, Mode::EX];
        match self.habit {
            Habit::Exclusive => Mode::EX,
            Habit::One => modes[prng.below(8) as usize],
            Habit::Several => modes[1 + prng.below(7) as usize],
        }
    }

    fn key(&self, prng: &mut Prng) -> Key {
        loop {
            let number = prng.below(self.keys);
            let lockspace = if number < self.keys / 2 { Lockspace(1) } else { GUARDED };
            let name = Name::new(format!("r{number}").as_bytes()).unwrap();
            let key = Key { lockspace, name };
            if self.has(&key).is_none() {
                return key;
            }
        }
    }

    fn request(&mut self, prng: &mut Prng, clock: Time, tag: u64) -> Event {
        let key = self.key(prng);
        let mut flags = Flags::NONE;
        let mut deadline = None;
        if self.habit == Habit::One {
            flags = Flags::VALBLK;
            if prng.one_in(5) {
                flags = flags | Flags::NOQUEUE;
            }
            let patience = Time(clock.0 + 2_000 + prng.below(20_000));
            deadline = prng.one_in(6).then_some(patience);
        }
        let mode = self.mode(prng);
        (self.doing, self.key, self.wanted) = (Doing::Requesting, Some(key), Some(mode));
        Event::Request(Request {
            tag,
            owner: self.owner,
            transaction: self.transaction,
            lockspace: key.lockspace,
            parent: None,
            name: key.name,
            mode,
            scope: Scope::Plain,
            flags,
            deadline,
        })
    }

    fn convert(&mut self, prng: &mut Prng, tag: u64) -> Event {
        let held = self.held[prng.below(self.held.len() as u64) as usize];
        let mode = self.mode(prng);
        (self.doing, self.key, self.wanted) = (Doing::Converting, Some(held.key), Some(mode));
        let tries = self.habit == Habit::One && prng.one_in(5);
        let noqueue = if tries { Flags::NOQUEUE } else { Flags::NONE };
        let valblk = if self.habit == Habit::One { Flags::VALBLK } else { Flags::NONE };
        Event::Convert(Convert {
            tag,
            owner: self.owner,
            lock: held.lock,
            mode,
            scope: None,
            flags: valblk | noqueue,
            value: Some(bytes(tag)),
            deadline: None,
        })
    }

    fn unlock(&mut self, prng: &mut Prng, tag: u64) -> Event {
        let held = self.held[prng.below(self.held.len() as u64) as usize];
        (self.doing, self.key, self.wanted) = (Doing::Unlocking, Some(held.key), None);
        let valblk = if self.habit == Habit::One { Flags::VALBLK } else { Flags::NONE };
        Event::Unlock(Unlock {
            tag,
            owner: self.owner,
            lock: held.lock,
            flags: valblk,
            value: Some(bytes(tag)),
        })
    }

    /// Takes back what waits.
    pub fn cancel(&mut self, tag: u64) -> Option<Event> {
        let lock = self.queued.filter(|_| self.waits() && self.cancels.is_none())?;
        self.cancels = Some(tag);
        Some(Event::Cancel { tag, owner: self.owner, lock })
    }

    /// What it asked for is granted.
    pub fn granted(&mut self, lock: LockId, mode: Mode) {
        let key = self.key.unwrap();
        self.held.retain(|held| held.key != key);
        self.held.push(Held { key, lock, mode });
        (self.doing, self.queued) = (Doing::Nothing, None);
    }

    /// What it did is over, and it has this mode of the key.
    pub fn has_left(&mut self, mode: Option<Mode>) {
        let key = self.key.unwrap();
        match mode {
            None => self.held.retain(|held| held.key != key),
            Some(mode) => {
                self.held.iter_mut().filter(|held| held.key == key).for_each(|held| held.mode = mode);
            }
        }
        (self.doing, self.queued) = (Doing::Nothing, None);
    }
}

pub fn bytes(value: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&value.to_le_bytes());
    bytes
}
