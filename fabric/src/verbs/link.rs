//! A link through an RDMA device.
//!
//! Frames go as messages through a reliable connection; writes and reads of regions are carried out by the devices alone. The TCP
//! connection over which the link was set up stays open: its end is the link's end. So is every request that fails, for a queue pair
//! does not recover: the engine makes another link, and what was under way goes again.
//!
//! Invariant: whatever the device was given is kept until it is done with it, or until the queue pair is destroyed.

use super::adapter::Adapter;
use super::completion::{Completion, CompletionQueue, Completions, Work};
use super::incoming::Incoming;
use super::memory::RemotePlace;
use super::outgoing::Outgoing;
use super::pending::Pending;
use super::pool::Promise;
use super::{COMPLETIONS_MAX, Error};
use crate::provider::{DeviceAddress, Frame, Link, LinkError, OneSided, Provider, Sink, Traffic};
use crate::reactor::{Reactor, Token};
use crate::region::Span;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// How often one [`Link::receive`] asks for completions.
const POLLS_MAX: usize = 4;

/// One end of a link through an RDMA device.
pub struct VerbsLink {
    news: Completions,
    /// What came before the link began.
    early: Vec<Completion>,
    ends: Ends,
    completions: Arc<CompletionQueue>,
    adapter: Arc<Adapter>,
    failed: Arc<AtomicBool>,
    life: OwnedFd,
    token: Token,
    their_rail: u8,
    armed: bool,
    over: Option<LinkError>,
    /// Operations that could not be posted.
    unposted: Vec<u64>,
}

/// What completions concern.
struct Ends {
    outgoing: Outgoing,
    incoming: Incoming,
    promise: Promise,
    works: Works,
    /// The other end is ready to hear: the dialling end has seen so, the accepting end has been spoken to.
    heard: bool,
}

/// Operations that were carried out.
#[derive(Default)]
struct Works {
    posted: u64,
    done: u64,
    written: u64,
    read: u64,
    /// How many were done when somebody looked while some were under way.
    looked: Option<u64>,
}

impl VerbsLink {
    /// A link over a connection that is set up, for as long as its life line is open. The reactor reports both as `token`.
    ///
    /// # Errors
    /// They cannot be watched.
    pub fn new(
        pending: Pending,
        life: OwnedFd,
        token: Token,
        reactor: &mut Reactor,
    ) -> io::Result<VerbsLink> {
        let Pending {
            adapter,
            pair,
            slots,
            completions,
            promise,
            failed,
            promised,
            allowed,
            their_rail,
            through,
            early,
            ..
        } = pending;
        reactor.watch_level(&completions, token)?;
        reactor.watch_stream(&life, token)?;
        let ends = Ends {
            outgoing: Outgoing::new(pair, slots, allowed),
            incoming: Incoming::new(promised),
            promise,
            works: Works::default(),
            heard: through,
        };
        Ok(VerbsLink {
            news: Completions::new(),
            early,
            ends,
            completions,
            adapter,
            failed,
            life,
            token,
            their_rail,
            armed: false,
            over: None,
            unposted: Vec::new(),
        })
    }

    fn take_in(&mut self, sink: &mut dyn Sink) -> Result<bool, LinkError> {
        for completion in std::mem::take(&mut self.early) {
            self.ends.completed(completion, sink)?;
        }
        for _ in 0..POLLS_MAX {
            // What was seen when it was armed comes first.
            self.completions.poll(&mut self.news).map_err(lost)?;
            let (mut count, mut outcome) = (0, Ok(()));
            for completion in self.news.drain() {
                count += 1;
                match &outcome {
                    Ok(()) => outcome = self.ends.completed(completion, sink),
                    // Its buffer goes back at least.
                    Err(_) => drop(self.ends.promise.queue().take(completion)),
                }
            }
            outcome?;
            self.ends.go_on().map_err(lost)?;
            if count < COMPLETIONS_MAX {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Nothing more comes from the other end.
    fn check_life(&self, reactor: &Reactor) -> Result<(), LinkError> {
        let gone = |what| Err(io::Error::new(io::ErrorKind::ConnectionReset, what).into());
        if self.failed.load(Relaxed) {
            return gone("the RDMA device says that the connection has failed");
        }
        if reactor.hung_up(self.token) {
            return gone("the other end is gone");
        }
        Ok(())
    }

    /// Remembers why it is over.
    fn ended<T>(&mut self, result: Result<T, LinkError>) -> Result<T, LinkError> {
        if let Err(error) = &result {
            self.over = Some(error.clone());
        }
        result
    }

    fn post(&mut self, work: u64, write: bool, span: &Span, at: DeviceAddress) -> Result<(), LinkError> {
        let known = match self.adapter.known(span.memory().0) {
            Ok(known) => known,
            Err(error) => {
                tracing::debug!(%error, "a transfer goes by frames");
                self.unposted.push(work);
                return Ok(());
            }
        };
        let place = RemotePlace { address: at.address, key: at.rkey };
        let posted = self.ends.outgoing.post(work, write, span, &known, place).map_err(lost);
        self.ends.works.posted += 1;
        self.ended(posted)
    }
}

impl Ends {
    fn completed(&mut self, completion: Completion, sink: &mut dyn Sink) -> Result<(), LinkError> {
        let Work::Send { sequence } = completion.work() else {
            let received = self.promise.queue().take(completion).map_err(|failure| lost_by(&failure))?;
            let Some(taken) = received.immediate().filter(|_| received.written().is_none()) else {
                return Err(crate::frame::WireError("a message that does not count").into());
            };
            self.heard = true;
            self.outgoing.taken(taken);
            return Ok(self.incoming.take(&received, sink)?);
        };
        completion.outcome().map_err(|failure| lost_by(&failure))?;
        let works = &mut self.works;
        self.outgoing.completed(sequence, |done| {
            works.done += 1;
            works.read += done.read as u64;
            sink.posted(done.work, Ok(()));
        });
        Ok(())
    }

    /// Sends what waits, as far as it can go, and what the other end must know.
    fn go_on(&mut self) -> Result<(), Error> {
        if !self.heard {
            return Ok(());
        }
        if self.outgoing.can_go() {
            let told = self.incoming.tell();
            self.outgoing.pump(told)?;
        }
        if self.incoming.must_tell() {
            let told = self.incoming.tell();
            self.outgoing.say(told)?;
        }
        Ok(())
    }
}

impl Link for VerbsLink {
    fn provider(&self) -> Provider {
        Provider::Verbs
    }

    fn room(&self) -> usize {
        if self.ends.heard { self.ends.outgoing.room() } else { 0 }
    }

    fn push(&mut self, frame: Frame) {
        self.ends.outgoing.push(frame);
    }

    fn flush(&mut self, _reactor: &mut Reactor) -> Result<(), LinkError> {
        if let Some(error) = &self.over {
            return Err(error.clone());
        }
        let gone = self.ends.go_on().map_err(lost);
        self.ended(gone)
    }

    fn receive(
        &mut self,
        reactor: &mut Reactor,
        sink: &mut dyn Sink,
        _most: usize,
    ) -> Result<bool, LinkError> {
        if let Some(error) = &self.over {
            return Err(error.clone());
        }
        for work in self.unposted.drain(..) {
            let unposted = io::Error::other("the device does not take this memory");
            sink.posted(work, Err(unposted.into()));
            self.ends.works.done += 1;
        }
        if std::mem::take(&mut self.armed) {
            let acknowledged = self.completions.acknowledge().map(drop).map_err(lost);
            self.ended(acknowledged)?;
        }
        let more = self.take_in(sink);
        let alive = self.check_life(reactor);
        self.ended(more.and_then(|more| if more { Ok(true) } else { alive.map(|()| false) }))
    }

    fn arm(&mut self, _reactor: &mut Reactor) -> Result<bool, LinkError> {
        if let Some(error) = &self.over {
            return Err(error.clone());
        }
        if !self.early.is_empty() || !self.unposted.is_empty() || self.failed.load(Relaxed) {
            return Ok(true);
        }
        self.armed = true;
        let armed = self.completions.arm().and_then(|()| self.completions.poll(&mut self.news)).map_err(lost);
        self.ended(armed).map(|count| count > 0)
    }

    fn forsake(&mut self, region: u64) {
        // What devices write there ends with the memory's exposure.
        self.ends.incoming.forsake(region);
    }

    fn one_sided(&mut self) -> Option<&mut dyn OneSided> {
        Some(self)
    }

    fn traffic(&self) -> Traffic {
        let (sent, received) = (self.ends.outgoing.traffic(), self.ends.incoming.traffic());
        let works = &self.ends.works;
        // An operation counts as a frame that was sent, and when it is done as one that came.
        Traffic {
            frames_sent: sent.0 + works.posted,
            frames_received: received.0 + works.done,
            bytes_sent: sent.1 + works.written,
            bytes_received: received.1 + works.read,
        }
    }

    fn close(&mut self, reactor: &mut Reactor) {
        // They may never have been watched.
        let _ = reactor.forget(&self.completions);
        let _ = reactor.forget_stream(&self.life, self.token);
        // The other end notices by its life line. Buffers with messages that nobody will read go back.
        let _ = self.ends.outgoing.pair().fail();
        while self.completions.poll(&mut self.news).is_ok_and(|count| count > 0) {
            self.news.drain().for_each(|completion| drop(self.ends.promise.queue().take(completion)));
        }
    }
}

impl OneSided for VerbsLink {
    fn room(&self) -> usize {
        if self.over.is_some() { 0 } else { self.ends.outgoing.work_room() }
    }

    fn is_busy(&self) -> bool {
        self.ends.outgoing.has_works()
    }

    fn is_stuck(&mut self) -> bool {
        let Works { done, looked, .. } = self.ends.works;
        self.ends.works.looked = Some(done).filter(|_| self.ends.outgoing.has_works());
        looked == Some(done) && self.ends.outgoing.has_works()
    }

    fn rail(&self) -> u8 {
        self.their_rail
    }

    fn write(
        &mut self,
        work: u64,
        from: &Span,
        to: DeviceAddress,
        notify: Option<u32>,
    ) -> Result<(), LinkError> {
        if notify.is_some() {
            // It would take a buffer that was promised for a message.
            return Err(io::Error::from(io::ErrorKind::Unsupported).into());
        }
        self.ends.works.written += from.length() as u64;
        self.post(work, true, from, to)
    }

    fn read(&mut self, work: u64, from: DeviceAddress, into: &Span) -> Result<(), LinkError> {
        self.post(work, false, into, from)
    }
}

fn lost(error: Error) -> LinkError {
    io::Error::other(error).into()
}

fn lost_by(failure: &super::Failure) -> LinkError {
    io::Error::new(io::ErrorKind::ConnectionReset, failure.to_string()).into()
}
