//! The TCP provider: a link over one authenticated connection.
//!
//! ```text
//!  frames -> outbox: records (sealed, or as they are) -> socket -> inbox: records -> frames, or straight into a region
//! ```
//!
//! Owns a connected stream socket, and the bytes on their way through it. Invariant: what comes out at the other end is what was pushed
//! here, whole, in order and once; or the link is over at both ends.

mod inbox;
mod outbox;
mod parcel;
pub mod record;
mod ring;
mod seal;
mod sys;
#[cfg(test)]
mod tests;
mod tuning;

pub use outbox::ROOM_BYTES;
pub(crate) use ring::Ring;
pub use seal::KEY_BYTES;
pub use tuning::tune;

use crate::provider::{Frame, Link, LinkError, Provider, Sink, Traffic};
use crate::reactor::{Reactor, Token};
use crate::region::Memory;
use inbox::Inbox;
use outbox::Outbox;
use seal::{Opener, Sealer};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// The most bytes that one [`Link::receive`] takes in, but for what the last system call went over it.
const RECEIVE_BYTES_MAX: usize = 256 << 10;

/// What protects the bytes of a connection after its handshake.
pub enum Protection {
    /// Every record is encrypted and authenticated, with a key for each direction.
    Sealed {
        /// The key of what this end sends.
        send: [u8; KEY_BYTES],
        /// The key of what the other end sends.
        receive: [u8; KEY_BYTES],
    },
    /// Nothing: the ends are authenticated, the network is trusted.
    Plain,
}

/// A link over a connected stream.
pub struct TcpLink {
    socket: Arc<OwnedFd>,
    token: Token,
    /// The stream's number in the reactor's ring, if it moves by that.
    stream: Option<usize>,
    outbox: Outbox,
    inbox: Inbox,
    traffic: Traffic,
    /// There were early bytes, and they have not been looked at.
    early: bool,
    over: Option<LinkError>,
}

impl TcpLink {
    /// A link over a stream whose handshake is over; `early` is what was received beyond it. The reactor reports it under `token`.
    ///
    /// # Errors
    /// The stream cannot be watched.
    pub fn new(
        socket: OwnedFd,
        token: Token,
        reactor: &mut Reactor,
        protection: Protection,
        early: Vec<u8>,
    ) -> io::Result<TcpLink> {
        let near = tuning::fit(&socket);
        let socket = Arc::new(socket);
        let stream = match reactor.ring() {
            Some(ring) => {
                // The ring waits where a socket would block; of one that never does it would only hear that it does not.
                rustix::io::ioctl_fionbio(&socket, false)?;
                Some(ring.open(socket.clone(), token, !near)?)
            }
            None => {
                rustix::io::ioctl_fionbio(&socket, true)?;
                reactor.watch_stream(&socket, token)?;
                None
            }
        };
        let (sealer, opener) = match protection {
            Protection::Sealed { send, receive } => (Some(Sealer::new(&send)), Some(Opener::new(&receive))),
            Protection::Plain => (None, None),
        };
        Ok(TcpLink {
            socket,
            token,
            stream,
            outbox: Outbox::new(sealer, reactor.buffers().clone()),
            inbox: Inbox::new(opener, &early, reactor.buffers()),
            traffic: Traffic::default(),
            early: !early.is_empty(),
            over: None,
        })
    }

    /// As [`Link::forsake`], for whoever knows the memory and not its number: no byte more goes into it.
    pub fn forsake_memory(&mut self, memory: &Arc<Memory>) {
        self.inbox.forsake(|_, place| Arc::ptr_eq(place, memory));
    }

    fn send_all(&mut self) -> Result<(), LinkError> {
        self.outbox.end();
        loop {
            let gather = self.outbox.gather();
            let bytes = gather.bytes();
            if bytes == 0 {
                return Ok(());
            }
            match sys::send(self.socket.as_fd(), &gather) {
                Ok(sent) => {
                    self.traffic.bytes_sent += sent as u64;
                    self.outbox.advance(sent);
                    if sent < bytes {
                        self.outbox.block();
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.outbox.block();
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take_in(&mut self, reactor: &Reactor, sink: &mut dyn Sink, most: usize) -> Result<bool, LinkError> {
        self.inbox.digest(sink)?;
        let mut left = most;
        while left > 0 {
            let filled = match self.inbox.fill(self.socket.as_fd(), reactor.buffers()) {
                Ok(filled) => filled,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            if filled.bytes == 0 {
                let closed =
                    io::Error::new(io::ErrorKind::UnexpectedEof, "the other end closed the connection");
                return Err(closed.into());
            }
            self.traffic.bytes_received += filled.bytes as u64;
            left = left.saturating_sub(filled.bytes);
            self.inbox.digest(sink)?;
            // The end of the stream makes no second edge: it has to be read, once it is known to be there.
            if filled.drained && !reactor.hung_up(self.token) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// As `send_all`, by the ring: what waits becomes one parcel, and the next when that is sent.
    fn send_by(&mut self, ring: &mut Ring, stream: usize) -> Result<(), LinkError> {
        self.outbox.end();
        loop {
            ring.reap();
            self.settle(ring, stream)?;
            let Some(parcel) = self.outbox.take() else {
                ring.looked(stream);
                return Ok(());
            };
            // What the socket takes at once is sent when this returns.
            ring.send(stream, parcel)?;
        }
    }

    /// Takes back what the ring has sent.
    fn settle(&mut self, ring: &mut Ring, stream: usize) -> Result<(), LinkError> {
        while let Some(sent) = ring.sent(stream) {
            let bytes = match (sent.outcome, sent.parcel) {
                (Ok(bytes), None) => {
                    self.outbox.sent(bytes);
                    self.outbox.give_back(None);
                    bytes
                }
                (Ok(bytes), Some(mut parcel)) => {
                    self.outbox.sent(bytes);
                    parcel.advance(bytes);
                    if parcel.is_empty() {
                        self.outbox.give_back(Some(parcel));
                    } else {
                        ring.send(stream, parcel)?;
                    }
                    bytes
                }
                (Err(error), Some(parcel)) => {
                    ring.send_again(stream, parcel, error)?;
                    0
                }
                (Err(error), None) => return Err(error.into()),
            };
            self.traffic.bytes_sent += bytes as u64;
        }
        Ok(())
    }

    /// As `take_in`, by the ring.
    fn take_from(
        &mut self,
        reactor: &mut Reactor,
        stream: usize,
        sink: &mut dyn Sink,
        most: usize,
    ) -> Result<bool, LinkError> {
        self.inbox.digest(sink)?;
        let buffers = reactor.buffers().clone();
        let Some(ring) = reactor.ring() else { return Ok(false) };
        ring.reap();
        self.settle(ring, stream)?;
        let mut left = most;
        while left > 0 {
            let mut took = 0;
            let inbox = &mut self.inbox;
            if !ring.take(stream, |bytes| {
                took = inbox.feed(bytes, &buffers);
                took
            }) {
                ring.drained(stream).map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => closed(),
                    _ => error,
                })?;
                ring.looked(stream);
                return Ok(false);
            }
            self.traffic.bytes_received += took as u64;
            left = left.saturating_sub(took);
            self.inbox.digest(sink)?;
        }
        Ok(true)
    }

    /// Remembers why it is over.
    fn ended<T>(&mut self, result: Result<T, LinkError>) -> Result<T, LinkError> {
        if let Err(error) = &result {
            self.over = Some(error.clone());
        }
        result
    }
}

/// The error of a link whose other end is gone.
fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the other end closed the connection")
}

impl Drop for TcpLink {
    fn drop(&mut self) {
        if self.stream.is_some() {
            // The ring may still hold the socket, so letting go of it here would not end it. It may be over already, which is as good.
            let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        }
    }
}

impl Link for TcpLink {
    fn provider(&self) -> Provider {
        Provider::Tcp
    }

    fn room(&self) -> usize {
        self.outbox.room()
    }

    fn push(&mut self, frame: Frame) {
        self.traffic.frames_sent += 1;
        self.outbox.push(frame);
    }

    fn flush(&mut self, reactor: &mut Reactor) -> Result<(), LinkError> {
        if let Some(error) = &self.over {
            return Err(error.clone());
        }
        let sent = match (self.stream, reactor.ring()) {
            (Some(stream), Some(ring)) => self.send_by(ring, stream),
            _ => self.send_all(),
        };
        reactor.ring_for_others();
        self.ended(sent)
    }

    fn receive(
        &mut self,
        reactor: &mut Reactor,
        sink: &mut dyn Sink,
        most: usize,
    ) -> Result<bool, LinkError> {
        if let Some(error) = &self.over {
            return Err(error.clone());
        }
        self.early = false;
        let more = match self.stream {
            Some(stream) => self.take_from(reactor, stream, sink, most.min(RECEIVE_BYTES_MAX)),
            None => self.take_in(reactor, sink, most.min(RECEIVE_BYTES_MAX)),
        };
        reactor.ring_for_others();
        self.inbox.rest(reactor.buffers());
        self.ended(more)
    }

    fn always_rings(&self) -> bool {
        true
    }

    fn arm(&mut self, reactor: &mut Reactor) -> Result<bool, LinkError> {
        if let Some(error) = &self.over {
            return Err(error.clone());
        }
        if let (Some(stream), Some(ring)) = (self.stream, reactor.ring()) {
            // What the kernel has not done yet makes the ring's descriptor ready.
            return Ok(self.early || ring.holds(stream));
        }
        // What else comes makes an edge: the socket was drained when `receive` said so.
        Ok(self.early)
    }

    fn forsake(&mut self, region: u64) {
        self.inbox.forsake(|access, _| access.region == region);
    }

    fn traffic(&self) -> Traffic {
        Traffic { frames_received: self.inbox.frames(), ..self.traffic }
    }

    fn close(&mut self, reactor: &mut Reactor) {
        self.over.get_or_insert_with(|| closed().into());
        match (self.stream.take(), reactor.ring()) {
            (Some(stream), Some(ring)) => {
                ring.close(stream);
                reactor.ring_for_others();
            }
            _ => {
                if let Err(error) = reactor.forget_stream(&self.socket, self.token) {
                    tracing::debug!(%error, "a socket was watched no more already");
                }
            }
        }
    }
}
