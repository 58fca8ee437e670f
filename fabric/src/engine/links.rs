//! The links of an endpoint: which of them may have something to do, arming them, losing them.
//!
//! Urgent links come first everywhere, and bulk links do a bounded amount of work before urgent ones are looked at again: so a control
//! call waits for a part of a transfer at most, not for all that the sockets take.

use super::Engine;
use super::recents::Recents;
use crate::provider::{Link, LinkError, Traffic};
use crate::reactor::Token;
use crate::session::{Lane, LinkId};
use base::time::Time;
use slab::Slab;
use std::collections::VecDeque;

/// Bytes that bulk links move, each way, before all links are looked at again.
const BULK_BYTES: u64 = 128 << 10;
/// The same while urgent links speak: some 10 us of copying and sealing.
const BULK_BYTES_BESIDE_URGENT: u64 = 16 << 10;
/// For so many turns an urgent link is held to speak after it spoke last.
const URGENT_TURNS: u32 = 64;

/// Whose a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This end dialled it, to that remote.
    Out(usize),
    /// That guest dialled it.
    In(usize),
}

/// A link and what it is for.
pub struct Linked {
    pub(super) link: Option<Box<dyn Link>>,
    /// Whose it is.
    pub side: Side,
    /// Its lane.
    pub lane: Lane,
    token: Token,
    dirty: bool,
    again: bool,
    /// It will not make a descriptor ready before it is armed.
    disarmed: bool,
    /// What it had sent when that was counted last.
    bytes_sent: u64,
    /// The same of what it had received.
    bytes_received: u64,
}

impl Linked {
    /// The link, except while it is being worked on.
    pub fn link(&self) -> Option<&dyn Link> {
        self.link.as_deref()
    }

    /// False if it certainly has nothing to receive.
    pub fn may_have_spoken(&self) -> bool {
        self.link().is_some_and(|link| !link.is_quiet())
    }

    /// True if nobody hears it until it is looked at or armed.
    pub fn is_silent(&self) -> bool {
        self.disarmed && self.link().is_some_and(|link| !link.always_rings())
    }
}

/// All links.
#[derive(Default)]
pub struct Links {
    pub(super) links: Slab<Linked>,
    /// Those that may have something to send, by lane.
    dirty: [VecDeque<LinkId>; 2],
    /// Those that may have something to receive, by lane.
    again: [VecDeque<LinkId>; 2],
    /// Bytes that bulk links received since all links were looked at.
    received: u64,
    /// Bytes that they sent.
    sent: u64,
    /// Turns for which an urgent link is still held to speak.
    urgent_turns: u32,
    /// Those that spoke last.
    pub recent: Recents,
    disarmed: Vec<LinkId>,
    lost: Vec<LinkId>,
}

impl Links {
    /// Adds one.
    pub fn insert(&mut self, link: Box<dyn Link>, side: Side, lane: Lane, token: Token) -> LinkId {
        let linked = Linked {
            link: Some(link),
            side,
            lane,
            token,
            dirty: false,
            again: false,
            disarmed: false,
            bytes_sent: 0,
            bytes_received: 0,
        };
        let id = LinkId(self.links.insert(linked) as u32);
        // What came with the handshake's last bytes makes no descriptor ready.
        self.look_again(id);
        self.mark(id);
        id
    }

    /// It may have something to receive.
    pub fn look_again(&mut self, id: LinkId) {
        if let Some(linked) = self.links.get_mut(id.0 as usize)
            && !std::mem::replace(&mut linked.again, true)
        {
            self.again[linked.lane as usize].push_back(id);
        }
    }

    /// Bytes that bulk links move at most in one turn, each way: fewer while urgent links speak, which would wait for them.
    pub fn quantum(&self) -> u64 {
        if self.urgent_turns > 0 { BULK_BYTES_BESIDE_URGENT } else { BULK_BYTES }
    }

    /// Of these bytes, how many bulk links may still receive.
    pub fn may_receive(&self) -> u64 {
        self.quantum().saturating_sub(self.received)
    }

    /// The same of what they may send.
    pub fn may_send(&self) -> u64 {
        self.quantum().saturating_sub(self.sent)
    }

    /// All links are about to be looked at.
    pub fn look(&mut self) {
        (self.received, self.sent) = (0, 0);
        self.urgent_turns = self.urgent_turns.saturating_sub(1);
    }

    /// A link, which is being worked on, has moved bytes.
    pub fn moved(&mut self, id: LinkId, link: &dyn Link) {
        let Some(linked) = self.links.get_mut(id.0 as usize) else { return };
        let Traffic { bytes_sent, bytes_received, .. } = link.traffic();
        let sent = bytes_sent - std::mem::replace(&mut linked.bytes_sent, bytes_sent);
        let received = bytes_received - std::mem::replace(&mut linked.bytes_received, bytes_received);
        match linked.lane {
            Lane::Urgent if sent + received > 0 => self.urgent_turns = URGENT_TURNS,
            Lane::Urgent => {}
            Lane::Bulk => {
                self.sent += sent;
                self.received += received;
            }
        }
    }

    /// As [`Links::mark`], if it is a link of this lane.
    pub fn mark_lane(&mut self, id: LinkId, lane: Lane) {
        if self.at(id).is_some_and(|linked| linked.lane == lane) {
            self.mark(id);
        }
    }

    /// True if some may have something to send.
    pub fn are_dirty(&self) -> bool {
        self.dirty.iter().any(|lane| !lane.is_empty())
    }

    /// True if some have more to receive than was taken.
    pub fn have_more(&self) -> bool {
        self.again.iter().any(|lane| !lane.is_empty())
    }

    /// True if some may have something to send or to receive.
    pub fn are_busy(&self) -> bool {
        self.are_dirty() || self.have_more()
    }

    /// It may have something to send.
    pub fn mark(&mut self, id: LinkId) {
        if let Some(linked) = self.links.get_mut(id.0 as usize)
            && !std::mem::replace(&mut linked.dirty, true)
        {
            self.dirty[linked.lane as usize].push_back(id);
        }
    }

    /// Any of them may have something to receive, or room.
    pub fn all_again(&mut self) {
        for id in self.ids() {
            self.look_again(id);
            self.mark(id);
        }
    }

    /// It is to be closed at the next opportunity.
    pub fn lose(&mut self, id: LinkId) {
        self.lost.push(id);
    }

    /// What it is for.
    pub fn at(&self, id: LinkId) -> Option<&Linked> {
        self.links.get(id.0 as usize)
    }

    /// All numbers.
    pub fn ids(&self) -> Vec<LinkId> {
        self.links.iter().map(|(at, _)| LinkId(at as u32)).collect()
    }

    /// No byte more of a peer goes into a region. On links that this end dialled, numbers of regions are the other end's.
    pub fn forsake(&mut self, region: u64) {
        for (_, linked) in &mut self.links {
            if let (Side::In(_), Some(link)) = (linked.side, &mut linked.link) {
                link.forsake(region);
            }
        }
    }

    /// How many of a lane are to be looked at again.
    pub fn count_again(&self, lane: Lane) -> usize {
        self.again[lane as usize].len()
    }

    /// The next of a lane that is to be looked at again.
    pub fn next_again(&mut self, lane: Lane) -> Option<LinkId> {
        let id = self.again[lane as usize].pop_front()?;
        if let Some(linked) = self.links.get_mut(id.0 as usize) {
            linked.again = false;
        }
        Some(id)
    }

    /// The next of a lane that may have something to send.
    pub fn next_dirty(&mut self, lane: Lane) -> Option<LinkId> {
        let id = self.dirty[lane as usize].pop_front()?;
        if let Some(linked) = self.links.get_mut(id.0 as usize) {
            linked.dirty = false;
        }
        Some(id)
    }

    /// The next that is to be closed.
    pub fn next_lost(&mut self) -> Option<LinkId> {
        self.lost.pop()
    }

    /// It makes no descriptor ready until it is armed.
    pub fn disarm(&mut self, id: LinkId) {
        if let Some(linked) = self.links.get_mut(id.0 as usize)
            && !std::mem::replace(&mut linked.disarmed, true)
        {
            self.disarmed.push(id);
        }
    }

    /// A link, to be worked on until it is given back.
    pub fn take(&mut self, id: LinkId) -> Option<(Box<dyn Link>, Side, Lane)> {
        let linked = self.links.get_mut(id.0 as usize)?;
        Some((linked.link.take()?, linked.side, linked.lane))
    }

    /// It has been worked on.
    pub fn give_back(&mut self, id: LinkId, link: Box<dyn Link>) {
        if let Some(linked) = self.links.get_mut(id.0 as usize) {
            linked.link = Some(link);
        }
    }
}

impl Engine {
    /// Arms the links that need it. True if something came meanwhile.
    pub(super) fn arm(&mut self, now: Time) -> bool {
        if self.links.are_busy() {
            return true;
        }
        let mut came = false;
        while let Some(id) = self.links.disarmed.pop() {
            came |= self.arm_link(id, now);
        }
        came
    }

    /// Arms the links that need it, save those that spoke last: who polls looks at these only.
    pub(super) fn arm_quiet(&mut self, now: Time) {
        let mut at = 0;
        while let Some(id) = self.links.disarmed.get(at).copied() {
            if self.links.recent.has(id) {
                at += 1;
            } else {
                self.links.disarmed.swap_remove(at);
                self.arm_link(id, now);
            }
        }
    }

    fn arm_link(&mut self, id: LinkId, now: Time) -> bool {
        let Some((mut link, ..)) = self.links.take(id) else { return false };
        let armed = link.arm(&mut self.reactor);
        self.links.give_back(id, link);
        if let Some(linked) = self.links.links.get_mut(id.0 as usize) {
            linked.disarmed = false;
        }
        match armed {
            Ok(false) => return false,
            Ok(true) => self.links.look_again(id),
            Err(error) => self.link_lost(id, &error, now),
        }
        true
    }

    /// A link is over: whoever used it goes on without it.
    pub(super) fn link_lost(&mut self, id: LinkId, error: &LinkError, now: Time) {
        let Some(side) = self.links.at(id).map(|linked| linked.side) else { return };
        if let (LinkError::Wire(error), Some(peer)) = (error, self.peer_of(side)) {
            tracing::warn!(%peer, %error, "a link is closed");
            self.gate.count(crate::Refusal::Garbage);
        }
        self.drop_link(id, false);
        match side {
            Side::Out(at) => self.remote_lost(at, id, error, now),
            Side::In(at) => self.guest_lost(at, id, now),
        }
    }

    /// The peer at the other end.
    pub(super) fn peer_of(&mut self, side: Side) -> Option<crate::Peer> {
        match side {
            Side::Out(at) => self.remotes.get(at).and_then(|remote| remote.peer),
            Side::In(at) => self.guests.at(at).map(|guest| guest.peer),
        }
    }

    /// Closes a link, after a goodbye where this end closes it on purpose.
    pub(super) fn drop_link(&mut self, id: LinkId, goodbye: bool) {
        let Some(mut linked) = self.links.links.try_remove(id.0 as usize) else { return };
        if let Some(link) = &mut linked.link {
            if goodbye {
                let header = crate::frame::Header::new(crate::frame::Kind::Goodbye, crate::Priority::Control);
                link.push(crate::provider::Frame { header, body: crate::provider::Body::Empty });
                // The other end sees the close all the same.
                let _ = link.flush(&mut self.reactor);
            }
            link.close(&mut self.reactor);
            if let Side::Out(at) = linked.side
                && let Some(remote) = self.remotes.get_mut(at)
            {
                remote.carried += link.traffic();
            }
        }
        self.release(linked.token);
        self.links.disarmed.retain(|other| *other != id);
        self.links.lost.retain(|other| *other != id);
        for list in self.links.dirty.iter_mut().chain(&mut self.links.again) {
            list.retain(|other| *other != id);
        }
        self.links.recent.forget(id);
    }
}
