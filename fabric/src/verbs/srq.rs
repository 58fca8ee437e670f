//! Shared receive queues: buffers into which any of a device's queue pairs receives.
//!
//! Owns: the queue and the memory of its buffers ("slots"). Invariant: a slot is either with the device (posted) or with
//! exactly one `Received`; peers have no key to it. So a `Received` may hand out a reference to its bytes,
//! and its slot goes back to the device only when it is dropped.
#![allow(unsafe_code)]

use super::completion::{Completion, Failure, Work, immediate_of};
use super::ffi::{self, RecvWr, Sge, Srq, SrqInitAttr};
use super::memory::{Access, MemoryRegion, ProtectionDomain};
use super::{Device, Error};
use parking_lot::Mutex;
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Slots that are given back to the device at a time. So many, less one, may lie idle.
pub const REPOST_BATCH: usize = 16;

/// The next queue's identity. It distinguishes the completions of queues that share a completion queue.
static NEXT_IDENTITY: AtomicU32 = AtomicU32::new(0);

/// A shared receive queue and its slots.
pub struct SharedReceiveQueue {
    raw: NonNull<Srq>,
    identity: u32,
    slot_length: u32,
    /// Which slots the device has.
    posted: Box<[AtomicBool]>,
    /// Slots that wait to be given back; never longer than there are slots.
    idle: Mutex<Vec<u32>>,
    region: MemoryRegion,
    domain: Arc<ProtectionDomain>,
}

// SAFETY: see `Device`: the library and the operations of a context serve any thread.
unsafe impl Send for SharedReceiveQueue {}
// SAFETY: as above.
unsafe impl Sync for SharedReceiveQueue {}

impl SharedReceiveQueue {
    /// A queue of `slots` buffers of `slot_length` bytes each, all of them with the device.
    ///
    /// # Errors
    /// `TooMuch` if the device has no such queue, `Device` if it or its memory cannot be had.
    pub fn create(domain: &Arc<ProtectionDomain>, slots: u32, slot_length: u32) -> Result<Arc<Self>, Error> {
        let device = domain.device();
        let limit = device.limits().shared_queue_depth as usize;
        if slots as usize > limit {
            let what = "buffers of a shared receive queue";
            return Err(Error::TooMuch { what, value: slots as usize, limit });
        }
        let length = slots as usize * slot_length as usize;
        let region = MemoryRegion::allocate(domain, length, Access::LOCAL)?;
        let mut attr =
            SrqInitAttr { srq_context: std::ptr::null_mut(), max_wr: slots, max_sge: 1, srq_limit: 0 };
        // SAFETY: a live domain and a structure of the header's size.
        let raw = NonNull::new(unsafe { (device.library().create_srq)(domain.raw(), &mut attr) })
            .ok_or_else(|| device.failed("make a shared receive queue"))?;
        let queue = Self {
            raw,
            identity: NEXT_IDENTITY.fetch_add(1, Ordering::Relaxed) & 0x7fff_ffff,
            slot_length,
            posted: (0..slots).map(|_| AtomicBool::new(false)).collect(),
            idle: Mutex::new((0..slots).rev().collect()),
            region,
            domain: Arc::clone(domain),
        };
        queue.post_idle(&mut queue.idle.lock())?;
        Ok(Arc::new(queue))
    }

    /// Its identity: `Work::Receive::queue` of its completions.
    pub fn identity(&self) -> u32 {
        self.identity
    }

    /// Its number of slots. A credit scheme must not promise the last `REPOST_BATCH - 1` of them.
    pub fn slots(&self) -> u32 {
        u32::try_from(self.posted.len()).unwrap_or(u32::MAX)
    }

    /// Bytes of one slot.
    pub fn slot_length(&self) -> u32 {
        self.slot_length
    }

    pub(super) fn raw(&self) -> *mut Srq {
        self.raw.as_ptr()
    }

    /// The message that a completion is about. Dropping it gives its slot back to the device.
    ///
    /// # Errors
    /// Why there is none; `Foreign` if the completion belongs to something else (the slot, if any, is not given back then).
    pub fn take(self: &Arc<Self>, completion: Completion) -> Result<Received, Failure> {
        let Work::Receive { queue, slot } = completion.work() else { return Err(Failure::Foreign) };
        let state = self.posted.get(slot as usize).filter(|_| queue == self.identity);
        // Taken twice: then the device is broken, and the slot must not have two owners.
        if !state.is_some_and(|posted| posted.swap(false, Ordering::AcqRel)) {
            return Err(Failure::Foreign);
        }
        let written = completion.raw.opcode == ffi::WC_RECV_RDMA_WITH_IMM;
        let mut received = Received {
            queue: Arc::clone(self),
            slot,
            length: 0,
            written: None,
            immediate: None,
            queue_pair: completion.queue_pair(),
        };
        completion.outcome()?;
        received.immediate = immediate_of(&completion.raw);
        match written {
            true => received.written = Some(completion.raw.byte_len),
            false => received.length = completion.raw.byte_len.min(self.slot_length),
        }
        Ok(received)
    }

    fn give_back(&self, slot: u32) {
        let mut idle = self.idle.lock();
        idle.push(slot);
        if idle.len() < REPOST_BATCH.min(self.posted.len()) {
            return;
        }
        // They stay idle and are tried again with the next.
        if let Err(error) = self.post_idle(&mut idle) {
            tracing::warn!("{error}");
        }
    }

    /// Gives idle slots to the device, until there are none or it takes no more.
    fn post_idle(&self, idle: &mut Vec<u32>) -> Result<(), Error> {
        while !idle.is_empty() {
            let batch = idle.len().saturating_sub(REPOST_BATCH);
            let taken = self.post(&idle[batch..]);
            idle.drain(batch..batch + taken);
            if taken == 0 {
                return Err(self.device().failed("give receive buffers back"));
            }
        }
        Ok(())
    }

    /// Gives some slots to the device, the first ones first; tells how many it took.
    fn post(&self, slots: &[u32]) -> usize {
        let Some(post) = self.device().ops().post_srq_recv else { return 0 };
        let mut segments = [Sge { addr: 0, length: self.slot_length, lkey: 0 }; REPOST_BATCH];
        let mut requests: [RecvWr; REPOST_BATCH] = std::array::from_fn(|_| RecvWr {
            wr_id: 0,
            next: std::ptr::null_mut(),
            sg_list: std::ptr::null_mut(),
            num_sge: 1,
        });
        let (first, first_segment) = (requests.as_mut_ptr(), segments.as_mut_ptr());
        for (place, slot) in slots.iter().enumerate().take(REPOST_BATCH) {
            let offset = *slot as usize * self.slot_length as usize;
            let Ok(segment) = self.region.segment(offset, self.slot_length as usize) else { return 0 };
            // SAFETY: within the two arrays. They are reached through these pointers only from here on.
            unsafe {
                *first_segment.add(place) = segment.raw;
                let request = &mut *first.add(place);
                request.wr_id = Work::Receive { queue: self.identity, slot: *slot }.identity();
                request.sg_list = first_segment.add(place);
                if place > 0 {
                    (*first.add(place - 1)).next = first.add(place);
                }
            }
            // Before the device has it: the completion may be there before `post` returns.
            self.posted[*slot as usize].store(true, Ordering::Release);
        }
        let mut refused = std::ptr::null_mut();
        // SAFETY: a live queue and a chain of requests that ends, over slots that nobody else has.
        let status = unsafe { post(self.raw.as_ptr(), first, &mut refused) };
        if status == 0 {
            return slots.len();
        }
        let taken = (0..slots.len()).find(|place| refused == first.wrapping_add(*place)).unwrap_or(0);
        slots[taken..].iter().for_each(|slot| self.posted[*slot as usize].store(false, Ordering::Release));
        taken
    }

    fn device(&self) -> &Arc<Device> {
        self.domain.device()
    }
}

impl Drop for SharedReceiveQueue {
    fn drop(&mut self) {
        // SAFETY: queue pairs hold an `Arc` of `self`, so none uses it. Its region goes after it.
        let status = unsafe { (self.device().library().destroy_srq)(self.raw.as_ptr()) };
        if let Err(error) = self.device().outcome(status, "destroy a shared receive queue") {
            tracing::warn!("{error}");
        }
    }
}

/// A message that arrived, or the news that a peer has written to a region. Its bytes are where the device put them.
pub struct Received {
    queue: Arc<SharedReceiveQueue>,
    slot: u32,
    length: u32,
    written: Option<u32>,
    immediate: Option<u32>,
    queue_pair: u32,
}

impl Received {
    /// The number of our queue pair that it came by.
    pub fn queue_pair(&self) -> u32 {
        self.queue_pair
    }

    /// The number that the peer sent along, if any.
    pub fn immediate(&self) -> Option<u32> {
        self.immediate
    }

    /// For a write with an immediate number: how many bytes were written to the region. A message: none.
    pub fn written(&self) -> Option<u32> {
        self.written
    }
}

impl Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let offset = self.slot as usize * self.queue.slot_length as usize;
        let start = self.queue.region.memory().address();
        // SAFETY: the slot lies within the memory and belongs to `self` alone; `length` is at most the slot's.
        unsafe { std::slice::from_raw_parts(start.add(offset), self.length as usize) }
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (length, written) = (self.length, self.written);
        write!(f, "Received({length} bytes, written {written:?}, immediate {:?})", self.immediate)
    }
}

impl AsRef<[u8]> for Received {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.queue.give_back(self.slot);
    }
}
