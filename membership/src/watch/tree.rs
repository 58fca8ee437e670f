//! The tree: how one master renews the leases of ten thousand nodes, tells them of each new view, and knows who has answered.
//!
//! ```text
//!   master   every `round`, and at once with a new view:   Beat {round, epoch, span, heard, unheard} to `fan_out` leaders
//!   leader   renews its lease, applies the transitions, hands parts of its span on
//!   leaf     answers at once; a leader when all its children have answered; until then it says every `report` what is missing
//!   a child that is silent for `hop` is asked again; then its part goes to who stands next in it, in later rounds at once
//! ```
//!
//! A beat acknowledges the answers to the last round whose collection was closed (`heard`, all but `unheard`); that is what renews a
//! lease (see [`super::lease`]). Who lacks a view says so by the epoch in its answer, and gets the transitions from its parent; who lacks
//! more than parents keep is told to ask for the table ([`Effect::Behind`]).
//!
//! Who asks is always answered, so it does not matter who is whose parent: parents may change, and be two.
//!
//! Invariants: rounds of a term only grow at every node; transitions are applied in the order of their chain, none left out; a round is
//! closed once, by the master of its term.

pub mod branch;
mod event;

pub use event::{Effect, Event};

use super::lease::Lease;
use super::pace::Pace;
use super::roster::Roster;
use super::wire::{Ack, Beat, Span, TRANSITIONS_MAX, Transition};
use base::{NodeId, Time};
use branch::{Answer, Branch, Care, WHOLE};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// Who may want the answer to one round of one node.
const PARENTS_MAX: usize = 4;

/// What a master remembers.
#[derive(Clone, Debug)]
struct Reign {
    round: u64,
    due: Time,
    /// The last round that was closed, and who had not answered it.
    heard: u64,
    unheard: Vec<u32>,
    /// When the last answer to the open round was here.
    collected: Time,
    /// The epoch of the open round's beats.
    told: u64,
}

/// One node's place in the tree.
#[derive(Clone, Debug)]
pub struct Tree {
    me: NodeId,
    pace: Pace,
    roster: Option<Arc<Roster>>,
    lease: Lease,
    term: u64,
    /// The newest view, applied or about to be.
    epoch: u64,
    reign: Option<Reign>,
    branch: Option<Branch>,
    /// A beat that waits for the roster that it makes.
    awaiting: Option<(NodeId, Beat, Time)>,
    /// The round in which this node was seen to lack a view.
    lacking: Option<u64>,
    log: VecDeque<Transition>,
    silent: BTreeSet<NodeId>,
}

impl Tree {
    /// The place of node `me`, which knows no view yet.
    pub fn new(me: NodeId, pace: Pace) -> Tree {
        Tree {
            me,
            pace,
            roster: None,
            lease: Lease::new(pace),
            term: 0,
            epoch: 0,
            reign: None,
            branch: None,
            awaiting: None,
            lacking: None,
            log: VecDeque::new(),
            silent: BTreeSet::new(),
        }
    }

    /// Something has happened.
    pub fn handle(&mut self, now: Time, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Tick => self.tick(now, effects),
            Event::Beat { from, beat } => self.beaten(now, from, beat, effects),
            Event::Ack { from, ack } => self.answered(now, from, ack, effects),
            Event::Roster(roster) => self.follow(now, roster, effects),
            Event::Lead(term) => self.lead(now, term, effects),
            Event::Transition(transition) => {
                self.keep(transition);
                self.push(now, effects);
            }
        }
    }

    /// Until when this node may serve.
    pub fn lease_until(&self) -> Time {
        self.lease.until()
    }

    /// On the master: the oldest view of all that have answered the open round, and if all have.
    pub fn spread(&self) -> Option<(u64, bool)> {
        let branch = self.branch.as_ref().filter(|_| self.reign.is_some())?;
        Some((branch.oldest(self.epoch), branch.is_complete() && branch.missing().is_empty()))
    }

    /// Members that did not answer when they were last asked by this node.
    pub fn silent(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.silent.iter().copied()
    }

    fn lead(&mut self, now: Time, term: Option<u64>, effects: &mut Vec<Effect>) {
        (self.reign, self.branch, self.awaiting) = (None, None, None);
        let Some(term) = term.filter(|term| *term >= self.term) else { return };
        self.term = term;
        let told = self.epoch;
        self.reign = Some(Reign { round: 0, due: now, heard: 0, unheard: Vec::new(), collected: now, told });
        self.tick(now, effects);
    }

    fn follow(&mut self, now: Time, roster: Arc<Roster>, effects: &mut Vec<Effect>) {
        self.epoch = self.epoch.max(roster.epoch.0);
        self.silent.retain(|node| roster.life(*node).is_some());
        self.roster = Some(roster);
        if let Some((from, beat, _)) = self.awaiting.take() {
            self.open(now, from, beat, effects);
        }
        self.push(now, effects);
    }

    fn keep(&mut self, transition: Transition) {
        if transition.epoch <= self.epoch
            && self.log.back().is_some_and(|last| last.epoch >= transition.epoch)
        {
            return;
        }
        self.epoch = self.epoch.max(transition.epoch);
        if self.log.len() == TRANSITIONS_MAX {
            self.log.pop_front();
        }
        self.log.push_back(transition);
    }

    /// The transitions from `epoch` on, if all of them are kept.
    fn since(&self, epoch: u64) -> Vec<Transition> {
        let from = self.log.iter().position(|transition| transition.after == epoch);
        from.map(|at| self.log.range(at..).cloned().collect()).unwrap_or_default()
    }

    fn tick(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if self.awaiting.as_ref().is_some_and(|(_, _, since)| now.since(*since) >= self.pace.hop) {
            let (from, beat, _) = self.awaiting.take().expect("just seen");
            self.open(now, from, beat, effects);
        }
        self.chase(now, effects);
        if self.reign.as_ref().is_some_and(|reign| now >= reign.due) {
            self.begin(now, effects);
        } else {
            self.push(now, effects);
            self.report_news(now, effects);
        }
    }

    /// A new view goes down at once, but no round is left before it is complete or has had half of its time.
    fn push(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let (Some(reign), Some(roster)) = (&self.reign, &self.roster) else { return };
        let open = self
            .branch
            .as_ref()
            .is_some_and(|branch| !branch.is_complete() && now.since(branch.opened) < self.pace.round / 2);
        if self.epoch > reign.told && roster.epoch.0 == self.epoch && !open {
            self.begin(now, effects);
        }
    }

    /// The master closes its round and begins the next one.
    fn begin(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let (Some(reign), Some(roster)) = (&mut self.reign, &self.roster) else { return };
        if let Some(branch) = self.branch.take() {
            let unheard = branch::members(roster, &branch.missing());
            (reign.heard, reign.unheard) = (reign.round, unheard.iter().map(|node| node.0).collect());
            effects.push(Effect::Round { at: reign.collected, unheard });
        }
        reign.round += 1;
        (reign.due, reign.collected) = (now + self.pace.round, now);
        let told = std::mem::replace(&mut reign.told, self.epoch);
        let beat = Beat {
            term: self.term,
            round: reign.round,
            epoch: self.epoch,
            span: Some(WHOLE),
            heard: reign.heard,
            unheard: reign.unheard.clone(),
            transitions: self.since(told),
        };
        self.share(now, beat, Vec::new(), effects);
    }

    fn beaten(&mut self, now: Time, from: NodeId, beat: Beat, effects: &mut Vec<Effect>) {
        let newest = self.branch.as_ref().map_or(0, |branch| branch.beat.round);
        let newest = self.awaiting.as_ref().map_or(newest, |(_, waiting, _)| waiting.round.max(newest));
        if beat.term < self.term || self.reign.is_some() || (beat.term == self.term && beat.round < newest) {
            return;
        }
        self.apply(&beat, effects);
        if beat.term == self.term && beat.round == newest {
            return self.asked_again(now, from, &beat, effects);
        }
        if beat.term > self.term {
            (self.term, self.branch) = (beat.term, None);
        }
        // First what is acknowledged: no beat can know of the answer to itself.
        let acknowledged = beat.heard > 0 && !beat.unheard.contains(&self.me.0);
        if acknowledged && let Some(until) = self.lease.acknowledged(beat.term, beat.heard) {
            effects.push(Effect::Lease(until));
        }
        self.lease.answered(beat.term, beat.round, now);
        if self.roster.as_ref().is_some_and(|roster| roster.epoch.0 < self.epoch) {
            self.awaiting = Some((from, beat, now));
        } else {
            self.open(now, from, beat, effects);
        }
    }

    fn apply(&mut self, beat: &Beat, effects: &mut Vec<Effect>) {
        for transition in &beat.transitions {
            if transition.after == self.epoch && transition.epoch > self.epoch {
                self.keep(transition.clone());
                effects.push(Effect::Apply(transition.clone()));
            }
        }
        if beat.epoch <= self.epoch {
            self.lacking = None;
        } else if self.lacking.is_none_or(|round| round == beat.round) {
            self.lacking = Some(beat.round);
        } else {
            // Our answer to the round before said what we lack, and it did not come.
            effects.push(Effect::Behind(beat.epoch));
        }
    }

    /// Our answer was lost, or another parent wants it too.
    fn asked_again(&mut self, now: Time, from: NodeId, beat: &Beat, effects: &mut Vec<Effect>) {
        let (Some(roster), Some(branch)) = (&self.roster, &mut self.branch) else { return };
        if branch.beat.round != beat.round {
            return;
        }
        if !branch.parents.contains(&from) && branch.parents.len() < PARENTS_MAX {
            branch.parents.push(from);
        }
        let span = beat.span.filter(|span| !branch.covers(*span) && branch.spans.len() < PARENTS_MAX);
        if let Some(span) = span {
            branch.spans.push(span);
            let silent = &self.silent;
            let parts = branch::parts(roster, span, Some(self.me), self.pace.fan_out);
            let asked = branch.hand_on(roster, parts, |node| silent.contains(&node), now);
            let ask = |(to, span)| Effect::Beat { to, beat: handed(&branch.beat, span, Vec::new()) };
            effects.extend(asked.into_iter().map(ask));
        }
        self.report(now, effects);
    }

    fn open(&mut self, now: Time, from: NodeId, beat: Beat, effects: &mut Vec<Effect>) {
        self.share(now, beat, vec![from], effects);
        if self.branch.as_ref().is_some_and(Branch::is_complete) {
            self.report(now, effects);
        }
    }

    /// Hands the parts of the beat's span on.
    fn share(&mut self, now: Time, mut beat: Beat, parents: Vec<NodeId>, effects: &mut Vec<Effect>) {
        let Some(roster) = self.roster.clone() else { return };
        let transitions = std::mem::take(&mut beat.transitions);
        let span = beat.span.unwrap_or(Span { low: 0, high: Some(0) });
        let leader = (!parents.is_empty()).then_some(self.me);
        let mut branch = Branch::new(beat, parents, now);
        if let Some(leader) = leader.filter(|_| roster.epoch.0 < branch.beat.epoch) {
            branch.cover_only(leader, span);
        }
        let silent = &self.silent;
        let parts = branch::parts(&roster, span, leader, self.pace.fan_out);
        let asked = branch.hand_on(&roster, parts, |node| silent.contains(&node), now);
        let ask = |(to, span)| Effect::Beat { to, beat: handed(&branch.beat, span, transitions.clone()) };
        effects.extend(asked.into_iter().map(ask));
        self.branch = Some(branch);
    }

    /// Asks silent children again, and takes over the parts of those that stay silent.
    fn chase(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let (Some(roster), Some(branch)) = (self.roster.clone(), &mut self.branch) else { return };
        let mut over = Vec::new();
        let mut ask = Vec::new();
        for child in &mut branch.children {
            let care = child.care(now, self.pace.hop);
            if care == Care::Leave {
                continue;
            }
            (child.asked, child.touched) = (child.asked + 1, now);
            ask.push((child.node, child.span));
            if care == Care::TakeOver {
                child.answer = Answer::PassedOver;
                self.silent.insert(child.node);
                over.push((child.node, child.span));
            }
        }
        let silent = &self.silent;
        for (node, span) in over {
            branch.news = true;
            let next = branch::rest(&roster, node, span).into_iter().collect();
            ask.extend(branch.hand_on(&roster, next, |node| silent.contains(&node), now));
        }
        if ask.is_empty() {
            return;
        }
        // The newest transition goes with it: who was not reached has most likely not got it.
        let beat = branch.beat.clone();
        let last =
            self.log.back().filter(|last| last.epoch == beat.epoch).map_or(beat.epoch, |last| last.after);
        let transitions = self.since(last);
        let again = |(to, span)| Effect::Beat { to, beat: handed(&beat, span, transitions.clone()) };
        effects.extend(ask.into_iter().map(again));
    }

    fn answered(&mut self, now: Time, from: NodeId, ack: Ack, effects: &mut Vec<Effect>) {
        self.silent.remove(&from);
        let help = self.since(ack.epoch);
        let Some(branch) = &mut self.branch else { return };
        if (ack.term, ack.round) != (branch.beat.term, branch.beat.round) {
            return;
        }
        let Some(child) = branch.children.iter_mut().find(|child| child.node == from) else { return };
        if ack.epoch < self.epoch && !child.helped && !help.is_empty() {
            child.helped = true;
            let beat = handed(&branch.beat, child.span, help);
            effects.push(Effect::Beat { to: from, beat });
        }
        child.touched = now;
        match child.answer {
            // Its part was taken over by then: it answers for itself.
            Answer::PassedOver => child.answer = Answer::Complete(Vec::new(), ack.epoch),
            _ if ack.complete => child.answer = Answer::Complete(ack.missing, ack.oldest),
            _ => child.answer = Answer::Partial(ack.missing, ack.oldest),
        }
        branch.news = true;
        let complete = branch.is_complete();
        if let Some(reign) = &mut self.reign {
            reign.collected = now;
            self.push(now, effects);
        } else if complete {
            self.report(now, effects);
        }
    }

    /// Says what is known while not all is; the first time also if there is nothing to say: that we live.
    fn report_news(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let Some(branch) = &self.branch else { return };
        let due = match branch.reported {
            Some(at) => branch.news && now.since(at) >= self.pace.report,
            None => now.since(branch.opened) >= self.pace.hop / 2,
        };
        if due {
            self.report(now, effects);
        }
    }

    fn report(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let Some(branch) = &mut self.branch else { return };
        (branch.reported, branch.news) = (Some(now), false);
        let ack = Ack {
            term: branch.beat.term,
            round: branch.beat.round,
            epoch: self.epoch,
            oldest: branch.oldest(self.epoch),
            complete: branch.is_complete(),
            missing: branch.missing(),
        };
        effects.extend(branch.parents.iter().map(|to| Effect::Ack { to: *to, ack: ack.clone() }));
    }
}

/// The beat that a child gets.
fn handed(beat: &Beat, span: Span, transitions: Vec<Transition>) -> Beat {
    Beat { span: Some(span), transitions, ..beat.clone() }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
