//! A peer that calls this endpoint: its session here.
//!
//! Invariant: a session outlives its links for a while, so that what was asked once is not started twice; then it is forgotten.

use super::{Alarm, Engine};
use crate::Peer;
use crate::session::{Callee, Grants, Lane, LinkId};
use crate::transfer::Target;
use base::time::Time;
use slab::Slab;
use std::collections::HashMap;
use std::time::Duration;

/// How long a session stays known after its last link was lost: longer than any network's hiccup that a call may survive.
const GUEST_STAYS: Duration = Duration::from_secs(60);

/// One session of a peer with this endpoint.
pub struct Guest {
    /// The peer.
    pub peer: Peer,
    /// The session's number, which the peer chose.
    pub session: u64,
    /// Its calls.
    pub callee: Callee,
    /// Its transfers.
    pub target: Target,
    /// All its links.
    pub links: Vec<LinkId>,
    /// Since when it has none.
    pub alone_since: Option<Time>,
    /// What tells it from the same session at a former endpoint, or from before it was forgotten.
    pub life: u64,
}

/// All sessions of others here.
#[derive(Default)]
pub struct Guests {
    guests: Slab<Guest>,
    by_session: HashMap<(Peer, u64), usize>,
}

impl Guests {
    /// The place of a session; a new one, of this life, if it is not known.
    pub fn enter(&mut self, peer: Peer, session: u64, grants: &Grants, life: u64) -> usize {
        if let Some(place) = self.by_session.get(&(peer, session)) {
            return *place;
        }
        let place = self.guests.insert(Guest {
            peer,
            session,
            callee: Callee::new(grants),
            target: Target::new(peer),
            links: Vec::new(),
            alone_since: None,
            life,
        });
        self.by_session.insert((peer, session), place);
        place
    }

    /// The place of a session that is known.
    pub fn known(&self, peer: Peer, session: u64) -> Option<usize> {
        self.by_session.get(&(peer, session)).copied()
    }

    /// The guest at this place.
    pub fn at(&mut self, place: usize) -> Option<&mut Guest> {
        self.guests.get_mut(place)
    }

    /// The guest at this place, if it is still in this life: one that was forgotten may have come back with the same session.
    pub fn living(&mut self, place: usize, life: u64) -> Option<&mut Guest> {
        self.guests.get_mut(place).filter(|guest| guest.life == life)
    }

    /// Forgets a session.
    pub fn remove(&mut self, place: usize) {
        if let Some(guest) = self.guests.try_remove(place) {
            self.by_session.remove(&(guest.peer, guest.session));
        }
    }

    /// The place of a session by its number alone, for alarms.
    pub fn find(&self, session: u64) -> Option<usize> {
        self.guests.iter().find(|(_, guest)| guest.session == session).map(|(place, _)| place)
    }

    /// Sessions of this peer that have no link: when it begins a new one, they are of a former life.
    pub fn abandoned(&self, peer: Peer, but: u64) -> Vec<usize> {
        // One that was never linked may still be on its way in: another machine that joins has the same name.
        let abandoned = |guest: &Guest| {
            guest.peer == peer
                && guest.session != but
                && guest.links.is_empty()
                && guest.alone_since.is_some()
        };
        self.guests.iter().filter(|(_, guest)| abandoned(guest)).map(|(place, _)| place).collect()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Guest> {
        self.guests.iter().map(|(_, guest)| guest)
    }

    /// All of them, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Guest> {
        self.guests.iter_mut().map(|(_, guest)| guest)
    }
}

impl Engine {
    /// A link of a guest is over.
    pub(super) fn guest_lost(&mut self, at: usize, id: LinkId, now: Time) {
        let Some(guest) = self.guests.at(at) else { return };
        guest.callee.link_lost(id);
        guest.target.link_lost(id, &mut self.regions);
        guest.links.retain(|link| *link != id);
        let (links, session) = (guest.links.clone(), guest.session);
        if links.is_empty() {
            guest.alone_since = Some(now);
            self.timers.set(now + GUEST_STAYS, Alarm::Guest(session));
        }
        // What it was to carry goes on over those that are left.
        links.into_iter().for_each(|link| self.links.mark(link));
    }

    /// What a guest reads goes over all rails of the best provider that he has.
    pub(super) fn share_reads(&mut self, at: usize) {
        let Some(guest) = self.guests.at(at).filter(|guest| guest.links.len() > 1 && guest.target.has_next())
        else {
            return;
        };
        let bulk = |id: &LinkId| self.links.at(*id).filter(|linked| linked.lane == Lane::Bulk);
        let provider = |id: &LinkId| Some(bulk(id)?.link()?.provider());
        let Some(best) = guest.links.iter().filter_map(provider).min() else { return };
        let rails: Vec<LinkId> =
            guest.links.iter().filter(|id| provider(id) == Some(best)).copied().collect();
        rails.into_iter().for_each(|id| self.links.mark(id));
    }

    /// A guest has been without links for long: what he asked is forgotten.
    pub(super) fn forget_guest(&mut self, session: u64, now: Time) {
        let Some(at) = self.guests.find(session) else { return };
        let over = self.guests.at(at).is_some_and(|guest| {
            let alone = guest.alone_since.is_none_or(|since| now.since(since) >= GUEST_STAYS);
            guest.links.is_empty() && alone
        });
        if over {
            self.guests.remove(at);
        }
    }

    /// A guest has a link more.
    pub(super) fn guest_linked(&mut self, at: usize, id: LinkId) {
        if let Some(guest) = self.guests.at(at) {
            guest.links.push(id);
            guest.alone_since = None;
        }
    }

    /// Looks after a guest that was let in: if nothing becomes of its link it is forgotten.
    pub(super) fn await_guest(&mut self, session: u64) {
        self.timers.set(self.now + GUEST_STAYS, Alarm::Guest(session));
    }
}
