//! Streams over io_uring: one ring for all links of a reactor.
//!
//! ```text
//!  kernel -> buffers of the ring -> chunks of a stream -> inbox of its link
//!  outbox of a link -> parcel, owned by the ring until it is sent -> kernel
//! ```
//!
//! Owns what the kernel has in hand for its streams. Invariant: a stream's number is used again only when the kernel knows it no more.

use super::parcel::Parcel;
use super::sys::uring::{Done, Uring};
use crate::reactor::Token;
use slab::Slab;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// A parcel with so many bytes of lent memory is sent without a copy.
const ZERO_COPY_BYTES_MIN: usize = 64 << 10;

/// Received bytes that their link has not taken.
struct Chunk {
    buffer: u16,
    from: usize,
    to: usize,
}

struct Stream {
    socket: Arc<OwnedFd>,
    token: Token,
    chunks: VecDeque<Chunk>,
    /// The kernel receives.
    receiving: bool,
    /// Why it does not any more, if that is for good.
    end: Option<io::ErrorKind>,
    /// Parcels that the kernel has.
    sending: usize,
    sent: VecDeque<Sent>,
    /// Large parcels go without a copy, as long as the kernel takes them so.
    zero_copy: bool,
    closed: bool,
    /// It has news of which its link was not told.
    news: bool,
}

/// A parcel that the kernel is done with.
pub struct Sent {
    /// Bytes that were sent.
    pub outcome: io::Result<usize>,
    /// The parcel; `None` if all of it was sent.
    pub parcel: Option<Parcel>,
}

/// The streams of a reactor.
pub struct Ring {
    uring: Uring,
    streams: Slab<Stream>,
    /// Streams with news.
    news: Vec<usize>,
    /// Streams that stopped because all buffers were taken.
    starved: Vec<usize>,
}

impl Ring {
    /// No streams.
    ///
    /// # Errors
    /// The kernel has no such ring for us.
    pub fn new() -> io::Result<Ring> {
        Ok(Ring { uring: Uring::new()?, streams: Slab::new(), news: Vec::new(), starved: Vec::new() })
    }

    /// Begins to receive on a socket, and gives back the stream's number. With `zero_copy` large parcels are sent without the kernel copying
    /// them, which pays if a device reads them; on one host the kernel copies them all the same, later and page by page.
    ///
    /// # Errors
    /// io_uring_enter(2).
    pub fn open(&mut self, socket: Arc<OwnedFd>, token: Token, zero_copy: bool) -> io::Result<usize> {
        let number = self.streams.insert(Stream {
            socket,
            token,
            chunks: VecDeque::new(),
            receiving: false,
            end: None,
            sending: 0,
            sent: VecDeque::new(),
            zero_copy,
            closed: false,
            news: false,
        });
        // A new stream is reported once, as a new descriptor in an epoll set is.
        self.note(number);
        self.receive(number).map(|()| number)
    }

    fn receive(&mut self, number: usize) -> io::Result<()> {
        if let Some(stream) = self.streams.get_mut(number)
            && !stream.receiving
            && !stream.closed
            && stream.end.is_none()
        {
            stream.receiving = true;
            self.uring.receive(stream.socket.as_fd(), number)?;
            self.uring.submit()?;
        }
        Ok(())
    }

    /// Takes in what the kernel has done.
    pub fn reap(&mut self) {
        while let Some(done) = self.uring.next() {
            match done {
                Done::Received { stream, outcome, more } => self.received(stream, outcome, more),
                Done::Sent { stream, outcome, parcel } => {
                    let Some(of) = self.streams.get_mut(stream) else { continue };
                    of.sending -= 1;
                    of.sent.push_back(Sent { outcome, parcel });
                    self.note(stream);
                }
            }
        }
    }

    fn received(&mut self, number: usize, outcome: io::Result<(Option<u16>, usize)>, more: bool) {
        let Some(stream) = self.streams.get_mut(number) else { return };
        stream.receiving = more;
        match outcome {
            Ok((Some(buffer), bytes)) if bytes > 0 && !stream.closed => {
                stream.chunks.push_back(Chunk { buffer, from: 0, to: bytes });
            }
            Ok((Some(buffer), bytes)) => {
                self.uring.lend(buffer);
                if bytes == 0 {
                    stream.end = Some(io::ErrorKind::UnexpectedEof);
                }
            }
            Ok((None, _)) => stream.end = Some(io::ErrorKind::UnexpectedEof),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOBUFS) => self.starved.push(number),
                // Who asked for it is gone (a thread that ended): whoever comes next asks again.
                Some(libc::ECANCELED | libc::EINTR) => {}
                _ => stream.end = Some(error.kind()),
            },
        }
        self.note(number);
    }

    /// Remembers that a stream has news, or forgets the stream if it was closed and the kernel is done with it.
    fn note(&mut self, number: usize) {
        let Some(stream) = self.streams.get_mut(number) else { return };
        if stream.closed {
            if !stream.receiving && stream.sending == 0 {
                self.streams.remove(number);
            }
        } else if !std::mem::replace(&mut stream.news, true) {
            self.news.push(number);
        }
    }

    /// True if a stream has news that [`Ring::tell`] has not told.
    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// Tells whose streams have news.
    pub fn tell(&mut self, mut who: impl FnMut(Token)) {
        for number in self.news.drain(..) {
            if let Some(stream) = self.streams.get_mut(number)
                && std::mem::replace(&mut stream.news, false)
            {
                who(stream.token);
            }
        }
    }

    /// Gives the next received bytes to `take`, which says how many it took; false if there are none.
    pub fn take(&mut self, number: usize, take: impl FnOnce(&[u8]) -> usize) -> bool {
        let Some(stream) = self.streams.get_mut(number) else { return false };
        let Some(chunk) = stream.chunks.front_mut() else { return false };
        chunk.from += take(self.uring.bytes(chunk.buffer, chunk.from, chunk.to));
        if chunk.from >= chunk.to {
            let buffer = chunk.buffer;
            stream.chunks.pop_front();
            self.uring.lend(buffer);
            self.feed_starved();
        }
        true
    }

    /// There is a buffer again: who had to stop for want of one goes on.
    fn feed_starved(&mut self) {
        while let Some(starved) = self.starved.pop() {
            if let Err(error) = self.receive(starved)
                && let Some(stream) = self.streams.get_mut(starved)
            {
                (stream.receiving, stream.end) = (false, Some(error.kind()));
                self.note(starved);
            }
        }
    }

    /// Says that the link has looked: what it has taken is no news any more.
    pub fn looked(&mut self, number: usize) {
        if self.holds(number) {
            return;
        }
        if let Some(stream) = self.streams.get_mut(number)
            && std::mem::replace(&mut stream.news, false)
        {
            self.news.retain(|of| *of != number);
        }
    }

    /// True if received bytes, or parcels that were sent, wait for the link.
    pub fn holds(&self, number: usize) -> bool {
        let stream = self.streams.get(number);
        stream.is_some_and(|stream| {
            !stream.chunks.is_empty() || !stream.sent.is_empty() || stream.end.is_some()
        })
    }

    /// Says that the link has taken all that was there: the kernel goes on receiving for it, and for those who had to stop.
    ///
    /// # Errors
    /// The stream ended, or io_uring_enter(2).
    pub fn drained(&mut self, number: usize) -> io::Result<()> {
        self.feed_starved();
        match self.streams.get(number).and_then(|stream| stream.end) {
            Some(end) => Err(end.into()),
            None => self.receive(number),
        }
    }

    /// Sends a parcel.
    ///
    /// # Errors
    /// io_uring_enter(2).
    pub fn send(&mut self, number: usize, parcel: Parcel) -> io::Result<()> {
        let Some(stream) = self.streams.get_mut(number) else { return Ok(()) };
        let zero_copy = stream.zero_copy && parcel.lent_bytes() >= ZERO_COPY_BYTES_MIN;
        stream.sending += 1;
        self.uring.send(stream.socket.as_fd(), number, parcel, zero_copy)?;
        self.uring.submit()
    }

    /// Sends a parcel again of which the kernel said `error`: if that may pass, or comes of sending without a copy (a socket that cannot,
    /// a limit of locked memory).
    ///
    /// # Errors
    /// What it said, if it is for good; io_uring_enter(2).
    pub fn send_again(&mut self, number: usize, parcel: Parcel, error: io::Error) -> io::Result<()> {
        let passes = matches!(error.raw_os_error(), Some(libc::ECANCELED | libc::EINTR | libc::EAGAIN));
        let Some(stream) = self.streams.get_mut(number) else { return Ok(()) };
        let of_zero_copy =
            matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOMEM | libc::ENOBUFS));
        if !(passes || stream.zero_copy && of_zero_copy) {
            return Err(error);
        }
        stream.zero_copy &= passes;
        self.send(number, parcel)
    }

    /// The next parcel that the kernel is done with.
    pub fn sent(&mut self, number: usize) -> Option<Sent> {
        self.streams.get_mut(number)?.sent.pop_front()
    }

    /// Ends a stream, whatever the kernel has of it.
    pub fn close(&mut self, number: usize) {
        let Some(stream) = self.streams.get_mut(number) else { return };
        stream.closed = true;
        let receiving = stream.receiving;
        for chunk in stream.chunks.drain(..) {
            self.uring.lend(chunk.buffer);
        }
        // What the kernel still sends or receives fails now; a stream that is over already cannot be shut down, nor need it be.
        let _ = rustix::net::shutdown(&stream.socket, rustix::net::Shutdown::Both);
        if receiving && let Err(error) = self.uring.cancel(number).and_then(|()| self.uring.submit()) {
            tracing::warn!(%error, "a stream of the ring was not cancelled");
        }
        self.note(number);
    }
}

impl AsFd for Ring {
    /// Readable while the kernel has done something that was not taken in.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.uring.as_fd()
    }
}
