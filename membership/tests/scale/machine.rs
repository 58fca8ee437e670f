//! One machine: the supervisor's heartbeats, and a daemon with the production station in it.

use crate::agenda::Message;
use base::{Incarnation, NodeId, Time};
use membership::watch::wire::Say;
use membership::watch::{Beats, Pace, Roster, Station};
use std::sync::Arc;

/// Datagrams that wait in the socket of a daemon that does not run; more are lost.
const SOCKET_MAX: usize = 512;

pub const LIFE: Incarnation = Incarnation(5);

pub struct Machine {
    pub beats: Beats,
    pub sequence: u64,
    pub station: Station,
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
            station: Station::new(id, LIFE, pace, start),
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
        let stream = matches!(&message, Message::Note(say) if matches!(**say, Say::Beat(_) | Say::Ack(_)));
        if stream || self.inbox.len() < SOCKET_MAX {
            self.inbox.push((from, message));
        }
    }
}
