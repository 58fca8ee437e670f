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
mod seal;
mod sys;
#[cfg(test)]
mod tests;
mod tuning;

pub use outbox::ROOM_BYTES;
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
const RECEIVE_BYTES_MAX: usize = 512 << 10;

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
    socket: OwnedFd,
    token: Token,
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
        rustix::io::ioctl_fionbio(&socket, true)?;
        reactor.watch_stream(&socket, token)?;
        let (sealer, opener) = match protection {
            Protection::Sealed { send, receive } => (Some(Sealer::new(&send)), Some(Opener::new(&receive))),
            Protection::Plain => (None, None),
        };
        Ok(TcpLink {
            socket,
            token,
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

    fn take_in(&mut self, reactor: &Reactor, sink: &mut dyn Sink) -> Result<bool, LinkError> {
        self.inbox.digest(sink)?;
        let mut left = RECEIVE_BYTES_MAX;
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

    /// Remembers why it is over.
    fn ended<T>(&mut self, result: Result<T, LinkError>) -> Result<T, LinkError> {
        if let Err(error) = &result {
            self.over = Some(error.clone());
        }
        result
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

    fn flush(&mut self, _reactor: &mut Reactor) -> Result<(), LinkError> {
        if let Some(error) = &self.over {
            return Err(error.clone());
        }
        let sent = self.send_all();
        self.ended(sent)
    }

    fn receive(&mut self, reactor: &mut Reactor, sink: &mut dyn Sink) -> Result<bool, LinkError> {
        if let Some(error) = &self.over {
            return Err(error.clone());
        }
        self.early = false;
        let more = self.take_in(reactor, sink);
        self.inbox.rest(reactor.buffers());
        self.ended(more)
    }

    fn arm(&mut self, _reactor: &mut Reactor) -> Result<bool, LinkError> {
        match &self.over {
            Some(error) => Err(error.clone()),
            // What else comes makes an edge: the socket was drained when `receive` said so.
            None => Ok(self.early),
        }
    }

    fn forsake(&mut self, region: u64) {
        self.inbox.forsake(|access, _| access.region == region);
    }

    fn traffic(&self) -> Traffic {
        Traffic { frames_received: self.inbox.frames(), ..self.traffic }
    }

    fn close(&mut self, reactor: &mut Reactor) {
        if let Err(error) = reactor.forget_stream(&self.socket, self.token) {
            tracing::debug!(%error, "a socket was watched no more already");
        }
    }
}
