//! What the engine sleeps on: descriptors that become ready.
//!
//! Owns one epoll set, whose own descriptor can be watched by another loop (a runtime), so the engine can be driven by whoever waits;
//! and the buffers that links borrow while bytes are on their way.
//! Invariant: a token is reported only while a descriptor is watched under it.

mod buffers;

pub use buffers::{Buffers, RECEIVE_BYTES, SPARE_BYTES_MIN};

use crate::tcp::Ring;
use rustix::event::{EventfdFlags, epoll, eventfd};
use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Whom a ready descriptor concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Whom it concerns.
    pub token: Token,
    /// It can be read, or is over.
    pub readable: bool,
    /// It can be written, or is over.
    pub writable: bool,
}

/// The most descriptors that one wait reports.
const EVENTS_MAX: usize = 128;

/// A set of watched descriptors.
pub struct Reactor {
    set: OwnedFd,
    /// The streams, and whether the other end was seen to have closed.
    streams: BTreeMap<Token, bool>,
    hung_up: usize,
    buffers: Arc<Buffers>,
    ring: Option<Box<Ring>>,
    bell: Option<Bell>,
}

/// Makes the set ready for news that were taken off the ring beside a wait.
struct Bell {
    descriptor: OwnedFd,
    rung: bool,
}

/// How the bytes of streams move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// Readiness by epoll, then send(2) and recv(2).
    Epoll,
    /// io_uring.
    Uring,
}

impl Io {
    /// What the environment variable `SSI_FABRIC_IO` says (`epoll` or `uring`); else epoll.
    pub fn chosen() -> Io {
        match std::env::var("SSI_FABRIC_IO").as_deref() {
            Ok("uring") => Io::Uring,
            _ => Io::Epoll,
        }
    }
}

/// The token of the ring, which no caller uses.
const RING: Token = Token(u64::MAX);

impl Reactor {
    /// An empty set; streams move as [`Io::chosen`] says.
    ///
    /// # Errors
    /// The system gives no descriptor.
    pub fn new() -> io::Result<Reactor> {
        Reactor::with(Io::chosen())
    }

    /// An empty set. Where io_uring is forbidden or too old, streams move by epoll all the same.
    ///
    /// # Errors
    /// The system gives no descriptor.
    pub fn with(io: Io) -> io::Result<Reactor> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let ring = match io {
            Io::Epoll => None,
            Io::Uring => Ring::new()
                .inspect_err(|error| tracing::info!(%error, "no io_uring here: streams move by epoll"))
                .ok(),
        };
        let mut reactor = Reactor {
            set,
            streams: BTreeMap::new(),
            hung_up: 0,
            buffers: Arc::default(),
            ring: None,
            bell: None,
        };
        if let Some(ring) = ring {
            let descriptor = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            reactor.watch_level(&ring, RING)?;
            reactor.watch_level(&descriptor, RING)?;
            reactor.ring = Some(Box::new(ring));
            reactor.bell = Some(Bell { descriptor, rung: false });
        }
        Ok(reactor)
    }

    /// How the bytes of streams move.
    pub fn io(&self) -> Io {
        if self.ring.is_some() { Io::Uring } else { Io::Epoll }
    }

    /// The ring, if streams move by it.
    pub(crate) fn ring(&mut self) -> Option<&mut Ring> {
        self.ring.as_deref_mut()
    }

    /// The buffers that links of this reactor share.
    pub fn buffers(&self) -> &Arc<Buffers> {
        &self.buffers
    }

    /// Watches a descriptor, edge-triggered: it is reported when it *becomes* readable or writable, so whoever is told reads until
    /// there is no more.
    ///
    /// # Errors
    /// epoll_ctl(2).
    pub fn watch(&mut self, descriptor: impl AsFd, token: Token) -> io::Result<()> {
        let flags =
            epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        Ok(epoll::add(&self.set, descriptor, epoll::EventData::new_u64(token.0), flags)?)
    }

    /// Watches a descriptor, level-triggered, for reading only.
    ///
    /// # Errors
    /// epoll_ctl(2).
    pub fn watch_level(&mut self, descriptor: impl AsFd, token: Token) -> io::Result<()> {
        Ok(epoll::add(&self.set, descriptor, epoll::EventData::new_u64(token.0), epoll::EventFlags::IN)?)
    }

    /// Watches it no more.
    ///
    /// # Errors
    /// epoll_ctl(2).
    pub fn forget(&mut self, descriptor: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.set, descriptor)?)
    }

    /// Watches a connection as [`Reactor::watch`] does, and remembers when its other end closes: a reader that stops at a short read,
    /// because nothing more is there, is told by [`Reactor::hung_up`] that the end is.
    ///
    /// # Errors
    /// epoll_ctl(2).
    pub fn watch_stream(&mut self, stream: impl AsFd, token: Token) -> io::Result<()> {
        self.watch(stream, token)?;
        self.streams.insert(token, false);
        Ok(())
    }

    /// Watches a connection no more.
    ///
    /// # Errors
    /// epoll_ctl(2).
    pub fn forget_stream(&mut self, stream: impl AsFd, token: Token) -> io::Result<()> {
        if self.streams.remove(&token) == Some(true) {
            self.hung_up -= 1;
        }
        self.forget(stream)
    }

    /// True once a wait has seen that the other end of this stream sends no more: it must be read to its end now, for nothing more
    /// will be reported.
    #[inline]
    pub fn hung_up(&self, token: Token) -> bool {
        self.hung_up > 0 && self.streams.get(&token) == Some(&true)
    }

    /// Waits until something is ready, at most `longest` (`None`: for ever), and appends it to `out`.
    ///
    /// # Errors
    /// epoll_wait(2); an interruption is none, it reports nothing.
    pub fn wait(&mut self, longest: Option<Duration>, out: &mut Vec<Ready>) -> io::Result<()> {
        let longest = if self.tell_news(out) { Some(Duration::ZERO) } else { longest };
        let longest = longest.map(|length| rustix::time::Timespec {
            tv_sec: i64::try_from(length.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(length.subsec_nanos()),
        });
        // On the stack: an event may hold a pointer, so a reactor that kept them could not go from thread to thread.
        let mut space = [MaybeUninit::uninit(); EVENTS_MAX];
        let events = match epoll::wait(&self.set, &mut space[..], longest.as_ref()) {
            Ok((events, _)) => events,
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for event in events {
            let (token, flags) = (Token(event.data.u64()), event.flags);
            if token == RING {
                continue;
            }
            let over = epoll::EventFlags::HUP | epoll::EventFlags::ERR | epoll::EventFlags::RDHUP;
            if flags.intersects(over)
                && let Some(seen) = self.streams.get_mut(&token)
            {
                self.hung_up += usize::from(!std::mem::replace(seen, true));
            }
            out.push(Ready {
                token,
                readable: flags.intersects(epoll::EventFlags::IN | over),
                writable: flags.intersects(epoll::EventFlags::OUT | over),
            });
        }
        self.tell_news(out);
        Ok(())
    }

    /// Called by a link that took completions off the ring: those of other links are reported by the next wait, and until then the set's
    /// descriptor is ready.
    pub(crate) fn ring_for_others(&mut self) {
        if let (Some(ring), Some(bell)) = (&self.ring, &mut self.bell)
            && ring.has_news()
            && !bell.rung
        {
            // It is full only if it rings already.
            let _ = rustix::io::write(&bell.descriptor, &1u64.to_ne_bytes());
            bell.rung = true;
        }
    }

    /// Reports streams for which the ring has done something; true if there are any.
    fn tell_news(&mut self, out: &mut Vec<Ready>) -> bool {
        let Some(ring) = &mut self.ring else { return false };
        if let Some(bell) = &mut self.bell
            && std::mem::take(&mut bell.rung)
        {
            // Empty if nobody rang.
            let _ = rustix::io::read(&bell.descriptor, &mut [0; 8]);
        }
        ring.reap();
        let before = out.len();
        ring.tell(|token| out.push(Ready { token, readable: true, writable: true }));
        out.len() > before
    }
}

impl AsFd for Reactor {
    /// Readable while something is ready.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.set.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_reported_when_it_becomes_ready_and_not_when_it_is_forgotten() {
        let mut reactor = Reactor::new().unwrap();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        reactor.watch_level(&ours, Token(7)).unwrap();
        let mut out = Vec::new();
        reactor.wait(Some(Duration::ZERO), &mut out).unwrap();
        assert!(out.is_empty());
        std::io::Write::write_all(&mut &theirs, b"x").unwrap();
        reactor.wait(None, &mut out).unwrap();
        assert_eq!((out[0].token, out[0].readable), (Token(7), true));
        out.clear();
        reactor.forget(&ours).unwrap();
        reactor.wait(Some(Duration::ZERO), &mut out).unwrap();
        assert!(out.is_empty());
    }

    #[test]
    fn a_reactor_goes_from_thread_to_thread() {
        fn goes<T: Send>(_: &T) {}
        goes(&Reactor::new().unwrap());
    }

    #[test]
    fn the_end_of_a_stream_is_remembered_until_it_is_forgotten() {
        let mut reactor = Reactor::new().unwrap();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        reactor.watch_stream(&ours, Token(7)).unwrap();
        let mut out = Vec::new();
        std::io::Write::write_all(&mut &theirs, b"x").unwrap();
        reactor.wait(None, &mut out).unwrap();
        assert!(!reactor.hung_up(Token(7)));
        drop(theirs);
        reactor.wait(None, &mut out).unwrap();
        assert!(reactor.hung_up(Token(7)) && !reactor.hung_up(Token(8)));
        reactor.forget_stream(&ours, Token(7)).unwrap();
        assert!(!reactor.hung_up(Token(7)));
    }
}
