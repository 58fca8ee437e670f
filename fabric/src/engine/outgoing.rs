//! What this endpoint asks of others: calls and transfers, their peers' links, and how they fail.

use super::Engine;
use super::calls::{About, Purpose};
use super::remote::{Place, Remote};
use crate::frame::Verdict;
use crate::provider::Provider;
use crate::region::{RemoteKey, Span};
use crate::session::{Lane, Outgoing, Ticket};
use crate::transfer::{NotTaken, PIECES_MAX, TransferOp};
use crate::{Error, Message, Peer, Priority, Refusal, ServiceId, Stage, Target};
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
        let remote = &mut self.remotes[at];
        if one_way && remote.is_full() {
            return Err(Error::Busy(target(remote)));
        }
        let ticket = self.calls.open(about);
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
        let key = key.turned(self.identity.local);
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
        let count = pieces.len();
        if let Err(why) = remote.initiator.submit(ticket, TransferOp { write, key, offset, pieces, notify }) {
            let error = match (target(remote), why) {
                (target, NotTaken::Full) => Error::Busy(target),
                (target, NotTaken::Refused(Verdict::OutOfBounds)) => Error::OutOfBounds { target },
                (target, NotTaken::Refused(_)) => Error::Denied { target },
                (_, NotTaken::TooManyPieces) => {
                    Error::TooLong { part: "pieces", bytes: count, max: PIECES_MAX }
                }
            };
            self.calls.settle(ticket, Err(error), &mut self.errands.wakes);
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
                let source =
                    Arc::new(io::Error::new(io::ErrorKind::AddrNotAvailable, "its address is not known"));
                return Err(Error::Unreachable { target, source });
            }
            self.dial_lane(at, lane, true, now);
            // A way that does not even begin leaves it to the next best; the last try sets an alarm.
            let ways = self.remotes[at].ways.len();
            for _ in 0..ways {
                if !self.remotes[at].is_dialling(lane) {
                    self.dial_lane(at, lane, false, now);
                }
            }
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

    pub(super) fn withdraw(&mut self, ticket: Ticket, about: &About) {
        let Some(remote) = self.remotes.get_mut(about.remote) else { return };
        if about.purpose == Purpose::Transfer {
            // What a device was given cannot be called back but with its link.
            let devices = self.links.carried_by(Provider::Verbs);
            let placing = if devices.is_empty() { Vec::new() } else { remote.initiator.placing(ticket) };
            remote.initiator.cancel(ticket);
            placing.into_iter().filter(|link| devices.contains(link)).for_each(|link| self.links.lose(link));
            self.mark_carrying(about.remote, Lane::Bulk);
            return;
        }
        remote.withdraw(ticket);
        // The word of it goes where the request went, which need not be home any more.
        for link in &remote.links {
            self.links.mark_lane(*link, Lane::of(about.channel));
        }
    }

    /// Its time is over.
    pub(super) fn expire(&mut self, ticket: Ticket, about: About) {
        let Some(remote) = self.remotes.get(about.remote) else {
            let target = Target::Peer(self.identity.local);
            let error =
                Error::Deadline { target, service: about.service, stage: Stage::Reply, after: about.after };
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
