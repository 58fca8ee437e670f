//! A watcher: what one node hears of its subjects, and whom it raises an alarm about.
//!
//! ```text
//!             heard                    silent for `silence` (longer in bad health), or a later life beats
//!   HEARD <-----------+   +------------------------------------------------------------------------+
//!     |               |   |                                                                        v
//!     +---------------+   +-- HEARD                                      heard again           SUSPECTED
//!                               ^------------------------------------------------------------------+
//! ```
//!
//! What it suspects it tells as a whole, at most once per `alarm`, again every `repeat` while there is anything to tell, each time over
//! other relays. It says nothing
//! - about time in which it did not run or did not read its socket (that is not held against anybody);
//! - while its own lease is over: it may be the one that is cut off;
//! - about more than half of its subjects at once, unless they stay silent for twice the time while the master's beats still come.
//!
//! Invariant: silence is measured up to the last moment from before which everything was read.

use super::health::Health;
use super::pace::Pace;
use super::roster::Roster;
use super::wire::{Alarm, SUSPECTS_MAX, Suspect};
use crate::heartbeat::{Heartbeat, Replay};
use base::{Incarnation, NodeId, Time};
use std::sync::Arc;
use std::time::Duration;

/// With fewer subjects than this, many of them is no sign of anything.
const CROWD_MIN: usize = 4;

/// What can happen.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// The clock was looked at.
    Tick,
    /// Everything that the heartbeat socket had at `at` has been read.
    Heard {
        /// Authentic heartbeats.
        beats: &'a [Heartbeat],
        /// Before the reading.
        at: Time,
    },
    /// Another view is agreed.
    Roster(Arc<Roster>),
    /// This node's lease was renewed until then.
    Lease(Time),
}

/// What must be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send this to a relay, or to the master. Nobody answers.
    Alarm {
        /// To whom.
        to: NodeId,
        /// What.
        alarm: Alarm,
    },
}

#[derive(Clone, Debug)]
struct Subject {
    node: NodeId,
    life: Incarnation,
    replay: Replay,
    heard: Time,
}

/// What this node hears of its subjects.
#[derive(Clone, Debug)]
pub struct Watcher {
    me: NodeId,
    life: Incarnation,
    pace: Pace,
    health: Health,
    roster: Option<Arc<Roster>>,
    subjects: Vec<Subject>,
    /// Everything that came before then has been heard or is lost.
    listened: Time,
    ticked: Time,
    lease: Time,
    /// What was said last.
    told: Vec<Suspect>,
    told_at: Option<Time>,
    /// How often the alarm of now was said.
    attempt: u32,
    sequence: u64,
}

impl Watcher {
    /// A watcher of the life `life` of node `me`, which knows no view yet.
    pub fn new(me: NodeId, life: Incarnation, pace: Pace, now: Time) -> Watcher {
        Watcher {
            me,
            life,
            pace,
            health: Health::new(now),
            roster: None,
            subjects: Vec::new(),
            listened: now,
            ticked: now,
            lease: Time(0),
            told: Vec::new(),
            told_at: None,
            attempt: 0,
            sequence: 0,
        }
    }

    /// Something has happened.
    pub fn handle(&mut self, now: Time, event: Event<'_>, effects: &mut Vec<Effect>) {
        match event {
            Event::Tick => self.tick(now, effects),
            Event::Heard { beats, at } => self.heard(beats, at),
            Event::Roster(roster) => self.follow(roster),
            Event::Lease(until) => self.lease = self.lease.max(until),
        }
    }

    /// How far it trusts itself: 0 is well.
    pub fn score(&self) -> u32 {
        self.health.score()
    }

    /// What it has last told the master.
    pub fn told(&self) -> &[Suspect] {
        &self.told
    }

    fn follow(&mut self, roster: Arc<Roster>) {
        let mut old = std::mem::take(&mut self.subjects);
        for node in roster.rings().subjects(self.me) {
            let life = roster.life(node).expect("a subject is a member");
            let known = old.iter().position(|subject| subject.node == node && subject.life == life);
            self.subjects.push(match known {
                Some(at) => old.swap_remove(at),
                None => Subject { node, life, replay: Replay::default(), heard: self.listened },
            });
        }
        // What the view says now need not be taken back.
        self.told.retain(|told| roster.life(NodeId(told.node)) == Some(Incarnation(told.incarnation)));
        self.roster = Some(roster);
    }

    fn heard(&mut self, beats: &[Heartbeat], at: Time) {
        self.excuse(at.since(self.listened), at);
        self.listened = self.listened.max(at);
        for beat in beats {
            let subject = self.subjects.iter_mut().find(|subject| subject.node == beat.node);
            if let Some(subject) = subject.filter(|_| beat.incarnation != Incarnation(0))
                && subject.replay.admit(beat)
            {
                subject.heard = subject.heard.max(at);
            }
        }
    }

    /// Nobody looked for `away`: too long a time is nobody's silence.
    fn excuse(&mut self, away: Duration, now: Time) {
        if away > self.pace.late {
            for subject in &mut self.subjects {
                subject.heard = subject.heard + away;
            }
            self.health.trouble(now);
        }
    }

    fn tick(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let late = now.since(self.ticked) > self.pace.late;
        self.ticked = now;
        self.health.pass(now);
        if late || now.since(self.listened) > self.pace.late {
            // What was not read yet will be excused when it is read. Until then nothing is known.
            if late {
                self.health.trouble(now);
            }
            return;
        }
        if now >= self.lease {
            return;
        }
        let suspects = self.suspects();
        self.tell(now, suspects, effects);
    }

    fn suspects(&self) -> Vec<Suspect> {
        let patience = self.health.stretched(self.pace.silence);
        let silent = |subject: &&Subject, patience: Duration| {
            let later = subject.replay.incarnation().is_some_and(|newest| newest > subject.life);
            later || self.listened.since(subject.heard) >= patience
        };
        let mut found: Vec<_> = self.subjects.iter().filter(|subject| silent(subject, patience)).collect();
        if self.subjects.len() >= CROWD_MIN && found.len() * 2 > self.subjects.len() {
            found.retain(|subject| silent(subject, patience.max(self.pace.silence * 2)));
        }
        let suspect = |subject: &Subject| Suspect { node: subject.node.0, incarnation: subject.life.0 };
        found.into_iter().take(SUSPECTS_MAX).map(suspect).collect()
    }

    fn tell(&mut self, now: Time, suspects: Vec<Suspect>, effects: &mut Vec<Effect>) {
        let Some(roster) = &self.roster else { return };
        let changed = suspects != self.told;
        let since = self.told_at.map_or(Duration::MAX, |at| now.since(at));
        let due = if changed { since >= self.pace.alarm } else { since >= self.pace.repeat };
        if !due || (suspects.is_empty() && self.told.is_empty()) {
            return;
        }
        // A change goes over the other relays than the last one: if those are gone, these may not be.
        self.attempt = match (changed, self.told.is_empty()) {
            (true, true) => 0,
            (true, false) => (self.attempt + 1) % 2,
            (false, _) => self.attempt.saturating_add(1),
        };
        self.sequence += 1;
        self.told_at = Some(now);
        self.told.clone_from(&suspects);
        let alarm = Alarm {
            watcher: self.me.0,
            incarnation: self.life.0,
            sequence: self.sequence,
            epoch: roster.epoch.0,
            suspects,
        };
        let relays = roster.relays(self.me, self.attempt);
        effects.extend(relays.into_iter().map(|to| Effect::Alarm { to, alarm: alarm.clone() }));
    }
}

#[cfg(test)]
#[path = "watcher_tests.rs"]
mod tests;
