//! What goes wrong, and how membership shows it.
//!
//! ```text
//!  crash ----------------------------------------> DOWN ------> (FENCED) ----> UP in a new life
//!    \--> UP in a new life (it was quicker than the detector)
//!  cut off, deaf or mute ---> its lease ends ----> DOWN ...     until then it runs, and grants to its own users
//!  paused (STALLED) --------> goes on
//! ```
//!
//! Invariant: nobody is declared DOWN who still runs: its lease ends first.

use super::{BUSY, Happening, LEASE, Weather, World};
use crate::node::{Member, MemberState};
use crate::sim::users::User;
use crate::{Event as UserEvent, Gone};
use base::{Incarnation, NodeId, Time};

/// A fault.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It ends at once.
    Crash,
    /// It ends, and is back before anybody has noticed.
    Restart,
    /// It hears nothing, or is not heard, or both.
    Cut { is_deaf: bool, is_mute: bool },
    /// It does nothing for a while. Membership calls it STALLED.
    Pause,
    /// One way between two nodes loses all for a while; the fabric sends it again.
    Loss { to: NodeId },
    /// One user's process ends.
    UserDies { user: usize },
}

impl World {
    pub(super) fn plan_faults(&mut self) {
        for _ in 0..self.plan.faults {
            let node = NodeId(1 + self.prng.below(u64::from(self.plan.nodes)) as u32);
            let fault = self.draw_fault();
            let when = 1_000 + self.prng.below(BUSY - 2_000);
            self.later(when, Happening::Fault { node, fault });
        }
    }

    fn draw_fault(&mut self) -> Fault {
        let kinds = if self.plan.weather == Weather::Deaths { 3 } else { 9 };
        let to = NodeId(1 + self.prng.below(u64::from(self.plan.nodes)) as u32);
        match self.prng.below(kinds) {
            0 | 1 => Fault::Crash,
            2 => Fault::Cut { is_deaf: true, is_mute: true },
            3 => Fault::Cut { is_deaf: true, is_mute: false },
            4 => Fault::Cut { is_deaf: false, is_mute: true },
            5 => Fault::Restart,
            6 => Fault::Pause,
            7 => Fault::Loss { to },
            _ => Fault::UserDies { user: self.prng.below(self.plan.users) as usize },
        }
    }

    /// Something goes wrong; not if too few would be left.
    pub(super) fn fault(&mut self, node: NodeId, fault: Fault) -> Result<(), String> {
        let is_healthy = |machine: &super::Machine| machine.runs && !machine.is_deaf && !machine.is_mute;
        let healthy = self.machines.values().filter(|machine| is_healthy(machine)).count();
        if !is_healthy(&self.machines[&node]) {
            return Ok(());
        }
        let ends = matches!(fault, Fault::Crash | Fault::Restart | Fault::Cut { .. });
        if ends && healthy <= 2 {
            return Ok(());
        }
        self.note(|| format!("{node}: {fault:?}"));
        self.disturbed = self.now;
        match fault {
            Fault::Crash => {
                self.ends(node);
                let declared = 500 + self.prng.below(1_500);
                self.later(declared, Happening::Declared(node));
            }
            Fault::Restart => {
                self.ends(node);
                let returns = 1 + self.prng.below(1_000);
                self.later(returns, Happening::Returns(node));
            }
            Fault::Cut { is_deaf, is_mute } => self.cut(node, is_deaf, is_mute),
            Fault::Pause => self.pause(node),
            Fault::Loss { to } => {
                let until = Time(self.now.0 + self.prng.below(8_000));
                self.network.stall(node, to, until);
                self.disturbed = until;
            }
            Fault::UserDies { user } => return self.user_dies(node, user),
        }
        Ok(())
    }

    fn cut(&mut self, node: NodeId, is_deaf: bool, is_mute: bool) {
        let machine = self.machines.get_mut(&node).unwrap();
        (machine.is_deaf, machine.is_mute) = (is_deaf, is_mute);
        let life = machine.life;
        if is_mute {
            self.network.silence(&mut self.prng, self.now, (node, life), self.plan.nodes);
        }
        let lease_ends = 1 + self.prng.below(2_000);
        self.later(lease_ends, Happening::LeaseEnds(node, life));
        let declared = lease_ends + 1 + self.prng.below(500);
        self.later(declared, Happening::Declared(node));
    }

    /// This life of the node is over; others do not know it yet.
    pub(super) fn ends(&mut self, node: NodeId) {
        let machine = self.machines.get_mut(&node).unwrap();
        machine.runs = false;
        machine.held.clear();
        let life = machine.life;
        self.network.silence(&mut self.prng, self.now, (node, life), self.plan.nodes);
    }

    fn pause(&mut self, node: NodeId) {
        let machine = self.machines.get_mut(&node).unwrap();
        machine.is_paused = true;
        let life = machine.life;
        let goes_on = 1 + self.prng.below(8_000);
        self.later(goes_on, Happening::GoesOn(node, life));
        if self.prng.one_in(2) {
            self.agree();
        }
    }

    pub(super) fn goes_on(&mut self, node: NodeId, life: Incarnation) -> Result<(), String> {
        let Some(machine) = self.machines.get_mut(&node).filter(|machine| machine.life == life) else {
            return Ok(());
        };
        machine.is_paused = false;
        self.disturbed = self.now;
        while let Some(happening) = self.machines.get_mut(&node).and_then(|machine| machine.held.pop_front())
        {
            self.happen(happening)?;
        }
        Ok(())
    }

    fn user_dies(&mut self, node: NodeId, user: usize) -> Result<(), String> {
        if self.machines[&node].is_paused {
            return Ok(());
        }
        self.last_holder += 1;
        let (habit, keys, number) = (self.plan.habit, self.plan.keys, self.last_holder);
        let fresh = User::new(node, number, habit, keys);
        let machine = self.machines.get_mut(&node).unwrap();
        let owner = std::mem::replace(&mut machine.users[user], fresh).owner;
        self.oracle.user_gone(owner);
        let pause = 1 + self.prng.below(1_500);
        self.later(pause, Happening::UserActs { node, user });
        self.show(node, crate::node::Event::User(UserEvent::Gone(Gone::Holder(owner))))
    }

    pub(super) fn declared(&mut self, node: NodeId) {
        let machine = &self.machines[&node];
        assert!(!machine.runs, "{node} is declared DOWN and still runs");
        self.members.insert(node, Member { node, life: machine.life, state: MemberState::Down });
        self.oracle.node_gone(node, Time(self.now.0 + LEASE));
        let fenced = 1 + self.prng.below(LEASE / 2);
        if self.prng.one_in(2) {
            self.later(fenced, Happening::Fenced(node));
        }
        if self.prng.one_in(2) {
            let returns = 1 + fenced + self.prng.below(10_000);
            self.later(returns, Happening::Returns(node));
        }
        self.agree();
    }

    pub(super) fn fenced(&mut self, node: NodeId) {
        if let Some(member) = self.members.get_mut(&node) {
            member.state = MemberState::Fenced;
        }
        self.oracle.fenced(node);
        self.agree();
    }

    /// A later life of the node: the earlier one can do nothing any more.
    pub(super) fn returns(&mut self, node: NodeId) {
        self.oracle.node_gone(node, self.now);
        self.oracle.fenced(node);
        self.oracle.returns(node);
        let life = self.machines[&node].life;
        self.start(node, Incarnation(life.0 + 1));
        self.agree();
    }

    /// A new view, told to everybody who is in it, at different times.
    pub(super) fn agree(&mut self) {
        self.epoch = self.epoch.next();
        self.disturbed = self.now;
        let members: Vec<Member> = self.members.values().copied().collect();
        let epoch = self.epoch;
        self.note(|| format!("view {epoch}: {members:?}"));
        for member in members.iter().filter(|member| member.state == MemberState::Alive) {
            let delay = 1 + if self.prng.one_in(4) { self.prng.below(20) } else { self.prng.below(800) };
            let last = self.last_view.get(&member.node).copied().unwrap_or_default();
            let when = Time((self.now.0 + delay).max(last.0 + 1));
            self.last_view.insert(member.node, when);
            self.at(when, Happening::View { to: member.node, epoch, members: members.clone() });
        }
    }
}
