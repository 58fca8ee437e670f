//! The peers that this endpoint calls: their addresses, whether they are down or kept, and what becomes of calls when links are lost.

use super::remote::{LaneState, Place, Remote, Way};
use super::{Alarm, Engine};
use crate::provider::LinkError;
use crate::session::{Lane, LinkId};
use crate::{Error, LinkEvent, Peer};
use base::time::Time;
use std::net::SocketAddr;

impl Engine {
    /// The remote of this name; a new one if nothing is known of it.
    pub(super) fn remote(&mut self, peer: Peer) -> usize {
        if let Some((_, at)) = self.last_found.filter(|(found, _)| *found == peer) {
            return at;
        }
        let at = match self.by_peer.get(&peer) {
            Some(at) => *at,
            None => {
                let session = self.random();
                let at = self.remotes.insert(Remote::new(Some(peer), session, &self.limits));
                self.by_peer.insert(peer, at);
                at
            }
        };
        self.last_found = Some((peer, at));
        at
    }

    /// A remote that is known by its address only, for one conversation. End it with [`Engine::forget_stranger`].
    pub fn stranger(&mut self, address: SocketAddr) -> usize {
        let session = self.random();
        let mut remote = Remote::new(None, session, &self.limits);
        remote.ways.push(Way::new(self.inet_provider(), Place::Inet(address), &self.limits));
        self.remotes.insert(remote)
    }

    /// The conversation is over.
    pub fn forget_stranger(&mut self, at: usize) {
        self.end_remote(at, &Error::Closed);
        self.remotes.try_remove(at);
    }

    /// A link of a remote is over.
    pub(super) fn remote_lost(&mut self, at: usize, id: LinkId, error: &LinkError, now: Time) {
        let remote = &mut self.remotes[at];
        tracing::debug!(peer = ?remote.peer, %error, "a link is lost");
        remote.caller.link_lost(id);
        remote.initiator.link_lost(id);
        remote.links.retain(|link| *link != id);
        let lane = remote.way_of_link(id).map(|(way, lane)| {
            // What was to take its place does so now.
            let renewal = remote.ways[way].renewals[lane as usize].take();
            remote.ways[way].lanes[lane as usize] = renewal.map_or(LaneState::Idle, LaneState::Setup);
            lane
        });
        remote.settle_homes();
        let homes = remote.home;
        for home in homes.into_iter().flatten() {
            self.links.mark(home);
        }
        self.mark_carrying(at, Lane::Bulk);
        // A transfer may have waited only for this link to let go of its memory.
        self.settle_replies(at);
        self.tell(at);
        let Some(lane) = lane else { return };
        if self.wants(at, lane) {
            // What waits goes again at once, who is only kept after a short pause.
            if self.calls.count(at) > 0 {
                self.dial_lane(at, lane, true, now);
            } else {
                self.timers.set(now + self.limits.reconnect_min, Alarm::Dial(at));
            }
        } else if self.is_up(at, lane) {
            // It shall take part again when it is back.
            self.timers.set(now + self.limits.reconnect_min, Alarm::Dial(at));
        }
    }

    /// True if a lane should be up.
    pub(super) fn wants(&self, at: usize, lane: Lane) -> bool {
        let Some(remote) = self.remotes.get(at) else { return false };
        if remote.down || self.closed {
            return false;
        }
        let busy = || self.calls.of(at).iter().any(|(_, about)| Lane::of(about.channel) == lane);
        remote.kept && lane == Lane::Urgent || busy()
    }

    /// Tells whether the link to a remote is up, if that has changed.
    pub(super) fn tell(&mut self, at: usize) {
        let remote = &mut self.remotes[at];
        let (Some(peer), up) = (remote.peer, remote.home[Lane::Urgent as usize].is_some()) else { return };
        if std::mem::replace(&mut remote.told_connected, up) != up {
            self.errands.events.push(if up { LinkEvent::Connected(peer) } else { LinkEvent::Lost(peer) });
        }
    }

    /// No way to a remote leads on in this lane. A session that was up once goes on when a way is up again; without one, what waits fails;
    /// and all, if nobody is there any more.
    pub(super) fn unreachable(&mut self, at: usize, lane: Lane, error: &Error, nobody: bool) {
        for (ticket, about) in self.calls.of(at) {
            let waits = Lane::of(about.channel) != lane || self.remotes[at].caller.is_granted();
            if waits && !nobody {
                continue;
            }
            self.withdraw(ticket, &about);
            self.calls.settle(ticket, Err(error.clone()), &mut self.errands.wakes);
        }
        if nobody && self.remotes[at].links.is_empty() {
            self.new_session(at);
        }
    }

    /// Forgets the session with a remote: whoever had its other end is gone.
    pub(super) fn new_session(&mut self, at: usize) {
        let session = self.random();
        let remote = &mut self.remotes[at];
        remote.session = session;
        remote.caller.drain();
        remote.initiator.drain();
    }

    /// Fails everything that waits for a remote.
    pub(super) fn fail_all(&mut self, at: usize, error: &Error) {
        for (ticket, _) in self.calls.of(at) {
            self.calls.settle(ticket, Err(error.clone()), &mut self.errands.wakes);
        }
        self.remotes[at].queue.clear();
        self.new_session(at);
    }

    /// Closes all links of a remote and fails what waits for it.
    fn end_remote(&mut self, at: usize, error: &Error) {
        self.fail_all(at, error);
        for id in std::mem::take(&mut self.remotes[at].links) {
            self.drop_link(id, true);
        }
        for number in self.remotes[at].setups() {
            self.drop_setup(number);
        }
        for way in &mut self.remotes[at].ways {
            (way.lanes, way.renewals) = ([LaneState::Idle; 2], [None; 2]);
        }
        self.remotes[at].home = [None; 2];
        self.tell(at);
    }

    /// Says where a peer is dialled.
    pub fn set_addresses(&mut self, peer: Peer, addresses: &[SocketAddr], now: Time) {
        let provider = self.inet_provider();
        let at = self.remote(peer);
        let remote = &self.remotes[at];
        let known: Vec<SocketAddr> = remote.given.clone();
        if known == addresses {
            return;
        }
        let moved = known.iter().any(|address| !addresses.contains(address));
        if moved {
            self.leave(at);
        }
        let remote = &mut self.remotes[at];
        remote.given = addresses.to_vec();
        if moved {
            remote.ways.clear();
        }
        for address in addresses {
            let place = Place::Inet(*address);
            if !remote.ways.iter().any(|way| way.place == place) {
                remote.ways.push(Way::new(provider, place, &self.limits));
            }
        }
        self.dial_wanted(at, now);
    }

    /// The peer is elsewhere now: its links end, calls go on to where it is.
    fn leave(&mut self, at: usize) {
        let links = std::mem::take(&mut self.remotes[at].links);
        for id in links {
            let remote = &mut self.remotes[at];
            remote.caller.link_lost(id);
            remote.initiator.link_lost(id);
            self.drop_link(id, true);
        }
        let setups = self.remotes[at].setups();
        for number in setups {
            self.drop_setup(number);
        }
        self.remotes[at].home = [None; 2];
        self.settle_replies(at);
        self.tell(at);
    }

    /// Declares a peer down, or no longer.
    pub fn set_down(&mut self, peer: Peer, down: bool, now: Time) {
        let at = self.remote(peer);
        if std::mem::replace(&mut self.remotes[at].down, down) == down {
            return;
        }
        if down {
            self.end_remote(at, &Error::NodeDown(peer));
        } else {
            self.dial_wanted(at, now);
        }
    }

    /// Holds the links to a peer up.
    pub fn keep(&mut self, peer: Peer, now: Time) {
        let at = self.remote(peer);
        self.remotes[at].kept = true;
        self.dial_wanted(at, now);
    }

    /// Forgets a peer.
    pub fn forget(&mut self, peer: Peer) {
        let Some(at) = self.by_peer.remove(&peer) else { return };
        self.last_found = None;
        self.end_remote(at, &Error::Closed);
        self.remotes.try_remove(at);
    }
}
