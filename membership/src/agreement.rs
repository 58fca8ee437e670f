//! Agreement on one replicated register: the cluster table. Raft (Ongaro 2014) with a log of length one, because each
//! view holds the whole table: (term, epoch) takes the place of (term, index).
//!
//! ```text
//!             silence                majority says "you could win"      majority votes
//!  Follower ----------> Canvassing(trial) ----------> Canvassing(real) ----------> Master
//!     ^   ^ no majority, retry |                            |                        |
//!     |   +--------------------+----------------------------+                        |
//!     +--- a larger term, or a beat of a master; a master without a majority's answers
//! ```
//!
//! Invariants (tests/sim.rs checks them): one master a term; a view is agreed when a majority of the voters of the view
//! before it *and* of its own voters have accepted it from the master of one term; so any later master holds it, and
//! its proposals descend from it. What is accepted or voted is on disk before it is said ([`Output::Persist`] first).
//!
//! This module is the place of the replicated log that comes later; its interface is the functions below, nothing else
//! in the crate knows how agreement is reached.

mod election;

use crate::saved::Register;
use crate::talk::{Ask, Followed, Lead};
use crate::timings::Timings;
use crate::wire::View;
use base::{NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The nodes that vote.
pub fn voters(view: &View) -> Vec<NodeId> {
    view.nodes.iter().filter(|node| node.incarnation > 0).take(7).map(crate::Node::node_id).collect()
}

/// What must be done about it, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Put this on disk before anything that follows.
    Persist(Register),
    /// A view is agreed.
    Commit(View),
    /// Say this to that node; its answer comes back through `voted` or `followed`.
    Send(NodeId, Ask),
}

/// What detection knows about the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// The link to its `ssid` is up.
    pub linked: bool,
    /// Its supervisor was heard within `suspect_after`.
    pub beating: bool,
}

#[derive(Clone, Debug)]
enum Role {
    Follower,
    Canvassing { trial: bool, granted: BTreeSet<NodeId>, give_up: Time },
    Master { followers: BTreeMap<NodeId, Progress>, since: Time, next_beat: Time },
}

/// How far one follower is in the master's term.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    epoch: u64,
    answered: Option<Time>,
}

/// One node's part in the agreement.
#[derive(Clone, Debug)]
pub struct Agreement {
    me: NodeId,
    timings: Timings,
    register: Register,
    role: Role,
    master: Option<NodeId>,
    /// When a master (or a candidate that we voted for) was last heard.
    last_lead: Time,
    campaign_at: Option<Time>,
    outlook: Outlook,
    /// Nodes whose supervisor is heard and whose `ssid` is connected: alive, even if an answer is late.
    alive: BTreeSet<NodeId>,
    audience: BTreeSet<NodeId>,
    dirty: bool,
    outputs: Vec<Output>,
}

impl Agreement {
    /// The part of node `me`, which has `register` on its disk.
    pub fn new(me: NodeId, timings: Timings, register: Register, now: Time) -> Agreement {
        Agreement {
            me,
            timings,
            register,
            role: Role::Follower,
            master: None,
            last_lead: now,
            campaign_at: None,
            outlook: Outlook { linked: false, beating: false },
            alive: BTreeSet::new(),
            audience: BTreeSet::new(),
            dirty: false,
            outputs: Vec::new(),
        }
    }

    /// The newest agreed view known here.
    pub fn committed(&self) -> &View {
        &self.register.committed
    }

    /// The newest view accepted here; a majority may not have it.
    pub fn accepted(&self) -> &View {
        &self.register.accepted
    }

    /// The view that the next proposal must be made from; `Some` only for a master with no proposal under way.
    pub fn draft(&self) -> Option<View> {
        let free = !self.is_master_of_accepted() || self.is_settled();
        (self.is_master() && free).then(|| self.register.accepted.clone())
    }

    /// True if this node is master but has proposed nothing yet: it must, even if nothing changed.
    pub fn owes_proposal(&self) -> bool {
        self.is_master() && !self.is_master_of_accepted()
    }

    /// True if the view that a draft is made from is agreed. Otherwise a proposal must not change the voters.
    pub fn is_settled(&self) -> bool {
        self.register.accepted.epoch == self.register.committed.epoch
    }

    /// True if this node is the master.
    pub fn is_master(&self) -> bool {
        matches!(self.role, Role::Master { .. })
    }

    /// The present term.
    pub fn term(&self) -> u64 {
        self.register.term
    }

    /// The master, while it is heard.
    pub fn master(&self, now: Time) -> Option<NodeId> {
        if self.is_master() {
            return Some(self.me);
        }
        self.master.filter(|_| now.since(self.last_lead) < self.timings.lead_after)
    }

    /// Sets whom a master's beats go to.
    pub fn set_audience(&mut self, audience: BTreeSet<NodeId>) {
        self.audience = audience;
    }

    /// Sets what detection knows about the master.
    pub fn set_outlook(&mut self, outlook: Outlook) {
        self.outlook = outlook;
    }

    /// Sets which nodes are alive as detection hears it: a master waits longer for their answers.
    pub fn set_alive(&mut self, alive: BTreeSet<NodeId>) {
        self.alive = alive;
    }

    /// This process was away for `length`: nobody is blamed for that time.
    pub fn was_away(&mut self, length: Duration) {
        self.last_lead = self.last_lead + length;
        match &mut self.role {
            Role::Master { followers, since, .. } => {
                *since = *since + length;
                for progress in followers.values_mut() {
                    progress.answered = progress.answered.map(|at| at + length);
                }
            }
            Role::Canvassing { give_up, .. } => *give_up = *give_up + length,
            Role::Follower => {}
        }
    }

    /// What must be done since the last call.
    pub fn drain(&mut self) -> Vec<Output> {
        let mut outputs = Vec::with_capacity(self.outputs.len() + 1);
        if std::mem::take(&mut self.dirty) {
            outputs.push(Output::Persist(self.register.clone()));
        }
        outputs.append(&mut self.outputs);
        outputs
    }

    /// Time passes.
    pub fn tick(&mut self, now: Time) {
        match &self.role {
            Role::Master { next_beat, .. } => {
                let due = now >= *next_beat;
                if !self.has_majority_ear(now) {
                    self.step_down(now);
                } else if due {
                    self.beat(now);
                }
            }
            Role::Canvassing { give_up, .. } if now >= *give_up => {
                self.role = Role::Follower;
                self.campaign_at = Some(now + self.timings.retry + self.timings.stagger * self.rank());
            }
            Role::Canvassing { .. } => {}
            Role::Follower if self.is_voter() && self.misses_master(now) => {
                let stand_at = now + self.timings.stagger * self.rank();
                if now >= *self.campaign_at.get_or_insert(stand_at) {
                    self.canvass(now, true);
                }
            }
            Role::Follower => self.campaign_at = None,
        }
    }

    /// A master beats.
    pub fn led(&mut self, now: Time, from: NodeId, lead: &Lead) -> Followed {
        let register = &mut self.register;
        let stranger = lead.term < register.term || (lead.term == register.term && self.role.is_master());
        if stranger {
            return Followed { term: register.term, ..Followed::default() };
        }
        self.adopt(lead.term);
        self.role = Role::Follower;
        self.master = Some(from);
        self.last_lead = now;
        self.campaign_at = None;
        if let Some(view) = &lead.view {
            self.accept(lead.term, view, lead.base.iter().map(|&id| NodeId(id)).collect());
        }
        let register = &self.register;
        if self.is_of_this_term() && !self.is_settled() && register.accepted.epoch <= lead.committed {
            self.commit();
        }
        let epoch = if self.is_of_this_term() { self.register.accepted.epoch } else { 0 };
        Followed { term: self.register.term, epoch, ..Followed::default() }
    }

    /// A follower has answered this master's beat.
    pub fn followed(&mut self, now: Time, from: NodeId, answer: &Followed) {
        if answer.term > self.register.term {
            return self.adopt(answer.term);
        }
        let Role::Master { followers, .. } = &mut self.role else { return };
        if answer.term != self.register.term {
            return;
        }
        let progress = followers.entry(from).or_default();
        progress.epoch = progress.epoch.max(answer.epoch);
        progress.answered = Some(now);
        self.count_acceptances(now);
    }

    /// The master proposes the next view; its epoch and master are filled in here. False if it may not now.
    pub fn propose(&mut self, now: Time, mut view: View) -> bool {
        if self.draft().is_none() {
            return false;
        }
        let settled = self.is_settled();
        if !settled && voters(&view) != voters(&self.register.accepted) {
            return false;
        }
        if settled {
            self.register.base = voters(&self.register.committed);
        }
        view.epoch = self.register.accepted.epoch + 1;
        view.master = self.me.0;
        self.register.accepted = view;
        self.register.accepted_term = self.register.term;
        self.dirty = true;
        self.count_acceptances(now);
        // Agreed at once (a single node) it has beaten already.
        if !self.is_settled() {
            self.beat(now);
        }
        true
    }

    fn is_voter(&self) -> bool {
        voters(&self.register.accepted).contains(&self.me)
    }

    fn rank(&self) -> u32 {
        let place = voters(&self.register.accepted).iter().position(|&id| id == self.me);
        place.and_then(|place| u32::try_from(place).ok()).unwrap_or(0)
    }

    fn is_of_this_term(&self) -> bool {
        self.register.accepted_term == self.register.term
    }

    fn is_master_of_accepted(&self) -> bool {
        self.is_master() && self.is_of_this_term()
    }

    /// Whether the nodes for which `yes` holds are enough to decide.
    fn is_quorum(&self, yes: impl Fn(NodeId) -> bool) -> bool {
        let majority = |of: &[NodeId]| of.iter().filter(|&&id| yes(id)).count() * 2 > of.len();
        if self.is_settled() {
            return majority(&voters(&self.register.committed));
        }
        majority(&self.register.base) && majority(&voters(&self.register.accepted))
    }

    fn adopt(&mut self, term: u64) {
        if term > self.register.term {
            self.register.term = term;
            self.register.vote = None;
            self.dirty = true;
            self.role = Role::Follower;
            self.master = None;
        }
    }

    fn step_down(&mut self, now: Time) {
        self.role = Role::Follower;
        self.master = None;
        self.last_lead = now;
    }

    /// True if a majority has answered this master lately.
    fn has_majority_ear(&self, now: Time) -> bool {
        let Role::Master { followers, since, .. } = &self.role else { return false };
        self.is_quorum(|id| {
            let answered = followers.get(&id).and_then(|progress| progress.answered).unwrap_or(*since);
            let patience = match self.alive.contains(&id) {
                true => self.timings.lead_after,
                false => self.timings.suspect_after,
            };
            id == self.me || now.since(answered) < patience
        })
    }

    fn count_acceptances(&mut self, now: Time) {
        let Role::Master { followers, .. } = &self.role else { return };
        let epoch = self.register.accepted.epoch;
        let accepted =
            |id: NodeId| id == self.me || followers.get(&id).is_some_and(|progress| progress.epoch >= epoch);
        if self.is_of_this_term() && !self.is_settled() && self.is_quorum(accepted) {
            self.commit();
            self.beat(now);
        }
    }

    fn accept(&mut self, term: u64, view: &View, base: Vec<NodeId>) {
        let register = &mut self.register;
        let newer = (term, view.epoch) > (register.accepted_term, register.accepted.epoch);
        if newer && view.epoch > register.committed.epoch {
            register.accepted_term = term;
            register.accepted = view.clone();
            register.base = base;
            self.dirty = true;
        }
    }

    fn commit(&mut self) {
        self.register.committed = self.register.accepted.clone();
        self.dirty = true;
        self.outputs.push(Output::Commit(self.register.committed.clone()));
    }

    fn beat(&mut self, now: Time) {
        let register = &self.register;
        let Role::Master { followers, next_beat, .. } = &mut self.role else { return };
        *next_beat = now + self.timings.interval;
        if register.accepted_term != register.term {
            return;
        }
        let voting = voters(&register.accepted);
        for &to in self.audience.union(&voting.into_iter().collect()).filter(|&&to| to != self.me) {
            let has = followers.get(&to).map_or(0, |progress| progress.epoch);
            let view = (has < register.accepted.epoch).then(|| register.accepted.clone());
            let base = register.base.iter().map(|id| id.0).collect();
            let lead = Lead { term: register.term, view, base, committed: register.committed.epoch };
            self.outputs.push(Output::Send(to, Ask::Lead(lead)));
        }
    }
}

impl Role {
    fn is_master(&self) -> bool {
        matches!(self, Role::Master { .. })
    }
}
