//! The memory of a region.
#![allow(unsafe_code)]

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
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
        Memory::map(file, length)
    }

    /// Maps `length` bytes of a memory file that another end passed over. It must be at least so long and never shrink (sealed),
    /// which whoever receives the descriptor checks before.
    ///
    /// # Errors
    /// The system cannot map it.
    pub fn map(file: OwnedFd, length: usize) -> io::Result<Arc<Memory>> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh shared mapping at an address that the kernel chooses; it is unmapped once, in drop.
        let start = unsafe { mmap(std::ptr::null_mut(), length, protection, MapFlags::SHARED, &file, 0) }?;
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mmap gave the null page"))?;
        Ok(Arc::new(Memory { start, length, file }))
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
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this length; nobody holds a Span any more, for each holds an Arc of this.
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

    #[test]
    fn memory_lives_as_long_as_a_span_of_it() {
        let span = Span::of(&Memory::new(4096).unwrap(), 0, 3).unwrap();
        span.fill(b"xyz");
        let mut out = [0; 3];
        span.copy_to(&mut out);
        assert_eq!(&out, b"xyz");
    }
}
