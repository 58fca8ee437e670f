//! A connection that this end dialled: its calls go out on it, their replies come back.
//!
//! Owns the calls that wait for a reply. Invariant: each of them is answered exactly once: by its reply, by the
//! connection's end, or by its caller giving up.

use crate::handshake::Session;
use crate::outbox::{Outbox, Outgoing};
use crate::source::{Source, SourceError};
use crate::status::Traffic;
use crate::wire::{Header, Kind, Verdict, WireError};
use crate::{Error, Message, Peer, Priority, ServiceId, Target};
use base::limits::{BULK_BYTES_MAX, HEAD_BYTES_MAX};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

/// Why a connection ended.
#[derive(Clone, Debug)]
pub enum End {
    /// It broke, or the other end closed it.
    Lost(Arc<io::Error>),
    /// The peer was declared down.
    Down(Peer),
    /// This endpoint closes.
    Closed,
}

impl End {
    /// What it means to a call.
    pub fn error(&self, target: Target) -> Error {
        match self {
            End::Lost(source) => Error::Unreachable { target, source: source.clone() },
            End::Down(peer) => Error::NodeDown(*peer),
            End::Closed => Error::Closed,
        }
    }
}

/// A reply, or the end that came before it.
type Outcome = Result<(Verdict, Message), End>;

#[derive(Default)]
struct Calls {
    waiting: HashMap<u64, oneshot::Sender<Outcome>>,
    last: u64,
    end: Option<End>,
}

/// A dialled connection.
pub struct Connection {
    stream: Arc<TcpStream>,
    outbox: Outbox,
    room: Arc<Semaphore>,
    calls: Mutex<Calls>,
    ended: watch::Sender<bool>,
}

/// One request, ready to go.
pub struct Request {
    /// The service that is asked.
    pub service: ServiceId,
    /// How urgent it is.
    pub priority: Priority,
    /// What is asked.
    pub message: Message,
}

impl Request {
    /// Permits of [`room`] that it takes up in the queue.
    fn weight(&self) -> u32 {
        weight(&self.message)
    }
}

/// A queue's room for `bytes`, and for one message of the largest size at least. It counts in KiB so that an empty
/// message takes up room as well.
pub fn room(bytes: usize) -> Arc<Semaphore> {
    let largest = 1 + ((HEAD_BYTES_MAX + BULK_BYTES_MAX) >> 10);
    Arc::new(Semaphore::new((bytes >> 10).max(largest)))
}

/// Permits of a [`room`] that a message takes up.
pub fn weight(message: &Message) -> u32 {
    1 + ((message.head.len() + message.bulk.len()) >> 10) as u32
}

impl Connection {
    /// The connection of an agreed session, and the source of its replies for [`Connection::read`].
    pub fn new(
        stream: Arc<TcpStream>,
        session: Session,
        traffic: Arc<Traffic>,
        queue_bytes: usize,
    ) -> (Arc<Connection>, Source) {
        let source = Source::new(stream.clone(), session.opener, traffic.clone());
        let connection = Connection {
            outbox: Outbox::new(stream.clone(), session.sealer, traffic),
            stream,
            room: room(queue_bytes),
            calls: Mutex::default(),
            ended: watch::Sender::new(false),
        };
        (Arc::new(connection), source)
    }

    /// True when it can carry no more calls.
    pub fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Waits until it has ended.
    pub async fn ended(&self) {
        // The sender lives in self, so this cannot fail.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Ends it: every call that waits fails with `end`. Only the first end counts.
    pub fn end(&self, end: End) {
        let waiting = {
            let mut calls = self.calls.lock();
            if calls.end.is_some() {
                return;
            }
            calls.end = Some(end.clone());
            std::mem::take(&mut calls.waiting)
        };
        for (_, caller) in waiting {
            // A caller that has given up at this moment needs no answer.
            let _ = caller.send(Err(end.clone()));
        }
        self.outbox.close();
        self.room.close();
        // It may be closed already: then there is nothing to shut down.
        let _ = rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Both);
        self.ended.send_replace(true);
    }

    /// Waits for room in the queue, which [`Connection::call`] needs. `None` if the connection has ended.
    pub async fn room_for(&self, request: &Request) -> Option<OwnedSemaphorePermit> {
        self.room.clone().acquire_many_owned(request.weight()).await.ok()
    }

    /// Sends a request and waits for its reply. Dropped before that, it tells the other end that nobody waits.
    ///
    /// # Errors
    /// The connection's end.
    pub async fn call(
        &self,
        request: Request,
        room: Option<OwnedSemaphorePermit>,
        deadline: Duration,
    ) -> Outcome {
        let (sender, receiver) = oneshot::channel();
        let call = self.open(sender)?;
        let waiting = Waiting { connection: self, call, priority: request.priority };
        let header = Header {
            kind: Kind::Request,
            priority: request.priority,
            service: request.service,
            verdict: Verdict::Answered,
            call,
            head: request.message.head.len() as u32,
            bulk: request.message.bulk.len() as u32,
            deadline_ms: u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX).max(1),
        };
        // If the outbox is closed the connection has ended, and its end answers the call.
        let _ = self.outbox.push(Outgoing::new(header, request.message, room.into_iter().collect()));
        let outcome = receiver.await.unwrap_or(Err(End::Closed));
        drop(waiting);
        outcome
    }

    fn open(&self, caller: oneshot::Sender<Outcome>) -> Result<u64, End> {
        let mut calls = self.calls.lock();
        if let Some(end) = &calls.end {
            return Err(end.clone());
        }
        calls.last += 1;
        let call = calls.last;
        calls.waiting.insert(call, caller);
        Ok(call)
    }

    /// Reads replies until the connection ends.
    pub async fn read(&self, mut source: Source) -> SourceError {
        loop {
            match source.next().await {
                Ok((header, message)) if header.kind == Kind::Reply => {
                    let caller = self.calls.lock().waiting.remove(&header.call);
                    if let Some(caller) = caller {
                        // The caller may give up at this moment.
                        let _ = caller.send(Ok((header.verdict, message)));
                    }
                }
                Ok(_) => {
                    return WireError("something else than a reply came from the end that accepted").into();
                }
                Err(error) => return error,
            }
        }
    }

    /// Writes what callers leave to the writing task, until the connection ends.
    ///
    /// # Errors
    /// The socket is broken.
    pub async fn write(&self) -> io::Result<()> {
        self.outbox.run().await
    }
}

/// A call whose caller still waits.
struct Waiting<'a> {
    connection: &'a Connection,
    call: u64,
    priority: Priority,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let given_up = self.connection.calls.lock().waiting.remove(&self.call).is_some();
        if given_up {
            let header = Header {
                kind: Kind::Cancel,
                priority: self.priority,
                service: ServiceId(0),
                verdict: Verdict::Answered,
                call: self.call,
                head: 0,
                bulk: 0,
                deadline_ms: 0,
            };
            // Of an ended connection the other end knows by itself.
            let _ = self.connection.outbox.push(Outgoing::new(header, Message::default(), Vec::new()));
        }
    }
}
