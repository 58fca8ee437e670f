//! Random histories: steps, and the runner that shows them to the table and to the model.
//!
//! Invariant: a step names locks by the number of the request that made them, so the same step means the same to both.

use crate::laws::Laws;
use crate::spec::{Outcome, Spec, Told};
use base::{NodeId, Time};
use dlm::{
    Config, Convert, Effect, Event, Flags, Gone, LockId, Lockspace, Mode, Name, Owner, Refusal, Request,
    Scope, Span, Table, Transaction, Unlock,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a loss is told of.
pub const LOSS_KEPT: u64 = 30;

#[derive(Clone, Debug)]
pub enum Step {
    Request { owner: u8, name: u8, mode: u8, flags: u32, at: (u8, u8, u8), patience: u8 },
    Convert { owner: u8, lock: prop::sample::Index, mode: u8, flags: u32, value: u8, patience: u8 },
    Unlock { lock: prop::sample::Index, flags: u32, value: u8 },
    Cancel { lock: prop::sample::Index },
    HolderGone { owner: u8 },
    Down { node: u8, lease: u8 },
    Fenced { node: u8 },
    Orphans { node: u8 },
    Wait { length: u8 },
}

fn flags(of: &'static [Flags]) -> impl Strategy<Value = u32> {
    let none = prop::collection::vec(Just(0u32), 0..1).prop_map(|_| 0);
    let some = prop::collection::vec(prop::sample::select(of.to_vec()), 1..3)
        .prop_map(|flags| flags.into_iter().fold(0, |all, flag| all | flag.0));
    prop_oneof![3 => none, 2 => some]
}

const OF_REQUESTS: &[Flags] = &[
    Flags::NOQUEUE,
    Flags::VALBLK,
    Flags::PERSISTENT,
    Flags::EXPEDITE,
    Flags::NOQUEUEBAST,
    Flags::HEADQUE,
    Flags::NOORDER,
    Flags::ORPHAN,
    Flags::ALTPR,
    Flags::ALTCW,
    Flags::GUARD,
    Flags::TIMEOUT,
    Flags::QUECVT,
];
const OF_CONVERSIONS: &[Flags] = &[
    Flags::NOQUEUE,
    Flags::VALBLK,
    Flags::QUECVT,
    Flags::IVVALBLK,
    Flags::CONVDEADLK,
    Flags::NODLCKWT,
    Flags::NOQUEUEBAST,
    Flags::HEADQUE,
    Flags::NOORDER,
    Flags::ALTPR,
    Flags::ALTCW,
    Flags::TIMEOUT,
];
const OF_UNLOCKS: &[Flags] = &[Flags::VALBLK, Flags::IVVALBLK, Flags::FORCEUNLOCK];

pub fn step() -> impl Strategy<Value = Step> {
    let lock = || any::<prop::sample::Index>();
    prop_oneof![
        8 => (0u8..6, 0u8..3, 0u8..6, flags(OF_REQUESTS), (0u8..16, 0u8..6, 0u8..9), 0u8..40).prop_map(
            |(owner, name, mode, flags, at, patience)| Step::Request { owner, name, mode, flags, at, patience }),
        7 => (0u8..6, lock(), 0u8..6, flags(OF_CONVERSIONS), any::<u8>(), 0u8..40).prop_map(
            |(owner, lock, mode, flags, value, patience)| Step::Convert { owner, lock, mode, flags, value, patience }),
        5 => (lock(), flags(OF_UNLOCKS), any::<u8>()).prop_map(|(lock, flags, value)| Step::Unlock { lock, flags, value }),
        1 => lock().prop_map(|lock| Step::Cancel { lock }),
        1 => (0u8..6).prop_map(|owner| Step::HolderGone { owner }),
        1 => (1u8..4, 0u8..20).prop_map(|(node, lease)| Step::Down { node, lease }),
        1 => (1u8..4).prop_map(|node| Step::Fenced { node }),
        1 => (1u8..4).prop_map(|node| Step::Orphans { node }),
        1 => (0u8..30).prop_map(|length| Step::Wait { length }),
    ]
}

impl Step {
    /// The same on one name of each kind, without flags that pass others.
    pub fn crowded(self) -> Step {
        match self {
            Step::Request { owner, name, mode, at, .. } => {
                Step::Request { owner, name: name % 3, mode, flags: Flags::VALBLK.0, at, patience: 0 }
            }
            Step::Convert { owner, lock, mode, flags, value, .. } => {
                let flags = flags & (Flags::CONVDEADLK | Flags::VALBLK | Flags::QUECVT).0;
                Step::Convert { owner, lock, mode, flags, value, patience: 0 }
            }
            Step::HolderGone { .. } | Step::Fenced { .. } => Step::Wait { length: 1 },
            other => other,
        }
    }
}

pub fn owner(number: u8) -> Owner {
    Owner { node: NodeId(u32::from(number % 3) + 1), holder: u64::from(number) }
}

fn scope(name: u8, at: (u8, u8, u8)) -> Scope {
    let (first, length, wish) = (u64::from(at.0), u64::from(at.1), u64::from(at.2));
    let span = Span { first, last: first + length };
    let desired = Span { first: first.saturating_sub(wish), last: span.last + wish };
    match name {
        0 => Scope::Plain,
        1 => Scope::Bits(u64::from(at.0)),
        _ => Scope::Extent { span, desired },
    }
}

/// Shows each step to both, and compares.
pub struct Runner {
    table: Table,
    spec: Spec,
    laws: Laws,
    now: u64,
    tag: u64,
    /// By the tag of the request.
    ids: BTreeMap<u64, LockId>,
}

impl Runner {
    pub fn new() -> Runner {
        let config = Config {
            loss_kept: Duration::from_nanos(LOSS_KEPT),
            queue_max: 12,
            locks_per_owner: 20,
            ..Config::default()
        };
        Runner {
            table: Table::new(config).unwrap(),
            spec: Spec::default(),
            laws: Laws::default(),
            now: 0,
            tag: 0,
            ids: BTreeMap::new(),
        }
    }

    pub fn run(&mut self, steps: &[Step]) -> Result<(), TestCaseError> {
        for step in steps {
            self.tag += 1;
            self.now += 1;
            if let Step::Wait { length } = step {
                self.now += u64::from(*length);
            }
            self.show(None, Event::Tick)?;
            if let Some((lock, event)) = self.event(step) {
                self.show(lock, event)?;
            }
        }
        Ok(())
    }

    /// The event of a step, and the lock that it names.
    fn event(&self, step: &Step) -> Option<(Option<u64>, Event)> {
        let tag = self.tag;
        let deadline = |flags: u32, patience: u8| {
            (flags & Flags::TIMEOUT.0 != 0 && patience > 2).then(|| Time(self.now + u64::from(patience)))
        };
        let pick = |index: &prop::sample::Index| {
            let known: Vec<u64> = self.spec.locks.iter().map(|lock| lock.key).collect();
            (!known.is_empty()).then(|| known[index.index(known.len())])
        };
        let id = |key: u64| self.ids.get(&key).copied().unwrap_or(LockId(u64::MAX));
        let owner_of = |key: u64| self.spec.lock(key).map_or(owner(0), |lock| lock.owner);
        Some(match step {
            Step::Request { owner: by, name, mode, flags, at, patience } => (
                None,
                Event::Request(Request {
                    tag,
                    owner: owner(*by),
                    transaction: Transaction(0),
                    lockspace: Lockspace(1),
                    parent: None,
                    name: Name::new(&[b'a' + *name]).unwrap(),
                    mode: Mode::ALL[usize::from(*mode)],
                    scope: scope(*name, *at),
                    flags: Flags(*flags),
                    deadline: deadline(*flags, *patience),
                }),
            ),
            Step::Convert { owner: by, lock, mode, flags, value, patience } => {
                let key = pick(lock)?;
                // Now and then somebody else's lock.
                let owner = if *patience == 1 { owner(*by) } else { owner_of(key) };
                (
                    Some(key),
                    Event::Convert(Convert {
                        tag,
                        owner,
                        lock: id(key),
                        mode: Mode::ALL[usize::from(*mode)],
                        scope: None,
                        flags: Flags(*flags),
                        value: (*value > 8).then_some([*value; 32]),
                        deadline: deadline(*flags, *patience),
                    }),
                )
            }
            Step::Unlock { lock, flags, value } => {
                let key = pick(lock)?;
                let value = (*value > 8).then_some([*value; 32]);
                let unlock = Unlock { tag, owner: owner_of(key), lock: id(key), flags: Flags(*flags), value };
                (Some(key), Event::Unlock(unlock))
            }
            Step::Cancel { lock } => {
                let key = pick(lock)?;
                (Some(key), Event::Cancel { tag, owner: owner_of(key), lock: id(key) })
            }
            Step::HolderGone { owner: by } => (None, Event::Gone(Gone::Holder(owner(*by)))),
            Step::Down { node, lease } => {
                let until = Time(self.now + u64::from(*lease));
                (None, Event::Gone(Gone::Down { node: NodeId(u32::from(*node)), until }))
            }
            Step::Fenced { node } => (None, Event::Gone(Gone::Fenced(NodeId(u32::from(*node))))),
            Step::Orphans { node } => (None, Event::Gone(Gone::Orphans(NodeId(u32::from(*node))))),
            Step::Wait { .. } => return None,
        })
    }

    fn show(&mut self, lock: Option<u64>, event: Event) -> Result<(), TestCaseError> {
        let mut effects = Vec::new();
        self.table.handle(Time(self.now), event, &mut effects);
        let mut expected = self.spec.handle(self.now, lock, &event);
        for effect in &effects {
            match effect {
                Effect::Queued { tag, lock, .. } => {
                    self.ids.entry(*tag).or_insert(*lock);
                }
                Effect::Granted(grant) if !self.ids.values().any(|known| *known == grant.lock) => {
                    self.ids.insert(grant.tag, grant.lock);
                }
                _ => {}
            }
        }
        let mut told: Vec<Told> = effects.iter().filter_map(Self::told).collect();
        told.sort_by_key(|told| told.tag);
        expected.sort_by_key(|told| told.tag);
        prop_assert_eq!(told, expected, "at {} {:?}", self.now, event);
        self.compare_locks()?;
        self.laws.check(&self.table, &effects)
    }

    fn told(effect: &Effect) -> Option<Told> {
        let (tag, outcome) = match effect {
            Effect::Granted(grant) => {
                let value = grant.value.map(|(bytes, _)| bytes[0]);
                let (mode, scope, status) = (grant.mode, grant.scope, grant.status);
                (grant.tag, Outcome::Granted { mode, scope, status, value })
            }
            Effect::Refused { tag, why: Refusal::Invalid(_), mode, .. } => {
                (*tag, Outcome::Refused { why: Refusal::Invalid(""), mode: *mode })
            }
            Effect::Refused { tag, why, mode, .. } => (*tag, Outcome::Refused { why: *why, mode: *mode }),
            Effect::Done { tag, .. } => (*tag, Outcome::Done),
            Effect::Purged { tag, .. } => ((*tag)?, Outcome::Purged),
            Effect::Queued { .. } | Effect::Blocking { .. } => return None,
        };
        Some(Told { tag, outcome })
    }

    fn compare_locks(&self) -> Result<(), TestCaseError> {
        let mut there: Vec<_> = self
            .table
            .locks()
            .map(|lock| (lock.lock, lock.owner, lock.granted, lock.wanted, lock.held_over, lock.orphan))
            .collect();
        let mut expected: Vec<_> = self
            .spec
            .locks
            .iter()
            .map(|lock| {
                let wanted = lock.pending.as_ref().map(|pending| pending.mode);
                let id = self.ids.get(&lock.key).copied().unwrap_or(LockId(0));
                (id, lock.owner, lock.granted, wanted, lock.held_over, lock.orphan)
            })
            .collect();
        there.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(there, expected);
        prop_assert_eq!(self.table.resource_count() as usize, self.spec.resource_count());
        Ok(())
    }
}
