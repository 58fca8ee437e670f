//! How often this process asks for memory: an allocator that counts when told to.
//!
//! Invariant: every request goes to the system's allocator unchanged; counting is off until [`count`], so that it costs neither
//! side of a timed figure more than a branch.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static COUNTING: AtomicBool = AtomicBool::new(false);
static MADE: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, counted.
pub struct Counted;

/// Counts from now on.
pub fn count() {
    COUNTING.store(true, Ordering::Relaxed);
}

/// How many requests for memory (new, or to grow) have been counted so far.
pub fn made() -> u64 {
    MADE.load(Ordering::Relaxed)
}

fn note() {
    if COUNTING.load(Ordering::Relaxed) {
        MADE.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: each method hands its arguments to `System`, which upholds the contract; counting allocates nothing.
unsafe impl GlobalAlloc for Counted {
    // SAFETY: as the caller of `GlobalAlloc::alloc` promises.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: as the caller of `GlobalAlloc::dealloc` promises.
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(at, layout) }
    }

    // SAFETY: as the caller of `GlobalAlloc::alloc_zeroed` promises.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    // SAFETY: as the caller of `GlobalAlloc::realloc` promises.
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, length: usize) -> *mut u8 {
        note();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(at, layout, length) }
    }
}
