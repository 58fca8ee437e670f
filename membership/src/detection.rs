//! Detection: what this node itself hears of the others. It has opinions; only an agreed view is a fact.
//!
//! | supervisor | `ssid` | `ssid --data` | opinion |
//! |---|---|---|---|
//! | beats | linked, answers | there | UP |
//! | beats | link lost, or no answer for `stall_after` | any | STALLED |
//! | beats | linked | away | STALLED |
//! | silent for `down_after` | answers | any | STALLED |
//! | silent for `down_after` | no answer for `witness` | any | DOWN |
//! | silent for `hung_after` | any | any | DOWN |
//! | beats with a later life | any | any | DOWN (the life in the table has ended) |
//! | silent | was granted a lease less than `down_after` ago | any | not DOWN |
//!
//! Invariant: silence is measured only up to the last moment from before which all heartbeats were read, and time in
//! which nobody looked at it does not count. So a busy or paused machine of ours never makes another one dead. And a
//! node has two witnesses, its supervisor by datagrams and its `ssid` by answers: while one of them speaks it is not
//! declared DOWN for being slow.

use crate::heartbeat::{Heartbeat, Replay};
use crate::talk::Condition;
use crate::timings::Timings;
use crate::wire::{Node, NodeState};
use base::{Incarnation, NodeId, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is known about one other node.
#[derive(Clone, Debug)]
struct Peer {
    replay: Replay,
    heard: Time,
    linked: bool,
    condition: Option<Condition>,
    /// Since when an answer is waited for.
    answered: Time,
    /// When its `ssid` last answered.
    witness: Option<Time>,
    /// When it last said something on which it was granted a lease.
    granted: Option<Time>,
    hello: Option<Node>,
}

/// What this node hears.
#[derive(Clone, Debug)]
pub struct Detector {
    timings: Timings,
    /// Everything that came before then has been heard or is lost.
    listened: Time,
    peers: BTreeMap<NodeId, Peer>,
}

impl Detector {
    /// Starts to listen.
    pub fn new(timings: Timings, now: Time) -> Detector {
        Detector { timings, listened: now, peers: BTreeMap::new() }
    }

    /// Keeps track of exactly the nodes in `rows`; the silence of a new one counts from now.
    pub fn track<'a>(&mut self, rows: impl Iterator<Item = &'a Node> + Clone) {
        let listened = self.listened;
        for row in rows.clone() {
            self.peers.entry(row.node_id()).or_insert_with(|| Peer {
                replay: Replay::default(),
                heard: listened,
                linked: false,
                condition: None,
                answered: listened,
                witness: None,
                granted: None,
                hello: None,
            });
        }
        self.peers.retain(|id, _| rows.clone().any(|row| row.id == id.0));
    }

    /// Everything that the socket had at `at` was read, and gave `beats`.
    pub fn heard(&mut self, beats: &[Heartbeat], at: Time) {
        let away = at.since(self.listened);
        if away > self.timings.late_after {
            for peer in self.peers.values_mut() {
                peer.heard = peer.heard + away;
            }
        }
        self.listened = self.listened.max(at);
        for beat in beats {
            let Some(peer) = self.peers.get_mut(&beat.node) else { continue };
            if peer.replay.admit(beat) {
                peer.heard = peer.heard.max(at);
            }
        }
    }

    /// Nobody took answers here for `length`: nobody is blamed for that time.
    pub fn was_away(&mut self, length: Duration) {
        for peer in self.peers.values_mut() {
            peer.answered = peer.answered + length;
            peer.witness = peer.witness.map(|at| at + length);
            peer.granted = peer.granted.map(|at| at + length);
        }
    }

    /// The link to a node's `ssid` came up or was lost.
    pub fn link(&mut self, node: NodeId, linked: bool, now: Time) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.linked = linked;
        peer.answered = now;
        if !linked {
            (peer.condition, peer.witness) = (None, None);
        }
    }

    /// A node's `ssid` has said how it is.
    pub fn answered(&mut self, node: NodeId, condition: Condition, now: Time) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        (peer.answered, peer.witness) = (now, Some(now));
        peer.condition = Some(condition);
    }

    /// How the node in `row` last said it is, if its link still stands.
    pub fn condition(&self, row: &Node) -> Option<Condition> {
        self.peers.get(&row.node_id())?.condition
    }

    /// A life of a node wants to be in the view.
    pub fn hello(&mut self, node: NodeId, row: Node) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.hello.as_ref().is_none_or(|known| row.incarnation >= known.incarnation) {
            peer.hello = Some(row);
        }
    }

    /// This node has become master: what others reported to the last one is not known here.
    pub fn ask_again(&mut self, now: Time) {
        for peer in self.peers.values_mut() {
            peer.condition = None;
            peer.answered = now;
        }
    }

    /// The row that a later life of the node in `row` has asked for.
    pub fn returning(&self, row: &Node) -> Option<&Node> {
        self.peers.get(&row.node_id())?.hello.as_ref().filter(|hello| hello.incarnation > row.incarnation)
    }

    /// True if everything is there for the life described in `hello` to be UP: beats, and a link.
    pub fn is_present(&self, hello: &Node) -> bool {
        self.peers.get(&hello.node_id()).is_some_and(|peer| {
            peer.linked
                && peer.replay.incarnation() == Some(hello.incarnation())
                && self.silence(peer) < self.timings.down_after
        })
    }

    /// What this node thinks of the life in `row`, which is UP or STALLED in the view.
    pub fn opinion(&self, row: &Node, now: Time) -> NodeState {
        let Some(peer) = self.peers.get(&row.node_id()) else { return row.state() };
        if self.is_over(peer, row.incarnation(), now) {
            return NodeState::Down;
        }
        let hangs = now.since(peer.answered) >= self.timings.stall_after
            || self.silence(peer) >= self.timings.down_after;
        match peer.condition {
            _ if !peer.linked || hangs => NodeState::Stalled,
            Some(condition) if condition.data_up => NodeState::Up,
            Some(_) => NodeState::Stalled,
            None => row.state(),
        }
    }

    /// True if the life in `row` will be over within `settle`, unless it is heard.
    pub fn is_fading(&self, row: &Node, now: Time) -> bool {
        self.peers.get(&row.node_id()).is_some_and(|peer| {
            let soon = |length: Duration| length + self.timings.settle >= self.timings.down_after;
            !self.is_witnessed(peer, now)
                && soon(self.silence(peer))
                && peer.granted.is_none_or(|at| soon(now.since(at)))
        })
    }

    /// True if a node may be granted a lease: not if it will be declared DOWN although it answers.
    pub fn may_be_granted(&self, node: NodeId) -> bool {
        self.peers
            .get(&node)
            .is_some_and(|peer| self.silence(peer) + self.timings.down_after < self.timings.hung_after)
    }

    /// A node is granted a lease on what it said at `at`.
    pub fn grant(&mut self, node: NodeId, at: Time) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.granted = peer.granted.max(Some(at));
        }
    }

    /// True if a later life than the one in `row` was heard: that one has ended.
    pub fn is_outlived(&self, row: &Node) -> bool {
        let newest = self.peers.get(&row.node_id()).and_then(|peer| peer.replay.incarnation());
        newest.is_some_and(|newest| newest > row.incarnation())
    }

    /// True while the link to the `ssid` of `node` is up.
    pub fn is_linked(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.linked)
    }

    /// How long ago the supervisor of `node` was heard (or waiting for it began).
    pub fn heard_before(&self, node: NodeId, now: Time) -> Option<Duration> {
        self.peers.get(&node).map(|peer| now.since(peer.heard))
    }

    fn silence(&self, peer: &Peer) -> Duration {
        self.listened.since(peer.heard)
    }

    fn is_witnessed(&self, peer: &Peer, now: Time) -> bool {
        peer.witness.is_some_and(|at| now.since(at) < self.timings.witness)
    }

    fn is_over(&self, peer: &Peer, life: Incarnation, now: Time) -> bool {
        let outlived = peer.replay.incarnation().is_some_and(|newest| newest > life);
        let patience = match self.is_witnessed(peer, now) {
            true => self.timings.hung_after,
            false => self.timings.down_after,
        };
        // It may serve until its lease is over, whatever else is heard or not.
        let leased = peer.granted.is_some_and(|at| now.since(at) < self.timings.down_after);
        outlived || (self.silence(peer) >= patience && !leased)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn row(state: NodeState) -> Node {
        Node { id: 2, incarnation: 7, state: state as i32, ..Node::default() }
    }

    fn beat(sequence: u64) -> Heartbeat {
        Heartbeat { node: NodeId(2), incarnation: Incarnation(7), sequence }
    }

    fn detector() -> Detector {
        let mut detector = Detector::new(Timings::default(), Time(0));
        detector.track([row(NodeState::Up)].iter());
        detector.link(NodeId(2), true, Time(0));
        detector.answered(NodeId(2), Condition { data_up: true, daemon: 1 }, Time(0));
        detector
    }

    /// Listens every 25 ms without hearing anything.
    fn listen(detector: &mut Detector, from_ms: u64, to_ms: u64) {
        for at in (from_ms..=to_ms).step_by(25) {
            detector.heard(&[], Time(at * MS));
        }
    }

    #[test]
    fn silence_while_listening_is_down() {
        let mut detector = detector();
        listen(&mut detector, 0, 575);
        assert_eq!(detector.opinion(&row(NodeState::Up), Time(575 * MS)), NodeState::Up);
        listen(&mut detector, 600, 600);
        assert_eq!(detector.opinion(&row(NodeState::Up), Time(600 * MS)), NodeState::Down);
    }

    #[test]
    fn a_silent_supervisor_whose_ssid_answers_is_stalled_and_down_only_when_it_stays_silent() {
        let mut detector = detector();
        for at in (0..3_000).step_by(25) {
            listen(&mut detector, at, at);
            detector.answered(NodeId(2), Condition { data_up: true, daemon: 1 }, Time(at * MS));
            let opinion = detector.opinion(&row(NodeState::Up), Time(at * MS));
            assert_eq!(opinion, if at < 600 { NodeState::Up } else { NodeState::Stalled }, "{at} ms");
        }
        // It beats again: nothing has happened.
        let mut resumed = detector.clone();
        resumed.heard(&[beat(1)], Time(3_000 * MS));
        assert_eq!(resumed.opinion(&row(NodeState::Stalled), Time(3_000 * MS)), NodeState::Up);
        // Its ssid falls silent as well, or it never beats again.
        let mut silent = detector.clone();
        silent.link(NodeId(2), false, Time(2_980 * MS));
        assert_eq!(silent.opinion(&row(NodeState::Stalled), Time(2_980 * MS)), NodeState::Down);
        listen(&mut detector, 3_000, 3_000);
        assert_eq!(detector.opinion(&row(NodeState::Stalled), Time(3_000 * MS)), NodeState::Down);
    }

    #[test]
    fn silence_while_we_were_away_does_not_count() {
        let mut detector = detector();
        listen(&mut detector, 0, 100);
        // Paused for two seconds: the clock alone proves nothing, and the pause is given to the others.
        assert_eq!(detector.opinion(&row(NodeState::Up), Time(1_900 * MS)), NodeState::Up);
        listen(&mut detector, 2_100, 2_100);
        assert_eq!(detector.opinion(&row(NodeState::Up), Time(1_900 * MS)), NodeState::Up);
        listen(&mut detector, 2_125, 2_600);
        assert_eq!(detector.opinion(&row(NodeState::Up), Time(2_600 * MS)), NodeState::Down);
    }

    #[test]
    fn a_lost_link_or_an_absent_data_daemon_is_stalled_until_it_reports_again() {
        let mut detector = detector();
        detector.link(NodeId(2), false, Time(MS));
        assert_eq!(detector.opinion(&row(NodeState::Up), Time(MS)), NodeState::Stalled);
        detector.link(NodeId(2), true, Time(2 * MS));
        assert_eq!(detector.opinion(&row(NodeState::Stalled), Time(2 * MS)), NodeState::Stalled);
        detector.answered(NodeId(2), Condition { data_up: false, daemon: 2 }, Time(3 * MS));
        assert_eq!(detector.opinion(&row(NodeState::Stalled), Time(3 * MS)), NodeState::Stalled);
        detector.answered(NodeId(2), Condition { data_up: true, daemon: 2 }, Time(4 * MS));
        assert_eq!(detector.opinion(&row(NodeState::Stalled), Time(4 * MS)), NodeState::Up);
    }

    #[test]
    fn a_replayed_heartbeat_is_no_sign_of_life() {
        let mut detector = detector();
        for at in (0..=600).step_by(25) {
            detector.heard(&[beat(1)], Time(at * MS));
        }
        assert_eq!(detector.opinion(&row(NodeState::Up), Time(600 * MS)), NodeState::Down);
    }

    #[test]
    fn a_later_life_ends_the_one_in_the_table() {
        let mut detector = detector();
        let later = Heartbeat { incarnation: Incarnation(8), ..beat(1) };
        detector.heard(&[later], Time(MS));
        assert_eq!(detector.opinion(&row(NodeState::Up), Time(MS)), NodeState::Down);
        detector.hello(NodeId(2), Node { incarnation: 8, ..row(NodeState::Up) });
        let hello = detector.returning(&row(NodeState::Down)).unwrap();
        assert!(detector.is_present(hello));
    }
}
