//! Memory that a device may reach: protection domains, regions, their keys, and taking them away again.
//!
//! Owns: registrations. Invariant: **a device reaches memory through a registration only, and a registration holds its
//! memory alive until the kernel has confirmed that it is gone.** So whatever was posted, by us or by a peer, and
//! whatever is dropped or revoked in whatever order, no freed byte is touched: an operation that comes too late meets a
//! key that is not known any more and ends with an error completion. If the kernel does not confirm, the memory is
//! leaked. What an operation in flight reads or writes in memory that is alive is up to whoever posts: the bytes of a
//! region may change at any time, so no reference to them is ever given out, only copies (`Span`) and atomic words.
#![allow(unsafe_code)]

use super::ffi::{self, Mr, Pd};
use super::{Device, Error};
use crate::region::{Memory, Span};
use parking_lot::Mutex;
use std::ffi::c_int;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// What regions and queue pairs must share to work together.
pub struct ProtectionDomain {
    raw: NonNull<Pd>,
    device: Arc<Device>,
}

// SAFETY: see `Device`: the library serves any thread.
unsafe impl Send for ProtectionDomain {}
// SAFETY: as above.
unsafe impl Sync for ProtectionDomain {}

impl ProtectionDomain {
    /// A new one.
    ///
    /// # Errors
    /// `Device` if there are too many.
    pub fn create(device: &Arc<Device>) -> Result<Arc<Self>, Error> {
        // SAFETY: an open context.
        let raw = NonNull::new(unsafe { (device.library().alloc_pd)(device.context()) })
            .ok_or_else(|| device.failed("make a protection domain"))?;
        Ok(Arc::new(Self { raw, device: Arc::clone(device) }))
    }

    /// Its device.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    pub(super) fn raw(&self) -> *mut Pd {
        self.raw.as_ptr()
    }
}

impl Drop for ProtectionDomain {
    fn drop(&mut self) {
        // SAFETY: regions and queues of the domain hold an `Arc` of it, so none is left.
        let status = unsafe { (self.device.library().dealloc_pd)(self.raw.as_ptr()) };
        if let Err(error) = self.device.outcome(status, "free a protection domain") {
            tracing::warn!("{error}");
        }
    }
}

/// What others may do with a region. The device of the region's owner may read and write it in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Peers may read it.
    pub read: bool,
    /// Peers may write it.
    pub write: bool,
    /// Peers may change words of it atomically.
    pub atomic: bool,
}

impl Access {
    /// Nobody but the owner.
    pub const LOCAL: Self = Self { read: false, write: false, atomic: false };
    /// Peers may read and write, not change atomically.
    pub const READ_WRITE: Self = Self { read: true, write: true, atomic: false };
    /// Peers may do all.
    pub const ALL: Self = Self { read: true, write: true, atomic: true };

    pub(super) fn flags(self) -> u32 {
        let flag = |wanted: bool, flag: u32| if wanted { flag } else { 0 };
        ffi::ACCESS_LOCAL_WRITE
            | flag(self.read, ffi::ACCESS_REMOTE_READ)
            | flag(self.write, ffi::ACCESS_REMOTE_WRITE)
            | flag(self.atomic, ffi::ACCESS_REMOTE_ATOMIC)
    }
}

/// A place in a peer's memory, as that peer has told it: the address and key of a region, plus an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemotePlace {
    /// Address in the peer's process.
    pub address: u64,
    /// Key of the peer's region.
    pub key: u32,
}

impl RemotePlace {
    /// The place `offset` bytes further on.
    pub fn further(self, offset: u64) -> Self {
        Self { address: self.address.wrapping_add(offset), key: self.key }
    }
}

/// A part of a region that a request reads or writes.
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    pub(super) raw: ffi::Sge,
    /// The region cannot be dropped between here and the posting; from then on the registration guards.
    _region: std::marker::PhantomData<&'a MemoryRegion>,
}

impl Segment<'_> {
    /// A part of memory that whoever asks keeps registered.
    pub(super) fn of(raw: ffi::Sge) -> Self {
        Self { raw, _region: std::marker::PhantomData }
    }

    /// Its length in bytes.
    pub fn length(&self) -> u32 {
        self.raw.length
    }
}

/// Registered memory.
pub struct MemoryRegion {
    /// None once it is revoked.
    registration: Mutex<Option<Registration>>,
    local_key: u32,
    remote_key: u32,
    /// For its address and words; the registration has a share of its own.
    memory: Arc<Memory>,
}

impl MemoryRegion {
    /// Registers memory with a device.
    ///
    /// # Errors
    /// `TooMuch` if it is longer than the device allows; `Device` if there are too many regions, or the memory may not be pinned
    /// (RLIMIT_MEMLOCK).
    pub fn register(
        domain: &Arc<ProtectionDomain>,
        memory: &Arc<Memory>,
        access: Access,
    ) -> Result<Self, Error> {
        let limit = domain.device().limits().region_length;
        if u64::try_from(memory.length()).unwrap_or(u64::MAX) > limit {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            return Err(Error::TooMuch { what: "bytes of a memory region", value: memory.length(), limit });
        }
        let registration = Registration::new(domain, memory, access)?;
        let (local_key, remote_key) = registration.keys();
        let registration = Mutex::new(Some(registration));
        Ok(Self { registration, local_key, remote_key, memory: Arc::clone(memory) })
    }

    /// Registers `length` bytes of new memory, all zeroes.
    ///
    /// # Errors
    /// As `register`, and `Device` if there is no memory.
    pub fn allocate(domain: &Arc<ProtectionDomain>, length: usize, access: Access) -> Result<Self, Error> {
        let memory = Memory::new(length).map_err(|source| Error::Device {
            device: domain.device().name().to_owned(),
            action: "find memory for a region",
            source,
        })?;
        Self::register(domain, &memory, access)
    }

    /// The memory that is registered.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Its length in bytes.
    pub fn length(&self) -> usize {
        self.memory.length()
    }

    /// What a peer must know to reach its first byte. To be told over an authenticated channel only.
    pub fn place(&self) -> RemotePlace {
        RemotePlace { address: self.memory.address().addr() as u64, key: self.remote_key }
    }

    /// A part of it, for a request, as a span of its memory.
    ///
    /// # Errors
    /// `Outside` if the span is one of other memory, `Revoked` if the device does not know the region any more.
    pub fn segment_of(&self, span: &Span) -> Result<Segment<'_>, Error> {
        let (memory, offset) = span.memory();
        match Arc::ptr_eq(memory, &self.memory) {
            true => self.segment(offset, span.length()),
            false => Err(self.outside(offset, span.length())),
        }
    }

    /// A part of it, for a request.
    ///
    /// # Errors
    /// `Outside` if it reaches beyond the end, `Revoked` if the device does not know the region any more.
    pub fn segment(&self, offset: usize, length: usize) -> Result<Segment<'_>, Error> {
        let start = self.part(offset, length)?;
        if self.registration.lock().is_none() {
            return Err(Error::Revoked);
        }
        let length = u32::try_from(length).map_err(|_| self.outside(offset, length))?;
        let raw = ffi::Sge { addr: start.as_ptr().addr() as u64, length, lkey: self.local_key };
        Ok(Segment { raw, _region: std::marker::PhantomData })
    }

    /// Takes the region away from the device. When it returns, no operation of a peer or of our own can touch the
    /// memory any more; those yet to come fail, those under way fail or, on a device that answers badly (Soft-RoCE under load),
    /// are never answered: whoever posted them must have a deadline, and then end the connection. Revoking twice is no error.
    ///
    /// # Errors
    /// `Device` if the kernel does not confirm; the memory is then never freed.
    pub fn revoke(&self) -> Result<(), Error> {
        // The lock is held until the kernel has confirmed: a second caller must not return earlier.
        match self.registration.lock().take() {
            Some(registration) => registration.end(),
            None => Ok(()),
        }
    }

    /// An aligned word of it.
    ///
    /// # Errors
    /// `Outside` if it reaches beyond the end or is not aligned.
    pub fn word(&self, offset: usize) -> Result<&AtomicU64, Error> {
        let at = self.part(offset, size_of::<u64>())?.cast::<AtomicU64>();
        if !at.is_aligned() {
            return Err(self.outside(offset, size_of::<u64>()));
        }
        // SAFETY: aligned, within memory that lives as long as `self`; an atomic may change under its reader.
        Ok(unsafe { at.as_ref() })
    }

    /// The first byte of a part that lies within.
    fn part(&self, offset: usize, length: usize) -> Result<NonNull<u8>, Error> {
        let span = Span::of(&self.memory, offset, length).ok_or_else(|| self.outside(offset, length))?;
        NonNull::new(span.address()).ok_or_else(|| self.outside(offset, length))
    }

    fn outside(&self, offset: usize, length: usize) -> Error {
        Error::Outside { offset, length, size: self.memory.length() }
    }
}

/// The device's knowledge of a piece of memory.
struct Registration {
    raw: NonNull<Mr>,
    domain: Arc<ProtectionDomain>,
    /// Not freed before the device has forgotten it.
    memory: Arc<Memory>,
    ended: bool,
}

// SAFETY: see `Device`: the library serves any thread.
unsafe impl Send for Registration {}

impl Registration {
    fn new(domain: &Arc<ProtectionDomain>, memory: &Arc<Memory>, access: Access) -> Result<Self, Error> {
        let (start, length) = (memory.address().cast(), memory.length());
        let device = domain.device();
        // SAFETY: `Memory` is mapped as long as it lives, and it is held until the registration has ended.
        let raw = unsafe { (device.library().reg_mr)(domain.raw(), start, length, access.flags() as c_int) };
        let raw = NonNull::new(raw).ok_or_else(|| device.failed("register memory (see `ulimit -l`)"))?;
        Ok(Self { raw, domain: Arc::clone(domain), memory: Arc::clone(memory), ended: false })
    }

    fn keys(&self) -> (u32, u32) {
        // SAFETY: the library filled it in and does not change it.
        unsafe { ((*self.raw.as_ptr()).lkey, (*self.raw.as_ptr()).rkey) }
    }

    fn end(mut self) -> Result<(), Error> {
        self.deregister()
    }

    fn deregister(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        let device = self.domain.device();
        // SAFETY: deregistered once: `ended` was false.
        let status = unsafe { (device.library().dereg_mr)(self.raw.as_ptr()) };
        let outcome = device.outcome(status, "deregister memory");
        if outcome.is_err() {
            // The device may still know it.
            std::mem::forget(Arc::clone(&self.memory));
        }
        outcome
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Err(error) = self.deregister() {
            tracing::warn!("{error}; its memory is never freed");
        }
    }
}
