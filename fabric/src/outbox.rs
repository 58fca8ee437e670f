//! What waits for a connection's socket, most urgent first, and how it gets there.
//!
//! Exactly one party at a time is the *writer*: a caller that found the socket idle and writes its own small message
//! at once (no task need wake), or the connection's writing task, which takes over when the socket is full or a message
//! is large. Whoever else has something to send adds it to the queue; the writer takes it along.
//!
//! Invariant: `writing` is true exactly while there is a writer, and while there is something to send there is one.

use crate::record::{PLAIN_BYTES_MAX, Sealed, Sealer};
use crate::status::Traffic;
use crate::wire::{HEADER_BYTES, Header};
use crate::{Message, Priority};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit};

/// Bytes that are sealed before they are written: enough to make system calls rare.
const BATCH_BYTES: usize = 256 << 10;
/// A longer message is sealed and written by the task, not by the caller.
const INLINE_BYTES_MAX: usize = 16 << 10;
/// A longer piece is sealed where it lies; shorter ones are first copied together.
const GATHER_BYTES_MAX: usize = 8 << 10;
/// Steps that a caller writes for others before the task takes over.
const INLINE_STEPS_MAX: usize = 4;

/// A message on its way out, and the permits that its place in the queue takes up.
pub struct Outgoing {
    header: Header,
    encoded: Option<[u8; HEADER_BYTES]>,
    message: Message,
    _permits: Vec<OwnedSemaphorePermit>,
}

impl Outgoing {
    /// A frame to send. The permits are given back when it is written, or dropped.
    pub fn new(header: Header, message: Message, permits: Vec<OwnedSemaphorePermit>) -> Outgoing {
        Outgoing { header, encoded: Some(header.encode()), message, _permits: permits }
    }

    fn bytes(&self) -> usize {
        HEADER_BYTES + self.message.head.len() + self.message.bulk.len()
    }

    /// What is left of the part that comes after the header; empty when all is taken.
    fn part(&mut self) -> &mut Bytes {
        if self.message.head.is_empty() { &mut self.message.bulk } else { &mut self.message.head }
    }
}

#[derive(Default)]
struct Queue {
    waiting: [VecDeque<Outgoing>; 4],
    writing: bool,
    closed: bool,
}

impl Queue {
    fn first(&mut self) -> Option<&mut VecDeque<Outgoing>> {
        self.waiting.iter_mut().find(|queue| !queue.is_empty())
    }
}

/// The writer's bench: nobody else touches it.
struct Bench {
    sealer: Sealer,
    current: Option<Outgoing>,
    plain: Vec<u8>,
    sealed: Sealed,
}

/// What one step of the writer came to.
enum Step {
    /// Something was written; there may be more.
    Wrote,
    /// Nothing is left. The writer is no longer the writer.
    Idle,
    /// The socket is full, or the next message is for the task.
    Stuck,
    /// The socket is broken, or the outbox closed.
    Broken,
}

/// The sending half of a connection.
pub struct Outbox {
    stream: Arc<TcpStream>,
    traffic: Arc<Traffic>,
    queue: Mutex<Queue>,
    bench: Mutex<Bench>,
    handed_over: Notify,
}

/// The outbox is closed: the message was not sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed;

impl Outbox {
    /// The outbox of `stream`. Somebody must run [`Outbox::run`].
    pub fn new(stream: Arc<TcpStream>, sealer: Sealer, traffic: Arc<Traffic>) -> Outbox {
        let bench = Bench { sealer, current: None, plain: Vec::new(), sealed: Sealed::default() };
        Outbox {
            stream,
            traffic,
            queue: Mutex::default(),
            bench: Mutex::new(bench),
            handed_over: Notify::new(),
        }
    }

    /// Sends a frame: at once if the socket is idle, otherwise in its turn.
    ///
    /// # Errors
    /// [`Closed`].
    pub fn push(&self, outgoing: Outgoing) -> Result<(), Closed> {
        {
            let mut queue = self.queue.lock();
            if queue.closed {
                return Err(Closed);
            }
            let priority: Priority = outgoing.header.priority;
            queue.waiting[priority as usize].push_back(outgoing);
            if queue.writing {
                return Ok(());
            }
            queue.writing = true;
        }
        self.write_now();
        Ok(())
    }

    /// Ends it. Nothing more is sent; what waits is dropped.
    pub fn close(&self) {
        let dropped = {
            let mut queue = self.queue.lock();
            queue.closed = true;
            std::mem::take(&mut queue.waiting)
        };
        drop(dropped);
        self.handed_over.notify_one();
    }

    /// The writer's part of a caller.
    fn write_now(&self) {
        for _ in 0..INLINE_STEPS_MAX {
            match self.step(INLINE_BYTES_MAX) {
                Step::Wrote => {}
                Step::Idle => return,
                Step::Stuck | Step::Broken => break,
            }
        }
        self.handed_over.notify_one();
    }

    /// The connection's writing task: takes over from callers as often as it must, until the outbox is closed.
    ///
    /// # Errors
    /// The socket is broken.
    pub async fn run(&self) -> io::Result<()> {
        loop {
            self.handed_over.notified().await;
            loop {
                match self.step(usize::MAX) {
                    // Other tasks of this thread get their turn between two batches.
                    Step::Wrote => tokio::task::yield_now().await,
                    Step::Idle => break,
                    Step::Stuck => self.stream.writable().await?,
                    Step::Broken => return Err(io::ErrorKind::BrokenPipe.into()),
                }
            }
        }
    }

    /// One step of whoever is the writer. Messages longer than `bytes_max` are left where they are.
    fn step(&self, bytes_max: usize) -> Step {
        let mut bench = self.bench.lock();
        if bench.sealed.unwritten().is_empty() {
            match self.fill(&mut bench, bytes_max) {
                Step::Wrote => {}
                other => return other,
            }
        }
        self.write(&mut bench)
    }

    /// Seals the next batch.
    fn fill(&self, bench: &mut Bench, bytes_max: usize) -> Step {
        while bench.sealed.unwritten().len() + bench.plain.len() < BATCH_BYTES {
            if bench.current.is_none() {
                match self.take(bytes_max, bench.is_empty()) {
                    Ok(outgoing) => bench.current = Some(outgoing),
                    Err(step) if bench.is_empty() => return step,
                    Err(_) => break,
                }
            }
            bench.seal_part();
        }
        bench.seal_gathered();
        Step::Wrote
    }

    /// The next message; or the reason why there is none, and with it the writer's end if `last`.
    fn take(&self, bytes_max: usize, last: bool) -> Result<Outgoing, Step> {
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(Step::Broken);
        }
        let Some(first) = queue.first() else {
            queue.writing = !last;
            return Err(Step::Idle);
        };
        if first.front().is_some_and(|outgoing| outgoing.bytes() > bytes_max) {
            return Err(Step::Stuck);
        }
        first.pop_front().ok_or(Step::Stuck)
    }

    fn write(&self, bench: &mut Bench) -> Step {
        while !bench.sealed.unwritten().is_empty() {
            match self.stream.try_write(bench.sealed.unwritten()) {
                Ok(bytes) => {
                    bench.sealed.advance(bytes);
                    self.traffic.sent(bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Step::Stuck,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Step::Broken,
            }
        }
        Step::Wrote
    }
}

impl Bench {
    fn is_empty(&self) -> bool {
        self.sealed.unwritten().is_empty() && self.plain.is_empty()
    }

    /// Takes at most one record's worth of the current message.
    fn seal_part(&mut self) {
        let Some(current) = &mut self.current else { return };
        if let Some(encoded) = current.encoded.take() {
            if self.plain.len() + HEADER_BYTES > PLAIN_BYTES_MAX {
                self.seal_gathered();
            }
            self.plain.extend_from_slice(&encoded);
            return;
        }
        let part = current.part();
        if part.is_empty() {
            self.current = None;
            return;
        }
        if part.len() > GATHER_BYTES_MAX {
            let piece = part.split_to(part.len().min(PLAIN_BYTES_MAX));
            self.seal_gathered();
            self.sealer.seal(&piece, &mut self.sealed);
            return;
        }
        if self.plain.len() + part.len() > PLAIN_BYTES_MAX {
            self.seal_gathered();
            return;
        }
        self.plain.extend_from_slice(part);
        part.clear();
    }

    fn seal_gathered(&mut self) {
        if !self.plain.is_empty() {
            self.sealer.seal(&self.plain, &mut self.sealed);
            self.plain.clear();
        }
    }
}
