//! A link through shared memory.
//!
//! Whoever polls looks at one word of the ring and makes no system call. Whoever sleeps has said so in the ring ([`ShmLink::arm`]) and is
//! woken by its bell. That the other process is gone shows at the socket, and so in the reactor: whoever polls for long has to ask the
//! reactor now and then ([`Reactor::wait`] of no length).
//!
//! Invariant: an end sleeps only after it has said so and then found nothing, so a record or room in the ring never waits for a sleeper.

use super::bell::Bell;
use super::incoming::Incoming;
use super::outgoing::Outgoing;
use crate::provider::{Frame, Link, LinkError, Provider, Sink, Traffic};
use crate::reactor::{Reactor, Token};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Records that one [`Link::receive`] takes at most.
const RECORDS_MAX: usize = 256;
/// Bytes after which it takes no more.
const BYTES_MAX: usize = 1 << 20;

/// One end of a link through shared memory.
pub struct ShmLink {
    outgoing: Outgoing,
    incoming: Incoming,
    ours: Bell,
    theirs: Bell,
    socket: OwnedFd,
    token: Token,
    armed: bool,
}

impl ShmLink {
    /// Watches the bell and the socket.
    pub(super) fn start(
        halves: (Outgoing, Incoming),
        bells: (Bell, Bell),
        socket: OwnedFd,
        token: Token,
        reactor: &mut Reactor,
    ) -> io::Result<ShmLink> {
        let (ours, theirs) = bells;
        reactor.watch(&ours, token)?;
        reactor.watch_stream(&socket, token)?;
        let (outgoing, incoming) = halves;
        Ok(ShmLink { outgoing, incoming, ours, theirs, socket, token, armed: false })
    }

    /// Nothing came, and the other end is gone: has it left something behind between the last look and its end?
    #[cold]
    fn has_left_something(&self) -> Result<bool, LinkError> {
        let left = self.incoming.park();
        self.incoming.unpark();
        let gone = || io::Error::new(io::ErrorKind::ConnectionReset, "the process at the other end is gone");
        if left { Ok(true) } else { Err(gone().into()) }
    }
}

impl Link for ShmLink {
    fn provider(&self) -> Provider {
        Provider::Shm
    }

    fn room(&self) -> usize {
        self.outgoing.room()
    }

    #[inline]
    fn push(&mut self, frame: Frame) {
        self.outgoing.push(frame, self.socket.as_fd());
    }

    #[inline]
    fn flush(&mut self, _reactor: &mut Reactor) -> Result<(), LinkError> {
        loop {
            let done = !self.outgoing.is_waiting() || self.outgoing.pump(self.socket.as_fd())?;
            if self.outgoing.must_ring() {
                self.theirs.ring();
            }
            if done {
                return Ok(());
            }
        }
    }

    #[inline]
    fn is_quiet(&self) -> bool {
        !self.armed && !self.outgoing.is_waiting() && self.incoming.is_quiet()
    }

    #[inline]
    fn receive(
        &mut self,
        reactor: &mut Reactor,
        sink: &mut dyn Sink,
        most: usize,
    ) -> Result<bool, LinkError> {
        if std::mem::take(&mut self.armed) {
            self.incoming.unpark();
        }
        // The bell may have rung for room, and whoever polls does not see it ring.
        if self.outgoing.is_waiting() {
            self.flush(reactor)?;
        }
        let mut bytes = 0;
        for taken in 0..RECORDS_MAX {
            match self.incoming.take(self.socket.as_fd(), &self.theirs, sink)? {
                Some(more) => bytes += more,
                None if taken == 0 && reactor.hung_up(self.token) => return self.has_left_something(),
                None => return Ok(false),
            }
            if bytes >= most.min(BYTES_MAX) {
                break;
            }
        }
        Ok(true)
    }

    fn arm(&mut self, reactor: &mut Reactor) -> Result<bool, LinkError> {
        self.outgoing.tidy()?;
        self.incoming.tidy();
        self.flush(reactor)?;
        self.armed = true;
        Ok(self.incoming.park())
    }

    fn forsake(&mut self, _region: u64) {
        // Pieces are placed whole inside of `receive`: between two calls none is on its way.
    }

    fn traffic(&self) -> Traffic {
        let (sent, received) = (self.outgoing.traffic(), self.incoming.traffic());
        Traffic {
            frames_sent: sent.0,
            frames_received: received.0,
            bytes_sent: sent.1,
            bytes_received: received.1,
        }
    }

    fn close(&mut self, reactor: &mut Reactor) {
        // Closing them would do it, too, but only when no other process has them, for a fork at the wrong moment.
        let _ = reactor.forget(&self.ours);
        let _ = reactor.forget_stream(&self.socket, self.token);
    }
}
