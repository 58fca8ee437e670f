//! Stories about one table: each test is one thing that a user of locks relies on.

#[path = "table/scopes.rs"]
mod scopes;

use base::{Epoch, NodeId, Time};
use dlm::deadlock::{Sighting, cycles};
use dlm::table::{Held, first_token};
use dlm::{
    Actor, Config, Convert, Effect, Event, Flags, Gone, Grant, LockId, Lockspace, Mode, Name, Owner, Refusal,
    Request, Scope, Span, Table, Transaction, Unlock,
};

struct Bench {
    table: Table,
    now: u64,
    tag: u64,
}

fn owner(holder: u64) -> Owner {
    Owner { node: NodeId(holder as u32 % 10), holder }
}

impl Bench {
    fn new() -> Bench {
        Bench { table: Table::new(Config::default()).unwrap(), now: 0, tag: 0 }
    }

    fn tell(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.now += 1;
        self.table.handle(Time(self.now), event, &mut effects);
        effects
    }

    fn request(&mut self, holder: u64, name: &str, mode: Mode, flags: Flags) -> Request {
        self.tag += 1;
        Request {
            tag: self.tag,
            owner: owner(holder),
            transaction: Transaction(0),
            lockspace: Lockspace(1),
            parent: None,
            name: Name::new(name.as_bytes()).unwrap(),
            mode,
            scope: Scope::Plain,
            flags,
            deadline: None,
        }
    }

    fn ask(&mut self, holder: u64, name: &str, mode: Mode, flags: Flags) -> Vec<Effect> {
        let request = self.request(holder, name, mode, flags);
        self.tell(Event::Request(request))
    }

    fn lock(&mut self, holder: u64, name: &str, mode: Mode) -> Grant {
        granted(&self.ask(holder, name, mode, Flags::VALBLK)).unwrap()
    }

    fn below(&mut self, parent: &Grant, name: &str, mode: Mode) -> Vec<Effect> {
        let request = self.request(parent.owner.holder, name, mode, Flags::NONE);
        self.tell(Event::Request(Request { parent: Some(parent.lock), ..request }))
    }

    fn convert(&mut self, grant: &Grant, mode: Mode, flags: Flags, value: Option<u8>) -> Vec<Effect> {
        self.tag += 1;
        let (tag, owner, lock) = (self.tag, grant.owner, grant.lock);
        let value = value.map(|byte| [byte; 32]);
        self.tell(Event::Convert(Convert {
            tag,
            owner,
            lock,
            mode,
            scope: None,
            flags,
            value,
            deadline: None,
        }))
    }

    fn unlock(&mut self, grant: &Grant, flags: Flags, value: Option<u8>) -> Vec<Effect> {
        self.tag += 1;
        let (tag, owner, lock) = (self.tag, grant.owner, grant.lock);
        self.tell(Event::Unlock(Unlock { tag, owner, lock, flags, value: value.map(|byte| [byte; 32]) }))
    }
}

fn granted(effects: &[Effect]) -> Option<Grant> {
    effects.iter().find_map(|effect| match effect {
        Effect::Granted(grant) => Some(*grant),
        _ => None,
    })
}

fn refused(effects: &[Effect]) -> Option<Refusal> {
    effects.iter().find_map(|effect| match effect {
        Effect::Refused { why, .. } => Some(*why),
        _ => None,
    })
}

fn queued(effects: &[Effect]) -> LockId {
    let queued = effects.iter().find_map(|effect| match effect {
        Effect::Queued { lock, .. } => Some(*lock),
        _ => None,
    });
    queued.unwrap()
}

#[test]
fn what_a_writer_wrote_is_what_the_next_one_reads() {
    let mut bench = Bench::new();
    let keeper = bench.lock(1, "r", Mode::NL);
    let writer = bench.lock(2, "r", Mode::EX);
    assert_eq!(writer.value, Some(([0; 32], 0)));
    bench.unlock(&writer, Flags::VALBLK, Some(7));
    let reader = bench.lock(3, "r", Mode::PR);
    assert_eq!(reader.value, Some(([7; 32], 1)));
    bench.unlock(&reader, Flags::NONE, None);
    bench.unlock(&keeper, Flags::NONE, None);
    assert_eq!(bench.table.resource_count(), 0);
    // A new resource of that name knows nothing of the old one.
    assert_eq!(bench.lock(3, "r", Mode::PR).value, Some(([0; 32], 0)));
}

#[test]
fn a_writers_death_is_told_to_whoever_comes_next_even_if_nobody_was_left() {
    let mut bench = Bench::new();
    let writer = bench.lock(2, "r", Mode::PW);
    bench.tell(Event::Gone(Gone::Holder(writer.owner)));
    assert_eq!((bench.table.lock_count(), bench.table.resource_count()), (0, 1));
    let next = bench.lock(3, "r", Mode::EX);
    assert!(next.status.value_not_valid);
    bench.convert(&next, Mode::PR, Flags::VALBLK, Some(9));
    assert!(!bench.lock(4, "r", Mode::PR).status.value_not_valid);
}

#[test]
fn a_loss_is_not_remembered_for_ever() {
    let mut bench = Bench::new();
    let writer = bench.lock(2, "r", Mode::PW);
    bench.tell(Event::Gone(Gone::Holder(writer.owner)));
    bench.now = bench.table.next_deadline().unwrap().0;
    bench.tell(Event::Tick);
    assert_eq!((bench.table.resource_count(), bench.table.next_deadline()), (0, None));
}

#[test]
fn a_lock_that_guards_storage_is_given_on_only_after_the_fence_or_the_lease() {
    for fenced in [true, false] {
        let mut bench = Bench::new();
        let holder = granted(&bench.ask(1, "r", Mode::EX, Flags::GUARD)).unwrap();
        bench.ask(2, "r", Mode::EX, Flags::NONE);
        let node = holder.owner.node;
        let until = Time(bench.now + 1_000);
        let effects = bench.tell(Event::Gone(Gone::Down { node, until }));
        assert_eq!(granted(&effects), None);
        // The dead holder has no say any more.
        assert_eq!(refused(&bench.unlock(&holder, Flags::NONE, None)), Some(Refusal::NoLock));
        let event = if fenced { Event::Gone(Gone::Fenced(node)) } else { Event::Tick };
        if !fenced {
            assert_eq!(bench.table.next_deadline(), Some(until));
            bench.now = until.0;
        }
        let next = granted(&bench.tell(event)).unwrap();
        assert_eq!(next.owner, owner(2));
        assert!(next.token > holder.token && next.status.value_not_valid);
    }
}

#[test]
fn a_resource_stays_while_something_is_below_it() {
    let mut bench = Bench::new();
    let root = bench.lock(1, "root", Mode::CR);
    let child = granted(&bench.below(&root, "child", Mode::EX)).unwrap();
    assert_eq!(refused(&bench.unlock(&root, Flags::NONE, None)), Some(Refusal::HasChildren));
    assert!(matches!(bench.unlock(&root, Flags::FORCEUNLOCK, None)[..], [Effect::Done { .. }]));
    assert_eq!(bench.table.resource_count(), 2);
    // The same name elsewhere is another resource.
    let other = bench.lock(2, "child", Mode::EX);
    bench.unlock(&child, Flags::NONE, None);
    bench.unlock(&other, Flags::NONE, None);
    assert_eq!(bench.table.resource_count(), 0);
}

/// A panic that the simulation has found: the index of the child is smaller than its parent's, and takes the parent with it.
#[test]
fn a_parent_goes_with_its_child_whatever_their_places() {
    let mut bench = Bench::new();
    let first = bench.lock(2, "first", Mode::EX);
    let root = bench.lock(1, "root", Mode::CR);
    bench.unlock(&first, Flags::NONE, None);
    granted(&bench.below(&root, "child", Mode::CR)).unwrap();
    bench.tell(Event::Gone(Gone::Holder(root.owner)));
    assert_eq!((bench.table.lock_count(), bench.table.resource_count()), (0, 0));
}

#[test]
fn trees_have_at_most_eight_storeys() {
    let mut bench = Bench::new();
    let mut above = bench.lock(1, "r", Mode::NL);
    for _ in 1..8 {
        above = granted(&bench.below(&above, "r", Mode::NL)).unwrap();
    }
    assert!(matches!(refused(&bench.below(&above, "r", Mode::NL)), Some(Refusal::Invalid(_))));
    bench.tell(Event::Gone(Gone::Holder(above.owner)));
    assert_eq!((bench.table.lock_count(), bench.table.resource_count()), (0, 0));
}

#[test]
fn tokens_only_grow_also_over_a_floor_and_an_epoch() {
    let mut bench = Bench::new();
    let one = bench.lock(1, "r", Mode::PR).token;
    bench.tell(Event::Floor(5_000));
    let two = bench.lock(2, "r", Mode::PR).token;
    bench.tell(Event::Epoch(Epoch(3)));
    let three = bench.lock(3, "r", Mode::PR).token;
    bench.tell(Event::Floor(1));
    let four = bench.lock(4, "s", Mode::PR).token;
    assert!(one < two && 5_000 < two && first_token(Epoch(3)) < three && three < four);
}

#[test]
fn limits_are_kept_and_named() {
    let config = Config { locks_max: 3, resources_max: 2, ..Config::default() };
    let mut bench = Bench { table: Table::new(config).unwrap(), now: 0, tag: 0 };
    bench.lock(1, "a", Mode::NL);
    bench.lock(1, "b", Mode::NL);
    assert_eq!(refused(&bench.ask(1, "c", Mode::NL, Flags::NONE)), Some(Refusal::Limit("resources_max")));
    bench.lock(1, "b", Mode::NL);
    assert_eq!(refused(&bench.ask(1, "b", Mode::NL, Flags::NONE)), Some(Refusal::Limit("locks_max")));
    assert!(Table::new(Config { queue_max: 0, ..Config::default() }).is_err());
    assert!(Table::new(Config { locks_max: u32::MAX, ..Config::default() }).is_err());
}

#[test]
fn a_wait_ends_at_its_deadline() {
    let mut bench = Bench::new();
    let holder = bench.lock(1, "r", Mode::EX);
    let request = bench.request(2, "r", Mode::EX, Flags::TIMEOUT);
    bench.tell(Event::Request(Request { deadline: Some(Time(100)), ..request }));
    assert_eq!(bench.table.next_deadline(), Some(Time(100)));
    bench.now = 99;
    assert_eq!(refused(&bench.tell(Event::Tick)), Some(Refusal::TimedOut));
    assert!(granted(&bench.unlock(&holder, Flags::NONE, None)).is_none());
}

#[test]
fn a_conversion_deadlock_is_seen_and_a_demotion_resolves_it() {
    let mut bench = Bench::new();
    let (one, two) = (bench.lock(1, "r", Mode::PR), bench.lock(2, "r", Mode::PR));
    bench.convert(&one, Mode::EX, Flags::NONE, None);
    assert_eq!(refused(&bench.convert(&two, Mode::EX, Flags::NONE, None)), Some(Refusal::Deadlock));
    let effects = bench.convert(&two, Mode::EX, Flags::CONVDEADLK, None);
    assert_eq!(granted(&effects).unwrap().owner, one.owner);
    let later = granted(&bench.unlock(&one, Flags::NONE, None)).unwrap();
    assert!(later.owner == two.owner && later.status.was_demoted && later.mode == Mode::EX);
}

#[test]
fn a_deadlock_over_two_resources_has_one_victim_and_is_gone_with_it() {
    let mut bench = Bench::new();
    let (one, two) = (bench.lock(1, "a", Mode::EX), bench.lock(2, "b", Mode::EX));
    bench.ask(1, "b", Mode::PR, Flags::NONE);
    let youngest = queued(&bench.ask(2, "a", Mode::PR, Flags::NONE));
    let sightings = |bench: &Bench| -> Vec<Sighting> {
        let edges = bench.table.edges(Time(u64::MAX));
        edges.into_iter().map(|edge| Sighting { site: NodeId(1), edge }).collect()
    };
    let first = sightings(&bench);
    let found = cycles(&first);
    assert_eq!(found.len(), 1);
    let victim = found[0].victim(&first.iter().copied().collect()).unwrap();
    assert_eq!((victim.actor, victim.lock), (Actor::Owner(two.owner), youngest));
    let verdict = Event::Victim { lock: victim.lock, wait: victim.wait, why: Refusal::Deadlock };
    let effects = bench.tell(verdict);
    assert_eq!(refused(&effects), Some(Refusal::Deadlock));
    // A verdict that comes twice, or late, harms nobody.
    assert!(bench.tell(verdict).is_empty());
    assert!(cycles(&sightings(&bench)).is_empty());
    assert_eq!(granted(&bench.unlock(&two, Flags::NONE, None)).unwrap().owner, one.owner);
}

#[test]
fn who_asks_to_be_left_out_of_deadlocks_is() {
    let mut bench = Bench::new();
    bench.ask(1, "r", Mode::EX, Flags::NODLCKBLK);
    bench.ask(2, "r", Mode::EX, Flags::NONE);
    assert!(bench.table.edges(Time(u64::MAX)).is_empty());
    bench.ask(3, "r", Mode::EX, Flags::NODLCKWT);
    bench.ask(4, "r", Mode::EX, Flags::NONE);
    let edges = bench.table.edges(Time(u64::MAX));
    assert!(edges.iter().all(|edge| edge.waiter == Actor::Owner(owner(4))));
    assert!(edges.iter().all(|edge| matches!(edge.held, Held::Wait(_))));
    // A wait that has just begun is not yet suspicious.
    assert!(bench.table.edges(Time(bench.now)).is_empty());
}

/// Asks for PW from `first` to `last`, desiring everything.
#[test]
fn an_orphan_is_adopted_on_its_node_or_goes() {
    let mut bench = Bench::new();
    let lost = granted(&bench.ask(11, "r", Mode::EX, Flags::PERSISTENT)).unwrap();
    bench.tell(Event::Gone(Gone::Holder(lost.owner)));
    assert_eq!(refused(&bench.ask(12, "r", Mode::EX, Flags::ORPHAN)), Some(Refusal::NoOrphan));
    assert_eq!(refused(&bench.ask(21, "r", Mode::PR, Flags::ORPHAN)), Some(Refusal::Again));
    let found = granted(&bench.ask(21, "r", Mode::EX, Flags::ORPHAN)).unwrap();
    assert!(found.lock == lost.lock && found.token > lost.token && found.owner == owner(21));
    bench.unlock(&found, Flags::NONE, None);
    let lost = granted(&bench.ask(11, "r", Mode::EX, Flags::PERSISTENT)).unwrap();
    bench.tell(Event::Gone(Gone::Holder(lost.owner)));
    bench.tell(Event::Gone(Gone::Orphans(lost.owner.node)));
    assert_eq!(bench.table.lock_count(), 0);
}

#[test]
fn a_node_goes_with_all_its_holders_before_anybody_is_granted_anything() {
    let mut bench = Bench::new();
    let one = bench.lock(11, "a", Mode::EX);
    // Another holder of the same node waits first, somebody else second.
    bench.ask(21, "a", Mode::EX, Flags::NONE);
    bench.ask(2, "a", Mode::EX, Flags::NONE);
    let down = Gone::Down { node: one.owner.node, until: Time(0) };
    let effects = bench.tell(Event::Gone(down));
    assert_eq!(granted(&effects).unwrap().owner, owner(2));
    assert_eq!(bench.table.lock_count(), 1);
}
