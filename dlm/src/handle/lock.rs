//! A lock that is held, for as long as this value lives.

use super::holds::Place;
use super::threads::Granted;
use super::{Handle, parking};
use crate::event::{Convert, Event, Refusal, Status, Unlock, VALUE_BYTES};
use crate::flags::Flags;
use crate::mode::Mode;
use std::future::poll_fn;
use std::task::Waker;

/// A lock. While it lives nobody in the cluster has an incompatible mode on the resource; dropped, it is let go: kept by this process as long as nobody
/// else wants it, so that having it again costs no message and no hop.
#[must_use = "the lock goes with this"]
pub struct Lock {
    handle: Handle,
    place: Place,
    mode: Mode,
    status: Status,
    value: Option<[u8; VALUE_BYTES]>,
    is_gone: bool,
}

impl std::fmt::Debug for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lock({:?}, token {:#x})", self.mode, self.place.token)
    }
}

impl Lock {
    pub(super) fn new(handle: Handle, granted: Granted) -> Lock {
        let Granted { place, mode, status, value } = granted;
        Lock { handle, place, mode, status, value, is_gone: false }
    }

    /// The mode in which it is held.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The token of the grant, for storage to refuse older ones. A lock that this process let go and has again, with nobody in between, has the same.
    pub fn token(&self) -> u64 {
        self.place.token
    }

    /// Remarks on the last grant.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The value block, if it was to be read (VALBLK).
    pub fn value(&self) -> Option<&[u8; VALUE_BYTES]> {
        self.value.as_ref()
    }

    /// What somebody else wants, as soon as somebody does: the blocking callback. Whoever lets go then lets him in.
    pub async fn wanted(&self) -> Mode {
        let holds = &self.handle.threads.holds;
        poll_fn(|context| match holds.poll_wanted(self.place, context.waker()) {
            Some(mode) => std::task::Poll::Ready(mode),
            None => std::task::Poll::Pending,
        })
        .await
    }

    /// What somebody else wants at this moment.
    pub fn is_wanted(&self) -> Option<Mode> {
        self.handle.threads.holds.poll_wanted(self.place, Waker::noop())
    }

    /// Has it in another mode. With VALBLK, and from PW or EX downwards, the value block becomes `value`; upwards it is read. Refused, the lock is
    /// as before.
    ///
    /// # Errors
    /// Why not. A conversion that is dropped is cancelled; it may have been carried out.
    pub async fn convert(
        &mut self,
        mode: Mode,
        flags: Flags,
        value: Option<[u8; VALUE_BYTES]>,
    ) -> Result<(), Refusal> {
        let threads = &self.handle.threads;
        // What was asked for with flags of its own is not what the next one asks for.
        threads.holds.set_single(self.place);
        let tag = threads.convert(self.place);
        let (owner, lock, scope, deadline) = (threads.owner(), self.place.lock, None, None);
        let waiting = Waiting { handle: &self.handle, tag };
        let event = Event::Convert(Convert { tag, owner, lock, mode, scope, flags, value, deadline });
        self.handle.shared.submit(event);
        let granted = waiting.answer().await?.ok_or(Refusal::NoLock)?;
        (self.place, self.mode, self.status) = (granted.place, granted.mode, granted.status);
        self.value = granted.value;
        Ok(())
    }

    /// As [`Lock::convert`], for a thread.
    ///
    /// # Errors
    /// As there.
    pub fn convert_wait(
        &mut self,
        mode: Mode,
        flags: Flags,
        value: Option<[u8; VALUE_BYTES]>,
    ) -> Result<(), Refusal> {
        parking::block_on(self.convert(mode, flags, value))
    }

    /// Lets it go; from PW or EX the value block becomes `value`.
    ///
    /// # Errors
    /// [`Refusal::NoLock`]: it was gone already.
    pub async fn unlock(mut self, value: Option<[u8; VALUE_BYTES]>) -> Result<(), Refusal> {
        let threads = &self.handle.threads;
        let tag = threads.unlock();
        let (owner, lock) = (threads.owner(), self.place.lock);
        let written = if value.is_some() { Flags::VALBLK } else { Flags::NONE };
        let flags = written | Flags::FORCEUNLOCK;
        let waiting = Waiting { handle: &self.handle, tag };
        threads.holds.take_out(self.place);
        self.handle.shared.submit(Event::Unlock(Unlock { tag, owner, lock, flags, value }));
        let ended = waiting.answer().await;
        self.is_gone = true;
        ended.map(drop)
    }

    /// As [`Lock::unlock`], for a thread.
    ///
    /// # Errors
    /// As there.
    pub fn unlock_wait(self, value: Option<[u8; VALUE_BYTES]>) -> Result<(), Refusal> {
        parking::block_on(self.unlock(value))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if !self.is_gone
            && let Some(event) = self.handle.threads.let_go(self.place)
        {
            self.handle.shared.submit(event);
        }
    }
}

/// An answer that is waited for; dropped, it is given up.
struct Waiting<'a> {
    handle: &'a Handle,
    tag: u64,
}

impl Waiting<'_> {
    async fn answer(&self) -> Result<Option<Granted>, Refusal> {
        poll_fn(|context| self.handle.threads.poll(self.tag, context)).await
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(event) = self.handle.threads.give_up(self.tag) {
            self.handle.shared.submit(event);
        }
    }
}
