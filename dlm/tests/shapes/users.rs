//! The users of a node: each asks for one lock, holds it, converts it, gives it back, and so on.
//!
//! Invariant: a user has one thing under way at a time.

use base::{NodeId, Prng, Time};
use dlm::{
    Convert, Event, Flags, Key, LockId, Lockspace, Mode, Name, Owner, Policy, Request, Scope, Span,
    Transaction, Unlock,
};

/// The lockspace whose locks guard storage.
pub const GUARDED: Lockspace = Lockspace(2);
const KEYS: u64 = 6;
/// Storeys of a tree besides the lowest.
const STOREYS: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Doing {
    Nothing,
    Requesting,
    Holding,
    Converting,
    Unlocking,
}

#[derive(Clone, Debug)]
pub struct User {
    pub owner: Owner,
    pub doing: Doing,
    pub key: Option<Key>,
    pub lock: Option<LockId>,
    pub mode: Option<Mode>,
    pub scope: Option<Scope>,
    pub tag: u64,
    /// Its lock outlives it.
    pub is_lasting: bool,
    /// It asks for an orphan.
    pub adopts: bool,
    /// What it has above what it deals with now: the last is the parent.
    pub above: Vec<(Key, LockId, Mode, Scope)>,
}

/// A lock whose user is gone.
#[derive(Clone, Copy, Debug)]
pub struct Orphan {
    pub owner: Owner,
    pub key: Key,
    pub mode: Mode,
    pub lock: LockId,
}

impl User {
    pub fn new(node: NodeId, holder: u64) -> User {
        let owner = Owner { node, holder };
        User {
            owner,
            doing: Doing::Nothing,
            key: None,
            lock: None,
            mode: None,
            scope: None,
            tag: 0,
            is_lasting: false,
            adopts: false,
            above: Vec::new(),
        }
    }

    /// The next thing that it does. `value`: what it would write.
    pub fn step(&mut self, prng: &mut Prng, now: Time, tag: u64, value: u64, last: bool) -> Option<Event> {
        match self.doing {
            Doing::Nothing if !last => Some(self.request(prng, now, tag)),
            Doing::Holding if !last && self.above.len() < STOREYS && !self.is_lasting && prng.one_in(4) => {
                let above = self.key.zip(self.lock).zip(self.mode).zip(self.scope);
                self.above.extend(above.map(|(((key, lock), mode), scope)| (key, lock, mode, scope)));
                Some(self.request(prng, now, tag))
            }
            Doing::Holding if !last && prng.one_in(2) => Some(self.convert(prng, tag, value)),
            Doing::Holding => Some(self.unlock(tag, value)),
            _ => None,
        }
    }

    fn mode(prng: &mut Prng) -> Mode {
        let modes = [Mode::NL, Mode::CR, Mode::CW, Mode::PR, Mode::PR, Mode::PW, Mode::EX, Mode::EX];
        modes[prng.below(8) as usize]
    }

    fn request(&mut self, prng: &mut Prng, now: Time, tag: u64) -> Event {
        let number = prng.below(if self.above.is_empty() { KEYS } else { KEYS / 2 });
        let space = if number < KEYS / 2 { Lockspace(1) } else { GUARDED };
        let kind = [None, None, None, Some(Policy::Extent), Some(Policy::Bits)][prng.below(5) as usize];
        let scope = kind.map_or(Scope::Plain, |policy| some_scope(policy, prng));
        let kind = ["r", "b", "e"][kind.map_or(0, |kind| 1 + usize::from(kind == Policy::Extent))];
        let number = if kind == "r" { number } else { number / 2 };
        let name = Name::new(format!("{kind}{number}").as_bytes()).unwrap();
        let parent = self.above.last().copied();
        let key = parent.map_or(Key::new(space, name), |(above, ..)| above.child(name));
        let mut flags = Flags::VALBLK;
        if prng.one_in(5) {
            flags = flags | Flags::NOQUEUE;
        }
        (self.is_lasting, self.adopts) = (prng.one_in(4) && parent.is_none() && scope == Scope::Plain, false);
        if self.is_lasting {
            flags = flags | Flags::PERSISTENT;
        }
        let patience = Time(now.0 + 2_000 + prng.below(20_000));
        let deadline = prng.one_in(6).then_some(patience);
        let mode = Self::mode(prng);
        (self.doing, self.key, self.tag) = (Doing::Requesting, Some(key), tag);
        Event::Request(Request {
            tag,
            owner: self.owner,
            transaction: Transaction(0),
            lockspace: key.lockspace,
            parent: parent.map(|(_, lock, ..)| lock),
            name,
            mode,
            scope,
            flags,
            deadline,
        })
    }

    /// Another user in its place; what it leaves behind, if its lock stays.
    pub fn vanish(&mut self, holder: u64) -> Option<Orphan> {
        let held = self.lock.zip(self.mode).zip(self.key);
        let stays = self.is_lasting && matches!(self.doing, Doing::Holding | Doing::Converting);
        let owner = self.owner;
        *self = User::new(owner.node, holder);
        held.filter(|_| stays).map(|((lock, mode), key)| Orphan { owner, key, mode, lock })
    }

    /// Asks for what somebody left behind.
    pub fn adopt(&mut self, tag: u64, orphan: &Orphan) -> Event {
        let Key { lockspace, name, .. } = orphan.key;
        (self.doing, self.key, self.tag) = (Doing::Requesting, Some(orphan.key), tag);
        (self.is_lasting, self.adopts) = (false, true);
        Event::Request(Request {
            tag,
            owner: self.owner,
            transaction: Transaction(0),
            lockspace,
            parent: None,
            name,
            mode: orphan.mode,
            scope: Scope::Plain,
            flags: Flags::ORPHAN | Flags::VALBLK,
            deadline: None,
        })
    }

    /// Done with this one: it deals with the one above again.
    pub fn goes_up(&mut self) {
        (self.doing, self.lock, self.is_lasting) = (Doing::Nothing, None, false);
        if let Some((key, lock, mode, scope)) = self.above.pop() {
            (self.doing, self.key, self.lock) = (Doing::Holding, Some(key), Some(lock));
            (self.mode, self.scope) = (Some(mode), Some(scope));
        }
    }

    fn convert(&mut self, prng: &mut Prng, tag: u64, value: u64) -> Event {
        (self.doing, self.tag) = (Doing::Converting, tag);
        let noqueue = if prng.one_in(5) { Flags::NOQUEUE } else { Flags::NONE };
        let mode = Self::mode(prng);
        let has_less = self.mode.is_some_and(|held| held.covers(mode)) && prng.one_in(2);
        let scope = self.scope.filter(|_| has_less).map(|scope| part_of(scope, prng));
        Event::Convert(Convert {
            tag,
            owner: self.owner,
            lock: self.lock.unwrap(),
            mode,
            scope,
            flags: Flags::VALBLK | noqueue,
            value: Some(bytes(value)),
            deadline: None,
        })
    }

    fn unlock(&mut self, tag: u64, value: u64) -> Event {
        (self.doing, self.tag) = (Doing::Unlocking, tag);
        let (owner, lock) = (self.owner, self.lock.unwrap());
        Event::Unlock(Unlock { tag, owner, lock, flags: Flags::VALBLK, value: Some(bytes(value)) })
    }
}

/// Ranges are short and many, and desire more than they need.
fn some_scope(policy: Policy, prng: &mut Prng) -> Scope {
    if policy == Policy::Bits {
        return Scope::Bits(1 + prng.below(15));
    }
    let first = 10 + prng.below(30);
    let span = Span { first, last: first + prng.below(8) };
    let desired = Span { first: span.first - prng.below(10), last: span.last + prng.below(20) };
    Scope::Extent { span, desired }
}

/// Part of a scope.
fn part_of(scope: Scope, prng: &mut Prng) -> Scope {
    match scope {
        Scope::Plain => Scope::Plain,
        Scope::Bits(bits) => Scope::Bits(1 << bits.trailing_zeros()),
        Scope::Extent { span, .. } => {
            let first = span.first + prng.below(1 + span.last - span.first);
            Scope::extent(first, span.last)
        }
    }
}

pub fn bytes(value: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&value.to_le_bytes());
    bytes
}
