//! Lives of nodes: they begin, they end, and all are told.
//!
//! Invariant: a later life begins only after the earlier one is over.

use super::{Happening, LEASE, Machine, USERS, World};
use crate::users::{GUARDED, User};
use base::{Incarnation, NodeId, Time};
use dlm::Node;
use dlm::node::{Config, Member, MemberState, Remaster};
use std::collections::BTreeSet;
use std::time::Duration;

impl World {
    pub(super) fn start(&mut self, node: NodeId, life: Incarnation) {
        let config = Config {
            node,
            life,
            table: dlm::Config::default(),
            tokens_idle_max: self.plan.idle_max,
            trees_idle_max: self.plan.idle_max,
            guarded: BTreeSet::from([GUARDED]),
            lease: Duration::from_nanos(LEASE),
            remaster: Remaster {
                asks_min: 5,
                halved: Duration::from_nanos(8_000),
                watched: Duration::from_nanos(300),
                rests: Duration::from_nanos(2_000),
            },
        };
        let users = (0..USERS).map(|holder| User::new(node, u64::from(node.0) * 100 + holder)).collect();
        let core = Node::new(config).unwrap();
        let orphans = Vec::new();
        let machine = Machine {
            node: core,
            life,
            users,
            orphans,
            runs: true,
            is_cut: false,
            last_tick: None,
            stalled: None,
        };
        self.machines.insert(node, machine);
        self.members.insert(node, Member { node, life, state: MemberState::Alive });
        for user in 0..USERS as usize {
            let when = self.prng.below(2_000);
            self.later(when, Happening::UserActs { node, user });
        }
    }

    /// A new view, told to everybody who runs and is in it, at different times.
    pub(super) fn agree(&mut self) {
        self.epoch = self.epoch.next();
        let members: Vec<Member> = self.members.values().copied().collect();
        self.note(format!("view {}: {members:?}", self.epoch));
        for member in members.iter().filter(|member| member.state == MemberState::Alive) {
            let delay = 1 + self.prng.below(800);
            let last = self.last_view.get(&member.node).copied().unwrap_or_default();
            let when = Time((self.now.0 + delay).max(last.0 + 1));
            self.last_view.insert(member.node, when);
            let (to, epoch) = (member.node, self.epoch);
            self.at(when, Happening::View { to, epoch, members: members.clone() });
        }
    }

    pub(super) fn dies(&mut self, node: NodeId, is_cut: bool) {
        let alive = self.members.values().filter(|member| member.state == MemberState::Alive).count();
        let machine = self.machines.get_mut(&node).unwrap();
        if !machine.runs || machine.is_cut || alive <= 2 {
            return;
        }
        machine.is_cut = true;
        machine.runs = is_cut;
        self.note(format!("{node} is {}", if is_cut { "cut off" } else { "dead" }));
        let declared = 500 + self.prng.below(1_500);
        self.later(declared, Happening::Declared(node));
        let fenced = declared + 1 + self.prng.below(LEASE / 2);
        self.later(fenced, Happening::Fenced(node));
        if self.prng.one_in(2) {
            let returns = fenced + 1 + self.prng.below(10_000);
            self.later(returns, Happening::Returns(node));
        }
    }
}
