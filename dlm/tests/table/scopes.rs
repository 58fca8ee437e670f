//! Locks on a part of a resource.

use super::*;

fn range(bench: &mut Bench, holder: u64, first: u64, last: u64) -> Vec<Effect> {
    let request = bench.request(holder, "ranges", Mode::PW, Flags::NONE);
    let scope = Scope::Extent { span: Span { first, last }, desired: Span::ALL };
    bench.tell(Event::Request(Request { scope, ..request }))
}

#[test]
fn a_range_grows_where_nobody_else_is_interested() {
    let mut bench = Bench::new();
    let all = granted(&range(&mut bench, 1, 100, 199)).unwrap();
    assert_eq!(all.scope.span(), Span::ALL);
    range(&mut bench, 2, 200, 299);
    range(&mut bench, 3, 300, 399);
    let effects = bench.unlock(&all, Flags::NONE, None);
    let spans: Vec<Span> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Granted(grant) => Some(grant.scope.span()),
            _ => None,
        })
        .collect();
    // The first stops where the second waits, the second where the first is.
    assert_eq!(spans, [Span { first: 0, last: 299 }, Span { first: 300, last: u64::MAX }]);
}

#[test]
fn thousands_of_ranges_on_one_resource_stay_fast() {
    const RANGES: u64 = 20_000;
    let mut bench = Bench::new();
    let mut grants = Vec::new();
    for n in 0..RANGES {
        let request = bench.request(n, "ranges", Mode::PW, Flags::NONE);
        let scope = Scope::extent(n * 10, n * 10 + 9);
        grants.push(granted(&bench.tell(Event::Request(Request { scope, ..request }))).unwrap());
    }
    for n in 0..RANGES {
        let request = bench.request(n + 1, "ranges", Mode::PW, Flags::NONE);
        let scope = Scope::extent(n * 10 + 5, n * 10 + 5);
        assert!(granted(&bench.tell(Event::Request(Request { scope, ..request }))).is_none());
    }
    for grant in &grants {
        assert!(granted(&bench.unlock(grant, Flags::NONE, None)).is_some());
    }
    assert_eq!(bench.table.lock_count() as u64, RANGES);
}

#[test]
fn aspects_are_locked_apart_and_may_be_dropped() {
    let mut bench = Bench::new();
    let request = bench.request(1, "bits", Mode::EX, Flags::NONE);
    let one = granted(&bench.tell(Event::Request(Request { scope: Scope::Bits(7), ..request }))).unwrap();
    let request = bench.request(2, "bits", Mode::PR, Flags::NONE);
    assert!(granted(&bench.tell(Event::Request(Request { scope: Scope::Bits(8), ..request }))).is_some());
    let request = bench.request(3, "bits", Mode::PR, Flags::NONE);
    let effects = bench.tell(Event::Request(Request { scope: Scope::Bits(4), ..request }));
    assert!(matches!(effects[..], [Effect::Queued { .. }, Effect::Blocking { mode: Mode::PR, .. }]));
    let dropped = Convert {
        tag: 99,
        owner: one.owner,
        lock: one.lock,
        mode: Mode::EX,
        scope: Some(Scope::Bits(3)),
        flags: Flags::NONE,
        value: None,
        deadline: None,
    };
    let effects = bench.tell(Event::Convert(dropped));
    let owners: Vec<Owner> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Granted(grant) => Some(grant.owner),
            _ => None,
        })
        .collect();
    assert_eq!(owners, [one.owner, owner(3)]);
    // All locks of a resource have one policy.
    assert!(matches!(refused(&bench.ask(4, "bits", Mode::NL, Flags::NONE)), Some(Refusal::Invalid(_))));
}
