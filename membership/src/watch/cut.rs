//! The cut detector, on the master: it makes one decision out of many watchers' alarms (Rapid's high and low watermarks).
//!
//! ```text
//!   watchers that do not hear a node:   0 .. L-1 nothing     L .. H-1 doubtful     H .. K surely suspected
//! ```
//!
//! - The surely suspected are declared DOWN together, once no doubtful node holds the decision back, no further one has become doubtful
//!   for `settle`, and their leases are over. Each doubtful node holds it back for `hold` at most.
//! - A watcher that is itself at least doubtful, or holds no lease, has no voice of its own. But where L others suspect a node, such a watcher
//!   counts as one more (an implicit alarm): it would say so too, if it could. So any part of a cluster that goes takes itself along.
//! - A node whose lease is being renewed is alive by a second witness. It is not declared DOWN, however many do not hear it.
//! - What was declared is not declared again while that is being agreed; if nothing came of it, after `again` it is.
//!
//! Invariant: the same alarms in the same order give the same decisions. Nobody is declared DOWN while it may hold a lease.

use super::lease::Leases;
use super::pace::Pace;
use super::roster::Roster;
use super::wire::{Alarm, Alarms, SUSPECTS_MAX};
use base::{Incarnation, NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What can happen.
#[derive(Clone, Debug)]
pub enum Event {
    /// The clock was looked at.
    Tick,
    /// Alarms have come, from a relay or from a watcher.
    Alarms(Alarms),
    /// Another view is agreed.
    Roster(Arc<Roster>),
    /// The tree has closed a round.
    Round {
        /// When its last answer was here.
        at: Time,
        /// Who had not answered.
        unheard: Vec<NodeId>,
    },
    /// What was declared cannot be agreed now (no majority): it may be declared anew.
    Failed,
}

/// What must be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// These lives are over: make it one transition. Ascending, never empty.
    Down(Vec<(NodeId, Incarnation)>),
}

/// What one watcher says at the moment.
#[derive(Clone, Debug)]
struct Voice {
    life: u64,
    sequence: u64,
    at: Time,
    suspects: Vec<NodeId>,
}

/// A node that at least L watchers do not hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// Since when.
    pub since: Time,
    /// Watchers that do not hear it, those included that would say so if they could.
    pub voices: usize,
    /// It is surely suspected.
    pub sure: bool,
}

/// All alarms, and what was decided.
#[derive(Clone, Debug)]
pub struct Cut {
    pace: Pace,
    leases: Leases,
    roster: Option<Arc<Roster>>,
    voices: BTreeMap<NodeId, Voice>,
    doubts: BTreeMap<NodeId, Doubt>,
    /// When the last node became doubtful.
    risen: Time,
    /// When the first node became surely suspected, while any is.
    sure: Option<Time>,
    declared: BTreeMap<NodeId, Time>,
}

impl Cut {
    /// This node has become master.
    pub fn new(pace: Pace, now: Time) -> Cut {
        Cut {
            pace,
            leases: Leases::new(pace, now),
            roster: None,
            voices: BTreeMap::new(),
            doubts: BTreeMap::new(),
            risen: now,
            sure: None,
            declared: BTreeMap::new(),
        }
    }

    /// Something has happened.
    pub fn handle(&mut self, now: Time, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Tick => self.tick(now, effects),
            Event::Alarms(bundle) => bundle.alarms.into_iter().for_each(|alarm| self.hear(now, alarm)),
            Event::Roster(roster) => self.follow(roster),
            Event::Round { at, unheard } => self.leases.round(at, &unheard),
            Event::Failed => self.declared.clear(),
        }
    }

    /// The nodes that are in doubt, for operators.
    pub fn doubts(&self) -> &BTreeMap<NodeId, Doubt> {
        &self.doubts
    }

    /// Nodes whose supervisors are heard, but which answer the master no more: their daemons hang or are gone. STALLED, in a view.
    pub fn stalled(&self, now: Time) -> Vec<NodeId> {
        let Some(roster) = &self.roster else { return Vec::new() };
        let known = |node: &NodeId| roster.life(*node).is_some() && !self.doubts.contains_key(node);
        self.leases.lapsed(now).filter(known).collect()
    }

    /// The leases, as far as the master knows.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    fn follow(&mut self, roster: Arc<Roster>) {
        self.declared.retain(|node, _| roster.life(*node).is_some());
        self.voices.retain(|node, _| roster.life(*node).is_some());
        self.doubts.retain(|node, _| roster.life(*node).is_some());
        self.roster = Some(roster);
    }

    fn hear(&mut self, now: Time, alarm: Alarm) {
        let Some(roster) = &self.roster else { return };
        let watcher = NodeId(alarm.watcher);
        if roster.life(watcher) != Some(Incarnation(alarm.incarnation)) || alarm.suspects.len() > SUSPECTS_MAX
        {
            return;
        }
        let stamp = (alarm.incarnation, alarm.sequence);
        if self.voices.get(&watcher).is_some_and(|voice| (voice.life, voice.sequence) >= stamp) {
            return;
        }
        let suspects: Vec<_> = alarm
            .suspects
            .iter()
            .filter(|suspect| roster.life(NodeId(suspect.node)) == Some(Incarnation(suspect.incarnation)))
            .map(|suspect| NodeId(suspect.node))
            .filter(|subject| roster.rings().watches(watcher, *subject))
            .collect();
        let (life, sequence) = stamp;
        // Also one that takes all back is kept for a while, or an older one that comes late would count.
        self.voices.insert(watcher, Voice { life, sequence, at: now, suspects });
    }

    fn tick(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let life = self.pace.alarm_life;
        self.voices.retain(|_, voice| now.since(voice.at) < life);
        if self.voices.is_empty() && self.doubts.is_empty() {
            return;
        }
        self.weigh(now);
        if let Some(down) = self.decision(now) {
            self.declared.extend(down.iter().map(|(node, _)| (*node, now)));
            effects.push(Effect::Down(down));
        }
    }

    /// Who is doubtful, and who surely suspected.
    fn weigh(&mut self, now: Time) {
        let mut said: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
        for (watcher, voice) in &self.voices {
            for subject in &voice.suspects {
                said.entry(*subject).or_default().push(*watcher);
            }
        }
        let Some(roster) = self.roster.clone() else { return };
        let doubtful: BTreeSet<NodeId> = said
            .iter()
            .filter(|(subject, by)| by.len() >= self.pace.low.min(watchers(&roster, **subject)))
            .map(|(subject, _)| *subject)
            .collect();
        let mut doubts = BTreeMap::new();
        for subject in &doubtful {
            let voiceless = |one: &NodeId| doubtful.contains(one) || self.leases.is_over(*one, now);
            let own = said[subject].iter().filter(|watcher| !voiceless(watcher)).count();
            let implicit = roster.rings().watchers(*subject).filter(voiceless).count();
            let each = watchers(&roster, *subject);
            // If hardly a watcher is left that is not in doubt itself, those few must agree.
            let needed = self.pace.low.min(each - implicit).max(1);
            let voices = own + implicit;
            let sure = own >= needed && voices >= self.pace.high.min(each);
            let since = self.doubts.get(subject).map_or(now, |known| known.since);
            if !self.doubts.contains_key(subject) {
                self.risen = now;
            }
            doubts.insert(*subject, Doubt { since, voices, sure });
        }
        self.doubts = doubts;
        let any = self.doubts.values().any(|doubt| doubt.sure);
        self.sure = any.then(|| self.sure.unwrap_or(now));
    }

    /// Whom to declare DOWN now.
    fn decision(&mut self, now: Time) -> Option<Vec<(NodeId, Incarnation)>> {
        let roster = self.roster.as_ref()?;
        let again = self.pace.again;
        self.declared.retain(|_, at| now.since(*at) < again);
        let hold = self.pace.hold;
        let fresh: BTreeMap<_, _> =
            self.doubts.iter().filter(|(node, _)| !self.declared.contains_key(node)).collect();
        let ready = |node: NodeId, doubt: &Doubt| doubt.sure && self.leases.is_over(node, now);
        let held = fresh.iter().any(|(node, doubt)| !ready(**node, doubt) && now.since(doubt.since) < hold);
        let unsettled = now.since(self.risen) < self.pace.settle
            && self.sure.is_some_and(|since| now.since(since) < hold);
        if held || unsettled {
            return None;
        }
        let down: Vec<_> = fresh
            .iter()
            .filter(|(node, doubt)| ready(***node, doubt))
            .filter_map(|(node, _)| Some((**node, roster.life(**node)?)))
            .collect();
        (!down.is_empty()).then_some(down)
    }
}

fn watchers(roster: &Roster, node: NodeId) -> usize {
    roster.rings().watchers(node).count()
}

#[cfg(test)]
#[path = "cut_tests.rs"]
mod tests;
