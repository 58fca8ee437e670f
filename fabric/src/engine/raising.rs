//! From a proved connection to a link, and what the first link of a session tells.

use super::calls::Purpose;
use super::links::Side;
use super::outgoing::target;
use super::remote::{LaneState, Place, Remote, Way};
use super::setups::{Phase, Proved, Setup, SetupError, Whose};
use super::{Engine, Entry};
use crate::provider::{Link, Provider};
use crate::session::{Grants, Lane, LinkId};
use crate::setup::{Dialled, Security, Welcome};
use crate::shm;
use crate::tcp::{Protection, TcpLink, tune};
use crate::{Error, Refusal};
use base::time::Time;
use rustix::net::AddressFamily;
use slab::Slab;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Ways to one peer.
const WAYS_MAX: usize = 16;

impl Engine {
    /// Both ends are proved: the connection becomes a link.
    pub(super) fn raise(&mut self, mut setup: Setup, proved: Proved, now: Time) {
        if let Err(error) = self.check(&setup, &proved) {
            return self.setup_failed(setup, error, now);
        }
        if self.is_for_device(&setup) {
            return self.raise_device(setup, proved, now);
        }
        let Some(stream) = setup.stream.take() else { return };
        // From here on the link, or shared memory's set-up, watches it in its own way.
        if let Err(error) = self.reactor.forget(&stream) {
            return self.setup_failed(setup, error.into(), now);
        }
        let lane = lane_of(&mut self.remotes, &setup, &proved);
        if is_local(&stream) {
            let end = match &proved {
                Proved::Dialled(_) => shm::End::Dialled { ring_bytes: ring_bytes(lane) },
                Proved::Opened(..) => shm::End::Accepted,
            };
            match shm::Setup::start(stream, end, setup.token, &mut self.reactor) {
                Ok(passing) => setup.phase = Phase::Passing(Box::new(passing), Box::new(proved)),
                Err(error) => return self.setup_failed(setup, error.into(), now),
            }
            let number = setup.number;
            self.setups.insert(setup);
            return self.step(number, now);
        }
        if let Err(error) = tune(&stream, self.limits.silence) {
            return self.setup_failed(setup, error.into(), now);
        }
        let (keys, encrypted) = match &proved {
            Proved::Dialled(dialled) => (&dialled.keys, dialled.welcome.encrypted),
            Proved::Opened(opened, _) => {
                (&opened.keys, opened.open.encrypted || self.security == Security::Encrypted)
            }
        };
        let protection = if encrypted {
            Protection::Sealed { send: keys.send, receive: keys.receive }
        } else {
            Protection::Plain
        };
        let early = std::mem::take(&mut setup.input);
        match TcpLink::new(stream, setup.token, &mut self.reactor, protection, early) {
            Ok(link) => self.linked(setup, Box::new(link), proved, lane, now),
            Err(error) => self.setup_failed(setup, error.into(), now),
        }
    }

    /// Goes on with passing shared memory.
    pub(super) fn pass(&mut self, mut setup: Setup, now: Time) {
        let phase = std::mem::replace(&mut setup.phase, Phase::Connecting);
        let Phase::Passing(passing, proved) = phase else { return };
        match passing.advance(&mut self.reactor) {
            Ok(shm::Step::Waiting(passing)) => {
                setup.phase = Phase::Passing(Box::new(passing), proved);
                self.setups.insert(setup);
            }
            Ok(shm::Step::Linked(link)) => {
                let lane = lane_of(&mut self.remotes, &setup, &proved);
                self.linked(setup, link, *proved, lane, now);
            }
            Err(error) => self.setup_failed(setup, error.into(), now),
        }
    }

    /// Refuses what must not become a link, now that it is known who is there.
    pub(super) fn check(&mut self, setup: &Setup, proved: &Proved) -> Result<(), SetupError> {
        let (Proved::Dialled(dialled), Whose::Ours { remote }) = (proved, &setup.whose) else {
            return Ok(());
        };
        let Some(remote) = self.remotes.get_mut(*remote) else {
            return Err(io::Error::other("nobody wants this connection any more").into());
        };
        if remote.peer.is_some_and(|peer| peer != dialled.peer) {
            return Err(Refusal::WrongPeer.into());
        }
        if self.security == Security::Encrypted && !dialled.welcome.encrypted {
            return Err(Refusal::Garbage.into());
        }
        if !dialled.welcome.refused.is_empty() {
            return Err(SetupError::Useless(dialled.welcome.refused.clone()));
        }
        Ok(())
    }

    pub(super) fn linked(
        &mut self,
        setup: Setup,
        link: Box<dyn Link>,
        proved: Proved,
        lane: Lane,
        now: Time,
    ) {
        let side = match (&proved, &setup.whose) {
            (Proved::Opened(_, guest), _) => Side::In(*guest),
            (Proved::Dialled(_), Whose::Ours { remote }) => Side::Out(*remote),
            (Proved::Dialled(_), Whose::Theirs { .. }) => return,
        };
        let id = self.links.insert(link, side, lane, setup.token);
        self.entries[setup.token.0 as usize] = Entry::Link(id);
        match proved {
            Proved::Opened(_, guest) => self.guest_linked(guest, id),
            Proved::Dialled(dialled) => {
                let Side::Out(at) = side else { return };
                let remote = &mut self.remotes[at];
                remote.links.push(id);
                let mut former = None;
                if let Some((way, lane)) = remote.way_of_setup(setup.number) {
                    let way = &mut remote.ways[way];
                    if let LaneState::Up(link) =
                        std::mem::replace(&mut way.lanes[lane as usize], LaneState::Up(id))
                    {
                        former = Some(link);
                    }
                    way.renewals[lane as usize] = None;
                    (way.rest, way.deserted) = (self.limits.reconnect_min, false);
                }
                self.welcomed(at, id, &dialled, now);
                if let Some(former) = former {
                    self.retire(at, former);
                }
            }
        }
    }

    /// A remote's link is up: what it grants, and what is learned about it.
    fn welcomed(&mut self, at: usize, id: LinkId, dialled: &Dialled, now: Time) {
        let Welcome { resumed, life, slots, window_kib, host, shm, rails, .. } = &dialled.welcome;
        let remote = &mut self.remotes[at];
        remote.version = dialled.version;
        // Welcomes may come in another order than they were given: a life says more than whether the session was resumed.
        let other = if *life == 0 { !resumed } else { *life != remote.life };
        remote.life = *life;
        if remote.caller.is_granted() && other {
            self.other_life(at, id, now);
        }
        let remote = &mut self.remotes[at];
        remote.caller.speak(dialled.version);
        remote.caller.grant(&grants(slots, window_kib));
        let mut ways: Vec<Way> = Vec::new();
        if self.providers.contains(&Provider::Shm) && !shm.is_empty() && *host == self.host {
            ways.push(Way::new(Provider::Shm, Place::Unix(shm.into()), &self.limits));
        }
        for rail in rails {
            let Ok(address) = rail.address.parse::<SocketAddr>() else { continue };
            if rail.verbs && self.devices.toward(address.ip()).is_some() {
                ways.push(Way::new(Provider::Verbs, Place::Inet(address), &self.limits));
            }
            ways.push(Way::new(Provider::Tcp, Place::Inet(address), &self.limits));
        }
        for way in ways {
            if remote.peer.is_some()
                && remote.ways.len() < WAYS_MAX
                && !remote.ways.iter().any(|known| known.place == way.place && known.provider == way.provider)
            {
                remote.ways.push(way);
            }
        }
        remote.settle_homes();
        for home in remote.home.into_iter().flatten() {
            self.links.mark(home);
        }
        self.mark_carrying(at, Lane::Bulk);
        self.tell(at);
        // A better way may have become known.
        for lane in [Lane::Urgent, Lane::Bulk] {
            let remote = &self.remotes[at];
            if remote.best_up(lane).is_some() || self.wants(at, lane) {
                self.dial_lane(at, lane, false, now);
            }
        }
    }

    /// The endpoint that had this end's session is gone, another life answers: what was sent may have been done or not.
    fn other_life(&mut self, at: usize, id: LinkId, now: Time) {
        let target = target(&self.remotes[at]);
        let source = Arc::new(io::Error::new(io::ErrorKind::ConnectionReset, "it has been started anew"));
        let error = Error::Unreachable { target, source };
        for (ticket, about) in self.calls.of(at) {
            if about.purpose == Purpose::Transfer || self.remotes[at].caller.sent(ticket) {
                self.calls.settle(ticket, Err(error.clone()), &mut self.errands.wakes);
            }
        }
        let remote = &mut self.remotes[at];
        let unsent = remote.caller.take_unsent();
        remote.caller.drain();
        remote.initiator.drain();
        for request in unsent.into_iter().rev() {
            remote.queue.push_front(request);
        }
        remote.refill();
        // What still comes over links to the former life is about the former calls.
        let former: Vec<LinkId> = remote.links.iter().copied().filter(|link| *link != id).collect();
        for link in former {
            self.link_lost(link, &io::Error::other("it leads to a former life").into(), now);
        }
    }
}

pub(super) fn lane_of(remotes: &mut Slab<Remote>, setup: &Setup, proved: &Proved) -> Lane {
    let number = match (proved, &setup.whose) {
        (Proved::Opened(opened, _), _) => opened.open.lane,
        (_, Whose::Ours { remote }) => {
            let way = remotes.get_mut(*remote).and_then(|remote| remote.way_of_setup(setup.number));
            way.map_or(0, |(_, lane)| lane as u32)
        }
        _ => 0,
    };
    if number == 0 { Lane::Urgent } else { Lane::Bulk }
}

fn ring_bytes(lane: Lane) -> usize {
    match lane {
        Lane::Urgent => shm::URGENT_RING_BYTES,
        Lane::Bulk => shm::BULK_RING_BYTES,
    }
}

fn grants(slots: &[u32], window_kib: &[u32]) -> Grants {
    let mut grants = Grants { slots: [0; 4], window_kib: [0; 4] };
    for (ours, theirs) in grants.slots.iter_mut().zip(slots) {
        *ours = u16::try_from(*theirs).unwrap_or(u16::MAX);
    }
    for (ours, theirs) in grants.window_kib.iter_mut().zip(window_kib) {
        *ours = *theirs;
    }
    grants
}

fn is_local(stream: &OwnedFd) -> bool {
    rustix::net::sockopt::socket_domain(stream).is_ok_and(|domain| domain == AddressFamily::UNIX)
}
