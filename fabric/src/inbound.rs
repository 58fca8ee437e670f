//! A connection that another end dialled: its requests are served, their replies go back on it.
//!
//! Invariant: what is served at once is bounded in requests and bytes; while a bound is reached the connection is not
//! read, so the sender's queue fills and its callers wait.

use crate::config::Limits;
use crate::connection::{room, weight};
use crate::handshake::Session;
use crate::outbox::{Outbox, Outgoing};
use crate::serving::{Outcome, Services, Started};
use crate::source::{Source, SourceError};
use crate::status::Traffic;
use crate::wire::{Header, Kind, Lane, WireError};
use crate::{Message, Peer};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

/// An accepted connection.
pub struct Inbound {
    peer: Peer,
    lane: Lane,
    services: Arc<Services>,
    outbox: Outbox,
    reply_room: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    /// Calls that are under way and still wanted.
    wanted: Mutex<HashSet<u64>>,
    closing: watch::Receiver<bool>,
}

impl Inbound {
    /// Serves an agreed session until it ends, and says why it did.
    pub async fn run(
        stream: Arc<TcpStream>,
        session: Session,
        services: Arc<Services>,
        limits: &Limits,
        closing: watch::Receiver<bool>,
    ) -> SourceError {
        let traffic = Arc::<Traffic>::default();
        let source = Source::new(stream.clone(), session.opener, traffic.clone());
        let inbound = Arc::new(Inbound {
            peer: session.peer,
            lane: session.lane,
            services,
            outbox: Outbox::new(stream.clone(), session.sealer, traffic),
            reply_room: room(limits.queue_bytes),
            requests: Arc::new(Semaphore::new(limits.requests_served)),
            bytes: room(limits.serving_bytes),
            wanted: Mutex::default(),
            closing,
        });
        let end = tokio::select! {
            error = inbound.read(source) => error,
            result = inbound.outbox.run() => match result {
                Ok(()) => SourceError::Io(std::io::ErrorKind::BrokenPipe.into()),
                Err(error) => error.into(),
            },
        };
        inbound.wanted.lock().clear();
        inbound.reply_room.close();
        inbound.outbox.close();
        // Handlers that are still under way hold the outbox and so the socket: end it for the other side now.
        let _ = rustix::net::shutdown(&stream, rustix::net::Shutdown::Both);
        end
    }

    async fn read(self: &Arc<Self>, mut source: Source) -> SourceError {
        loop {
            match source.next().await {
                Ok((header, request)) => {
                    if let Err(error) = self.receive(header, request).await {
                        return error.into();
                    }
                }
                Err(error) => return error,
            }
        }
    }

    async fn receive(self: &Arc<Self>, header: Header, request: Message) -> Result<(), WireError> {
        match header.kind {
            Kind::Request if Lane::of(header.priority) != self.lane => {
                Err(WireError("a request on the wrong lane"))
            }
            Kind::Request if self.wanted.lock().contains(&header.call) => {
                Err(WireError("a call id that is in use"))
            }
            Kind::Request => {
                self.serve(header, request).await;
                Ok(())
            }
            Kind::Cancel => {
                self.wanted.lock().remove(&header.call);
                Ok(())
            }
            Kind::Reply => Err(WireError("a reply came from the end that dialled")),
        }
    }

    /// Waits until the request may be served, starts it, and leaves it to a task of its own if it takes longer.
    async fn serve(self: &Arc<Self>, header: Header, request: Message) {
        let given_up = Instant::now() + Duration::from_millis(header.deadline_ms.into());
        let Ok(permits) = self.permits(&request).await else { return };
        if Instant::now() > given_up {
            return;
        }
        match self.services.start(header.service, self.peer, request) {
            Started::Done(outcome) => self.answer(header, outcome, permits),
            Started::Running(running) => {
                self.wanted.lock().insert(header.call);
                let (inbound, mut closing) = (self.clone(), self.closing.clone());
                tokio::spawn(async move {
                    let outcome = tokio::select! {
                        outcome = running => outcome,
                        _ = closing.wait_for(|closing| *closing) => return,
                    };
                    if inbound.wanted.lock().remove(&header.call) {
                        inbound.answer(header, outcome, permits);
                    }
                });
            }
        }
    }

    async fn permits(
        &self,
        request: &Message,
    ) -> Result<Vec<OwnedSemaphorePermit>, tokio::sync::AcquireError> {
        let one = self.requests.clone().acquire_owned().await?;
        let bytes = self.bytes.clone().acquire_many_owned(weight(request)).await?;
        Ok(vec![one, bytes])
    }

    /// Sends the reply. The request's permits are given back when it is written, so replies that nobody reads stop
    /// further requests.
    fn answer(
        self: &Arc<Self>,
        request: Header,
        (verdict, message): Outcome,
        mut permits: Vec<OwnedSemaphorePermit>,
    ) {
        let header = Header {
            kind: Kind::Reply,
            verdict,
            head: message.head.len() as u32,
            bulk: message.bulk.len() as u32,
            deadline_ms: 0,
            ..request
        };
        if let Ok(room) = self.reply_room.clone().try_acquire_many_owned(weight(&message)) {
            permits.push(room);
            // If the connection has ended there is nobody to answer.
            let _ = self.outbox.push(Outgoing::new(header, message, permits));
            return;
        }
        let (inbound, mut closing) = (self.clone(), self.closing.clone());
        tokio::spawn(async move {
            let room = tokio::select! {
                room = inbound.reply_room.clone().acquire_many_owned(weight(&message)) => room,
                _ = closing.wait_for(|closing| *closing) => return,
            };
            permits.extend(room.ok());
            let _ = inbound.outbox.push(Outgoing::new(header, message, permits));
        });
    }
}
