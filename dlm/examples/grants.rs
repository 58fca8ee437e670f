//! How many locks one thread grants (and takes back) in a second: uncontended requests over 100,000 names; in a table alone, and in a node that has
//! the tokens.
//!
//! Invariant: a line counts grants, each with its unlock.

use base::{Epoch, Incarnation, NodeId, Time};
use dlm::node::{self, Member, MemberState, Node};
use dlm::{
    Config, Effect, Event, Flags, Lockspace, Mode, Name, Owner, Request, Scope, Table, Transaction, Unlock,
};
use std::time::Instant;

const NAMES: u64 = 100_000;
const GRANTS: u64 = 4_000_000;

fn names() -> Vec<Name> {
    (0..NAMES).map(|n| Name::new(format!("object {n:08}").as_bytes()).expect("short")).collect()
}

fn request(tag: u64, name: Name, mode: Mode, scope: Scope) -> Request {
    let (owner, lockspace) = (Owner { node: NodeId(1), holder: 1 }, Lockspace(1));
    let (transaction, parent, flags, deadline) = (Transaction(0), None, Flags::NONE, None);
    Request { tag, owner, transaction, lockspace, parent, name, mode, scope, flags, deadline }
}

/// Two nodes; the first, whose users ask, has tokens for `held` names and more.
fn run_node(what: &str, held: usize, names: u64) {
    let config = node::Config {
        node: NodeId(1),
        life: Incarnation(1),
        table: Config::default(),
        tokens_idle_max: NAMES as usize,
        trees_idle_max: NAMES as usize,
        guarded: Default::default(),
        lease: std::time::Duration::from_secs(10),
        remaster: node::Remaster::default(),
    };
    let mut node = Node::new(config).expect("the default configuration is sound");
    let member = Member { node: NodeId(1), life: Incarnation(1), state: MemberState::Alive };
    let mut effects = Vec::with_capacity(16);
    node.handle(Time(0), node::Event::View { epoch: Epoch(1), members: vec![member] }, &mut effects);
    let all = self::names();
    let owner = Owner { node: NodeId(1), holder: 1 };
    let mut locks = std::collections::VecDeque::with_capacity(held);
    let mut begin = Instant::now();
    for tag in 0..GRANTS + names {
        if tag == names {
            // Each name has been asked for once: from now on the tokens are here.
            begin = Instant::now();
        }
        if locks.len() == held {
            let lock = locks.pop_front().expect("held is not 0");
            let unlock = Unlock { tag, owner, lock, flags: Flags::NONE, value: None };
            effects.clear();
            node.handle(Time(tag), node::Event::User(Event::Unlock(unlock)), &mut effects);
            assert!(matches!(effects[..], [node::Effect::User(Effect::Done { .. })]), "{effects:?}");
        }
        let name = all[(tag * 7_919 % names) as usize];
        effects.clear();
        let asked = Event::Request(request(tag, name, Mode::EX, Scope::Plain));
        node.handle(Time(tag), node::Event::User(asked), &mut effects);
        let granted = effects.iter().find_map(|effect| match effect {
            node::Effect::User(Effect::Granted(grant)) => Some(grant.lock),
            _ => None,
        });
        locks.push_back(granted.expect("nobody else is there"));
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!("{what:<28} {:>6.2} million grants/s", GRANTS as f64 / seconds / 1e6);
}

/// Grants `GRANTS` locks of which `held` exist at once, and gives them back.
fn run(what: &str, held: usize, scope: Scope) {
    let mut table = Table::new(Config::default()).expect("the default configuration is sound");
    let names = self::names();
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
        effects.clear();
        table.handle(Time(tag), Event::Request(request(tag, name, Mode::EX, scope)), &mut effects);
        let [Effect::Granted(grant)] = effects[..] else { panic!("not granted: {effects:?}") };
        locks.push_back(grant.lock);
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!("{what:<28} {:>6.2} million grants/s", GRANTS as f64 / seconds / 1e6);
}

fn main() {
    run_node("node, token here, 1 name", 1, 1);
    run_node("node, 1,000 names", 1, 1_000);
    run_node("node, 100,000 names", 1, NAMES);
    run_node("node, 50,000 of them held", 50_000, NAMES);
    run("PLAIN, 1 held", 1, Scope::Plain);
    run("PLAIN, 50,000 held", 50_000, Scope::Plain);
    run("IBITS, 50,000 held", 50_000, Scope::Bits(3));
}
