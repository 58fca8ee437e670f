//! Setting links up: the ways that this end dials, and the steps of every setup.

use super::calls::Purpose;
use super::links::Side;
use super::outgoing::target;
use super::remote::{LaneState, Place, Remote, Way};
use super::setups::{Phase, Proved, Setup, SetupError, Whose};
use super::{Alarm, Engine, Entry};
use crate::provider::{Link, Provider};
use crate::session::{Grants, Lane};
use crate::setup::{Dialled, Dialling, Open, Opened, Security, Step, Welcome, refusal};
use crate::shm;
use crate::tcp::{Protection, TcpLink};
use crate::{Error, Refusal, Target};
use base::time::Time;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io;
use std::os::fd::OwnedFd;
use slab::Slab;
use std::sync::Arc;
use std::time::Duration;

const LANES: [Lane; 2] = [Lane::Urgent, Lane::Bulk];

impl Engine {
    /// Dials the lanes of a remote that should be up and are not, as far as their ways have rested.
    pub(super) fn dial_wanted(&mut self, at: usize, now: Time) {
        for lane in LANES {
            if self.wants(at, lane) {
                self.dial_lane(at, lane, false, now);
            }
        }
    }

    /// Dials the best ways to a remote that are not up in this lane; with `force` also those that should rest.
    pub(super) fn dial_lane(&mut self, at: usize, lane: Lane, force: bool, now: Time) {
        let rested = |way: &Way| match way.lanes[lane as usize] {
            LaneState::Rest(until) => force || until <= now,
            _ => true,
        };
        let remote = &self.remotes[at];
        let usable = |way: &&Way| !way.useless && rested(way);
        let Some(best) = remote.ways.iter().filter(usable).map(|way| way.provider).min() else {
            let next = remote.ways.iter().filter_map(|way| match way.lanes[lane as usize] {
                LaneState::Rest(until) if !way.useless => Some(until),
                _ => None,
            });
            if let Some(next) = next.min() {
                self.timers.set(next, Alarm::Dial(at));
            }
            return;
        };
        for way in 0..self.remotes[at].ways.len() {
            let candidate = &self.remotes[at].ways[way];
            let idle = !matches!(candidate.lanes[lane as usize], LaneState::Up(_) | LaneState::Setup(_));
            if candidate.provider == best && idle && usable(&candidate) {
                self.dial(at, way, lane, now);
            }
            // The remote may be gone: all its calls may have failed with the last way.
            if self.remotes.get(at).is_none_or(|remote| remote.ways.len() <= way) {
                return;
            }
        }
    }

    fn dial(&mut self, at: usize, way: usize, lane: Lane, now: Time) {
        let number = self.setups.number();
        let remote = &mut self.remotes[at];
        remote.ways[way].lanes[lane as usize] = LaneState::Setup(number);
        let connected = connect(&remote.ways[way].place);
        let token = self.token(Entry::Setup(number));
        let watched = connected.and_then(|stream| {
            self.reactor.watch(&stream, token)?;
            Ok(stream)
        });
        match watched {
            Ok(stream) => {
                self.setups.insert(Setup {
                    number,
                    token,
                    stream: Some(stream),
                    late: now + self.limits.connect,
                    phase: Phase::Connecting,
                    whose: Whose::Ours { remote: at },
                    input: Vec::new(),
                    output: Vec::new(),
                    ended: false,
                });
                self.timers.set(now + self.limits.connect, Alarm::Setup(number));
            }
            Err(error) => {
                self.release(token);
                self.dial_failed(at, number, SetupError::Io(error), now);
            }
        }
    }

    /// Goes on with a setup as far as it goes.
    pub(super) fn step(&mut self, number: u64, now: Time) {
        let Some(mut setup) = self.setups.take(number) else { return };
        if matches!(setup.phase, Phase::Passing(..)) {
            return self.pass(setup, now);
        }
        match self.advance(&mut setup, now) {
            Ok(None) => self.setups.insert(setup),
            Ok(Some(proved)) => self.raise(setup, proved, now),
            Err(error) => self.setup_failed(setup, error, now),
        }
    }

    fn advance(&mut self, setup: &mut Setup, now: Time) -> Result<Option<Proved>, SetupError> {
        if matches!(setup.phase, Phase::Connecting) {
            if !setup.is_connected()? {
                return Ok(None);
            }
            let (dialling, first) = Dialling::begin(&self.identity);
            (setup.phase, setup.output) = (Phase::Dialling(dialling), first);
            // Now the accepting end has its time to prove itself.
            setup.late = now + self.limits.handshake;
            self.timers.set(setup.late, Alarm::Setup(setup.number));
        }
        loop {
            let sent = setup.send()?;
            setup.receive()?;
            let proved = match &mut setup.phase {
                Phase::Dialling(_) => self.dialling(setup)?,
                Phase::Accepting(_) => self.accepting(setup)?,
                Phase::Welcoming(..) if sent => Some(welcomed(setup)),
                Phase::Welcoming(..) | Phase::Connecting | Phase::Passing(..) => None,
            };
            match proved {
                Some(Some(proved)) => return Ok(Some(proved)),
                Some(None) => {}
                None if setup.ended => return Err(left(&setup.whose)),
                None => return Ok(None),
            }
        }
    }

    /// `None`: it waits. `Some(None)`: a step is done. `Some(Some)`: all of them.
    fn dialling(&mut self, setup: &mut Setup) -> Result<Option<Option<Proved>>, SetupError> {
        let Whose::Ours { remote } = setup.whose else { return Ok(None) };
        let terms = self.terms(remote, setup.number)?;
        let Phase::Dialling(dialling) = &mut setup.phase else { return Ok(None) };
        Ok(match dialling.advance(&mut setup.input, &|_| terms.clone())? {
            Step::More => None,
            Step::Send(bytes) => {
                setup.output.extend(bytes);
                Some(None)
            }
            Step::Done(dialled) => Some(Some(Proved::Dialled(dialled))),
        })
    }

    fn terms(&mut self, at: usize, number: u64) -> Result<Open, SetupError> {
        let (encrypted, host) = (self.security == Security::Encrypted, self.host.clone());
        let found = self.remotes.get_mut(at).and_then(|remote| {
            let (way, lane) = remote.way_of_setup(number)?;
            Some((remote.session, way, lane, remote.ways[way].provider))
        });
        let (session, way, lane, provider) =
            found.ok_or_else(|| io::Error::other("nobody wants this connection any more"))?;
        Ok(Open {
            session,
            lane: lane as u32,
            provider: provider_number(provider),
            encrypted,
            host,
            queue_pair: None,
            rail: way as u32,
        })
    }

    fn accepting(&mut self, setup: &mut Setup) -> Result<Option<Option<Proved>>, SetupError> {
        let Phase::Accepting(accepting) = &mut setup.phase else { return Ok(None) };
        match accepting.advance(&mut setup.input, &self.identity)? {
            Step::More => Ok(None),
            Step::Send(bytes) => {
                setup.output.extend(bytes);
                Ok(Some(None))
            }
            Step::Done(opened) => {
                let welcome = self.welcome(&opened, &setup.whose)?;
                setup.output.extend(opened.welcome(&welcome));
                if !welcome.refused.is_empty() {
                    // It is told why; what the socket does not take of it is not worth waiting for.
                    let _ = setup.send();
                    return Err(SetupError::Useless(welcome.refused));
                }
                let (guest, _) = self.guests.enter(opened.peer, opened.open.session, &self.grants);
                setup.phase = Phase::Welcoming(Box::new(opened), guest);
                Ok(Some(None))
            }
        }
    }

    /// What this end grants to who has proved himself.
    fn welcome(&mut self, opened: &Opened, whose: &Whose) -> Result<Welcome, SetupError> {
        let open = &opened.open;
        if open.lane > 1 {
            return Err(Refusal::Garbage.into());
        }
        let local = matches!(whose, Whose::Theirs { local: true, .. });
        let provider = if local { Provider::Shm } else { Provider::Tcp };
        let carries = open.provider == provider_number(provider) && self.providers_allow(provider);
        let refused = if carries { String::new() } else { format!("it does not take {provider} there") };
        for former in self.guests.abandoned(opened.peer, open.session) {
            self.guests.remove(former);
        }
        let resumed = self.guests.knows(opened.peer, open.session);
        Ok(Welcome {
            resumed,
            slots: self.grants.slots.map(u32::from).to_vec(),
            window_kib: self.grants.window_kib.to_vec(),
            encrypted: open.encrypted || self.security == Security::Encrypted,
            host: self.host.clone(),
            shm: self.gate.shm_path(),
            queue_pair: None,
            rails: self.gate.rails(),
            refused,
        })
    }

    /// Both ends are proved: the connection becomes a link.
    fn raise(&mut self, mut setup: Setup, proved: Proved, now: Time) {
        if let Err(error) = self.check(&setup, &proved) {
            return self.setup_failed(setup, error, now);
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
                Ok(passing) => setup.phase = Phase::Passing(passing, Box::new(proved)),
                Err(error) => return self.setup_failed(setup, error.into(), now),
            }
            let number = setup.number;
            self.setups.insert(setup);
            return self.step(number, now);
        }
        let (keys, encrypted) = match &proved {
            Proved::Dialled(dialled) => (&dialled.keys, dialled.welcome.encrypted),
            Proved::Opened(opened, _) => (&opened.keys, opened.open.encrypted || self.security == Security::Encrypted),
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
    fn pass(&mut self, mut setup: Setup, now: Time) {
        let phase = std::mem::replace(&mut setup.phase, Phase::Connecting);
        let Phase::Passing(passing, proved) = phase else { return };
        match passing.advance(&mut self.reactor) {
            Ok(shm::Step::Waiting(passing)) => {
                setup.phase = Phase::Passing(passing, proved);
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
    fn check(&mut self, setup: &Setup, proved: &Proved) -> Result<(), SetupError> {
        let (Proved::Dialled(dialled), Whose::Ours { remote }) = (proved, &setup.whose) else { return Ok(()) };
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

    fn linked(&mut self, setup: Setup, link: Box<dyn Link>, proved: Proved, lane: Lane, now: Time) {
        let side = match (&proved, &setup.whose) {
            (Proved::Opened(_, guest), _) => Side::In(*guest),
            (Proved::Dialled(_), Whose::Ours { remote }) => Side::Out(*remote),
            (Proved::Dialled(_), Whose::Theirs { .. }) => return,
        };
        let id = self.links.insert(link, side, lane, setup.token);
        self.entries[setup.token.0 as usize] = Entry::Link(id);
        match proved {
            Proved::Opened(_, guest) => {
                if let Some(guest) = self.guests.at(guest) {
                    guest.links.push(id);
                    guest.home[lane as usize] = Some(id);
                    guest.alone_since = None;
                }
            }
            Proved::Dialled(dialled) => {
                let Side::Out(at) = side else { return };
                let remote = &mut self.remotes[at];
                remote.links.push(id);
                if let Some((way, lane)) = remote.way_of_setup(setup.number) {
                    remote.ways[way].lanes[lane as usize] = LaneState::Up(id);
                    remote.ways[way].rest = self.limits.reconnect_min;
                }
                self.welcomed(at, &dialled, now);
            }
        }
    }

    /// A remote's link is up: what it grants, and what is learned about it.
    fn welcomed(&mut self, at: usize, dialled: &Dialled, now: Time) {
        let Welcome { resumed, slots, window_kib, host, shm, rails, .. } = &dialled.welcome;
        let remote = &mut self.remotes[at];
        remote.version = dialled.version;
        if remote.caller.is_granted() && !resumed {
            self.other_life(at);
        }
        let remote = &mut self.remotes[at];
        remote.caller.grant(&grants(slots, window_kib));
        let mut ways: Vec<Way> = Vec::new();
        if self.providers.contains(&Provider::Shm) && !shm.is_empty() && *host == self.host {
            ways.push(Way::new(Provider::Shm, Place::Unix(shm.into()), &self.limits));
        }
        let rails = rails.iter().filter_map(|rail| rail.address.parse().ok());
        ways.extend(rails.map(|address| Way::new(Provider::Tcp, Place::Inet(address), &self.limits)));
        for way in ways {
            if remote.peer.is_some() && remote.ways.len() < WAYS_MAX && !remote.ways.iter().any(|known| known.place == way.place) {
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
        for lane in LANES {
            let remote = &self.remotes[at];
            if remote.best_up(lane).is_some() || self.wants(at, lane) {
                self.dial_lane(at, lane, false, now);
            }
        }
    }

    /// The endpoint that had this end's session is gone, another life answers: what was sent may have been done or not.
    fn other_life(&mut self, at: usize) {
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
    }

    /// A setup takes too long.
    pub(super) fn setup_is_late(&mut self, number: u64, now: Time) {
        let Some(setup) = self.setups.take(number) else { return };
        // The alarm of its connecting rings while it already proves itself: the later one counts.
        if matches!(setup.phase, Phase::Dialling(_)) && now < setup.late {
            self.setups.insert(setup);
            return;
        }
        let error = match &setup.whose {
            Whose::Ours { .. } => io::Error::from(io::ErrorKind::TimedOut).into(),
            Whose::Theirs { .. } => Refusal::TooSlow.into(),
        };
        self.setup_failed(setup, error, now);
    }

    pub(super) fn setup_failed(&mut self, setup: Setup, error: SetupError, now: Time) {
        let (number, whose) = (setup.number, setup.whose.clone());
        if let (Phase::Accepting(_), SetupError::Refused(why), Some(stream)) = (&setup.phase, &error, &setup.stream) {
            // A stranger that cannot be told is refused all the same.
            let _ = rustix::net::send(stream, &refusal(*why), rustix::net::SendFlags::NOSIGNAL);
        }
        self.close_setup(setup);
        match whose {
            Whose::Ours { remote } => self.dial_failed(remote, number, error, now),
            Whose::Theirs { from, .. } => match error {
                SetupError::Refused(why) => self.gate.refuse(&from, why),
                SetupError::Io(_) => self.gate.refuse(&from, Refusal::Stranger),
                SetupError::Useless(why) => tracing::debug!(%from, %why, "a link is not taken"),
            },
        }
    }

    /// Drops a setup that nobody wants any more.
    pub(super) fn drop_setup(&mut self, number: u64) {
        if let Some(setup) = self.setups.take(number) {
            self.close_setup(setup);
        }
    }

    fn close_setup(&mut self, setup: Setup) {
        self.release(setup.token);
        if let Some(stream) = &setup.stream {
            // It may never have been watched.
            let _ = self.reactor.forget(stream);
        }
        if let Phase::Passing(passing, _) = setup.phase {
            passing.close(&mut self.reactor);
        }
    }

    fn dial_failed(&mut self, at: usize, number: u64, error: SetupError, now: Time) {
        let Some(remote) = self.remotes.get_mut(at) else { return };
        let Some((way, lane)) = remote.way_of_setup(number) else { return };
        let rest = remote.ways[way].rest;
        remote.ways[way].lanes[lane as usize] = LaneState::Rest(now + rest);
        remote.ways[way].rest = (rest * 2).min(self.limits.reconnect_max);
        remote.ways[way].useless |= matches!(error, SetupError::Useless(_));
        tracing::debug!(peer = ?remote.peer, place = %remote.ways[way].place, ?error, "a way does not lead on");
        if remote.home[lane as usize].is_none() && !remote.is_dialling(lane) {
            let target = target(remote);
            // Without any link, whoever listens there now is not whom the session was with.
            let alone = remote.links.is_empty();
            let (error, nobody) = judged(target, error);
            self.unreachable(at, lane, &error, nobody && alone);
        }
        if self.wants(at, lane) {
            self.dial_lane(at, lane, false, now);
        }
    }

    /// A link of a guest is over.
    pub(super) fn guest_lost(&mut self, at: usize, id: crate::session::LinkId, now: Time) {
        let Some(guest) = self.guests.at(at) else { return };
        guest.callee.link_lost(id);
        guest.target.link_lost(id, &mut self.regions);
        guest.links.retain(|link| *link != id);
        for lane in LANES {
            if guest.home[lane as usize] == Some(id) {
                guest.home[lane as usize] = None;
            }
        }
        let (links, session) = (guest.links.clone(), guest.session);
        if links.is_empty() {
            guest.alone_since = Some(now);
            self.timers.set(now + GUEST_STAYS, Alarm::Guest(session));
        }
        self.settle_guest_homes(at, &links);
    }

    /// Replies go on over a link that is left.
    fn settle_guest_homes(&mut self, at: usize, links: &[crate::session::LinkId]) {
        for id in links {
            let Some(lane) = self.links.at(*id).map(|linked| linked.lane) else { continue };
            if let Some(guest) = self.guests.at(at) {
                guest.home[lane as usize].get_or_insert(*id);
            }
            self.links.mark(*id);
        }
    }

    /// A guest has been without links for long: what he asked is forgotten.
    pub(super) fn forget_guest(&mut self, session: u64, now: Time) {
        let Some(at) = self.guests.find(session) else { return };
        let alone = self.guests.at(at).and_then(|guest| guest.alone_since);
        if alone.is_some_and(|since| now.since(since) >= GUEST_STAYS) {
            self.guests.remove(at);
        }
    }
}

/// How long a session stays known after its last link was lost: longer than any network's hiccup that a call may survive.
const GUEST_STAYS: Duration = Duration::from_secs(60);
/// Ways to one peer.
const WAYS_MAX: usize = 16;

/// What a failed dial means to calls, and whether it shows that the former peer is not there any more.
fn judged(target: Target, error: SetupError) -> (Error, bool) {
    match error {
        SetupError::Io(error) => {
            let nobody = matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound);
            (Error::Unreachable { target, source: Arc::new(error) }, nobody)
        }
        SetupError::Refused(why) => (Error::Refused { target, why }, true),
        SetupError::Useless(why) => {
            (Error::Unreachable { target, source: Arc::new(io::Error::other(why)) }, false)
        }
    }
}

fn lane_of(remotes: &mut Slab<Remote>, setup: &Setup, proved: &Proved) -> Lane {
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

/// The provider's number in an [`Open`].
fn provider_number(provider: Provider) -> u32 {
    match provider {
        Provider::Sim => 0,
        Provider::Shm => 1,
        Provider::Verbs => 2,
        Provider::Tcp => 3,
    }
}

/// The welcome is out.
fn welcomed(setup: &mut Setup) -> Option<Proved> {
    match std::mem::replace(&mut setup.phase, Phase::Connecting) {
        Phase::Welcoming(opened, guest) => Some(Proved::Opened(*opened, guest)),
        _ => None,
    }
}

/// The other end closed before it was through.
fn left(whose: &Whose) -> SetupError {
    match whose {
        Whose::Ours { .. } => io::Error::from(io::ErrorKind::ConnectionReset).into(),
        // Who closes before it has proved anything is a stranger, not a broken connection.
        Whose::Theirs { .. } => Refusal::Stranger.into(),
    }
}

fn is_local(stream: &OwnedFd) -> bool {
    rustix::net::sockopt::socket_domain(stream).is_ok_and(|domain| domain == AddressFamily::UNIX)
}

/// Begins to connect to a place.
fn connect(place: &Place) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = |family| rustix::net::socket_with(family, SocketType::STREAM, flags, None);
    let (socket, connected) = match place {
        Place::Inet(address) => {
            let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket = socket(family)?;
            let connected = rustix::net::connect(&socket, address);
            (socket, connected)
        }
        Place::Unix(path) => {
            let socket = socket(AddressFamily::UNIX)?;
            let connected = rustix::net::connect(&socket, &SocketAddrUnix::new(path)?);
            (socket, connected)
        }
    };
    match connected {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}
