//! All talks of one node: messages in, batches out, each peer's in its order. Pure.
//!
//! The fabric delivers in order and once while it has a way; but a batch whose deadline passed while the way was cut is lost, and nobody is told.
//! So batches are numbered and confirmed here, mostly by what is said anyway.
//!
//! Invariant: between two lives that both last, every message is given out once and in the order in which it was pushed.

use super::intake::Intake;
use super::line::Line;
use crate::error::Error;
use crate::message::Message;
use crate::node::{Member, MemberState};
use crate::wire::{self, Header};
use base::{Epoch, Incarnation, NodeId, Time};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often what is owed and what is late is looked at, while there is any.
const TICK: Duration = Duration::from_millis(20);
/// Lives of which batches are taken, that are in no view yet, for each node.
const LIVES_MAX: usize = 4;

/// A batch that is to be sent.
pub type Outgoing = (NodeId, Bytes);

/// The talks.
#[derive(Debug)]
pub struct Post {
    life: Incarnation,
    lines: BTreeMap<NodeId, Line>,
    intakes: BTreeMap<(NodeId, Incarnation), Intake>,
    /// Who has something to be sent, or is owed a confirmation that cannot wait.
    ready: BTreeSet<NodeId>,
    tick_at: Option<Time>,
}

impl Post {
    /// Nobody to talk to yet; this node's life.
    pub fn new(life: Incarnation) -> Post {
        let (lines, intakes) = (BTreeMap::new(), BTreeMap::new());
        Post { life, lines, intakes, ready: BTreeSet::new(), tick_at: None }
    }

    /// Who lives: what was said to others is for nobody any more.
    pub fn view(&mut self, era: Epoch, members: &[Member]) {
        let life_of = |node: &NodeId| {
            let member = members.iter().find(|member| member.node == *node);
            member.filter(|member| member.state == MemberState::Alive).map(|member| member.life)
        };
        self.lines.retain(|node, line| life_of(node) == Some(line.to()));
        for member in members.iter().filter(|member| member.state == MemberState::Alive) {
            self.lines.entry(member.node).or_insert_with(|| Line::new(self.life, member.life));
            // What the node's other lives said lies in the past, unless it speaks of a later view.
            self.intakes.retain(|(node, life), intake| {
                *node != member.node || *life == member.life || intake.era > era
            });
        }
    }

    /// Says something to a node that lives.
    pub fn push(&mut self, to: NodeId, era: Epoch, message: &Message) {
        if let Some(line) = self.lines.get_mut(&to) {
            line.push(era, message);
            self.ready.insert(to);
        }
    }

    /// A batch of `from` has come: gives out what is in turn, with its header.
    ///
    /// # Errors
    /// It is no batch.
    pub fn received(&mut self, now: Time, from: NodeId, bytes: Bytes) -> Result<Vec<(Header, Bytes)>, Error> {
        let (header, _) = wire::header(&bytes)?;
        if header.to != self.life {
            // For an earlier run of this daemon: nobody here knows what it is about.
            return Ok(Vec::new());
        }
        if let Some(line) = self.lines.get_mut(&from).filter(|line| line.to() == header.life) {
            line.acked(header.ack);
            if line.is_ready() {
                self.ready.insert(from);
            }
        }
        if header.number == 0 {
            return Ok(Vec::new());
        }
        let place = (from, header.life);
        if !self.intakes.contains_key(&place) {
            let known = self.intakes.range((from, Incarnation(0))..=(from, Incarnation(u64::MAX))).count();
            if known >= LIVES_MAX {
                return Err(Error::Wire("a node speaks in too many lives at once"));
            }
        }
        let intake = self.intakes.entry(place).or_default();
        intake.era = intake.era.max(header.era);
        let batches = intake.take(header.number, header.is_urgent, bytes);
        if intake.is_pressed() {
            self.ready.insert(from);
        }
        self.arm(now);
        let with_header = |batch: Bytes| wire::header(&batch).map(|(header, _)| (header, batch));
        batches.into_iter().map(with_header).collect()
    }

    /// What is to be sent now.
    pub fn due(&mut self, now: Time) -> Vec<Outgoing> {
        let mut out = Vec::new();
        while let Some(node) = self.ready.pop_first() {
            let said = self.speak(now, node, &mut out);
            if !said {
                self.confirm(node, Intake::is_pressed, &mut out);
            }
        }
        if !out.is_empty() {
            self.arm(now);
        }
        out
    }

    /// Sends all that the window allows; true if that was anything.
    fn speak(&mut self, now: Time, node: NodeId, out: &mut Vec<Outgoing>) -> bool {
        let Some(line) = self.lines.get_mut(&node) else { return false };
        let before = out.len();
        while line.is_ready() {
            let intake = self.intakes.get_mut(&(node, line.to()));
            let ack = intake.map_or(0, Intake::confirm);
            out.extend(line.next(now, ack).map(|batch| (node, batch)));
        }
        out.len() > before
    }

    /// Confirms, without anything to say, what `must` be.
    fn confirm(&mut self, node: NodeId, must: impl Fn(&Intake) -> bool, out: &mut Vec<Outgoing>) {
        let lives = (node, Incarnation(0))..=(node, Incarnation(u64::MAX));
        for ((_, to), intake) in self.intakes.range_mut(lives).filter(|(_, intake)| must(intake)) {
            let (life, to, ack) = (self.life, *to, intake.confirm());
            let header = Header { life, to, era: Epoch(0), number: 0, ack, is_urgent: false };
            out.push((node, header.alone()));
        }
    }

    /// A confirmation for a node that waits for an answer to which there is nothing to say.
    pub fn acknowledgement(&mut self, node: NodeId) -> Option<Bytes> {
        let mut out = Vec::new();
        self.confirm(node, Intake::owes, &mut out);
        out.pop().map(|(_, batch)| batch)
    }

    fn arm(&mut self, now: Time) {
        if self.tick_at.is_none() {
            self.tick_at = Some(now + TICK);
        }
    }

    /// When [`Post::tick`] has something to do.
    pub fn next_deadline(&self) -> Option<Time> {
        self.tick_at
    }

    /// Confirms what is owed, says again what is late.
    pub fn tick(&mut self, now: Time) -> Vec<Outgoing> {
        if self.tick_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.tick_at = None;
        let mut out = Vec::new();
        let late = self.intakes.iter_mut().filter_map(|((node, _), intake)| intake.tick().then_some(*node));
        for node in late.collect::<BTreeSet<_>>() {
            self.confirm(node, Intake::owes, &mut out);
        }
        for (node, line) in &mut self.lines {
            out.extend(line.late(now).into_iter().map(|batch| (*node, batch)));
        }
        if self.lines.values().any(Line::waits) || self.intakes.values().any(Intake::owes) {
            self.arm(now);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Lockspace;
    use crate::message::Key;
    use crate::name::Name;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const ONE: (NodeId, Incarnation) = (NodeId(1), Incarnation(10));
    const TWO: (NodeId, Incarnation) = (NodeId(2), Incarnation(20));

    fn members(lives: &[(NodeId, Incarnation)]) -> Vec<Member> {
        let member = |(node, life): &(NodeId, Incarnation)| Member {
            node: *node,
            life: *life,
            state: MemberState::Alive,
        };
        lives.iter().map(member).collect()
    }

    fn pair() -> (Post, Post) {
        let (mut one, mut two) = (Post::new(ONE.1), Post::new(TWO.1));
        one.view(Epoch(1), &members(&[ONE, TWO]));
        two.view(Epoch(1), &members(&[ONE, TWO]));
        (one, two)
    }

    fn message(tag: u64) -> Message {
        let key = Key::new(Lockspace(1), Name::new(b"x").unwrap());
        Message::Queued { tag, key }
    }

    fn tags(batches: &[(Header, Bytes)]) -> Vec<u64> {
        let all = batches.iter().flat_map(|(_, batch)| wire::messages(batch).unwrap());
        all.map(|message| match message {
            Message::Queued { tag, .. } => tag,
            other => panic!("{other:?}"),
        })
        .collect()
    }

    #[test]
    fn a_busy_line_gathers_what_is_said_meanwhile() {
        let (mut one, mut two) = pair();
        for tag in 0..20 {
            one.push(NodeId(2), Epoch(1), &message(tag));
            let sent = one.due(Time(1));
            assert_eq!(sent.len(), usize::from(tag < super::super::line::WINDOW as u64), "{tag}");
            for (_, batch) in sent {
                two.received(Time(1), NodeId(1), batch).unwrap();
            }
        }
        // The last one of the window wants an answer at once; it lets all the others go, in one batch.
        let answers = two.due(Time(2));
        assert_eq!(answers.len(), 1);
        one.received(Time(2), NodeId(2), answers[0].1.clone()).unwrap();
        let rest = one.due(Time(2));
        assert_eq!(rest.len(), 1);
        let read = two.received(Time(3), NodeId(1), rest[0].1.clone()).unwrap();
        assert_eq!(tags(&read), (4..20).collect::<Vec<_>>());
    }

    #[test]
    fn what_was_for_an_earlier_run_is_not_heard() {
        let (mut one, _) = pair();
        one.push(NodeId(2), Epoch(1), &message(1));
        let sent = one.due(Time(1));
        let mut again = Post::new(Incarnation(21));
        again.view(Epoch(2), &members(&[ONE, (NodeId(2), Incarnation(21))]));
        assert!(again.received(Time(2), NodeId(1), sent[0].1.clone()).unwrap().is_empty());
        // And whoever learns of the new run begins anew with it.
        one.view(Epoch(2), &members(&[ONE, (NodeId(2), Incarnation(21))]));
        one.push(NodeId(2), Epoch(2), &message(2));
        let sent = one.due(Time(3));
        assert_eq!(tags(&again.received(Time(3), NodeId(1), sent[0].1.clone()).unwrap()), [2]);
    }

    proptest! {
        /// Whatever the way between them loses, repeats and turns round.
        #[test]
        fn all_comes_once_and_in_order(fates in vec(0u8..8, 0..200)) {
            let (mut one, mut two) = pair();
            let mut now = Time(1);
            let mut wire: Vec<(NodeId, Bytes)> = Vec::new();
            let (mut said, mut heard) = (0u64, Vec::new());
            for fate in fates.into_iter().chain(std::iter::repeat_n(7, 600)) {
                now = now + Duration::from_millis(30);
                if said < 40 {
                    said += 1;
                    one.push(NodeId(2), Epoch(said / 10), &message(said));
                }
                wire.extend(one.due(now).into_iter().chain(one.tick(now)));
                wire.extend(two.due(now).into_iter().chain(two.tick(now)));
                match fate {
                    0 => wire.clear(),
                    1 => wire.reverse(),
                    2 => wire.extend(wire.clone()),
                    3 => continue,
                    _ => {}
                }
                for (to, batch) in std::mem::take(&mut wire) {
                    if to == NodeId(2) {
                        heard.extend(tags(&two.received(now, NodeId(1), batch).unwrap()));
                    } else {
                        one.received(now, NodeId(2), batch).unwrap();
                    }
                }
            }
            prop_assert_eq!(heard, (1..=said).collect::<Vec<_>>());
            prop_assert!(one.next_deadline().is_none() && two.next_deadline().is_none(), "they come to rest");
        }
    }
}
