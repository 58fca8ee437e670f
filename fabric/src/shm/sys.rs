//! Memory that another process reaches at the same time: the only place of this provider that touches memory by address.
//!
//! Invariant: every access lies inside the mapping (checked here), words are atomic, everything else is copied; no reference into
//! the memory but to an atomic word is ever handed out, so it does not matter what the other process does to it meanwhile.
#![allow(unsafe_code)]

use crate::region::Span;
use bytes::BytesMut;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// A mapping of a memory file, shared with another process.
pub struct Shared {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to this value until it is dropped, and is reached through atomics and raw copies only.
unsafe impl Send for Shared {}
// SAFETY: as above; two threads are to it what two processes are.
unsafe impl Sync for Shared {}

impl Shared {
    /// Maps the first `length` bytes of a file that is at least so long and sealed against shrinking (whoever calls has made
    /// sure: a page beyond the end would be a deadly signal).
    ///
    /// # Errors
    /// mmap(2).
    pub fn map(file: impl AsFd, length: usize) -> io::Result<Shared> {
        Shared::map_as(file, length, ProtFlags::READ | ProtFlags::WRITE)
    }

    fn map_as(file: impl AsFd, length: usize, protection: ProtFlags) -> io::Result<Shared> {
        // SAFETY: a fresh shared mapping at an address that the kernel chooses; it is unmapped once, in drop.
        let start = unsafe { mmap(std::ptr::null_mut(), length, protection, MapFlags::SHARED, file, 0) }?;
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mmap gave the null page"))?;
        Ok(Shared { start, length })
    }

    #[inline]
    fn holds(&self, at: usize, length: usize) -> bool {
        at.checked_add(length).is_some_and(|end| end <= self.length)
    }

    #[inline]
    fn address(&self, at: usize, length: usize) -> *mut u8 {
        assert!(self.holds(at, length), "a part of shared memory lies inside it");
        // SAFETY: `at` is at most the length of the mapping, as was just checked.
        unsafe { self.start.as_ptr().add(at) }
    }

    /// The word at `at`, which is a multiple of 8.
    #[inline]
    pub fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8), "a word lies at a multiple of its size");
        // SAFETY: eight bytes inside a writable mapping that lives as long as `self`, aligned (a mapping begins at a page); this
        // end reaches words through atomics only, and what the other process does there is outside of this program.
        unsafe { AtomicU64::from_ptr(self.address(at, 8).cast()) }
    }

    /// Copies bytes in.
    #[inline]
    pub fn write(&self, at: usize, bytes: &[u8]) {
        let to = self.address(at, bytes.len());
        // SAFETY: both are valid for the length; a Rust slice never lies inside shared memory, so they do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    /// Copies `length` bytes of a span, from `from` on, in.
    #[inline]
    pub fn write_span(&self, at: usize, span: &Span, from: usize, length: usize) {
        let to = self.address(at, length);
        assert!(from + length <= span.length(), "what is copied of a span lies inside it");
        // SAFETY: both are valid for the length (just checked); `copy` allows them to overlap.
        unsafe { std::ptr::copy(span.address().add(from), to, length) };
    }

    /// Copies bytes out.
    #[inline]
    pub fn read(&self, at: usize, bytes: &mut [u8]) {
        let from = self.address(at, bytes.len());
        // SAFETY: as in `write`, the other way.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
    }

    /// Copies `length` bytes out, behind what `out` holds, which has room for them.
    #[inline]
    pub fn append_to(&self, at: usize, length: usize, out: &mut BytesMut) {
        let from = self.address(at, length);
        let spare = out.spare_capacity_mut();
        assert!(spare.len() >= length, "who appends has made room");
        // SAFETY: both are valid for the length (just checked) and lie in different memory.
        unsafe { std::ptr::copy_nonoverlapping(from, spare.as_mut_ptr().cast(), length) };
        let filled = out.len() + length;
        // SAFETY: the copy has initialised the bytes up to there, which the capacity includes.
        unsafe { out.set_len(filled) };
    }

    /// Copies `length` bytes into a span, from `to` on.
    #[inline]
    pub fn read_span(&self, at: usize, span: &Span, to: usize, length: usize) {
        let from = self.address(at, length);
        assert!(to + length <= span.length(), "what is copied into a span lies inside it");
        // SAFETY: both are valid for the length (just checked); `copy` allows them to overlap.
        unsafe { std::ptr::copy(from, span.address().add(to), length) };
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: mapped in `map_as` with this length; references to words do not outlive `self`.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
        debug_assert!(unmapped.is_ok(), "a mapping of ours can be unmapped");
    }
}

/// Memory of another process, mapped for reading only.
pub struct Foreign(Shared);

impl Foreign {
    /// As [`Shared::map`].
    ///
    /// # Errors
    /// mmap(2).
    pub fn map(file: impl AsFd, length: usize) -> io::Result<Foreign> {
        Shared::map_as(file, length, ProtFlags::READ).map(Foreign)
    }

    /// True if it has these bytes.
    pub fn holds(&self, at: usize, length: usize) -> bool {
        self.0.holds(at, length)
    }

    /// Copies into a span as many bytes as it is long; they must be there.
    pub fn read_span(&self, at: usize, span: &Span) {
        self.0.read_span(at, span, 0, span.length());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::Memory;

    #[test]
    fn what_one_mapping_writes_another_reads() {
        let memory = Memory::new(4096).unwrap();
        let foreign = Foreign::map(memory.file(), 4096).unwrap();
        let span = |at, length| Span::of(&memory, at, length).unwrap();
        span(100, 3).fill(b"abc");
        foreign.read_span(100, &span(200, 3));
        let mut out = [0; 3];
        span(200, 3).copy_to(&mut out);
        assert_eq!(&out, b"abc");
        assert!(foreign.holds(4095, 1) && !foreign.holds(4095, 2) && !foreign.holds(usize::MAX, 2));
    }
}
