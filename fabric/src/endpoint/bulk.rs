//! Registered memory and one-sided transfers, as their users hold them.

use super::Endpoint;
use super::calling::Calling;
use super::shared::Shared;
use crate::engine::Transfer;
use crate::region::{Memory, RegionId, RemoteKey, Rights, Span};
use crate::{Error, Peer, Target};
use std::sync::Arc;
use std::time::Duration;

/// Memory that others may be allowed to reach. Dropped, its keys are dead and its memory is kept for the next one.
pub struct Region {
    shared: Arc<Shared>,
    id: RegionId,
    memory: Arc<Memory>,
    length: usize,
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Region({}, {} bytes)", self.id.0, self.length)
    }
}

impl Region {
    pub(super) fn new(shared: Arc<Shared>, length: usize) -> Result<Region, Error> {
        let (id, memory) = shared
            .with(|engine, _| engine.register(length))
            .map_err(|error| Error::NoMemory(Arc::new(error)))?;
        Ok(Region { shared, id, memory, length })
    }

    /// Its length in bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// All of it, for transfers and for copying in and out.
    pub fn span(&self) -> Span {
        Span::of(&self.memory, 0, self.length).expect("a region is as long as its memory or shorter")
    }

    /// A part of it; `None` if it reaches beyond the end.
    pub fn part(&self, offset: usize, length: usize) -> Option<Span> {
        self.span().part(offset, length)
    }

    /// A key with which this one peer may reach it, until it is revoked.
    ///
    /// # Errors
    /// Too many keys of this region are out: [`Error::NoMemory`].
    pub fn grant(&self, peer: Peer, rights: Rights) -> Result<RemoteKey, Error> {
        let granted = self.shared.with(|engine, _| engine.grant(self.id, peer, rights));
        granted.map_err(|error| Error::NoMemory(Arc::new(error)))
    }

    /// Raises the epoch: when this returns, no key that was granted so far is good any more, and nobody writes into the region.
    pub fn revoke(&self) {
        self.shared.with(|engine, _| engine.revoke(self.id));
    }

    /// How many notifying writes have arrived.
    pub fn arrivals(&self) -> u64 {
        self.shared.with(|engine, _| engine.arrivals(self.id))
    }

    /// Waits until so many notifying writes have arrived in all.
    pub async fn arrived(&self, count: u64) {
        std::future::poll_fn(|context| {
            self.shared.with(|engine, _| engine.poll_arrived(self.id, count, context))
        })
        .await;
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.shared.with(|engine, _| engine.unregister(self.id));
    }
}

impl Endpoint {
    /// Writes pieces of this end's memory, one behind the other, into a remote region. When it is through, all of it is there.
    ///
    /// # Errors
    /// As [`Endpoint::call`], and [`Error::Denied`], [`Error::Revoked`], [`Error::OutOfBounds`]. Any part may have been written.
    pub async fn write(
        &self,
        key: &RemoteKey,
        offset: u64,
        pieces: &[Span],
        deadline: Duration,
    ) -> Result<(), Error> {
        self.transfer(true, key, offset, pieces, false, deadline).await
    }

    /// As [`Endpoint::write`]; and when all of it is there, the region counts one arrival.
    ///
    /// # Errors
    /// As [`Endpoint::write`].
    pub async fn write_notify(
        &self,
        key: &RemoteKey,
        offset: u64,
        pieces: &[Span],
        deadline: Duration,
    ) -> Result<(), Error> {
        self.transfer(true, key, offset, pieces, true, deadline).await
    }

    /// Reads from a remote region into pieces of this end's memory, one behind the other.
    ///
    /// # Errors
    /// As [`Endpoint::write`]. Any part may have been read.
    pub async fn read(
        &self,
        key: &RemoteKey,
        offset: u64,
        pieces: &[Span],
        deadline: Duration,
    ) -> Result<(), Error> {
        self.transfer(false, key, offset, pieces, false, deadline).await
    }

    async fn transfer(
        &self,
        write: bool,
        key: &RemoteKey,
        offset: u64,
        pieces: &[Span],
        notify: bool,
        after: Duration,
    ) -> Result<(), Error> {
        let shared = self.shared();
        if key.owner == shared.local {
            let target = Target::Peer(key.owner);
            return shared.with(|engine, _| engine.transfer_here(write, key, offset, pieces, notify, target));
        }
        let transfer = Transfer { write, key: *key, offset, pieces: pieces.to_vec(), notify, after };
        Calling::begin(shared, |engine, now| engine.transfer(transfer, now))?.await.map(|_| ())
    }
}
