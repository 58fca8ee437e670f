//! The ways to a remote: which are dialled, and what it means when one does not lead on.

use super::outgoing::target;
use super::remote::{LaneState, Place, Way};
use super::setups::{Phase, Setup, SetupError, Whose};
use super::{Alarm, Engine, Entry};
use crate::provider::Provider;
use crate::session::Lane;
use crate::{Error, Refusal, Target};
use base::time::Time;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

const LANES: [Lane; 2] = [Lane::Urgent, Lane::Bulk];

impl Engine {
    /// Dials the lanes of a remote that should be up and are not, as far as their ways have rested.
    pub(super) fn dial_wanted(&mut self, at: usize, now: Time) {
        for lane in LANES {
            if self.wants(at, lane) || self.is_up(at, lane) {
                self.dial_lane(at, lane, false, now);
            }
        }
    }

    /// The time for which [`Engine::redial`] has set its alarm has come.
    pub(super) fn dial_again(&mut self, at: usize, now: Time) {
        if let Some(remote) = self.remotes.get_mut(at) {
            remote.redial = remote.redial.filter(|time| *time > now);
        }
        self.dial_wanted(at, now);
    }

    /// True if something carries this lane, and better ways may take part in it again.
    pub(super) fn is_up(&self, at: usize, lane: Lane) -> bool {
        let remote = self.remotes.get(at).filter(|remote| !remote.down && !self.closed);
        remote.is_some_and(|remote| remote.best_up(lane).is_some())
    }

    /// Sees to it that a way to a remote that rests is dialled when it has rested, unless a better one carries its lane.
    fn redial(&mut self, at: usize, lane: Lane, now: Time) {
        let Some(remote) = self.remotes.get_mut(at) else { return };
        let best = remote.best_up(lane);
        let worth = |way: &&Way| !way.useless && best.is_none_or(|best| way.provider <= best);
        let next = remote.ways.iter().filter(worth).filter_map(|way| match way.lanes[lane as usize] {
            // What has rested is dialled when no better way is under way any more.
            LaneState::Rest(until) => Some(until).filter(|until| *until > now),
            _ => None,
        });
        let Some(next) = next.min() else { return };
        if remote.redial.is_none_or(|known| known > next) {
            remote.redial = Some(next);
            self.timers.set(next, Alarm::Dial(at));
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
            return self.redial(at, lane, now);
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
        self.redial(at, lane, now);
    }

    fn dial(&mut self, at: usize, way: usize, lane: Lane, now: Time) {
        let number = self.setups.number();
        self.remotes[at].ways[way].lanes[lane as usize] = LaneState::Setup(number);
        self.connect_setup(at, number, now);
    }

    /// Connects for a setup that a lane's state names.
    pub(super) fn connect_setup(&mut self, at: usize, number: u64, now: Time) {
        let Some(remote) = self.remotes.get_mut(at) else { return };
        let Some((way, _)) = remote.way_of_setup(number) else { return };
        if remote.ways[way].provider == Provider::Sim {
            self.dial_simulated(at, number, now);
            return;
        }
        let (place, provider) = (&remote.ways[way].place, remote.ways[way].provider);
        let connected = self.devices.source(place, provider).and_then(|source| connect(place, source));
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

    pub(super) fn dial_failed(&mut self, at: usize, number: u64, error: SetupError, now: Time) {
        let Some(remote) = self.remotes.get_mut(at) else { return };
        if remote.renewal_failed(number) {
            tracing::warn!(peer = ?remote.peer, ?error, "a link cannot be made anew; the old one stays");
            return;
        }
        let Some((at_way, lane)) = remote.way_of_setup(number) else { return };
        let way = &mut remote.ways[at_way];
        let rest = way.rest;
        way.lanes[lane as usize] = LaneState::Rest(now + rest);
        way.rest = (rest * 2).min(self.limits.reconnect_max);
        // A device that carries nothing now may do so later: its end would not offer it if it could not.
        way.useless |= matches!(error, SetupError::Useless(_)) && way.provider != Provider::Verbs;
        tracing::debug!(peer = ?remote.peer, place = %way.place, ?error, "a way does not lead on");
        let (error, deserted) = judged(target(remote), error);
        remote.ways[at_way].deserted = deserted;
        // First the other ways, as far as they have rested.
        if self.wants(at, lane) {
            self.dial_lane(at, lane, false, now);
        }
        self.redial(at, lane, now);
        let Some(remote) = self.remotes.get(at) else { return };
        if remote.home[lane as usize].is_none() && !remote.is_dialling(lane) {
            // Without any link, whoever listens there now is not whom the session was with.
            let nobody = remote.links.is_empty() && remote.is_deserted();
            self.unreachable(at, lane, &error, nobody);
        }
    }
}

/// What a failed dial means to calls, and whether it shows that the former peer is not there any more.
fn judged(target: Target, error: SetupError) -> (Error, bool) {
    match error {
        SetupError::Io(error) => {
            let nobody = matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound);
            (Error::Unreachable { target, source: Arc::new(error) }, nobody)
        }
        SetupError::Refused(why) => {
            // The others are how a connection fails that was disturbed, or came at a bad time.
            let elsewhere = matches!(
                why,
                Refusal::WrongKey | Refusal::WrongCluster | Refusal::Version | Refusal::WrongPeer
            );
            (Error::Refused { target, why }, elsewhere)
        }
        SetupError::Useless(why) => {
            (Error::Unreachable { target, source: Arc::new(io::Error::other(why)) }, false)
        }
    }
}

/// Begins to connect to a place, from this address of this end if there is one.
fn connect(place: &Place, source: Option<IpAddr>) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = |family| rustix::net::socket_with(family, SocketType::STREAM, flags, None);
    let (socket, connected) = match place {
        Place::Inet(address) => {
            let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket = socket(family)?;
            if let Some(source) = source {
                rustix::net::bind(&socket, &SocketAddr::new(source, 0))?;
            }
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
