//! What this endpoint asks of others: calls and transfers, their peers' links, and how they fail.

use super::calls::{About, Purpose};
use super::remote::{LaneState, Place, Remote, Way};
use super::{Alarm, Engine};
use crate::frame::Verdict;
use crate::provider::{LinkError, Provider};
use crate::region::{RemoteKey, Span};
use crate::session::{Lane, LinkId, Outgoing, Ticket};
use crate::transfer::TransferOp;
use crate::{Error, LinkEvent, Message, Peer, Priority, Refusal, ServiceId, Stage, Target};
use base::time::Time;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// The place of no remote: this endpoint itself.
const HERE: usize = usize::MAX;

/// One request, ready to go.
pub struct Request {
    /// The service that is asked.
    pub service: ServiceId,
    /// The channel.
    pub channel: Priority,
    /// What is asked.
    pub message: Message,
    /// The time that the caller gives.
    pub after: Duration,
    /// Nobody waits for the reply.
    pub one_way: bool,
}

/// One one-sided transfer, ready to go.
pub struct Transfer {
    /// To the remote memory, or from it.
    pub write: bool,
    /// What allows it.
    pub key: RemoteKey,
    /// Where in the region.
    pub offset: u64,
    /// The parts of this end's memory.
    pub pieces: Vec<Span>,
    /// The region's arrival counter goes up.
    pub notify: bool,
    /// The time that the caller gives.
    pub after: Duration,
}

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
        remote.ways.push(Way::new(Provider::Tcp, Place::Inet(address), &self.limits));
        self.remotes.insert(remote)
    }

    /// The conversation is over.
    pub fn forget_stranger(&mut self, at: usize) {
        self.end_remote(at, &Error::Closed);
        self.remotes.try_remove(at);
    }

    /// Sends a request. Its outcome comes by [`Engine::poll_call`].
    ///
    /// # Errors
    /// It is not even tried.
    pub fn call(&mut self, peer: Peer, request: Request, now: Time) -> Result<Ticket, Error> {
        let at = self.remote(peer);
        self.call_remote(at, request, now)
    }

    /// Sends a request to a remote by its place.
    ///
    /// # Errors
    /// It is not even tried.
    pub fn call_remote(&mut self, at: usize, request: Request, now: Time) -> Result<Ticket, Error> {
        let Request { service, channel, message, after, one_way } = request;
        let lane = Lane::of(channel);
        self.reach(at, lane, now)?;
        let purpose = if one_way { Purpose::OneWay } else { Purpose::Call };
        let about = About { remote: at, purpose, service, channel, after, deadline: now + after };
        let ticket = self.calls.open(about);
        let remote = &mut self.remotes[at];
        remote.calls += 1;
        let deadline_ms = u32::try_from(after.as_millis()).unwrap_or(u32::MAX).max(1);
        let outgoing = Outgoing { ticket, service, channel, message, deadline_ms, one_way };
        remote.submit(outgoing);
        if let Some(home) = remote.home[lane as usize] {
            self.links.mark(home);
        }
        Ok(ticket)
    }

    /// Keeps time for a call of this endpoint to itself.
    pub fn call_here(&mut self, service: ServiceId, after: Duration, now: Time) -> Ticket {
        let (purpose, channel) = (Purpose::Call, Priority::Data);
        self.calls.open(About { remote: HERE, purpose, service, channel, after, deadline: now + after })
    }

    /// It is through.
    pub fn settle_here(&mut self, ticket: Option<Ticket>, outcome: Result<Message, Error>) {
        if let Some(ticket) = ticket {
            self.calls.settle(ticket, outcome, &mut self.errands.wakes);
        }
    }

    /// Begins a one-sided transfer. Its outcome comes by [`Engine::poll_call`], an empty message.
    ///
    /// # Errors
    /// It is not even tried.
    pub fn transfer(&mut self, transfer: Transfer, now: Time) -> Result<Ticket, Error> {
        let Transfer { write, key, offset, pieces, notify, after } = transfer;
        let at = self.remote(key.owner);
        self.reach(at, Lane::Bulk, now)?;
        let about = About {
            remote: at,
            purpose: Purpose::Transfer,
            service: ServiceId(0),
            channel: Priority::Data,
            after,
            deadline: now + after,
        };
        let ticket = self.calls.open(about);
        let remote = &mut self.remotes[at];
        if remote.initiator.submit(ticket, TransferOp { write, key, offset, pieces, notify }).is_err() {
            let outcome = Err(Error::Busy(target(remote)));
            self.calls.settle(ticket, outcome, &mut self.errands.wakes);
            return Ok(ticket);
        }
        self.mark_carrying(at, Lane::Bulk);
        Ok(ticket)
    }

    /// Makes sure that a lane to a remote is up, or on its way up.
    fn reach(&mut self, at: usize, lane: Lane, now: Time) -> Result<(), Error> {
        let remote = &self.remotes[at];
        if self.closed {
            return Err(Error::Closed);
        }
        if let (true, Some(peer)) = (remote.down, remote.peer) {
            return Err(Error::NodeDown(peer));
        }
        if remote.home[lane as usize].is_none() && !remote.is_dialling(lane) {
            let target = target(remote);
            if remote.ways.is_empty() {
                let source = Arc::new(io::Error::new(io::ErrorKind::AddrNotAvailable, "its address is not known"));
                return Err(Error::Unreachable { target, source });
            }
            self.dial_lane(at, lane, true, now);
        }
        Ok(())
    }

    /// All links that may carry a lane's frames may have something to send.
    pub(super) fn mark_carrying(&mut self, at: usize, lane: Lane) {
        let remote = &self.remotes[at];
        for link in remote.carrying(lane) {
            self.links.mark(link);
        }
    }

    /// The outcome of a call or transfer, once it is there.
    pub fn poll_call(&mut self, ticket: Ticket, context: &mut Context<'_>) -> Poll<Result<Message, Error>> {
        self.calls.poll(ticket, context)
    }

    /// Nobody waits for it any more.
    pub fn give_up(&mut self, ticket: Ticket) {
        let Some(about) = self.calls.about(ticket).copied() else {
            self.calls.give_up(ticket);
            return;
        };
        self.calls.give_up(ticket);
        self.withdraw(ticket, &about);
    }

    fn withdraw(&mut self, ticket: Ticket, about: &About) {
        let Some(remote) = self.remotes.get_mut(about.remote) else { return };
        if about.purpose == Purpose::Transfer {
            remote.initiator.cancel(ticket);
            self.mark_carrying(about.remote, Lane::Bulk);
            return;
        }
        remote.withdraw(ticket);
        if let Some(home) = remote.home[Lane::of(about.channel) as usize] {
            self.links.mark(home);
        }
    }

    /// Its time is over.
    pub(super) fn expire(&mut self, ticket: Ticket, about: About) {
        let Some(remote) = self.remotes.get(about.remote) else {
            let target = Target::Peer(self.identity.local);
            let error = Error::Deadline { target, service: about.service, stage: Stage::Reply, after: about.after };
            return self.calls.settle(ticket, Err(error), &mut self.errands.wakes);
        };
        let (target, lane) = (target(remote), Lane::of(about.channel));
        let sent = about.purpose == Purpose::Transfer || remote.caller.sent(ticket);
        let late = |stage| Error::Deadline { target, service: about.service, stage, after: about.after };
        let error = match (sent, remote.home[lane as usize]) {
            (_, None) if !sent => late(Stage::Connecting),
            (false, _) => Error::Busy(target),
            (true, _) => late(Stage::Reply),
        };
        self.withdraw(ticket, &about);
        self.calls.settle(ticket, Err(error), &mut self.errands.wakes);
    }

    /// Settles the calls and transfers of a remote that are answered.
    pub(super) fn settle_replies(&mut self, at: usize) {
        let remote = &mut self.remotes[at];
        let target = target(remote);
        for done in self.completed.drain(..) {
            let outcome = judge(target, done.verdict, done.message);
            self.calls.settle(done.ticket, outcome, &mut self.errands.wakes);
        }
        while let Some(done) = remote.initiator.finished() {
            let outcome = judge(target, done.verdict, Message::default());
            self.calls.settle(done.ticket, outcome, &mut self.errands.wakes);
        }
        remote.refill();
    }

    /// A link of a remote is over.
    pub(super) fn remote_lost(&mut self, at: usize, id: LinkId, error: &LinkError, now: Time) {
        let remote = &mut self.remotes[at];
        tracing::debug!(peer = ?remote.peer, %error, "a link is lost");
        remote.caller.link_lost(id);
        remote.initiator.link_lost(id);
        remote.links.retain(|link| *link != id);
        let lane = remote.way_of_link(id).map(|(way, lane)| {
            remote.ways[way].lanes[lane as usize] = LaneState::Idle;
            lane
        });
        remote.settle_homes();
        let homes = remote.home;
        for home in homes.into_iter().flatten() {
            self.links.mark(home);
        }
        self.mark_carrying(at, Lane::Bulk);
        self.tell(at);
        let Some(lane) = lane else { return };
        if self.wants(at, lane) {
            // What waits goes again at once, who is only kept after a short pause.
            if self.calls.count(at) > 0 {
                self.dial_lane(at, lane, true, now);
            } else {
                self.timers.set(now + self.limits.reconnect_min, Alarm::Dial(at));
            }
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

    /// No way to a remote leads on in this lane: what has not been sent fails; all, if nobody is there any more.
    pub(super) fn unreachable(&mut self, at: usize, lane: Lane, error: &Error, nobody: bool) {
        for (ticket, about) in self.calls.of(at) {
            let remote = &mut self.remotes[at];
            let sent = match about.purpose {
                // A session that was up once takes it on when it is up again.
                Purpose::Transfer => remote.caller.is_granted(),
                Purpose::Call | Purpose::OneWay => remote.caller.sent(ticket),
            };
            if Lane::of(about.channel) != lane && !nobody || sent && !nobody {
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
        for way in 0..self.remotes[at].ways.len() {
            for lane in [Lane::Urgent, Lane::Bulk] {
                let state = std::mem::replace(&mut self.remotes[at].ways[way].lanes[lane as usize], LaneState::Idle);
                if let LaneState::Setup(number) = state {
                    self.drop_setup(number);
                }
            }
        }
        self.remotes[at].home = [None; 2];
        self.tell(at);
    }

    /// Says where a peer is dialled.
    pub fn set_addresses(&mut self, peer: Peer, addresses: &[SocketAddr], now: Time) {
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
                remote.ways.push(Way::new(Provider::Tcp, place, &self.limits));
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
        let setups: Vec<u64> = self.remotes[at]
            .ways
            .iter()
            .flat_map(|way| way.lanes)
            .filter_map(|state| if let LaneState::Setup(number) = state { Some(number) } else { None })
            .collect();
        for number in setups {
            self.drop_setup(number);
        }
        self.remotes[at].home = [None; 2];
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

/// Whom it is, for errors.
pub(super) fn target(remote: &Remote) -> Target {
    match (remote.peer, remote.ways.first().map(|way| &way.place)) {
        (Some(peer), _) => Target::Peer(peer),
        (None, Some(Place::Inet(address))) => Target::Address(*address),
        (None, _) => Target::Address(SocketAddr::from(([0, 0, 0, 0], 0))),
    }
}

/// What a verdict means to whoever asked.
pub fn judge(target: Target, verdict: Verdict, message: Message) -> Result<Message, Error> {
    match verdict {
        Verdict::Answered | Verdict::Unheard => Ok(message),
        Verdict::NoService => Err(Error::Refused { target, why: Refusal::NoService }),
        Verdict::Crashed => Err(Error::Refused { target, why: Refusal::Crashed }),
        Verdict::Denied => Err(Error::Denied { target }),
        Verdict::Revoked => Err(Error::Revoked { target }),
        Verdict::OutOfBounds => Err(Error::OutOfBounds { target }),
    }
}
