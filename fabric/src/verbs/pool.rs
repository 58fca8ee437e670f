//! Receive buffers that the links of one device address share.
//!
//! Owns shared receive queues ("pools"), and the account of what has been promised of them. A link is promised so many slots, and tells
//! the other end that number: so there is a buffer for each message that may come, and no sender ever has to try again. Pools are made as
//! links need them and end with their last link.
//!
//! Invariant: the sum of a pool's promises is at most what the device surely has of it: all slots, less those that lie idle between two
//! postings, less one for each link that ended (it may have failed in the midst of a message, whose slot is then lost).

use super::memory::ProtectionDomain;
use super::srq::{REPOST_BATCH, SharedReceiveQueue};
use super::{Error, SLOT_BYTES};
use parking_lot::Mutex;
use std::sync::{Arc, Weak};

/// Slots of one pool.
const SLOTS: u32 = 512;
/// Pools of one address.
const POOLS_MAX: usize = 64;
/// Slots that may be lost when a link ends.
const LOST: u32 = 1;

/// One shared receive queue and what is left of it.
struct Pool {
    queue: Arc<SharedReceiveQueue>,
    free: Mutex<u32>,
}

/// The pools of one address.
#[derive(Default)]
pub struct Pools(Mutex<Vec<Weak<Pool>>>);

/// Slots that a link may count on.
pub struct Promise {
    pool: Arc<Pool>,
    slots: u32,
}

impl Pools {
    /// So many slots, of a pool that has them or of a new one.
    ///
    /// # Errors
    /// `TooMuch` if there are too many links, `Device` if there is no memory for buffers.
    pub fn promise(&self, domain: &Arc<ProtectionDomain>, slots: u32) -> Result<Promise, Error> {
        let mut pools = self.0.lock();
        pools.retain(|pool| pool.strong_count() > 0);
        if let Some(promise) = pools.iter().filter_map(Weak::upgrade).find_map(|pool| pool.promise(slots)) {
            return Ok(promise);
        }
        let too_much = |value, limit| Error::TooMuch { what: "receive buffers of all links", value, limit };
        if pools.len() >= POOLS_MAX {
            return Err(too_much(POOLS_MAX + 1, POOLS_MAX));
        }
        let all = SLOTS.min(domain.device().limits().shared_queue_depth);
        let queue = SharedReceiveQueue::create(domain, all, SLOT_BYTES as u32)?;
        let free = all.saturating_sub(REPOST_BATCH as u32 - 1);
        let pool = Arc::new(Pool { queue, free: Mutex::new(free) });
        pools.push(Arc::downgrade(&pool));
        pool.promise(slots).ok_or_else(|| too_much(slots as usize, free as usize))
    }
}

impl Pool {
    fn promise(self: Arc<Pool>, slots: u32) -> Option<Promise> {
        let mut free = self.free.lock();
        *free = free.checked_sub(slots)?;
        drop(free);
        Some(Promise { pool: self, slots })
    }
}

impl Promise {
    /// The queue whose slots they are.
    pub fn queue(&self) -> &Arc<SharedReceiveQueue> {
        &self.pool.queue
    }

    /// How many.
    pub fn slots(&self) -> u32 {
        self.slots
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        *self.pool.free.lock() += self.slots.saturating_sub(LOST);
    }
}
