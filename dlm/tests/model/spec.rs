//! The model: a flat list of locks, everything found by looking at all of them, all rules written down as they are said.
//!
//! Invariant: it is allowed to be slow and not allowed to be clever.

mod verbs;

use dlm::mode::{ValueMove, value_move};
use dlm::{Event, Flags, Mode, Name, Owner, Policy, Refusal, Scope, Span, Status};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Granted { mode: Mode, scope: Scope, status: Status, value: Option<u8> },
    Refused { why: Refusal, mode: Option<Mode> },
    Done,
    Purged,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub tag: u64,
    pub outcome: Outcome,
}

#[derive(Clone, Debug)]
pub struct Pending {
    pub tag: u64,
    pub mode: Mode,
    pub scope: Scope,
    pub flags: Flags,
    pub deadline: Option<u64>,
    /// Smaller is ahead.
    pub place: i64,
}

#[derive(Clone, Debug)]
pub struct SpecLock {
    pub key: u64,
    pub owner: Owner,
    pub name: Name,
    pub scope: Scope,
    pub granted: Option<Mode>,
    pub pending: Option<Pending>,
    pub lasting: Flags,
    pub demoted: bool,
    pub orphan: bool,
    pub held_over: bool,
    until: u64,
}

#[derive(Clone, Debug)]
struct Block {
    byte: u8,
    is_valid: bool,
    loss_until: u64,
}

#[derive(Default)]
pub struct Spec {
    pub locks: Vec<SpecLock>,
    blocks: BTreeMap<Vec<u8>, Block>,
    places: i64,
    now: u64,
    told: Vec<Told>,
}

fn meets(one: Scope, other: Scope) -> bool {
    one.meets(other)
}

impl Spec {
    pub fn handle(&mut self, now: u64, key: Option<u64>, event: &Event) -> Vec<Told> {
        self.now = now;
        match event {
            Event::Request(request) => self.request(request),
            Event::Convert(convert) => self.convert(key.unwrap_or(0), convert),
            Event::Unlock(unlock) => self.unlock(key.unwrap_or(0), unlock),
            Event::Cancel { tag, owner, .. } => self.cancel(key.unwrap_or(0), *tag, *owner),
            Event::Gone(gone) => self.gone(*gone),
            Event::Tick => self.tick(),
            Event::Victim { .. } | Event::Value { .. } | Event::Epoch(_) | Event::Floor(_) => {}
            Event::Allow { .. } | Event::Deny { .. } => {}
        }
        self.forget_idle();
        let mut told = std::mem::take(&mut self.told);
        for told in &mut told {
            if let Outcome::Refused { why: Refusal::Invalid(text), .. } = &mut told.outcome {
                *text = "";
            }
        }
        told
    }

    pub fn lock(&self, key: u64) -> Option<&SpecLock> {
        self.locks.iter().find(|lock| lock.key == key)
    }

    fn at(&mut self, key: u64) -> &mut SpecLock {
        self.locks.iter_mut().find(|lock| lock.key == key).unwrap()
    }

    pub fn resource_count(&self) -> usize {
        self.blocks.len()
    }

    fn forget_idle(&mut self) {
        let locks = &self.locks;
        let now = self.now;
        self.blocks.retain(|name, block| {
            block.loss_until > now || locks.iter().any(|lock| lock.name.as_bytes() == &name[..])
        });
    }

    fn tell(&mut self, tag: u64, outcome: Outcome) {
        self.told.push(Told { tag, outcome });
    }

    fn refuse(&mut self, tag: u64, key: u64, why: Refusal) {
        let mode = self.lock(key).and_then(|lock| lock.granted);
        self.tell(tag, Outcome::Refused { why, mode });
    }

    fn block(&mut self, name: &Name) -> &mut Block {
        let new = Block { byte: 0, is_valid: true, loss_until: 0 };
        self.blocks.entry(name.as_bytes().to_vec()).or_insert(new)
    }

    /// Everybody else on the same resource.
    fn others(&self, key: u64) -> impl Iterator<Item = &SpecLock> {
        let name = self.lock(key).unwrap().name;
        self.locks.iter().filter(move |lock| lock.key != key && lock.name == name)
    }

    fn is_free(&self, key: u64, mode: Mode, scope: Scope) -> bool {
        self.others(key).all(|other| {
            other.granted.is_none_or(|granted| granted.goes_with(mode)) || !meets(other.scope, scope)
        })
    }

    fn fitting_mode(&self, key: u64, wish: &Pending) -> Option<Mode> {
        let other = match wish.flags {
            flags if flags.has(Flags::ALTPR) && wish.mode != Mode::PR => Some(Mode::PR),
            flags if flags.has(Flags::ALTCW) && wish.mode != Mode::CW => Some(Mode::CW),
            _ => None,
        };
        let granted = self.lock(key).unwrap().granted;
        let other = other.filter(|other| granted.is_none_or(|granted| !granted.covers(*other)));
        let mut modes = [Some(wish.mode), other].into_iter().flatten();
        modes.find(|mode| self.is_free(key, *mode, wish.scope))
    }

    fn in_the_way(ahead: &Pending, wish: &Pending) -> bool {
        wish.scope.policy() == Policy::Plain
            || !ahead.mode.goes_with(wish.mode) && meets(ahead.scope, wish.scope)
    }

    fn rank(lock: &SpecLock) -> Option<(bool, i64)> {
        Some((lock.granted.is_none(), lock.pending.as_ref()?.place))
    }

    fn mode_at_once(&self, key: u64, wish: &Pending) -> Option<Mode> {
        let is_conversion = self.lock(key).unwrap().granted.is_some();
        let behind = |converting_only: bool| {
            self.others(key).any(|other| {
                let Some(pending) = &other.pending else { return false };
                (other.granted.is_some() || !converting_only) && Self::in_the_way(pending, wish)
            })
        };
        let at_head = wish.flags.has(Flags::HEADQUE);
        let passes = wish.flags.has_any(Flags::NOORDER | Flags::EXPEDITE)
            || match is_conversion {
                true => !wish.flags.has(Flags::QUECVT) || at_head || !behind(true),
                false => !behind(at_head),
            };
        passes.then(|| self.fitting_mode(key, wish)).flatten()
    }

    fn grown(&self, key: u64, mode: Mode, span: Span, desired: Span) -> Span {
        let mut grown = desired;
        for other in self.others(key) {
            let wanted = other.pending.as_ref().map(|pending| (pending.mode, pending.scope));
            for (theirs, scope) in
                [other.granted.map(|granted| (granted, other.scope)), wanted].into_iter().flatten()
            {
                let Scope::Extent { span: theirs_span, .. } = scope else { continue };
                if theirs.goes_with(mode) {
                    continue;
                }
                while grown.first < span.first
                    && theirs_span.meets(Span { first: grown.first, last: span.first - 1 })
                {
                    grown.first += 1;
                }
                while grown.last > span.last
                    && theirs_span.meets(Span { first: span.last + 1, last: grown.last })
                {
                    grown.last -= 1;
                }
            }
        }
        grown
    }

    fn grant(&mut self, key: u64, wish: &Pending, mode: Mode, value: Option<[u8; 32]>) {
        let (old, name) = (self.lock(key).unwrap().granted, self.lock(key).unwrap().name);
        self.at(key).pending = None;
        let scope = match (old, wish.scope) {
            (None, Scope::Extent { span, desired }) => {
                let grown = self.grown(key, mode, span, desired);
                Scope::Extent { span: grown, desired: grown }
            }
            (_, scope) => scope,
        };
        let lock = self.at(key);
        lock.granted = Some(mode);
        lock.scope = scope;
        let was_demoted = std::mem::take(&mut lock.demoted);
        let moves = value_move(old, mode);
        if moves == ValueMove::Write {
            self.write(&name, wish.flags, value);
        }
        let block = self.block(&name).clone();
        let read = moves == ValueMove::Read && wish.flags.has(Flags::VALBLK);
        let status =
            Status { is_other_mode: mode != wish.mode, was_demoted, value_not_valid: !block.is_valid };
        self.tell(wish.tag, Outcome::Granted { mode, scope, status, value: read.then_some(block.byte) });
    }

    fn write(&mut self, name: &Name, flags: Flags, value: Option<[u8; 32]>) {
        let block = self.block(name);
        if flags.has(Flags::IVVALBLK) {
            block.is_valid = false;
        } else if let (true, Some(bytes)) = (flags.has(Flags::VALBLK), value) {
            *block = Block { byte: bytes[0], is_valid: true, loss_until: 0 };
        }
    }

    /// As long as somebody can be granted: the first of them.
    fn serve(&mut self) {
        loop {
            let mut pending: Vec<_> =
                self.locks.iter().filter_map(|lock| Some((Self::rank(lock)?, lock.key))).collect();
            pending.sort_unstable();
            let next = pending.iter().find_map(|(rank, key)| {
                let wish = self.lock(*key)?.pending.clone()?;
                let stopped = self.others(*key).any(|other| {
                    Self::rank(other).is_some_and(|others| others < *rank)
                        && Self::in_the_way(other.pending.as_ref().unwrap(), &wish)
                });
                let passes = !stopped || wish.flags.has(Flags::NOORDER);
                let mode = self.fitting_mode(*key, &wish).filter(|_| passes)?;
                Some((*key, wish, mode))
            });
            let Some((key, wish, mode)) = next else { return };
            self.grant(key, &wish, mode, None);
        }
    }
}
