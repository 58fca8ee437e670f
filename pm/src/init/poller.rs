//! The one place where the supervisor waits: an epoll with a number for everything that can be ready.

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Names a registered descriptor. Never given twice, so an event that is late finds nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(u64);

/// What a descriptor is watched for, or is ready for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Reading (or its end, or an error).
    pub read: bool,
    /// Writing (or an error).
    pub write: bool,
}

impl Ready {
    /// Reading only.
    pub const READ: Ready = Ready { read: true, write: false };

    fn flags(self) -> EventFlags {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, self.read);
        flags.set(EventFlags::OUT, self.write);
        flags
    }
}

/// A registration: remembers what the kernel was told, because a hang-up is reported even when nothing is asked.
#[derive(Debug)]
pub struct Registration {
    key: Key,
    interest: Option<Ready>,
}

impl Registration {
    /// The key that its events carry.
    pub fn key(&self) -> Key {
        self.key
    }
}

/// The epoll.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    last_key: u64,
}

impl Poller {
    /// An empty one.
    ///
    /// # Errors
    /// epoll_create1(2) failed.
    pub fn new() -> io::Result<Poller> {
        Ok(Poller { epoll: epoll::create(CreateFlags::CLOEXEC)?, last_key: 0 })
    }

    /// A registration that is not watched for anything yet.
    pub fn register(&mut self) -> Registration {
        self.last_key += 1;
        Registration { key: Key(self.last_key), interest: None }
    }

    /// Watches `fd` for `wanted` from now on. Nothing wanted: it is not watched at all, not even for hang-ups.
    ///
    /// # Errors
    /// epoll_ctl(2) failed.
    pub fn watch(&self, place: &mut Registration, fd: impl AsFd, wanted: Ready) -> io::Result<()> {
        let wanted = (wanted != Ready::default()).then_some(wanted);
        let data = EventData::new_u64(place.key.0);
        match (place.interest, wanted) {
            (None, None) => {}
            (None, Some(ready)) => epoll::add(&self.epoll, fd, data, ready.flags())?,
            (Some(_), None) => epoll::delete(&self.epoll, fd)?,
            (Some(old), Some(new)) if old == new => {}
            (Some(_), Some(ready)) => epoll::modify(&self.epoll, fd, data, ready.flags())?,
        }
        place.interest = wanted;
        Ok(())
    }

    /// Waits until something is ready, at most `limit`.
    ///
    /// # Errors
    /// epoll_wait(2) failed for another reason than a signal.
    pub fn wait(&self, limit: Duration) -> io::Result<Vec<(Key, Ready)>> {
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
        let mut events = Vec::with_capacity(64);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let broken = EventFlags::ERR | EventFlags::HUP;
        let ready = |flags: EventFlags| Ready {
            read: flags.intersects(EventFlags::IN | broken),
            write: flags.intersects(EventFlags::OUT | broken),
        };
        Ok(events.iter().map(|e| (Key(e.data.u64()), ready(e.flags))).collect())
    }
}
