//! How many locks one thread grants (and takes back) in a second: uncontended requests over 100,000 names.
//!
//! Invariant: a line counts grants, each with its unlock.

use base::{NodeId, Time};
use dlm::{
    Config, Effect, Event, Flags, Lockspace, Mode, Name, Owner, Request, Scope, Table, Transaction, Unlock,
};
use std::time::Instant;

const NAMES: u64 = 100_000;
const GRANTS: u64 = 4_000_000;

/// Grants `GRANTS` locks of which `held` exist at once, and gives them back.
fn run(what: &str, held: usize, scope: Scope) {
    let mut table = Table::new(Config::default()).expect("the default configuration is sound");
    let names: Vec<Name> =
        (0..NAMES).map(|n| Name::new(format!("object {n:08}").as_bytes()).expect("short")).collect();
    let mut effects = Vec::with_capacity(16);
    let owner = Owner { node: NodeId(1), holder: 1 };
    let mut locks = std::collections::VecDeque::with_capacity(held);
    let begin = Instant::now();
    for tag in 0..GRANTS {
        if locks.len() == held {
            let lock = locks.pop_front().expect("held is not 0");
            let unlock = Unlock { tag, owner, lock, flags: Flags::NONE, value: None };
            effects.clear();
            table.handle(Time(tag), Event::Unlock(unlock), &mut effects);
            assert!(matches!(effects[..], [Effect::Done { .. }]));
        }
        // A walk that meets no name again while it is held.
        let name = names[(tag * 7_919 % NAMES) as usize];
        let request = Request {
            tag,
            owner,
            transaction: Transaction(0),
            lockspace: Lockspace(1),
            parent: None,
            name,
            mode: Mode::EX,
            scope,
            flags: Flags::NONE,
            deadline: None,
        };
        effects.clear();
        table.handle(Time(tag), Event::Request(request), &mut effects);
        let [Effect::Granted(grant)] = effects[..] else { panic!("not granted: {effects:?}") };
        locks.push_back(grant.lock);
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!("{what:<28} {:>6.2} million grants/s", GRANTS as f64 / seconds / 1e6);
}

fn main() {
    run("PLAIN, 1 held", 1, Scope::Plain);
    run("PLAIN, 50,000 held", 50_000, Scope::Plain);
    run("IBITS, 50,000 held", 50_000, Scope::Bits(3));
}
