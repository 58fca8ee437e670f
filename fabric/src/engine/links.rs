//! The links of an endpoint: receiving from them, filling them, losing them.

use super::filling::{fill_in, fill_out};
use super::inlet::{Replies, Requests};
use super::{Arrived, Engine};
use crate::provider::{Link, LinkError};
use crate::reactor::Token;
use crate::session::{Lane, LinkId, Start};
use base::time::Time;
use slab::Slab;

/// Links that are looked at first, because they spoke last.
const RECENT_MAX: usize = 8;
/// So often they are looked at in vain before they are left to their descriptors.
const QUIET_MAX: u32 = 256;

/// How often one pump fills the same links, before what has been received has its turn.
const ROUNDS_MAX: u32 = 8;

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
    /// It will not make a descriptor ready before it is armed.
    disarmed: bool,
}

impl Linked {
    /// The link, except while it is being worked on.
    pub fn link(&self) -> Option<&dyn Link> {
        self.link.as_deref()
    }
}

/// A link that spoke lately.
struct Recent {
    id: LinkId,
    /// How often it has been looked at in vain since.
    quiet: u32,
}

/// All links.
#[derive(Default)]
pub struct Links {
    pub(super) links: Slab<Linked>,
    dirty: Vec<LinkId>,
    again: Vec<LinkId>,
    recent: Vec<Recent>,
    disarmed: Vec<LinkId>,
    lost: Vec<LinkId>,
}

impl Links {
    /// Adds one.
    pub fn insert(&mut self, link: Box<dyn Link>, side: Side, lane: Lane, token: Token) -> LinkId {
        let linked = Linked { link: Some(link), side, lane, token, dirty: false, disarmed: false };
        let id = LinkId(self.links.insert(linked) as u32);
        // What came with the handshake's last bytes makes no descriptor ready.
        self.again.push(id);
        self.mark(id);
        id
    }

    /// As [`Links::mark`], if it is a link of this lane.
    pub fn mark_lane(&mut self, id: LinkId, lane: Lane) {
        if self.at(id).is_some_and(|linked| linked.lane == lane) {
            self.mark(id);
        }
    }

    /// True if some may have something to send.
    pub fn are_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// It may have something to send.
    pub fn mark(&mut self, id: LinkId) {
        if let Some(linked) = self.links.get_mut(id.0 as usize)
            && !std::mem::replace(&mut linked.dirty, true)
        {
            self.dirty.push(id);
        }
    }

    /// Any of them may have something to receive, or room.
    pub fn all_again(&mut self) {
        self.again = self.ids();
        self.ids().into_iter().for_each(|id| self.mark(id));
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

    fn remember(&mut self, id: LinkId) {
        if let Some(first) = self.recent.first_mut().filter(|first| first.id == id) {
            first.quiet = 0;
            return;
        }
        self.recent.retain(|recent| recent.id != id);
        self.recent.truncate(RECENT_MAX - 1);
        self.recent.insert(0, Recent { id, quiet: 0 });
    }

    /// The recent ones have been looked at. Those that stay silent are looked at no more, but for the last that spoke.
    fn looked(&mut self) {
        if self.recent.len() < 2 {
            return;
        }
        let mut first = true;
        self.recent.retain_mut(|recent| {
            recent.quiet += 1;
            std::mem::take(&mut first) || recent.quiet <= QUIET_MAX
        });
    }

    fn take(&mut self, id: LinkId) -> Option<(Box<dyn Link>, Side, Lane)> {
        let linked = self.links.get_mut(id.0 as usize)?;
        Some((linked.link.take()?, linked.side, linked.lane))
    }

    fn give_back(&mut self, id: LinkId, link: Box<dyn Link>) {
        if let Some(linked) = self.links.get_mut(id.0 as usize) {
            linked.link = Some(link);
        }
    }
}

impl Engine {
    /// Takes in what a link has received.
    pub(super) fn receive(&mut self, id: LinkId, now: Time) -> bool {
        let Some((mut link, side, _)) = self.links.take(id) else { return false };
        let full = link.room() == 0;
        let (mut spoke, mut goodbye) = (false, false);
        let outcome = match side {
            Side::Out(at) => {
                let remote = &mut self.remotes[at];
                let mut inlet = Replies {
                    link: id,
                    caller: &mut remote.caller,
                    initiator: &mut remote.initiator,
                    completed: &mut self.completed,
                    spoke: &mut spoke,
                    goodbye: &mut goodbye,
                };
                link.receive(&mut self.reactor, &mut inlet)
            }
            Side::In(at) => match self.guests.at(at) {
                Some(guest) => {
                    let mut inlet = Requests {
                        link: id,
                        callee: &mut guest.callee,
                        target: &mut guest.target,
                        regions: &mut self.regions,
                        starts: &mut self.starts,
                        spoke: &mut spoke,
                        goodbye: &mut goodbye,
                    };
                    link.receive(&mut self.reactor, &mut inlet)
                }
                None => Ok(false),
            },
        };
        let drained = full && link.room() > 0;
        self.links.give_back(id, link);
        if drained {
            self.links.mark(id);
        }
        if spoke {
            self.links.remember(id);
            self.heard(id, side);
        }
        if let Some(linked) = self.links.links.get_mut(id.0 as usize)
            && !std::mem::replace(&mut linked.disarmed, true)
        {
            self.links.disarmed.push(id);
        }
        match outcome {
            _ if goodbye => {
                self.link_lost(id, &LinkError::from(std::io::Error::other("the other end closed")), now)
            }
            Ok(true) => self.links.again.push(id),
            Ok(false) => {}
            Err(error) => self.link_lost(id, &error, now),
        }
        spoke
    }

    /// Carries out what the cores made of it.
    fn heard(&mut self, id: LinkId, side: Side) {
        match side {
            Side::Out(at) => self.settle_replies(at),
            Side::In(at) => {
                let Some(guest) = self.guests.at(at) else { return };
                let (session, from) = (guest.session, guest.peer);
                while let Some(stuck) = guest.target.given_up() {
                    self.links.lose(stuck);
                }
                for Start { turn, service, message, .. } in self.starts.drain(..) {
                    self.errands.inbox.push(Arrived { guest: at, session, turn, from, service, message });
                }
                self.share_reads(at);
            }
        }
        self.links.mark(id);
    }

    /// Goes on with links that had more than one receive takes. True if some still have.
    pub(super) fn receive_again(&mut self, now: Time) -> bool {
        let mut again = std::mem::take(&mut self.links.again);
        for id in again.drain(..) {
            self.receive(id, now);
        }
        // What was pushed meanwhile stays; the memory of the old list is used again.
        again.append(&mut self.links.again);
        self.links.again = again;
        !self.links.again.is_empty()
    }

    /// Looks at the links that spoke last. True if one of them speaks again.
    pub(super) fn receive_recent(&mut self, now: Time) -> bool {
        let mut spoke = false;
        for at in 0..RECENT_MAX {
            let Some(id) = self.links.recent.get(at).map(|recent| recent.id) else { break };
            spoke |= self.receive(id, now);
        }
        self.links.looked();
        spoke
    }

    /// Arms the links that need it. True if something came meanwhile.
    pub(super) fn arm(&mut self, now: Time) -> bool {
        if !self.links.again.is_empty() || !self.links.dirty.is_empty() {
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
            if self.links.recent.iter().any(|recent| recent.id == id) {
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
            Ok(true) => self.links.again.push(id),
            Err(error) => self.link_lost(id, &error, now),
        }
        true
    }

    /// Fills the links that may have something to send, until they are full or the cores have nothing more.
    pub fn pump(&mut self, now: Time) {
        if !self.awaiting.is_empty() {
            self.tell_arrivals();
        }
        while let Some(id) = self.links.lost.pop() {
            self.link_lost(id, &LinkError::from(std::io::Error::other("it was given up")), now);
        }
        let (mut later, mut rounds) = (Vec::new(), ROUNDS_MAX);
        while let Some(id) = self.links.dirty.pop() {
            let Some((mut link, side, lane)) = self.links.take(id) else { continue };
            if let Some(linked) = self.links.links.get_mut(id.0 as usize) {
                linked.dirty = false;
            }
            let mut filled = Ok(());
            match side {
                Side::Out(at) => filled = fill_out(&mut *link, &mut self.remotes[at], lane, id),
                Side::In(at) => {
                    if let Some(guest) = self.guests.at(at) {
                        fill_in(&mut *link, guest, lane, id);
                    }
                }
            }
            let full = link.room() == 0;
            let flushed = filled.and_then(|()| link.flush(&mut self.reactor));
            let posted = link.one_sided().is_some_and(|device| device.is_busy());
            if posted {
                self.watch_devices(now);
            }
            // The wire took it all: no readiness will come, so the cores are asked for more.
            let more = full && link.room() > 0;
            self.links.give_back(id, link);
            match flushed {
                Err(error) => self.link_lost(id, &error, now),
                Ok(()) if more => later.push(id),
                Ok(()) => {}
            }
            if self.links.dirty.is_empty() && rounds > 0 {
                rounds -= 1;
                later.drain(..).for_each(|id| self.links.mark(id));
            }
        }
        later.into_iter().for_each(|id| self.links.mark(id));
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
        for list in [&mut self.links.dirty, &mut self.links.again, &mut self.links.disarmed] {
            list.retain(|other| *other != id);
        }
        self.links.recent.retain(|recent| recent.id != id);
    }
}
