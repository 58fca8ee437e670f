//! A station: all of watching at scale that runs on one node, put together.
//!
//! ```text
//!   heartbeats -> Watcher -> alarms to relays          notes of others: alarms -> Relay -> bundles to the master
//!        lease ----^                                                    bundles -> Cut (on the master) -> Down
//!   Tree -----------+--> lease, transitions                             beats, answers -> Tree -> rounds -> Cut
//! ```
//!
//! It speaks by notes ([`wire::Note`]), each of them one-way: nobody waits for an answer, and each may be lost.
//!
//! Invariant: only what a node says of itself is believed: an alarm that does not come over a relay comes from its watcher.

use super::cut::{self, Cut};
use super::pace::Pace;
use super::relay::Relay;
use super::roster::Roster;
use super::tree::{self, Tree};
use super::watcher::{self, Watcher};
use super::wire::{Alarms, Say, Transition};
use crate::heartbeat::Heartbeat;
use base::{Incarnation, NodeId, Time};
use std::sync::Arc;

/// What can happen.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// The clock was looked at: every [`Pace::tick`].
    Tick,
    /// Everything that the heartbeat socket had at `at` has been read; also if that was nothing.
    Heard {
        /// Authentic heartbeats.
        beats: &'a [Heartbeat],
        /// Before the reading.
        at: Time,
    },
    /// A note has come.
    Note {
        /// From whom, as the fabric knows it.
        from: NodeId,
        /// What it says.
        say: Say,
    },
    /// Another view is agreed, or a transition was applied.
    Roster(Arc<Roster>),
    /// This node is the master of this term, or is master no more.
    Lead(Option<u64>),
    /// On the master: this was agreed. The roster that it makes is told beside it.
    Transition(Transition),
    /// On the master: what was declared DOWN cannot be agreed now.
    Failed,
}

/// What must be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send a note.
    Send {
        /// To whom.
        to: NodeId,
        /// What it says.
        say: Say,
    },
    /// Apply this to the table; the roster that it makes is then told as [`Event::Roster`].
    Apply(Transition),
    /// This node may serve until then.
    Lease(Time),
    /// On the master: these lives are over; make it one transition.
    Down(Vec<(NodeId, Incarnation)>),
    /// There is a view of this epoch, and it must be asked for.
    Behind(u64),
}

/// One node's part in watching.
#[derive(Clone, Debug)]
pub struct Station {
    pace: Pace,
    roster: Option<Arc<Roster>>,
    watcher: Watcher,
    relay: Relay,
    tree: Tree,
    cut: Option<Cut>,
}

impl Station {
    /// The station of the life `life` of node `me`, which knows no view yet.
    pub fn new(me: NodeId, life: Incarnation, pace: Pace, now: Time) -> Station {
        Station {
            pace,
            roster: None,
            watcher: Watcher::new(me, life, pace, now),
            relay: Relay::new(pace),
            tree: Tree::new(me, pace),
            cut: None,
        }
    }

    /// Until when this node may serve. (A master's own lease is its majority's business.)
    pub fn lease_until(&self) -> Time {
        self.tree.lease_until()
    }

    /// What this node hears.
    pub fn watcher(&self) -> &Watcher {
        &self.watcher
    }

    /// This node's place in the tree.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// On the master: doubts and leases.
    pub fn cut(&self) -> Option<&Cut> {
        self.cut.as_ref()
    }

    /// Something has happened.
    pub fn handle(&mut self, now: Time, event: Event<'_>, effects: &mut Vec<Effect>) {
        match event {
            Event::Tick => {
                self.watch(now, watcher::Event::Tick, effects);
                let bundle = self.relay.tick(now);
                self.pass_on(bundle, effects);
                self.judge(now, cut::Event::Tick, effects);
                self.climb(now, tree::Event::Tick, effects);
            }
            Event::Heard { beats, at } => self.watch(now, watcher::Event::Heard { beats, at }, effects),
            Event::Note { from, say } => self.take(now, from, say, effects),
            Event::Roster(roster) => {
                self.roster = Some(roster.clone());
                self.watch(now, watcher::Event::Roster(roster.clone()), effects);
                self.judge(now, cut::Event::Roster(roster.clone()), effects);
                self.climb(now, tree::Event::Roster(roster), effects);
            }
            Event::Lead(term) => {
                self.cut = term.map(|_| Cut::new(self.pace, now));
                if let Some(roster) = self.roster.clone() {
                    self.judge(now, cut::Event::Roster(roster), effects);
                }
                self.climb(now, tree::Event::Lead(term), effects);
            }
            Event::Transition(transition) => self.climb(now, tree::Event::Transition(transition), effects),
            Event::Failed => self.judge(now, cut::Event::Failed, effects),
        }
    }

    fn take(&mut self, now: Time, from: NodeId, say: Say, effects: &mut Vec<Effect>) {
        match say {
            Say::Alarm(alarm) if alarm.watcher != from.0 => {}
            Say::Alarm(alarm) if self.cut.is_some() => {
                self.judge(now, cut::Event::Alarms(Alarms { alarms: vec![alarm] }), effects);
            }
            Say::Alarm(alarm) => {
                let bundle = self.relay.take(now, alarm);
                self.pass_on(bundle, effects);
            }
            Say::Alarms(bundle) => self.judge(now, cut::Event::Alarms(bundle), effects),
            Say::Beat(beat) => self.climb(now, tree::Event::Beat { from, beat }, effects),
            Say::Ack(ack) => self.climb(now, tree::Event::Ack { from, ack }, effects),
        }
    }

    fn pass_on(&self, bundle: Option<Alarms>, effects: &mut Vec<Effect>) {
        if let (Some(bundle), Some(roster)) = (bundle, &self.roster) {
            effects.push(Effect::Send { to: roster.master, say: Say::Alarms(bundle) });
        }
    }

    fn watch(&mut self, now: Time, event: watcher::Event<'_>, effects: &mut Vec<Effect>) {
        let mut wanted = Vec::new();
        self.watcher.handle(now, event, &mut wanted);
        let send = |watcher::Effect::Alarm { to, alarm }| Effect::Send { to, say: Say::Alarm(alarm) };
        effects.extend(wanted.into_iter().map(send));
    }

    fn judge(&mut self, now: Time, event: cut::Event, effects: &mut Vec<Effect>) {
        let Some(cut) = &mut self.cut else { return };
        let mut wanted = Vec::new();
        cut.handle(now, event, &mut wanted);
        effects.extend(wanted.into_iter().map(|cut::Effect::Down(down)| Effect::Down(down)));
    }

    fn climb(&mut self, now: Time, event: tree::Event, effects: &mut Vec<Effect>) {
        let mut wanted = Vec::new();
        self.tree.handle(now, event, &mut wanted);
        for effect in wanted {
            match effect {
                tree::Effect::Beat { to, beat } => effects.push(Effect::Send { to, say: Say::Beat(beat) }),
                tree::Effect::Ack { to, ack } => effects.push(Effect::Send { to, say: Say::Ack(ack) }),
                tree::Effect::Apply(transition) => effects.push(Effect::Apply(transition)),
                tree::Effect::Behind(epoch) => effects.push(Effect::Behind(epoch)),
                tree::Effect::Round { at, unheard } => {
                    self.judge(now, cut::Event::Round { at, unheard }, effects);
                }
                tree::Effect::Lease(until) => {
                    self.watch(now, watcher::Event::Lease(until), effects);
                    effects.push(Effect::Lease(until));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::wire::{Alarm, Suspect};
    use base::Epoch;

    const MASTER: NodeId = NodeId(1);

    fn station(id: u32, size: u32) -> Station {
        let mut station = Station::new(NodeId(id), Incarnation(5), Pace::default(), Time(1));
        let alive = (1..=size).map(|id| (NodeId(id), Incarnation(5)));
        let roster = Arc::new(Roster::new(Epoch(1), MASTER, alive, &Pace::default()));
        station.handle(Time(1), Event::Roster(roster), &mut Vec::new());
        station
    }

    fn alarm(watcher: u32) -> Alarm {
        let suspects = vec![Suspect { node: 3, incarnation: 5 }];
        Alarm { watcher, incarnation: 5, sequence: 1, epoch: 1, suspects }
    }

    #[test]
    fn a_relay_passes_alarms_on_but_none_in_the_name_of_another() {
        let mut relay = station(9, 400);
        let mut effects = Vec::new();
        let note = Event::Note { from: NodeId(8), say: Say::Alarm(alarm(7)) };
        relay.handle(Time(2), note, &mut effects);
        assert_eq!(effects, []);
        let note = Event::Note { from: NodeId(7), say: Say::Alarm(alarm(7)) };
        relay.handle(Time(2), note, &mut effects);
        let bundle = Say::Alarms(Alarms { alarms: vec![alarm(7)] });
        assert_eq!(effects, [Effect::Send { to: MASTER, say: bundle }]);
    }

    #[test]
    fn only_a_master_judges_and_it_forgets_when_it_is_master_no_more() {
        let mut station = station(1, 400);
        assert!(station.cut().is_none());
        station.handle(Time(2), Event::Lead(Some(4)), &mut Vec::new());
        let by = station.roster.as_ref().unwrap().rings().watchers(NodeId(3)).take(3).collect::<Vec<_>>();
        for watcher in by {
            let note = Event::Note { from: watcher, say: Say::Alarm(alarm(watcher.0)) };
            station.handle(Time(3), note, &mut Vec::new());
        }
        station.handle(Time(4), Event::Tick, &mut Vec::new());
        assert_eq!(station.cut().unwrap().doubts().len(), 1);
        station.handle(Time(5), Event::Lead(None), &mut Vec::new());
        assert!(station.cut().is_none());
    }
}
