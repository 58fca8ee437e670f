//! Completion queues: what a device has done, and being woken when there is more.
//!
//! Owns: the queue and its channel. Invariant: every completion comes out of `drain` once and is not copied, so whoever
//! holds a `Completion` is the only one who may act on it; every event that was read from the channel is acknowledged at
//! once, so destroying the queue never waits.
//!
//! Waiting, without losing a wake-up: `poll` until empty, `arm`, `poll` once more, sleep until the descriptor is readable,
//! `acknowledge`. How long to poll before sleeping is the caller's affair.
#![allow(unsafe_code)]

use super::ffi::{self, CompChannel, Cq, Wc};
use super::{Device, Error};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

/// Completions that are taken from a queue at a time.
pub const COMPLETIONS_MAX: usize = 32;

/// A request's identity with this bit belongs to a receive queue, without it to a send queue.
const RECEIVE: u64 = 1 << 63;

/// What a completion is the end of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A request of a send queue, and all before it.
    Send {
        /// Its place among all requests of its queue pair.
        sequence: u64,
    },
    /// A message that arrived, or a buffer that will receive none.
    Receive {
        /// Identity of the shared receive queue.
        queue: u32,
        /// The buffer's number in it.
        slot: u32,
    },
}

impl Work {
    pub(super) fn identity(self) -> u64 {
        match self {
            Work::Send { sequence } => sequence & !RECEIVE,
            Work::Receive { queue, slot } => RECEIVE | u64::from(queue & 0x7fff_ffff) << 32 | u64::from(slot),
        }
    }

    fn of_identity(identity: u64) -> Self {
        match identity & RECEIVE {
            0 => Work::Send { sequence: identity },
            _ => Work::Receive {
                queue: ((identity & !RECEIVE) >> 32) as u32,
                slot: (identity & u64::from(u32::MAX)) as u32,
            },
        }
    }
}

/// Why a request ended without being done. The queue pair is in the error state after any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The queue pair had failed before; a remote write may or may not have been carried out.
    Flushed,
    /// The peer's memory is not (any more) to be reached with that key, at that place, in that way.
    RemoteAccess,
    /// The peer refused the request as malformed.
    RemoteRequest,
    /// The peer could not carry it out.
    RemoteOperation,
    /// Our own memory is not (any more) registered, or not for that.
    LocalProtection,
    /// Our own device could not carry it out (some say so where `LocalProtection` is meant).
    LocalOperation,
    /// A buffer was too short for what came.
    LocalLength,
    /// The peer, or the network, did not answer.
    NoAnswer,
    /// The peer had no receive buffer for too long.
    NotReady,
    /// It is no completion of this receive queue.
    Foreign,
    /// Anything else: the library's status and the vendor's code.
    Other {
        /// `enum ibv_wc_status`.
        status: u32,
        /// The vendor's.
        vendor: u32,
    },
}

impl Failure {
    fn of(wc: &Wc) -> Option<Self> {
        Some(match wc.status {
            0 => return None,
            1 => Failure::LocalLength,
            2 => Failure::LocalOperation,
            4 | 8 => Failure::LocalProtection,
            5 => Failure::Flushed,
            9 => Failure::RemoteRequest,
            10 => Failure::RemoteAccess,
            11 => Failure::RemoteOperation,
            12 | 20 => Failure::NoAnswer,
            13 => Failure::NotReady,
            status => Failure::Other { status, vendor: wc.vendor_err },
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::Flushed => "the queue pair had failed before",
            Failure::RemoteAccess => "the peer's memory is not to be reached with this key",
            Failure::RemoteRequest => "the peer refused the request",
            Failure::RemoteOperation => "the peer could not carry the request out",
            Failure::LocalProtection => "our own memory is not registered for this",
            Failure::LocalOperation => "our own device could not carry the request out",
            Failure::LocalLength => "a receive buffer is too short",
            Failure::NoAnswer => "the peer does not answer",
            Failure::NotReady => "the peer has no receive buffers",
            Failure::Foreign => "a completion of something else",
            Failure::Other { status, vendor } => {
                return write!(f, "completion status {status}, vendor's code {vendor:#x}");
            }
        })
    }
}

/// One piece of news from a device.
pub struct Completion {
    pub(super) raw: Wc,
}

impl Completion {
    /// The number of the queue pair that it belongs to.
    pub fn queue_pair(&self) -> u32 {
        self.raw.qp_num
    }

    /// What has ended.
    pub fn work(&self) -> Work {
        Work::of_identity(self.raw.wr_id)
    }

    /// Whether it was done.
    ///
    /// # Errors
    /// Why not.
    pub fn outcome(&self) -> Result<(), Failure> {
        Failure::of(&self.raw).map_or(Ok(()), Err)
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of queue pair {}: {:?}", self.work(), self.queue_pair(), self.outcome())
    }
}

/// Room for completions between the queue and whoever acts on them; kept and used again.
pub struct Completions {
    raw: [Wc; COMPLETIONS_MAX],
    length: usize,
}

impl Completions {
    /// Empty.
    pub fn new() -> Self {
        // SAFETY: numbers only, for which zeros are values.
        Self { raw: unsafe { std::mem::zeroed() }, length: 0 }
    }

    /// Takes all of them out, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = Completion> + '_ {
        let length = std::mem::take(&mut self.length);
        self.raw[..length].iter().map(|raw| Completion { raw: *raw })
    }
}

impl Default for Completions {
    fn default() -> Self {
        Self::new()
    }
}

/// A completion queue with a channel of its own.
pub struct CompletionQueue {
    raw: NonNull<Cq>,
    channel: NonNull<CompChannel>,
    device: Arc<Device>,
}

// SAFETY: see `Device`: the library and the operations of a context serve any thread.
unsafe impl Send for CompletionQueue {}
// SAFETY: as above.
unsafe impl Sync for CompletionQueue {}

impl CompletionQueue {
    /// A queue for at least `depth` completions: there must never be more waiting than that, or the queue fails. Of a
    /// queue pair all requests of its send queue may complete (in the error state also unsignalled ones do), of a
    /// shared receive queue all buffers.
    ///
    /// # Errors
    /// `TooMuch` if the device has no such queue, `Device` if there are too many.
    pub fn create(device: &Arc<Device>, depth: u32, vector: u32) -> Result<Arc<Self>, Error> {
        let limit = device.limits().completions;
        if depth > limit {
            let (value, limit) = (depth as usize, limit as usize);
            return Err(Error::TooMuch { what: "completions of a queue", value, limit });
        }
        let library = device.library();
        // SAFETY: an open context.
        let channel = NonNull::new(unsafe { (library.create_comp_channel)(device.context()) })
            .ok_or_else(|| device.failed("make a completion channel"))?;
        let vector = vector.checked_rem(device.completion_vectors()).unwrap_or(0);
        // SAFETY: an open context, a channel of it that outlives the queue, and numbers within the limits (which are ints).
        let raw = unsafe {
            let no_context = std::ptr::null_mut();
            (library.create_cq)(device.context(), depth as i32, no_context, channel.as_ptr(), vector as i32)
        };
        let Some(raw) = NonNull::new(raw) else {
            let error = device.failed("make a completion queue");
            // SAFETY: nothing uses the channel.
            unsafe { (library.destroy_comp_channel)(channel.as_ptr()) };
            return Err(error);
        };
        let queue = Self { raw, channel, device: Arc::clone(device) };
        rustix::io::ioctl_fionbio(queue.as_fd(), true).map_err(|error| Error::Device {
            device: device.name().to_owned(),
            action: "make a completion channel nonblocking",
            source: error.into(),
        })?;
        Ok(Arc::new(queue))
    }

    pub(super) fn raw(&self) -> *mut Cq {
        self.raw.as_ptr()
    }

    /// Takes completions into the free places of `into`; tells how many. Fewer than there was room for: the queue is empty.
    ///
    /// # Errors
    /// `Device` if the queue has failed.
    pub fn poll(&self, into: &mut Completions) -> Result<usize, Error> {
        let Some(poll) = self.device.ops().poll_cq else { return Err(self.unsupported()) };
        let room = &mut into.raw[into.length..];
        // SAFETY: a live queue, and room for as many completions as is said.
        let count = unsafe { poll(self.raw.as_ptr(), room.len() as i32, room.as_mut_ptr()) };
        let count = usize::try_from(count).map_err(|_| self.device.failed("poll a completion queue"))?;
        into.length += count.min(room.len());
        Ok(count)
    }

    /// The next completion after now makes the descriptor readable. What is in the queue already does not: poll once more.
    ///
    /// # Errors
    /// `Device` if the queue has failed.
    pub fn arm(&self) -> Result<(), Error> {
        let Some(notify) = self.device.ops().req_notify_cq else { return Err(self.unsupported()) };
        // SAFETY: a live queue.
        let status = unsafe { notify(self.raw.as_ptr(), 0) };
        self.device.outcome(status, "arm a completion queue")
    }

    /// Takes the wake-ups that wait in the channel; tells how many there were. Does not block.
    ///
    /// # Errors
    /// `Device` if the device is gone.
    pub fn acknowledge(&self) -> Result<u32, Error> {
        let library = self.device.library();
        let mut count = 0;
        let outcome = loop {
            let (mut queue, mut context) = (std::ptr::null_mut(), std::ptr::null_mut());
            // SAFETY: a live channel, valid places for what it tells.
            let status = unsafe { (library.next_cq_event)(self.channel.as_ptr(), &mut queue, &mut context) };
            if status != 0 {
                let error = io::Error::last_os_error();
                match error.kind() {
                    io::ErrorKind::Interrupted => continue,
                    io::ErrorKind::WouldBlock => break Ok(()),
                    _ => break Err(self.device.failed("read a completion channel")),
                }
            }
            count += 1;
        };
        if count > 0 {
            // SAFETY: the channel has one queue only, so all these events were its own.
            unsafe { (library.ack_cq_events)(self.raw.as_ptr(), count) };
        }
        outcome.map(|()| count)
    }

    fn unsupported(&self) -> Error {
        let source = io::ErrorKind::Unsupported.into();
        Error::Device { device: self.device.name().to_owned(), action: "poll or arm", source }
    }
}

impl AsFd for CompletionQueue {
    /// Readable when there are wake-ups to acknowledge.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the channel owns the descriptor and lives as long as `self`.
        unsafe { BorrowedFd::borrow_raw((*self.channel.as_ptr()).fd) }
    }
}

impl Drop for CompletionQueue {
    fn drop(&mut self) {
        let library = self.device.library();
        // SAFETY: queue pairs hold an `Arc` of `self`, so none uses it; all events are acknowledged.
        let status = unsafe { (library.destroy_cq)(self.raw.as_ptr()) };
        let queue = self.device.outcome(status, "destroy a completion queue");
        // SAFETY: its only queue is gone; if it is not, the library refuses.
        let status = unsafe { (library.destroy_comp_channel)(self.channel.as_ptr()) };
        let channel = self.device.outcome(status, "destroy a completion channel");
        if let Err(error) = queue.and(channel) {
            tracing::warn!("{error}");
        }
    }
}

/// For `ffi` completions that carry an immediate value.
pub(super) fn immediate_of(raw: &Wc) -> Option<u32> {
    (raw.wc_flags & ffi::WC_WITH_IMM != 0).then(|| u32::from_be(raw.imm_data))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_requests_identity_tells_its_work(sequence in 0..RECEIVE, queue in 0..=0x7fff_ffff_u32, slot: u32) {
            for work in [Work::Send { sequence }, Work::Receive { queue, slot }] {
                prop_assert_eq!(Work::of_identity(work.identity()), work);
            }
        }

        #[test]
        fn only_status_0_is_success(status: u32) {
            // SAFETY: numbers only, for which zeros are values.
            let mut wc: Wc = unsafe { std::mem::zeroed() };
            wc.status = status;
            prop_assert_eq!(Completion { raw: wc }.outcome().is_ok(), status == 0);
        }
    }
}
