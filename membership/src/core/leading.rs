//! The master's side: beats and leases for all nodes, and changes of the table that others ask for.
//!
//! Invariants: a lease that is granted ends before the master's own does, and the master's own ends before another declares anybody
//! DOWN for silence; no lease is granted to a life whose end is proposed. Whoever asked for a change is answered when it is agreed,
//! or when nobody here can know.

use super::event::{Effect, RequestId};
use super::{Core, lives_in};
use crate::command::{Act, Outcome};
use crate::talk::{Ask, Change, Decided, Followed, Lead, Replace, Say};
use crate::wire::{Node, View};
use base::{NodeId, Time};
use replog::{DiskId, Refusal};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Changes asked of the master that may be under way at once.
pub const CHANGES_MAX: usize = 64;

/// Why something was proposed.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// The master's own doing.
    Opinion,
    /// These lives shall be over.
    Doom(Vec<(NodeId, u64)>),
    /// Somebody asked for it.
    Asked(RequestId),
    /// Others shall vote; somebody may have asked for it.
    Voters(Option<RequestId>),
}

/// What a master knows beyond the log.
#[derive(Clone, Debug)]
pub(super) struct Reign {
    pub(super) followers: BTreeMap<NodeId, Follower>,
    next_beat: Time,
    told: u64,
    /// Before then nobody is declared DOWN for silence: leases of the master before may be held.
    pub(super) judges_from: Time,
    /// Lives whose end is proposed.
    pub(super) doomed: BTreeSet<(NodeId, u64)>,
    /// Removals that wait until the node votes no more.
    pub(super) removals: Vec<(RequestId, u64, NodeId)>,
    /// When the first of those was found dead who are to be declared.
    pub(super) fading_since: Option<Time>,
    /// Since when voters are DOWN.
    pub(super) lost: BTreeMap<NodeId, Time>,
    pub(super) heal_at: Time,
    /// Lives that are being fenced, and when that is tried again.
    pub(super) fencing: BTreeMap<(NodeId, u64), Time>,
}

/// One node, as the master hears it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Follower {
    epoch: u64,
    life: u64,
    said: Time,
    heard: Time,
    pub(super) disk: DiskId,
}

impl Reign {
    fn new(now: Time, judges_from: Time) -> Reign {
        Reign {
            followers: BTreeMap::new(),
            next_beat: now,
            told: 0,
            judges_from,
            doomed: BTreeSet::new(),
            removals: Vec::new(),
            fading_since: None,
            lost: BTreeMap::new(),
            heal_at: now,
            fencing: BTreeMap::new(),
        }
    }
}

impl Core {
    /// True if this node leads the log, a quorum follows it, and it has everything that is agreed at hand.
    pub(super) fn is_ready(&self, now: Time) -> bool {
        self.log.followed_until().is_some_and(|until| now < until)
            && self.restoring.is_none()
            && self.machine.index >= self.log.commit()
    }

    /// Does what a master must do.
    pub(super) fn lead(&mut self, now: Time) {
        if !self.log.is_leader() {
            if let Some(reign) = self.reign.take() {
                self.give_up(now, &reign);
            }
            return;
        }
        if !self.is_ready(now) {
            return;
        }
        if self.reign.is_none() {
            // The master before may live although its connections are closed, and may have granted leases until now.
            let early = self.log.reigns_early() && !self.canary.judges_at_once();
            let wait = if early { self.config.timings.election_min } else { Duration::ZERO };
            self.reign = Some(Reign::new(now, now + wait));
            self.detector.ask_again(now);
        }
        if self.machine.table.is_empty() {
            if self.proposed.is_empty() {
                self.propose(now, Act::Found(self.known.view().clone()), None, Purpose::Opinion);
            }
            return;
        }
        self.form_opinions(now);
        self.heal(now);
        self.fence(now);
        self.beat(now);
    }

    /// This node is master no more: what it was asked for, others decide.
    fn give_up(&mut self, now: Time, reign: &Reign) {
        let master = self.master(now).map_or(0, |id| id.0);
        self.answers.extend(reign.removals.iter().map(|(id, ..)| (*id, Say::NotMaster(master))));
        for purpose in std::mem::take(&mut self.proposed).into_values() {
            if let Purpose::Asked(id) | Purpose::Voters(Some(id)) = purpose {
                self.answers.push((id, Say::NotMaster(master)));
            }
        }
    }

    /// Whom the master's beats go to: who lives, or says that it lives again.
    fn audience(&self) -> Vec<Node> {
        let rows = self.known.view().nodes.iter().filter(|row| row.node_id() != self.me());
        rows.filter(|row| row.is_alive() || self.detector.returning(row).is_some()).cloned().collect()
    }

    fn beat(&mut self, now: Time) {
        let epoch = self.known.view().epoch;
        let Some(reign) = &mut self.reign else { return };
        if now < reign.next_beat && reign.told == epoch {
            return;
        }
        reign.next_beat = now + self.config.timings.interval;
        reign.told = epoch;
        for row in self.audience() {
            let lead = self.lead_for(&row);
            let request = self.request(Ask::Lead(lead));
            self.out.push(Effect::Ask { to: row.node_id(), request });
        }
    }

    fn lead_for(&mut self, row: &Node) -> Lead {
        let id = row.node_id();
        let follower = self.reign.as_ref().and_then(|reign| reign.followers.get(&id)).copied();
        // Whoever has not said yet what it knows gets nothing: a whole view would take its history away.
        let feed = follower.map(|follower| self.known.feed(follower.epoch)).filter(|feed| !feed.is_empty());
        let follower = follower.filter(|follower| follower.life == row.incarnation).unwrap_or_default();
        let mut lead = Lead { term: self.log.term().0, life: row.incarnation, feed, echo: 0, grant_us: 0 };
        let doomed = self.reign.as_ref().is_some_and(|reign| reign.doomed.contains(&(id, row.incarnation)));
        if row.is_alive() && follower.said > Time(0) && !doomed && self.detector.may_be_granted(id) {
            let own = self.log.followed_until().unwrap_or_default();
            let full = self.config.timings.lease;
            let grant = if self.canary.grants_blindly() { full } else { full.min(own.since(follower.heard)) };
            lead.echo = follower.said.0;
            lead.grant_us = u64::try_from(grant.as_micros()).unwrap_or(0);
            self.detector.grant(id, follower.heard);
        }
        lead
    }

    /// A node has answered this master's beat.
    pub(super) fn followed(&mut self, now: Time, from: NodeId, followed: &Followed) {
        let life = self.known.view().node(from).map(|row| row.incarnation);
        if life == Some(followed.incarnation)
            && let Some(condition) = followed.condition
        {
            self.detector.answered(from, condition, now);
        }
        if followed.term > self.log.term().0 {
            return;
        }
        let Some(reign) = &mut self.reign else { return };
        let follower = reign.followers.entry(from).or_default();
        let first = follower.life != followed.incarnation;
        if first && followed.epoch < self.known.view().epoch {
            reign.next_beat = now;
        }
        // An answer that was overtaken by a later one says nothing new.
        if first || followed.sent > follower.said.0 {
            *follower = Follower {
                epoch: followed.epoch,
                life: followed.incarnation,
                said: Time(followed.sent),
                heard: now,
                disk: DiskId(u128::from(followed.disk_high) << 64 | u128::from(followed.disk_low)),
            };
        }
    }

    /// Somebody asks for a change of the table.
    pub(super) fn change(&mut self, now: Time, id: RequestId, from: NodeId, change: Change) -> Option<Say> {
        let Some(act) = change.command.and_then(|command| command.act) else {
            return Some(Say::Refused("no change is asked for".into()));
        };
        if !act.may_be_asked() || (from.0 == 0 && !matches!(act, Act::Join(_))) {
            return Some(Say::Refused("only the master itself decides that".into()));
        }
        if let Some(say) = self.not_master(now) {
            return Some(say);
        }
        let leaves = matches!(&act, Act::Leave(life) if life.node == self.me().0);
        if leaves && self.log.voters().voters.len() > 1 {
            // Another becomes master first, at once: nobody is without one. Who leaves asks again.
            self.drive(now, replog::Event::Transfer(None));
            return Some(Say::NotMaster(0));
        }
        match act {
            Act::Remove(node) if self.keeps_log(NodeId(node)) => {
                self.remove_voter(id, change.session, NodeId(node))
            }
            act => {
                self.propose(now, act, Some(change.session), Purpose::Asked(id));
                None
            }
        }
    }

    /// Why this node cannot decide anything now.
    fn not_master(&self, now: Time) -> Option<Say> {
        if self.mastership(now).is_none() || self.machine.table.is_empty() {
            let master = self.master(now).filter(|&id| id != self.me());
            return Some(Say::NotMaster(master.map_or(0, |id| id.0)));
        }
        (self.proposed.len() >= CHANGES_MAX)
            .then(|| Say::Refused("too many changes of the cluster are under way; try again".into()))
    }

    /// Somebody wants another node to vote in the place of one that does.
    pub(super) fn replace(&mut self, now: Time, id: RequestId, replace: Replace) -> Option<Say> {
        if let Some(say) = self.not_master(now) {
            return Some(say);
        }
        match self.replacement(NodeId(replace.old), NodeId(replace.new)) {
            Ok(voters) => {
                self.change_voters(now, voters, Some(id));
                None
            }
            Err(why) => Some(Say::Refused(why)),
        }
    }

    /// Something that was proposed is agreed.
    pub(super) fn decided(&mut self, request: u64, outcome: Option<Outcome>) {
        match self.proposed.remove(&request) {
            Some(Purpose::Doom(lives)) => {
                if let Some(reign) = &mut self.reign {
                    reign.doomed.retain(|life| !lives.contains(life));
                }
            }
            Some(Purpose::Asked(id)) => {
                let say = decision(outcome.unwrap_or_default(), self.machine.table.view());
                self.answers.push((id, say));
            }
            Some(Purpose::Voters(Some(id))) => {
                self.answers.push((id, decision(Outcome::default(), self.machine.table.view())));
            }
            Some(Purpose::Opinion | Purpose::Voters(None)) | None => {}
        }
    }

    /// The log did not take it, or cannot say what became of it.
    pub(super) fn rejected(&mut self, now: Time, request: u64, refusal: &Refusal) {
        let Some(purpose) = self.proposed.remove(&request) else { return };
        if matches!(purpose, Purpose::Voters(_))
            && let Some(reign) = &mut self.reign
        {
            reign.heal_at = now + self.config.timings.again;
        }
        // A doomed life stays doomed for the rest of the reign: its end may still be agreed.
        let (Purpose::Asked(id) | Purpose::Voters(Some(id))) = purpose else { return };
        let master = self.following.master.filter(|&id| id != self.me()).map_or(0, |id| id.0);
        self.answers.push((
            id,
            match refusal {
                Refusal::Invalid(_)
                | Refusal::NotCaughtUp
                | Refusal::ChangeUnderWay(_)
                | Refusal::Halted(_) => Say::Refused(refusal.to_string()),
                _ => Say::NotMaster(master),
            },
        ));
    }

    /// True if nothing of the master's own is on its way to be agreed.
    pub(super) fn is_quiet(&self) -> bool {
        !self.proposed.values().any(|purpose| matches!(purpose, Purpose::Opinion | Purpose::Doom(_)))
    }

    /// What fencing of a life has come to.
    pub(super) fn fenced(&mut self, now: Time, node: NodeId, life: u64, done: bool, said: String) {
        use crate::command::{Fenced, Life};
        if !done || self.mastership(now).is_none() {
            return;
        }
        let life = Some(Life { node: node.0, life });
        self.propose(now, Act::Fenced(Fenced { life, done, said }), None, Purpose::Opinion);
    }

    /// Has everybody fenced who is DOWN.
    fn fence(&mut self, now: Time) {
        if !self.config.fencing {
            return;
        }
        let again = now + self.config.timings.again * 5;
        let Some(reign) = &mut self.reign else { return };
        let rows = self.known.view().nodes.iter();
        // Where a later life has begun the earlier one's machine was started anew.
        let down = rows.filter(|row| row.state() == crate::NodeState::Down && row.incarnation > 1);
        let down = down.filter(|row| row.id != self.config.row.id && !self.detector.is_outlived(row));
        let lives: BTreeSet<(NodeId, u64)> = down.map(|row| (row.node_id(), row.incarnation)).collect();
        reign.fencing.retain(|life, _| lives.contains(life));
        for life in lives {
            let due = reign.fencing.get(&life).is_none_or(|&at| now >= at);
            if due {
                reign.fencing.insert(life, again);
                self.out.push(Effect::Fence { node: life.0, life: life.1 });
            }
        }
    }

    /// True if the present life of `node` is in the table as living.
    pub(super) fn is_alive(&self, node: NodeId) -> bool {
        self.known.view().node(node).is_some_and(|row| lives_in(self.known.view(), node, row.incarnation))
    }
}

fn decision(outcome: Outcome, view: &View) -> Say {
    if !outcome.refused.is_empty() {
        return Say::Refused(outcome.refused);
    }
    let view = (outcome.node > 0).then(|| view.clone());
    Say::Decided(Decided { outcome: Some(outcome), view, ..Decided::default() })
}
