//! A device's registration of a memory that the memory itself keeps.
//!
//! Owns: one registration. Invariant: the device knows the memory only while the registration has not ended, and the memory stays mapped
//! until it has: `region::Memory` holds its attachments, ends them before it is unmapped, and stays mapped for ever if one does not end.
//! So this holds no share of the memory, as a [`super::MemoryRegion`] does: the memory would never be freed.
#![allow(unsafe_code)]

use super::Error;
use super::ffi::{Mr, Sge};
use super::memory::{Access, ProtectionDomain, Segment};
use crate::region::{Attachment, Memory, Span};
use parking_lot::Mutex;
use std::ffi::c_int;
use std::ptr::NonNull;
use std::sync::Arc;

enum State {
    /// The device knows the memory.
    Known(NonNull<Mr>),
    /// It does not know it any more.
    Ended,
    /// The kernel did not confirm: the device may still know it.
    Stuck,
}

// SAFETY: see `Device`: the library serves any thread.
unsafe impl Send for State {}

/// A registration that hangs on its memory.
pub struct Attached {
    state: Mutex<State>,
    start: u64,
    length: usize,
    local_key: u32,
    remote_key: u32,
    domain: Arc<ProtectionDomain>,
}

impl Attached {
    /// Registers the first bytes of a memory, which the caller has to keep until [`Attachment::end`] says true: best by [`Memory::attach`].
    ///
    /// # Errors
    /// As [`super::MemoryRegion::register`].
    pub(super) fn register(
        domain: &Arc<ProtectionDomain>,
        memory: &Memory,
        length: usize,
        access: Access,
    ) -> Result<Arc<Self>, Error> {
        let device = domain.device();
        let limit = usize::try_from(device.limits().region_length).unwrap_or(usize::MAX).min(memory.length());
        if length > limit {
            return Err(Error::TooMuch { what: "bytes of a memory region", value: length, limit });
        }
        let (start, flags) = (memory.address(), access.flags() as c_int);
        // SAFETY: the mapping is valid for its length, and stays so until this registration has ended (see the module's invariant;
        // the callers, both in `adapter.rs`, attach it to the memory or end it at once).
        let raw = unsafe { (device.library().reg_mr)(domain.raw(), start.cast(), length, flags) };
        let raw = NonNull::new(raw).ok_or_else(|| device.failed("register memory (see `ulimit -l`)"))?;
        // SAFETY: the library filled it in and does not change it.
        let (local_key, remote_key) = unsafe { ((*raw.as_ptr()).lkey, (*raw.as_ptr()).rkey) };
        Ok(Arc::new(Self {
            state: Mutex::new(State::Known(raw)),
            start: start.addr() as u64,
            length,
            local_key,
            remote_key,
            domain: domain.clone(),
        }))
    }

    /// True until it is ended.
    pub(super) fn is_known(&self) -> bool {
        matches!(*self.state.lock(), State::Known(_))
    }

    /// What a peer must know to reach it: address and key.
    pub fn place(&self) -> (u64, u32) {
        (self.start, self.remote_key)
    }

    /// A part of the memory, for a request. Keep the span until the request is over.
    ///
    /// # Errors
    /// `Outside` if it is a part of another memory.
    pub(super) fn segment<'a>(&'a self, span: &'a Span) -> Result<Segment<'a>, Error> {
        let (address, length) = (span.address().addr() as u64, span.length());
        let offset = address.wrapping_sub(self.start);
        let inside = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(length));
        let outside = || Error::Outside { offset: offset as usize, length, size: self.length };
        if inside.is_none_or(|end| end > self.length) {
            return Err(outside());
        }
        let length = u32::try_from(length).map_err(|_| outside())?;
        Ok(Segment::of(Sge { addr: address, length, lkey: self.local_key }))
    }
}

impl Attachment for Attached {
    fn end(&self) -> bool {
        // The lock is held until the kernel has confirmed: a second caller must not return earlier.
        let mut state = self.state.lock();
        let State::Known(raw) = *state else { return matches!(*state, State::Ended) };
        let device = self.domain.device();
        // SAFETY: deregistered once: whatever comes of it, the state is another from here on.
        let status = unsafe { (device.library().dereg_mr)(raw.as_ptr()) };
        let outcome = device.outcome(status, "deregister memory");
        *state = if outcome.is_ok() { State::Ended } else { State::Stuck };
        if let Err(error) = &outcome {
            tracing::error!("{error}; its memory is never used again");
        }
        outcome.is_ok()
    }
}
