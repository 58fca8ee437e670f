//! Locks with scopes that wait for each other on two nodes.
//!
//! Invariant: what their masters know is enough to find it; one is refused, and the other goes on.

use super::*;
use crate::Refusal;

impl Stage {
    /// A request about part of a resource.
    fn request_part(&mut self, node: NodeId, key: Key, mode: Mode, scope: Scope) -> u64 {
        self.last_tag += 1;
        let (tag, owner, transaction) = (self.last_tag, Self::owner(node), Transaction(0));
        let (lockspace, parent, name, flags) = (key.lockspace, None, key.name, Flags::NONE);
        let deadline = None;
        self.show(
            node,
            Event::User(UserEvent::Request(Request {
                tag,
                owner,
                transaction,
                lockspace,
                parent,
                name,
                mode,
                scope,
                flags,
                deadline,
            })),
        );
        self.settle();
        tag
    }

    fn lets_time_pass(&mut self, length: Duration) {
        self.now = self.now + length;
        for node in [ONE, TWO, THREE] {
            self.show(node, Event::Tick);
        }
        self.settle();
    }

    fn refusal(&self, tag: u64) -> Option<Refusal> {
        self.told.iter().find_map(|told| match told {
            Told::Refused { tag: refused, why, .. } if *refused == tag => Some(*why),
            _ => None,
        })
    }
}

/// Two users want in opposite order what the other one has.
fn crossed(scope: Scope) {
    let mut stage = Stage::new(Canary::None);
    let named = |name: &str| Key::new(Lockspace(1), Name::new(name.as_bytes()).unwrap());
    let (one, other) = (named("one"), named("other"));
    let first = stage.request_part(TWO, one, Mode::EX, scope);
    let second = stage.request_part(THREE, other, Mode::EX, scope);
    let kept = stage.grant(first).expect("nothing is in its way");
    stage.grant(second).expect("nothing is in its way");
    let waits =
        [stage.request_part(TWO, other, Mode::PR, scope), stage.request_part(THREE, one, Mode::PR, scope)];
    assert!(waits.iter().all(|tag| stage.grant(*tag).is_none()), "both wait");
    for _ in 0..3 {
        stage.lets_time_pass(crate::Config::default().patience);
    }
    // The youngest: the one with the largest owner.
    assert_eq!(waits.map(|tag| stage.refusal(tag)), [None, Some(Refusal::Deadlock)]);
    let lock = stage.grant(second).unwrap().lock;
    stage.unlock(THREE, lock, 0);
    stage.settle();
    assert!(stage.grant(waits[0]).is_some(), "{kept:?} is not alone any more");
    // What is over is not looked for again.
    let told = stage.told.len();
    stage.lets_time_pass(crate::Config::default().patience * 3);
    assert_eq!(stage.told.len(), told);
}

#[test]
fn a_deadlock_over_ranges_of_two_nodes_has_one_victim() {
    crossed(Scope::extent(0, 9));
}

#[test]
fn a_deadlock_over_bits_of_two_nodes_has_one_victim() {
    crossed(Scope::Bits(5));
}
