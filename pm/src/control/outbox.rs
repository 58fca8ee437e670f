//! Frames on their way into a Unix stream socket: written at once where possible, otherwise by a task of their own.
//!
//! Invariant: frames leave in the order of [`Outbox::send`], whole. How much may wait is the sender's business: the core
//! counts what a client has not read, and what goes to `ssi-init` is bounded by the windows of streams.

use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use tokio::net::UnixStream;
use tokio::sync::Notify;

/// Bytes written directly are told together, every so many.
const TOLD_EVERY: usize = 256 << 10;

#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    taken: usize,
    untold: usize,
    closing: bool,
    broken: bool,
}

impl Queue {
    fn waiting(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    fn wrote(&mut self, n: usize) {
        self.taken += n;
        self.untold += n;
        if self.taken == self.bytes.len() {
            self.bytes.clear();
            self.taken = 0;
        } else if self.taken > TOLD_EVERY {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
    }
}

/// The sending half of a socket.
#[derive(Debug)]
pub struct Outbox {
    stream: Arc<UnixStream>,
    queue: Mutex<Queue>,
    work: Notify,
    closed: Notify,
}

impl Outbox {
    /// The outbox of `stream`; somebody must run [`Outbox::run`].
    pub fn new(stream: Arc<UnixStream>) -> Outbox {
        Outbox { stream, queue: Mutex::default(), work: Notify::new(), closed: Notify::new() }
    }

    /// Sends whole frames, from any thread; never waits.
    pub fn send(&self, frames: &[u8]) {
        let mut queue = self.queue.lock();
        if queue.closing || queue.broken {
            return;
        }
        let mut rest = frames;
        if queue.waiting().is_empty() {
            // Most often the socket has room: no other task need be woken.
            if let Ok(n) = self.stream.try_write(frames) {
                queue.untold += n;
                rest = &frames[n..];
            }
        }
        queue.bytes.extend_from_slice(rest);
        if !rest.is_empty() || queue.untold >= TOLD_EVERY {
            self.work.notify_one();
        }
    }

    /// No more is taken; what waits is still written, then [`Outbox::run`] ends.
    pub fn close(&self) {
        self.queue.lock().closing = true;
        self.work.notify_one();
        self.closed.notify_one();
    }

    /// Ends when [`Outbox::close`] is called.
    pub async fn closed(&self) {
        self.closed.notified().await;
    }

    /// Writes what waits until the outbox is closed; tells how many bytes went out.
    ///
    /// # Errors
    /// The other end is gone.
    pub async fn run(&self, mut told: impl FnMut(usize)) -> io::Result<()> {
        loop {
            if self.queue.lock().broken {
                return Ok(());
            }
            self.work.notified().await;
            loop {
                match self.write_some() {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.stream.writable().await?,
                    Err(error) => {
                        self.queue.lock().broken = true;
                        return Err(error);
                    }
                }
                told(self.take_untold());
            }
            told(self.take_untold());
            if self.queue.lock().closing {
                self.queue.lock().broken = true;
                return Ok(());
            }
        }
    }

    /// True if something was written, false if nothing waits.
    fn write_some(&self) -> io::Result<bool> {
        let mut queue = self.queue.lock();
        if queue.waiting().is_empty() {
            return Ok(false);
        }
        let n = self.stream.try_write(queue.waiting())?;
        queue.wrote(n);
        Ok(true)
    }

    fn take_untold(&self) -> usize {
        std::mem::take(&mut self.queue.lock().untold)
    }
}
