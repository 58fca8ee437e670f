//! Asking for a lock: a future, which a thread can also wait for.

use super::lock::Lock;
use super::threads::Granted;
use super::{Handle, parking};
use crate::event::{Event, Lockspace, Refusal, Request, Status, Transaction};
use crate::flags::Flags;
use crate::message::Key;
use crate::mode::Mode;
use crate::name::Name;
use crate::policy::Scope;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// A lock that is wanted. Nothing is asked before it is polled or waited for; dropped, it is not wanted any more.
#[must_use = "nothing is asked before it is awaited"]
pub struct Locking<'a> {
    handle: &'a Handle,
    key: Key,
    mode: Mode,
    flags: Flags,
    transaction: Transaction,
    within: Option<Duration>,
    tag: Option<u64>,
}

/// Flags with which a lock that this process has already is as good as a new one.
const REUSABLE: Flags = Flags(Flags::NOQUEUE.0 | Flags::NODLCKWT.0);

impl<'a> Locking<'a> {
    pub(super) fn new(handle: &'a Handle, space: Lockspace, name: Name, mode: Mode, flags: Flags) -> Self {
        let key = Key::new(space, name);
        Locking { handle, key, mode, flags, transaction: Transaction(0), within: None, tag: None }
    }

    /// Gives up after so long, as `Refusal::TimedOut`.
    pub fn within(mut self, limit: Duration) -> Self {
        self.within = Some(limit);
        self
    }

    /// On whose behalf, so that circles of waits are seen.
    pub fn on_behalf_of(mut self, transaction: Transaction) -> Self {
        self.transaction = transaction;
        self
    }

    /// Waits for it on this thread. Whoever drives the endpoint himself uses `Endpoint::block_on` instead.
    ///
    /// # Errors
    /// Why it is not had.
    pub fn wait(self) -> Result<Lock, Refusal> {
        parking::block_on(self)
    }

    /// True if a lock that was let go does as well as a new one.
    fn is_reusable(&self) -> bool {
        self.flags.0 & !REUSABLE.0 == 0 && self.transaction == Transaction(0)
    }

    fn ask(&mut self) -> Option<Lock> {
        let threads = &self.handle.threads;
        let is_reusable = self.is_reusable();
        if is_reusable && let Some(place) = threads.holds.take(&self.key, self.mode) {
            let (mode, status, value) = (self.mode, Status::default(), None);
            return Some(Lock::new(self.handle.clone(), Granted { place, mode, status, value }));
        }
        let tag = threads.request(self.key, !is_reusable);
        self.tag = Some(tag);
        let shared = &self.handle.shared;
        let deadline = self.within.map(|within| shared.now() + within);
        let timeout = if deadline.is_some() { Flags::TIMEOUT } else { Flags::NONE };
        shared.submit(Event::Request(Request {
            tag,
            owner: threads.owner(),
            transaction: self.transaction,
            lockspace: self.key.lockspace,
            parent: None,
            name: self.key.name,
            mode: self.mode,
            scope: Scope::Plain,
            flags: self.flags | timeout,
            deadline,
        }));
        None
    }
}

impl Future for Locking<'_> {
    type Output = Result<Lock, Refusal>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.tag.is_none()
            && let Some(lock) = self.ask()
        {
            return Poll::Ready(Ok(lock));
        }
        let Some(tag) = self.tag else { return Poll::Ready(Err(Refusal::NoLock)) };
        let Poll::Ready(answer) = self.handle.threads.poll(tag, context) else { return Poll::Pending };
        self.tag = None;
        let granted = answer.and_then(|granted| granted.ok_or(Refusal::NoLock));
        Poll::Ready(granted.map(|granted| Lock::new(self.handle.clone(), granted)))
    }
}

impl Drop for Locking<'_> {
    fn drop(&mut self) {
        if let Some(event) = self.tag.and_then(|tag| self.handle.threads.give_up(tag)) {
            self.handle.shared.submit(event);
        }
    }
}
