//! How a master is found: who stands for election, when, and who is voted for.
//!
//! Invariant: a node votes once a term, and only for one that has everything it has accepted itself.

use super::{Agreement, Output, Role};
use crate::agreement::voters;
use crate::talk::{Ask, Canvass, Voted};
use base::{NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};

impl Agreement {
    /// A candidate asks for this node's vote.
    pub fn canvassed(&mut self, now: Time, from: NodeId, canvass: &Canvass) -> Voted {
        let stamp = (canvass.accepted_term, canvass.accepted_epoch);
        let current = stamp >= (self.register.accepted_term, self.register.accepted.epoch);
        if canvass.trial {
            let granted = current && canvass.term >= self.register.term && !self.hears_master(now);
            let term = if granted { canvass.term } else { self.register.term };
            return Voted { term, trial: true, granted };
        }
        self.adopt(canvass.term);
        let free = self.register.vote.is_none_or(|vote| vote == from);
        let granted = current && free && canvass.term == self.register.term && !self.is_master();
        if granted {
            self.dirty |= self.register.vote != Some(from);
            self.register.vote = Some(from);
            self.role = Role::Follower;
            self.last_lead = now;
            self.campaign_at = None;
        }
        Voted { term: self.register.term, trial: false, granted }
    }

    /// A voter has answered this node's canvass.
    pub fn voted(&mut self, now: Time, from: NodeId, vote: &Voted) {
        if !vote.granted {
            return self.adopt(vote.term);
        }
        let Role::Canvassing { trial, granted, .. } = &mut self.role else { return };
        let term = self.register.term + u64::from(*trial);
        if vote.trial == *trial && vote.term == term {
            granted.insert(from);
            self.count_votes(now);
        }
    }

    /// True if a master was heard so recently that no other is wanted.
    pub(super) fn hears_master(&self, now: Time) -> bool {
        let patience = self.timings.interval * if self.outlook.linked { 4 } else { 2 };
        self.is_master() || (self.master.is_some() && now.since(self.last_lead) < patience)
    }

    /// True if this node should stand for election.
    pub(super) fn misses_master(&self, now: Time) -> bool {
        let silence = now.since(self.last_lead);
        if self.master.is_none() {
            return silence >= self.timings.retry || voters(&self.register.accepted) == [self.me];
        }
        (!self.outlook.linked && silence >= self.timings.interval * 2)
            || (!self.outlook.beating && silence >= self.timings.suspect_after)
            || silence >= self.timings.lead_after
    }

    pub(super) fn canvass(&mut self, now: Time, trial: bool) {
        if !trial {
            self.register.term += 1;
            self.register.vote = Some(self.me);
            self.dirty = true;
        }
        self.master = None;
        self.campaign_at = None;
        let give_up = now + self.timings.retry + self.timings.stagger * self.rank();
        self.role = Role::Canvassing { trial, granted: BTreeSet::from([self.me]), give_up };
        let canvass = Canvass {
            term: self.register.term + u64::from(trial),
            trial,
            accepted_term: self.register.accepted_term,
            accepted_epoch: self.register.accepted.epoch,
        };
        let mut others: BTreeSet<NodeId> = voters(&self.register.accepted).into_iter().collect();
        if !self.is_settled() {
            others.extend(&self.register.base);
        }
        others.remove(&self.me);
        self.outputs.extend(others.into_iter().map(|to| Output::Send(to, Ask::Canvass(canvass))));
        self.count_votes(now);
    }

    pub(super) fn count_votes(&mut self, now: Time) {
        let Role::Canvassing { trial, granted, .. } = &self.role else { return };
        if !self.is_quorum(|id| granted.contains(&id)) {
            return;
        }
        if *trial {
            return self.canvass(now, false);
        }
        self.master = Some(self.me);
        self.role = Role::Master { followers: BTreeMap::new(), since: now, next_beat: now };
    }
}
