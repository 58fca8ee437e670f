//! The threads that read a FUSE device and hand requests to a [`Filesystem`].
//!
//! ```text
//!   thread:  epoll (device exclusively, stop) ──> read(2) into a leased buffer ──> decode ──> Filesystem::handle
//! ```
//!
//! The device is read without blocking so that [`Stopper::stop`] reaches every thread; `EPOLLEXCLUSIVE` keeps one
//! request from waking all of them.

use crate::abi::{self, NOTIFY_RESEND};
use crate::decode::{self, Decoded, Malformed};
use crate::error::Error;
use crate::handshake::{Agreed, Config};
use crate::operation::{Header, Operation};
use crate::pool::{Lease, Pool};
use crate::reply::Reply;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::sync::Arc;
use std::thread;
use zerocopy::IntoBytes;

/// A served request: who asks, what, and the means to answer.
#[derive(Debug)]
pub struct Request {
    /// Who asks about which node.
    pub header: Header,
    /// What is asked.
    pub operation: Operation,
    /// Answers it, once.
    pub reply: Reply,
}

/// What a mount shows.
pub trait Filesystem: Send + Sync {
    /// Answers `request` now or later, here or on another thread. May block, but occupies one of the session's threads
    /// as long as it does.
    fn handle(&self, request: Request);
}

/// The serving of one mount by one daemon.
pub struct Session {
    device: Arc<OwnedFd>,
    stop: Arc<OwnedFd>,
    filesystem: Arc<dyn Filesystem>,
    config: Config,
    pool: Arc<Pool>,
}

/// Ends [`Session::run`] from another thread.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<OwnedFd>);

impl Stopper {
    /// Every thread of the session returns after the request that it is handling. The mount stays, and requests wait in the
    /// kernel for the next session.
    pub fn stop(&self) {
        if let Err(errno) = rustix::io::write(&*self.0, &1u64.to_ne_bytes()) {
            tracing::error!("a FUSE session cannot be told to stop: {errno}");
        }
    }
}

/// Which descriptor an epoll event is about.
const DEVICE: u64 = 0;
const STOP: u64 = 1;

impl Session {
    /// Prepares to serve the mount behind `device`. `agreed` is what an earlier session's `on_agreed` was given, `None` if
    /// INIT was never answered. In both cases the kernel is asked to deliver again what an earlier session had read and
    /// not answered (its INIT too); kernels before 6.9 cannot, there such requests wait until their askers are killed.
    ///
    /// # Errors
    /// [`Error::Call`] if the device cannot be set up.
    pub fn adopt(
        device: OwnedFd,
        agreed: Option<Agreed>,
        filesystem: Arc<dyn Filesystem>,
        config: Config,
    ) -> Result<Session, Error> {
        let flags = rustix::fs::fcntl_getfl(&device).map_err(call("fcntl"))?;
        rustix::fs::fcntl_setfl(&device, flags | OFlags::NONBLOCK).map_err(call("fcntl"))?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(call("eventfd"))?;
        let pool = Pool::new(config.buffer_bytes(agreed.as_ref()), KEPT_BUFFERS_MAX);
        match resend(&device) {
            Ok(()) => {}
            Err(errno) if agreed.is_some() => {
                tracing::warn!("the kernel does not resend FUSE requests: {errno}")
            }
            Err(errno) => tracing::debug!("the kernel does not resend FUSE requests: {errno}"),
        }
        Ok(Session { device: Arc::new(device), stop: Arc::new(stop), filesystem, config, pool })
    }

    /// The means to end [`Session::run`].
    pub fn stopper(&self) -> Stopper {
        Stopper(self.stop.clone())
    }

    /// Serves with `threads` threads (at least one), named `fuse-0` and so on, until the mount is gone or
    /// [`Stopper::stop`].
    ///
    /// # Errors
    /// [`Error::Thread`] and [`Error::Call`]; the other threads are stopped first. [`Error::TooOld`] at INIT.
    pub fn run(&self, threads: usize) -> Result<(), Error> {
        thread::scope(|scope| {
            let start = |number| {
                let serve = || self.serve().inspect_err(|_| self.stopper().stop());
                thread::Builder::new().name(format!("fuse-{number}")).spawn_scoped(scope, serve)
            };
            let started: Result<Vec<_>, _> = (0..threads.max(1)).map(start).collect();
            let started = started.inspect_err(|_| self.stopper().stop()).map_err(Error::Thread)?;
            let ends = started.into_iter().map(|thread| thread.join().expect("a FUSE thread does not panic"));
            // All are joined before the first error is told.
            let ends: Vec<Result<(), Error>> = ends.collect();
            ends.into_iter().collect()
        })
    }

    fn serve(&self) -> Result<(), Error> {
        let poll = epoll::create(CreateFlags::CLOEXEC).map_err(call("epoll_create"))?;
        let exclusive = EventFlags::IN | EventFlags::EXCLUSIVE;
        epoll::add(&poll, &*self.device, EventData::new_u64(DEVICE), exclusive).map_err(call("epoll_ctl"))?;
        epoll::add(&poll, &*self.stop, EventData::new_u64(STOP), EventFlags::IN)
            .map_err(call("epoll_ctl"))?;
        let mut lease = self.pool.lease();
        loop {
            if must_stop(poll.as_fd())? {
                return Ok(());
            }
            // While requests queue up they are taken without asking epoll in between; but never so long that a
            // stop would go unheard.
            for _ in 0..READS_PER_WAIT {
                match rustix::io::read(&*self.device, &mut lease.buffer[..]) {
                    Ok(length) => lease = self.take(lease, length)?,
                    Err(Errno::AGAIN) => break,
                    // The request was taken back, or a signal came: the next one then.
                    Err(Errno::INTR | Errno::NOENT) => {}
                    Err(Errno::NODEV | Errno::CONNABORTED) => return Ok(()),
                    Err(errno) => return Err(Error::Call { call: "read", errno }),
                }
            }
        }
    }

    /// One message of the kernel, in the first `length` bytes of `lease`; returns a lease to read on with.
    fn take(&self, lease: Lease, length: usize) -> Result<Lease, Error> {
        let Some(raw) = decode::decode_header(&lease.buffer[..length]) else {
            tracing::error!(length, "the kernel sent a FUSE request shorter than its header");
            return Ok(lease);
        };
        let (body, lease) = lease.hand_on(size_of::<abi::InHeader>(), length);
        let reply = Reply::new(self.device.clone(), raw.unique, !decode::is_silent(raw.opcode));
        match decode::decode(&raw, body) {
            Ok(Decoded::Operation(operation)) => {
                self.filesystem.handle(Request { header: raw.into(), operation, reply });
            }
            Ok(Decoded::Init(init, flags2)) => self.initialise(&init, flags2, reply)?,
            Ok(Decoded::Unknown) => reply.error(Errno::NOSYS),
            Err(Malformed) => {
                tracing::error!(opcode = raw.opcode, length, "a FUSE request does not decode");
                reply.error(Errno::IO);
            }
        }
        Ok(lease.unwrap_or_else(|| self.pool.lease()))
    }

    fn initialise(&self, init: &abi::InitIn, flags2: u32, reply: Reply) -> Result<(), Error> {
        match self.config.agree(init, flags2) {
            Ok((agreed, out)) => {
                if let Some(hear) = &self.config.on_agreed {
                    hear(&agreed);
                }
                reply.initialised(&out);
                Ok(())
            }
            Err(refused) => {
                reply.error(Errno::PROTO);
                Err(refused)
            }
        }
    }
}

/// Buffers kept for the next write when nobody uses them.
const KEPT_BUFFERS_MAX: usize = 16;
/// Requests read in a row before the thread looks whether it shall stop.
const READS_PER_WAIT: usize = 32;

/// Waits for a request (false) or the stop (true).
fn must_stop(poll: BorrowedFd<'_>) -> Result<bool, Error> {
    let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(DEVICE) }; 2];
    let count = match epoll::wait(poll, &mut events[..], None) {
        Ok(count) => count,
        Err(Errno::INTR) => 0,
        Err(errno) => return Err(Error::Call { call: "epoll_wait", errno }),
    };
    Ok(events[..count].iter().any(|event| event.data.u64() == STOP))
}

fn resend(device: &OwnedFd) -> Result<(), Errno> {
    let header = abi::OutHeader { len: size_of::<abi::OutHeader>() as u32, error: NOTIFY_RESEND, unique: 0 };
    rustix::io::write(device, header.as_bytes()).map(|_| ())
}

fn call(call: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error::Call { call, errno }
}
