//! One page of memory that two processes share, seen as atomic words.
//!
//! Invariant: the page is mapped as long as its value lives, and is reached through atomics only.
#![allow(unsafe_code)]

use crate::Error;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

const PAGE: usize = 4096;
/// Words between two cache lines that the processor fetches together.
const APART: usize = 32;

/// A shared page.
pub struct Page {
    start: NonNull<AtomicU32>,
    file: OwnedFd,
}

impl Page {
    /// A new one, all zeroes.
    pub fn new() -> Result<Page, Error> {
        let file = memfd_create("ssi-bench", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, PAGE as u64)?;
        Page::map(file)
    }

    /// That of another process of this user, by what its [`Page::name`] told.
    pub fn of(pid: &str, file: &str) -> Result<Page, Error> {
        let path = format!("/proc/{pid}/fd/{file}");
        Page::map(std::fs::OpenOptions::new().read(true).write(true).open(path)?.into())
    }

    /// This process and the descriptor of the page in it.
    pub fn name(&self) -> String {
        format!("{} {}", std::process::id(), self.file.as_raw_fd())
    }

    /// The word on cache line 0 or 1.
    pub fn word(&self, line: usize) -> &AtomicU32 {
        assert!(line < 2, "a page has two words");
        // SAFETY: both words lie inside the mapping, which lives as long as the borrow of self; every access is atomic.
        unsafe { self.start.add(line * APART).as_ref() }
    }

    fn map(file: OwnedFd) -> Result<Page, Error> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address that the kernel chooses; it is unmapped once, in drop.
        let start =
            unsafe { mmap(std::ptr::null_mut(), PAGE, protection, MapFlags::SHARED, file.as_fd(), 0) }?;
        Ok(Page { start: NonNull::new(start.cast()).ok_or("mmap gave the null page")?, file })
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this length; no borrow of a word outlives self.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), PAGE) };
        debug_assert!(unmapped.is_ok(), "a mapping of ours can be unmapped");
    }
}
