//! Bugs that others had, as scenes in which every message is delivered by hand; each must end well here.
//!
//! Invariant: what is not delivered stays on its way, in its order.

mod scoped;

use super::users::bytes;
use crate::event::Gone;
use crate::message::Search;
use crate::node::{Canary, Config, Effect, Event, Member, MemberState, Remaster};
use crate::table::{Edge, Held};
use crate::{
    Actor, Convert, Effect as Told, Envelope, Event as UserEvent, Flags, Grant, Key, LockId, Lockspace,
    Message, Mode, Name, Node, Owner, Request, Scope, Transaction, Unlock,
};
use base::{Epoch, Incarnation, NodeId, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Three nodes, and what is on its way between them.
struct Stage {
    nodes: BTreeMap<NodeId, Node>,
    /// Down, and their lives.
    down: BTreeSet<NodeId>,
    ways: BTreeMap<(NodeId, NodeId), VecDeque<Envelope>>,
    told: Vec<Told>,
    epoch: u64,
    now: Time,
    last_tag: u64,
}

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const THREE: NodeId = NodeId(3);

impl Stage {
    fn new(canary: Canary) -> Stage {
        let node = |number: u32| {
            let config = Config {
                node: NodeId(number),
                life: Incarnation(1),
                table: crate::Config::default(),
                tokens_idle_max: 16,
                trees_idle_max: 16,
                guarded: BTreeSet::new(),
                lease: Duration::from_secs(1),
                remaster: Remaster::default(),
            };
            let mut node = Node::new(config).unwrap();
            node.infect(canary);
            (NodeId(number), node)
        };
        let mut stage = Stage {
            nodes: (1..=3).map(node).collect(),
            down: BTreeSet::new(),
            ways: BTreeMap::new(),
            told: Vec::new(),
            epoch: 0,
            now: Time(1),
            last_tag: 0,
        };
        stage.agree();
        [ONE, TWO, THREE].into_iter().for_each(|node| stage.view(node));
        stage.settle();
        stage
    }

    /// The next view: who is down, is down.
    fn agree(&mut self) {
        self.epoch += 1;
    }

    /// A node learns the present view.
    fn view(&mut self, node: NodeId) {
        let member = |number| {
            let node = NodeId(number);
            let state = if self.down.contains(&node) { MemberState::Fenced } else { MemberState::Alive };
            Member { node, life: Incarnation(1), state }
        };
        let members = (1..=3).map(member).collect();
        self.show(node, Event::View { epoch: Epoch(self.epoch), members });
    }

    /// A node ends; what it has said already is still on its way, if `is_heard`.
    fn dies(&mut self, node: NodeId, is_heard: bool) {
        self.down.insert(node);
        self.ways.retain(|(from, to), _| *to != node && (is_heard || *from != node));
    }

    fn show(&mut self, node: NodeId, event: Event) {
        if self.down.contains(&node) {
            return;
        }
        let mut effects = Vec::new();
        self.nodes.get_mut(&node).unwrap().handle(self.now, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Send { to, envelope } if !self.down.contains(&to) => {
                    self.ways.entry((node, to)).or_default().push_back(envelope);
                }
                Effect::Send { .. } => {}
                Effect::User(told) => self.told.push(told),
            }
        }
    }

    /// Delivers the next message on one way.
    fn deliver(&mut self, from: NodeId, to: NodeId) -> bool {
        let Some(envelope) = self.ways.get_mut(&(from, to)).and_then(VecDeque::pop_front) else {
            return false;
        };
        self.show(to, Event::Message(envelope));
        true
    }

    /// Delivers everything, until nothing is on its way.
    fn settle(&mut self) {
        self.settle_but(&[]);
    }

    /// Delivers everything except on some ways.
    fn settle_but(&mut self, held: &[(NodeId, NodeId)]) {
        loop {
            let open = |(way, queue): (&(NodeId, NodeId), &VecDeque<Envelope>)| {
                (!queue.is_empty() && !held.contains(way)).then_some(*way)
            };
            let Some((from, to)) = self.ways.iter().find_map(open) else { return };
            self.deliver(from, to);
        }
    }

    fn owner(node: NodeId) -> Owner {
        Owner { node, holder: u64::from(node.0) }
    }

    fn request(&mut self, node: NodeId, key: Key, mode: Mode) -> u64 {
        self.last_tag += 1;
        self.show(
            node,
            Event::User(UserEvent::Request(Request {
                tag: self.last_tag,
                owner: Self::owner(node),
                transaction: Transaction(0),
                lockspace: key.lockspace,
                parent: None,
                name: key.name,
                mode,
                scope: Scope::Plain,
                flags: Flags::VALBLK,
                deadline: None,
            })),
        );
        self.last_tag
    }

    fn convert(&mut self, node: NodeId, lock: LockId, mode: Mode, value: u64) -> u64 {
        self.last_tag += 1;
        self.show(
            node,
            Event::User(UserEvent::Convert(Convert {
                tag: self.last_tag,
                owner: Self::owner(node),
                lock,
                mode,
                scope: None,
                flags: Flags::VALBLK,
                value: Some(bytes(value)),
                deadline: None,
            })),
        );
        self.last_tag
    }

    fn unlock(&mut self, node: NodeId, lock: LockId, value: u64) {
        self.last_tag += 1;
        let (tag, owner, value) = (self.last_tag, Self::owner(node), Some(bytes(value)));
        self.show(
            node,
            Event::User(UserEvent::Unlock(Unlock { tag, owner, lock, flags: Flags::VALBLK, value })),
        );
    }

    /// The grant that answered a tag.
    fn grant(&self, tag: u64) -> Option<Grant> {
        self.told.iter().find_map(|told| match told {
            Told::Granted(grant) if grant.tag == tag => Some(*grant),
            _ => None,
        })
    }

    /// A lock, granted now.
    fn lock(&mut self, node: NodeId, key: Key, mode: Mode) -> Grant {
        let tag = self.request(node, key, mode);
        self.settle();
        self.grant(tag).expect("nothing is in its way")
    }

    /// A tree whose master is `master` and whose directory is `directory`.
    fn tree(&mut self, master: NodeId, directory: NodeId) -> (Key, Grant) {
        for number in 0.. {
            let name = Name::new(format!("r{number}").as_bytes()).unwrap();
            let key = Key::new(Lockspace(1), name);
            if self.nodes[&ONE].directory_of(&key) == Some(directory) {
                let grant = self.lock(master, key, Mode::PR);
                assert!(self.nodes[&master].mastered().any(|tree| tree == key));
                return (key, grant);
            }
        }
        unreachable!()
    }
}

/// *A conversion in flight while its master dies.* A PR holder converts to CW; the old master had granted it and was dead before its answer
/// arrived, or had not yet: the rebuilt tree had PR on one node beside CW on another. Here the token goes down to what both modes
/// have in common before it is asked for anew, so what survivors know goes together whatever the dead master did.
#[test]
fn a_conversion_between_pr_and_cw_in_flight_while_the_master_dies() {
    for answered in [false, true] {
        for rival in [Mode::PR, Mode::CW] {
            let mut stage = Stage::new(Canary::None);
            let (key, first) = stage.tree(THREE, ONE);
            let mine = stage.lock(ONE, key, Mode::PR);
            stage.unlock(THREE, first.lock, 0);
            stage.settle();
            let converted = stage.convert(ONE, mine.lock, Mode::CW, 0);
            let rivals = stage.request(TWO, key, rival);
            stage.settle_but(&[(THREE, ONE)]);
            stage.dies(THREE, answered);
            stage.settle();
            stage.agree();
            [TWO, ONE].into_iter().for_each(|node| stage.view(node));
            stage.settle();
            let modes: Vec<Mode> = [stage.grant(converted), stage.grant(rivals)]
                .into_iter()
                .flatten()
                .map(|grant| grant.mode)
                .collect();
            assert!(!modes.is_empty(), "somebody must get what he wants");
            let both = modes.len() == 2;
            assert_eq!(both, rival == Mode::CW, "answered {answered}, rival {rival:?}: {modes:?}");
        }
    }
}

/// *A stale resend flag loses an unlock.* A lock was marked "send again" when its master died, and the mark was still there when it was
/// unlocked: the resend came after the unlock and the lock stood for ever. Here what is asked again is what is under way at that moment; a
/// grant for something nobody waits for is given back.
#[test]
fn an_unlock_while_the_master_dies_is_not_lost() {
    for unlocks_before_the_view in [false, true] {
        let mut stage = Stage::new(Canary::None);
        let (key, first) = stage.tree(THREE, ONE);
        stage.unlock(THREE, first.lock, 0);
        let mine = stage.lock(TWO, key, Mode::EX);
        if unlocks_before_the_view {
            stage.unlock(TWO, mine.lock, 7);
        }
        stage.dies(THREE, false);
        stage.agree();
        stage.view(TWO);
        if !unlocks_before_the_view {
            stage.unlock(TWO, mine.lock, 7);
        }
        stage.view(ONE);
        stage.settle();
        let next = stage.request(ONE, key, Mode::EX);
        stage.settle();
        let grant = stage.grant(next).expect("the unlock was lost");
        assert!(grant.token > mine.token);
        assert_eq!(grant.value.map(|(value, _)| value), Some(bytes(7)));
    }
}

/// *A master chosen in an aborted recovery.* A recovery began, chose a master and was overtaken by the next death; its choice arrived late and
/// was believed. Here node 3 dies; node 1, that owns its partitions, finishes only while that view is the last, and what it said in it
/// is of an era in which its partition has moved again.
#[test]
fn a_master_chosen_in_an_aborted_recovery_is_none() {
    let mut stage = Stage::new(Canary::None);
    let (key, first) = stage.tree(THREE, THREE);
    stage.unlock(THREE, first.lock, 0);
    let mine = stage.lock(TWO, key, Mode::PR);
    stage.dies(THREE, false);
    stage.agree();
    stage.view(ONE);
    stage.view(TWO);
    // Reports of the first recovery are on their way; the one to the owner is late.
    let owner = stage.nodes[&ONE].directory_of(&key).unwrap();
    let other = if owner == ONE { TWO } else { ONE };
    stage.deliver(other, owner);
    // The owner has finished, and says so; before that arrives it is dead.
    stage.dies(owner, true);
    stage.agree();
    stage.view(other);
    stage.settle();
    assert_eq!(stage.nodes[&other].directory_of(&key), Some(other));
    let masters = stage.nodes[&other].mastered().filter(|tree| *tree == key).count();
    assert_eq!(masters, usize::from(other == TWO), "only a holder's copy makes a tree");
    let next = stage.request(other, key, Mode::EX);
    if other == TWO {
        stage.unlock(TWO, mine.lock, 0);
    }
    stage.settle();
    assert!(stage.grant(next).is_some(), "node {other} does not serve what it owns");
}

/// *A length from the wire.* The name's length was taken from the message and used to copy. Here a name is made by one function, which refuses
/// what does not fit, and nothing else can hold bytes of a name.
#[test]
fn a_name_longer_than_names_are_is_no_name() {
    assert!(Name::new(&[b'x'; crate::NAME_BYTES_MAX]).is_ok());
    for length in [crate::NAME_BYTES_MAX + 1, 256, 65_536] {
        assert!(Name::new(&vec![b'x'; length]).is_err(), "{length} bytes");
    }
}

/// *A stale value block after a reset.* A resource was made anew and its value was that of an earlier one of the same name, on the same
/// master. Here a resource begins with zeros; a value that was lost with its writer is marked.
#[test]
fn a_resource_that_begins_anew_has_no_old_value() {
    let mut stage = Stage::new(Canary::None);
    let (key, first) = stage.tree(ONE, ONE);
    stage.unlock(ONE, first.lock, 0);
    let mine = stage.lock(TWO, key, Mode::EX);
    stage.unlock(TWO, mine.lock, 9);
    let again = stage.lock(THREE, key, Mode::PR);
    assert_eq!(again.value.map(|(value, _)| value), Some(bytes(9)));
    stage.unlock(THREE, again.lock, 0);
    let writer = stage.lock(TWO, key, Mode::EX);
    assert_eq!(writer.value.map(|(value, _)| value), Some(bytes(9)));
    // The writer's process ends: what it would have written is lost.
    stage.show(TWO, Event::User(UserEvent::Gone(Gone::Holder(Stage::owner(TWO)))));
    let reader = stage.lock(THREE, key, Mode::PR);
    assert!(reader.status.value_not_valid, "{reader:?}");
    // Everybody dies but one that never had it: the resource begins anew.
    stage.dies(TWO, false);
    stage.dies(THREE, false);
    stage.agree();
    stage.view(ONE);
    stage.settle();
    let last = stage.lock(ONE, key, Mode::PW);
    let value = last.value.map(|(value, _)| value);
    assert!(last.status.value_not_valid || value == Some(bytes(0)), "{last:?}");
}

fn wait(waiter: u64, blocker: u64) -> Edge {
    let actor = |holder| Actor::Owner(Owner { node: TWO, holder });
    let held = Held::Grant { lock: LockId(blocker), token: blocker };
    Edge { waiter: actor(waiter), lock: LockId(waiter), wait: waiter, blocker: actor(blocker), held }
}

/// The messages about deadlocks that the detector, node 1, sends when it is told these edges, and then these once more.
fn searched(canary: Canary, first: &[Edge], again: &[Edge]) -> Vec<Search> {
    let mut stage = Stage::new(canary);
    let era = stage.nodes[&ONE].era();
    let mut said = Vec::new();
    let mut say = |stage: &mut Stage, message: Search| {
        let message = Message::Search(message);
        stage.show(ONE, Event::Message(Envelope { from: TWO, life: Incarnation(1), era, message }));
        let sent = std::mem::take(&mut stage.ways).into_values().flatten();
        let sent = sent.filter_map(|envelope| match envelope.message {
            Message::Search(search) => Some(search),
            _ => None,
        });
        said.extend(sent);
    };
    say(&mut stage, Search::Wanted);
    let message = Message::Search(Search::Waits { round: 1, edges: Vec::new() });
    stage.show(ONE, Event::Message(Envelope { from: THREE, life: Incarnation(1), era, message }));
    say(&mut stage, Search::Waits { round: 1, edges: first.to_vec() });
    say(&mut stage, Search::StillWaits { round: 2, edges: again.to_vec() });
    said
}

/// *A victim of a circle that never was.* Edges from different moments made a circle; one of them had ended meanwhile.
#[test]
fn a_circle_of_which_an_edge_has_ended_has_no_victim() {
    let is_victim = |search: &Search| matches!(search, Search::Victim { .. });
    let circle = [wait(4, 5), wait(5, 4)];
    let count = |canary, again: &[Edge]| {
        let said = searched(canary, &circle, again);
        said.iter().filter(|search| is_victim(search)).count()
    };
    assert_eq!(count(Canary::None, &circle), 1);
    assert_eq!(count(Canary::None, &circle[..1]), 0);
    assert_eq!(count(Canary::ConfirmsNothing, &circle[..1]), 1, "the canary must be heard");
}
