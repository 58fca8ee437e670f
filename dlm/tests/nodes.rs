//! Stories about a few nodes: each message is delivered, kept back or lost by hand, so that one moment can be shown that chance seldom meets.

use base::{Epoch, Incarnation, NodeId, Time};
use dlm::node::{Config, Effect, Event, Member, MemberState, Node, Remaster};
use dlm::{
    Convert, Effect as Told, Envelope, Event as Asked, Flags, Grant, LockId, Lockspace, Message, Mode, Name,
    Owner, Request, Scope, Transaction,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

struct Nodes {
    nodes: BTreeMap<NodeId, Node>,
    wire: VecDeque<(NodeId, Envelope)>,
    told: Vec<(NodeId, Told)>,
    now: u64,
}

fn owner(node: u32) -> Owner {
    Owner { node: NodeId(node), holder: u64::from(node) }
}

impl Nodes {
    fn new(count: u32) -> Nodes {
        let mut nodes = BTreeMap::new();
        for node in (1..=count).map(NodeId) {
            let config = Config {
                node,
                life: Incarnation(1),
                table: dlm::Config::default(),
                tokens_idle_max: 10,
                trees_idle_max: 10,
                guarded: BTreeSet::new(),
                lease: Duration::from_secs(1),
                remaster: Remaster::default(),
            };
            nodes.insert(node, Node::new(config).unwrap());
        }
        let mut cluster = Nodes { nodes, wire: VecDeque::new(), told: Vec::new(), now: 0 };
        cluster.view(1, &[]);
        cluster
    }

    fn view(&mut self, epoch: u64, dead: &[u32]) {
        let all: Vec<NodeId> = self.nodes.keys().copied().chain(dead.iter().copied().map(NodeId)).collect();
        let state = |node: NodeId| match dead.contains(&node.0) {
            true => MemberState::Fenced,
            false => MemberState::Alive,
        };
        let member = |node: &NodeId| Member { node: *node, life: Incarnation(1), state: state(*node) };
        let members: Vec<Member> = all.iter().map(member).collect();
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.show(node, Event::View { epoch: Epoch(epoch), members: members.clone() });
        }
        self.deliver(|_, _| true);
    }

    fn show(&mut self, node: NodeId, event: Event) {
        self.now += 1;
        let mut effects = Vec::new();
        let Some(shown) = self.nodes.get_mut(&node) else { return };
        shown.handle(Time(self.now), event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Send { to, envelope } => self.wire.push_back((to, envelope)),
                Effect::User(told) => self.told.push((node, told)),
            }
        }
    }

    /// Delivers what `arrives` says, until nothing more is on its way; the rest is lost.
    fn deliver(&mut self, arrives: impl Fn(NodeId, &Message) -> bool) {
        while let Some((to, envelope)) = self.wire.pop_front() {
            if arrives(to, &envelope.message) {
                self.show(to, Event::Message(envelope));
            }
        }
    }

    fn ask(&mut self, node: u32, name: Name, mode: Mode, scope: Scope) {
        let (owner, lockspace, transaction) = (owner(node), Lockspace(1), Transaction(0));
        let (tag, parent, flags, deadline) = (self.now, None, Flags::NONE, None);
        let request =
            Request { tag, owner, transaction, lockspace, parent, name, mode, scope, flags, deadline };
        self.show(NodeId(node), Event::User(Asked::Request(request)));
    }

    fn convert(&mut self, node: u32, lock: LockId, mode: Mode) {
        let (owner, tag, scope, flags) = (owner(node), self.now, None, Flags::NONE);
        let (value, deadline) = (None, None);
        let convert = Convert { tag, owner, lock, mode, scope, flags, value, deadline };
        self.show(NodeId(node), Event::User(Asked::Convert(convert)));
    }

    /// The last grant on a node.
    fn grant(&self, node: u32) -> Option<Grant> {
        let grants = self.told.iter().rev().filter(|(at, _)| at.0 == node);
        grants
            .filter_map(|(_, told)| if let Told::Granted(grant) = told { Some(*grant) } else { None })
            .next()
    }
}

/// A name whose directory is node 3, so that node 3, asking first, is its master.
fn name_of_node_3() -> Name {
    let cluster = Nodes::new(3);
    let names = (0..100).map(|number| Name::new(format!("n{number}").as_bytes()).unwrap());
    let mut names = names.filter(|name| {
        let mut probe =
            Nodes { nodes: cluster.nodes.clone(), wire: VecDeque::new(), told: Vec::new(), now: 9 };
        probe.ask(3, *name, Mode::NL, Scope::Bits(1));
        probe.wire.is_empty()
    });
    names.next().expect("a third of all names are node 3's")
}

#[test]
fn a_conversion_that_a_dead_master_has_granted_is_not_taken_back() {
    let (name, bits) = (name_of_node_3(), Scope::Bits(1));
    let mut cluster = Nodes::new(3);
    cluster.ask(3, name, Mode::NL, bits);
    cluster.ask(1, name, Mode::PR, bits);
    cluster.deliver(|_, _| true);
    let lock = cluster.grant(1).expect("nobody else has it").lock;
    cluster.ask(2, name, Mode::CW, bits);
    cluster.deliver(|_, _| true);
    assert!(cluster.grant(2).is_none(), "PR is in its way");
    // The master grants both; what it says to node 1 is lost with it.
    cluster.convert(1, lock, Mode::CW);
    cluster.deliver(|to, message| !(to == NodeId(1) && matches!(message, Message::Granted { .. })));
    assert_eq!(cluster.grant(2).map(|grant| grant.mode), Some(Mode::CW));
    assert_eq!(cluster.grant(1).map(|grant| grant.mode), Some(Mode::PR));
    cluster.nodes.remove(&NodeId(3));
    cluster.view(2, &[3]);
    // In its old mode it would be in node 2's way: so it must have had the new one.
    let grant = cluster.grant(1).expect("it was told so before");
    assert_eq!((grant.mode, grant.lock), (Mode::CW, lock));
    assert!(grant.token > cluster.grant(2).unwrap().token);
}

#[test]
fn a_conversion_that_nobody_can_have_granted_is_asked_for_again() {
    let (name, bits) = (name_of_node_3(), Scope::Bits(1));
    let mut cluster = Nodes::new(3);
    cluster.ask(3, name, Mode::NL, bits);
    cluster.ask(1, name, Mode::PR, bits);
    cluster.ask(2, name, Mode::PR, bits);
    cluster.deliver(|_, _| true);
    let [one, two] = [1, 2].map(|node| cluster.grant(node).unwrap().lock);
    cluster.convert(1, one, Mode::CW);
    cluster.deliver(|_, _| true);
    cluster.nodes.remove(&NodeId(3));
    cluster.view(2, &[3]);
    assert_eq!(cluster.grant(1).map(|grant| grant.mode), Some(Mode::PR), "node 2 has PR");
    cluster.convert(2, two, Mode::NL);
    cluster.deliver(|_, _| true);
    assert_eq!(cluster.grant(1).map(|grant| grant.mode), Some(Mode::CW));
}
