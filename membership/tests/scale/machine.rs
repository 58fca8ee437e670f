//! One machine: the supervisor's heartbeats, and a daemon with the production machines in it.

use crate::agenda::Message;
use base::{Incarnation, NodeId, Time};
use membership::watch::{Beats, Pace, Relay, Roster, Tree, Watcher};
use std::sync::Arc;

/// Datagrams that wait in the socket of a daemon that does not run; more are lost.
const SOCKET_MAX: usize = 512;

pub const LIFE: Incarnation = Incarnation(5);

pub struct Machine {
    pub beats: Beats,
    pub sequence: u64,
    pub watcher: Watcher,
    pub relay: Relay,
    pub tree: Tree,
    /// Nothing that it sends arrives anywhere.
    pub mute: bool,
    /// Nothing arrives here.
    pub deaf: bool,
    /// The daemon does not run.
    pub paused: bool,
    /// The supervisor does not run either.
    pub frozen: bool,
    pub inbox: Vec<(NodeId, Message)>,
    /// The newest view here, and since when.
    pub epoch: u64,
    pub since: Time,
    /// Its lease was seen to be over.
    pub lapsed: u32,
}

impl Machine {
    pub fn new(id: NodeId, pace: Pace, start: Time, phase: Time) -> Machine {
        Machine {
            beats: Beats::new(&pace, phase),
            sequence: 0,
            watcher: Watcher::new(id, LIFE, pace, start),
            relay: Relay::new(pace),
            tree: Tree::new(id, pace),
            mute: false,
            deaf: false,
            paused: false,
            frozen: false,
            inbox: Vec::new(),
            epoch: 0,
            since: start,
            lapsed: 0,
        }
    }

    pub fn follow(&mut self, roster: &Arc<Roster>, id: NodeId, now: Time) {
        self.beats.follow(roster, id);
        (self.epoch, self.since) = (roster.epoch.0, now);
    }

    /// Keeps what arrives while the daemon does not run.
    pub fn keep(&mut self, from: NodeId, message: Message) {
        let datagram = matches!(message, Message::Heartbeat(_) | Message::Alarm(_) | Message::Alarms(_));
        if !datagram || self.inbox.len() < SOCKET_MAX {
            self.inbox.push((from, message));
        }
    }
}
