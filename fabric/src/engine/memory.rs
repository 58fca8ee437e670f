//! The engine's registered memory.

use super::Engine;
use super::outgoing::judge;
use crate::frame::Access;
use crate::region::{Memory, RegionId, RemoteKey, Rights, Span};
use crate::{Error, Message, Peer, Target};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Who waits for arrivals in a region.
pub struct Awaiting {
    region: RegionId,
    seen: u64,
    waker: Waker,
}

impl Engine {
    /// Memory for a region.
    ///
    /// # Errors
    /// There is none, or there are too many regions.
    pub fn register(&mut self, length: usize) -> io::Result<(RegionId, Arc<Memory>)> {
        let memory = self.registrations.obtain(length)?;
        let id = self
            .regions
            .register(memory.clone(), length)
            .ok_or_else(|| io::Error::other("too many regions"))?;
        Ok((id, memory))
    }

    /// The region is no more: nobody reaches its memory when this returns.
    pub fn unregister(&mut self, id: RegionId) {
        self.revoke(id);
        if let Some(memory) = self.regions.unregister(id) {
            self.registrations.give(memory);
        }
    }

    /// A key for one peer.
    ///
    /// # Errors
    /// Too many are out.
    pub fn grant(&mut self, id: RegionId, peer: Peer, rights: Rights) -> io::Result<RemoteKey> {
        let token = self.random();
        let mut key = self.regions.grant(id, peer, rights, token).map_err(io::Error::other)?;
        if let Some(memory) = self.regions.memory(id) {
            self.devices.expose(&mut key, memory);
        }
        Ok(key.turned(peer))
    }

    /// Raises a region's epoch; no key of before is good any more, at no device either.
    pub fn revoke(&mut self, id: RegionId) {
        self.regions.revoke(id);
        if self.regions.memory(id).is_some_and(|memory| !memory.conceal()) {
            tracing::error!(region = %id, "a device does not confirm that a region is revoked; its memory is never used again");
        }
        for guest in self.guests.iter_mut() {
            guest.target.forsake(id);
        }
        self.links.forsake(id.0);
        for link in self.links.ids() {
            self.links.mark(link);
        }
    }

    /// How many notifying writes have arrived.
    pub fn arrivals(&self, id: RegionId) -> u64 {
        self.regions.arrivals(id).unwrap_or(0)
    }

    /// Ready once so many have arrived.
    pub fn poll_arrived(&mut self, id: RegionId, count: u64, context: &mut Context<'_>) -> Poll<()> {
        if self.arrivals(id) >= count {
            return Poll::Ready(());
        }
        if !self.awaiting.iter().any(|other| other.region == id && other.waker.will_wake(context.waker())) {
            self.awaiting.push(Awaiting {
                region: id,
                seen: self.arrivals(id),
                waker: context.waker().clone(),
            });
        }
        Poll::Pending
    }

    /// Wakes who waits for arrivals.
    pub(super) fn tell_arrivals(&mut self) {
        // Few wait at a time; who has to wait on asks again.
        let regions = &self.regions;
        let changed = |awaiting: &mut Awaiting| {
            regions.arrivals(awaiting.region).is_none_or(|count| count > awaiting.seen)
        };
        let woken = self.awaiting.extract_if(.., changed).map(|awaiting| awaiting.waker);
        self.errands.wakes.extend(woken);
    }

    /// A transfer within this endpoint: the same rules, no link.
    ///
    /// # Errors
    /// As between two.
    pub fn transfer_here(
        &mut self,
        write: bool,
        key: &RemoteKey,
        offset: u64,
        pieces: &[Span],
        notify: bool,
        target: Target,
    ) -> Result<(), Error> {
        let mut at = offset;
        for piece in pieces {
            let length = piece.length() as u64;
            let access = Access {
                region: key.region,
                token: key.token,
                epoch: key.epoch,
                notify,
                offset: at,
                length,
                at: 0,
            };
            let there = match self.regions.check(self.identity.local, &access, write) {
                Ok(there) => there,
                Err(verdict) => return judge(target, verdict, Message::default()).map(|_| ()),
            };
            if write {
                there.copy_from(piece)
            } else {
                piece.copy_from(&there)
            }
            at = at.saturating_add(length);
        }
        if notify {
            self.regions.notify(RegionId(key.region));
            self.tell_arrivals();
        }
        Ok(())
    }
}
