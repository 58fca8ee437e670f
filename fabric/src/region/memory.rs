//! The memory of a region.
#![allow(unsafe_code)]

use super::attachment::{Attachment, Attachments, DeviceUse};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

/// Memory that devices and other processes may read and write at any time, so it is never lent as a Rust slice: bytes are copied in
/// and out. It lives in a memory file, which another process of the host can map.
pub struct Memory {
    start: NonNull<u8>,
    length: usize,
    file: OwnedFd,
    attachments: Attachments,
}

// SAFETY: the mapping belongs to this value alone and is only reached through raw copies, which say nothing about who else writes;
// torn bytes are the caller's concern, as with any remote write.
unsafe impl Send for Memory {}
// SAFETY: as above; no reference into the mapping is ever handed out.
unsafe impl Sync for Memory {}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} bytes)", self.length)
    }
}

impl Memory {
    /// New memory, all zeroes, of at least one byte.
    ///
    /// # Errors
    /// The system gives none.
    pub fn new(length: usize) -> io::Result<Arc<Memory>> {
        let file = memfd_create("ssi-region", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, length as u64)?;
        let memory = Memory::map(file, length)?;
        // Another process that maps the file relies on its length, and shall only read it.
        fcntl_add_seals(&memory.file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE)?;
        Ok(memory)
    }

    fn map(file: OwnedFd, length: usize) -> io::Result<Arc<Memory>> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh shared mapping at an address that the kernel chooses; it is unmapped once, in drop.
        let start = unsafe { mmap(std::ptr::null_mut(), length, protection, MapFlags::SHARED, &file, 0) }?;
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mmap gave the null page"))?;
        Ok(Arc::new(Memory { start, length, file, attachments: Attachments::default() }))
    }

    /// Its length in bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The memory file.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Where it begins, for devices and system calls.
    pub fn address(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The registration for this device and use.
    pub fn attached(&self, which: DeviceUse) -> Option<Arc<dyn Attachment>> {
        self.attachments.find(which)
    }

    /// Keeps a device's registration of this memory for as long as the memory lives or until [`Memory::conceal`]. False (and the
    /// registration is not kept, so the caller ends it) if there is one for this use already, or too many.
    pub fn attach(&self, which: DeviceUse, attachment: Arc<dyn Attachment>) -> bool {
        self.attachments.add(which, attachment)
    }

    /// Takes the memory away from all devices through which peers could reach it. When it returns true, no peer's device
    /// touches it any more; when false, that is not known, and the memory must serve no other use.
    pub fn conceal(&self) -> bool {
        self.attachments.conceal()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if !self.attachments.end_all() {
            // A device may still write there: the mapping stays, so nothing else can ever lie at its address.
            return;
        }
        // SAFETY: mapped in `map` with this length; nobody holds a Span any more, for each holds an Arc of this; no device
        // knows it any more, for all attachments have ended.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
        debug_assert!(unmapped.is_ok(), "a mapping of ours can be unmapped");
    }
}

/// A part of a [`Memory`], which it keeps alive.
#[derive(Clone)]
pub struct Span {
    memory: Arc<Memory>,
    offset: usize,
    length: usize,
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Span({}..{} of {})", self.offset, self.offset + self.length, self.memory.length)
    }
}

impl Span {
    /// This part of the memory; `None` if it reaches beyond the end.
    pub fn of(memory: &Arc<Memory>, offset: usize, length: usize) -> Option<Span> {
        let fits = offset.checked_add(length).is_some_and(|end| end <= memory.length);
        fits.then(|| Span { memory: memory.clone(), offset, length })
    }

    /// A part of this part; `None` if it reaches beyond the end.
    pub fn part(&self, offset: usize, length: usize) -> Option<Span> {
        let fits = offset.checked_add(length).is_some_and(|end| end <= self.length);
        fits.then(|| Span { memory: self.memory.clone(), offset: self.offset + offset, length })
    }

    /// Bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The memory that it is a part of, and where.
    pub fn memory(&self) -> (&Arc<Memory>, usize) {
        (&self.memory, self.offset)
    }

    /// Where it begins, for devices and system calls; valid while the span lives.
    pub fn address(&self) -> *mut u8 {
        // SAFETY: offset <= length of the mapping (checked when the span was made).
        unsafe { self.memory.start.as_ptr().add(self.offset) }
    }

    /// Copies `bytes`, which must be as long, into it.
    pub fn fill(&self, bytes: &[u8]) {
        assert_eq!(bytes.len(), self.length, "a span is filled whole");
        // SAFETY: both are valid for `length` bytes; a Rust slice never lies inside a Memory, so they do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.address(), self.length) };
    }

    /// Copies it out into `bytes`, which must be as long.
    pub fn copy_to(&self, bytes: &mut [u8]) {
        assert_eq!(bytes.len(), self.length, "a span is copied whole");
        // SAFETY: as in `fill`.
        unsafe { std::ptr::copy_nonoverlapping(self.address(), bytes.as_mut_ptr(), self.length) };
    }

    /// Copies another span of the same length into this one. They may overlap.
    pub fn copy_from(&self, other: &Span) {
        assert_eq!(other.length, self.length, "a span is copied whole");
        // SAFETY: both are valid for `length` bytes; `copy` allows overlap.
        unsafe { std::ptr::copy(other.address(), self.address(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    #[test]
    fn what_is_filled_in_comes_out_and_stays_inside() {
        let memory = Memory::new(10).unwrap();
        let span = Span::of(&memory, 4, 6).unwrap();
        span.part(1, 3).unwrap().fill(b"abc");
        let mut out = [9; 6];
        span.copy_to(&mut out);
        assert_eq!(&out, b"\0abc\0\0");
        assert!(Span::of(&memory, 5, 6).is_none());
        assert!(span.part(6, 1).is_none());
        assert!(Span::of(&memory, usize::MAX, 2).is_none());
    }

    struct Registered(AtomicBool, AtomicBool);

    impl Attachment for Registered {
        fn end(&self) -> bool {
            self.0.store(true, Relaxed);
            self.1.load(Relaxed)
        }
    }

    #[test]
    fn what_peers_reach_ends_with_conceal_and_the_rest_with_the_memory() {
        let memory = Memory::new(1).unwrap();
        let both: [Arc<Registered>; 2] =
            std::array::from_fn(|_| Arc::new(Registered(false.into(), true.into())));
        let [own, exposed] = [false, true].map(|exposed| DeviceUse { device: 3, exposed });
        assert!(memory.attach(own, both[0].clone()) && memory.attach(exposed, both[1].clone()));
        assert!(!memory.attach(own, both[1].clone()), "one for each use");
        both[1].1.store(false, Relaxed);
        assert!(!memory.conceal(), "the device did not confirm");
        both[1].1.store(true, Relaxed);
        assert!(memory.conceal() && memory.attached(exposed).is_none());
        assert!(!both[0].0.load(Relaxed) && memory.attached(own).is_some());
        drop(memory);
        assert!(both[0].0.load(Relaxed));
    }

    #[test]
    fn memory_lives_as_long_as_a_span_of_it() {
        let span = Span::of(&Memory::new(4096).unwrap(), 0, 3).unwrap();
        span.fill(b"xyz");
        let mut out = [0; 3];
        span.copy_to(&mut out);
        assert_eq!(&out, b"xyz");
    }
}
