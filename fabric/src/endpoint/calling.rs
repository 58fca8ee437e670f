//! A call under way, as its caller holds it.

use super::shared::Shared;
use crate::engine::judge;
use crate::engine::{Engine, Request};
use crate::serving::Started;
use crate::session::Ticket;
use crate::{Error, Message, Peer, Priority, ServiceId, Target};
use base::limits::{BULK_BYTES_MAX, HEAD_BYTES_MAX};
use base::time::Time;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// A request of legal length.
///
/// # Errors
/// [`Error::TooLong`].
pub fn request(
    service: ServiceId,
    channel: Priority,
    message: Message,
    after: Duration,
    one_way: bool,
) -> Result<Request, Error> {
    let part = |part, bytes, max| if bytes > max { Err(Error::TooLong { part, bytes, max }) } else { Ok(()) };
    part("head", message.head.len(), HEAD_BYTES_MAX)?;
    part("bulk", message.bulk.len(), BULK_BYTES_MAX)?;
    Ok(Request { service, channel, message, after, one_way })
}

/// A call or transfer that was begun. Dropped before it is through, it is given up.
pub struct Calling<'a> {
    shared: &'a Arc<Shared>,
    ticket: Option<Ticket>,
}

impl<'a> Calling<'a> {
    /// Begins it.
    ///
    /// # Errors
    /// It is not even tried.
    pub fn begin(
        shared: &'a Arc<Shared>,
        begin: impl FnOnce(&mut Engine, Time) -> Result<Ticket, Error>,
    ) -> Result<Calling<'a>, Error> {
        shared.with(begin).map(|ticket| Calling { shared, ticket: Some(ticket) })
    }
}

impl Future for Calling<'_> {
    type Output = Result<Message, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(ticket) = self.ticket else { return Poll::Ready(Err(Error::Closed)) };
        let outcome = self.shared.poll_call(ticket, context);
        if outcome.is_ready() {
            self.ticket = None;
        }
        outcome
    }
}

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.shared.with(|engine, _| engine.give_up(ticket));
        }
    }
}

/// A remote that is known by its address only, for one conversation.
pub struct Stranger<'a> {
    shared: &'a Arc<Shared>,
    place: usize,
}

impl<'a> Stranger<'a> {
    /// Whoever listens there.
    pub fn new(shared: &'a Arc<Shared>, address: SocketAddr) -> Stranger<'a> {
        let place = shared.with(|engine, _| engine.stranger(address));
        Stranger { shared, place }
    }

    /// Its place among the engine's remotes.
    pub fn place(&self) -> usize {
        self.place
    }
}

impl Drop for Stranger<'_> {
    fn drop(&mut self) {
        self.shared.with(|engine, _| engine.forget_stranger(self.place));
    }
}

/// Asks a peer, or this very endpoint.
///
/// # Errors
/// As [`crate::Endpoint::call`].
pub async fn call(
    shared: &Arc<Shared>,
    peer: Peer,
    service: ServiceId,
    priority: Priority,
    message: Message,
    deadline: Duration,
) -> Result<Message, Error> {
    let request = request(service, priority, message, deadline, false)?;
    if peer == shared.local {
        return call_local(shared, peer, request).await;
    }
    Calling::begin(shared, |engine, now| engine.call(peer, request, now))?.await
}

/// Asks a service of this endpoint in the name of somebody else.
///
/// # Errors
/// As [`crate::Endpoint::call`].
pub async fn call_as(
    shared: &Arc<Shared>,
    from: Peer,
    service: ServiceId,
    message: Message,
    deadline: Duration,
) -> Result<Message, Error> {
    call_local(shared, from, request(service, Priority::Data, message, deadline, false)?).await
}

/// A request to this very endpoint: the same rules, no link. It runs to its end also when the caller gives up, as it would
/// on another node.
async fn call_local(shared: &Arc<Shared>, from: Peer, request: Request) -> Result<Message, Error> {
    if shared.is_closed() {
        return Err(Error::Closed);
    }
    let target = Target::Peer(shared.local);
    let (verdict, message) = match shared.services.start(request.service, from, request.message) {
        Started::Done(outcome) => outcome,
        Started::Running(running) => {
            let calling = Calling::begin(shared, |engine, now| {
                Ok(engine.call_here(request.service, request.after, now))
            })?;
            let (ticket, there) = (calling.ticket, shared.clone());
            shared.spawn(async move {
                let (verdict, message) = running.await;
                there.with(|engine, _| engine.settle_here(ticket, judge(target, verdict, message)));
            });
            return calling.await;
        }
    };
    judge(target, verdict, message)
}

/// A one-way request to this very endpoint.
pub fn send_local(shared: &Arc<Shared>, request: Request) {
    if let Started::Running(running) = shared.services.start(request.service, shared.local, request.message) {
        shared.spawn(async move { drop(running.await) });
    }
}
