//! The lock status block: the program's memory, which we write to when something has become of its lock.
//!
//! Invariant: a block is written to only between the call that named it and the completion of that call; the program keeps it until then.

#![allow(unsafe_code)]

use dlm::VALUE_BYTES;
use libc::{c_char, c_int};
use std::sync::atomic::{AtomicI32, Ordering};

/// `struct dlm_lksb`.
#[repr(C)]
pub struct Lksb {
    /// `sb_status`: how it ended; EINPROG before.
    pub status: c_int,
    /// `sb_lkid`.
    pub lkid: u32,
    /// `sb_flags`: remarks.
    pub flags: c_char,
    /// `sb_lvbptr`: 32 bytes, or null.
    pub value: *mut c_char,
}

/// Where a program's block is.
#[derive(Clone, Copy, Debug)]
pub struct Block(*mut Lksb);

// SAFETY: the program promises that the block lives and is its library's until the completion, in whatever thread that comes.
unsafe impl Send for Block {}

impl Block {
    /// # Safety
    /// `block` is null, or valid for reads and writes until the completion of the call for which it is given.
    pub unsafe fn new(block: *mut Lksb) -> Option<Block> {
        (!block.is_null()).then_some(Block(block))
    }

    /// The lock's number.
    pub fn lkid(self) -> u32 {
        // SAFETY: valid, as `new` was promised.
        unsafe { (*self.0).lkid }
    }

    /// Sets the lock's number.
    pub fn set_lkid(self, lkid: u32) {
        // SAFETY: valid, as `new` was promised.
        unsafe { (*self.0).lkid = lkid };
    }

    /// Sets the remarks.
    pub fn set_flags(self, flags: u32) {
        // SAFETY: valid, as `new` was promised.
        unsafe { (*self.0).flags = flags as c_char };
    }

    /// Sets the status, which other threads may be looking at: what was set before is seen before.
    pub fn set_status(self, status: u32) {
        let status = c_int::try_from(status).unwrap_or(libc::EIO);
        // SAFETY: valid and aligned, as `new` was promised; the program only reads it.
        unsafe { AtomicI32::from_ptr(&raw mut (*self.0).status) }.store(status, Ordering::Release);
    }

    /// The status.
    pub fn status(self) -> u32 {
        // SAFETY: valid and aligned, as `new` was promised.
        let status = unsafe { AtomicI32::from_ptr(&raw mut (*self.0).status) }.load(Ordering::Acquire);
        status.unsigned_abs()
    }

    /// True if there is a value block.
    pub fn has_value(self) -> bool {
        // SAFETY: valid, as `new` was promised.
        unsafe { !(*self.0).value.is_null() }
    }

    /// The value block.
    pub fn value(self) -> Option<[u8; VALUE_BYTES]> {
        // SAFETY: valid, as `new` was promised; a value block has 32 bytes.
        self.has_value().then(|| unsafe { (*self.0).value.cast::<[u8; VALUE_BYTES]>().read_unaligned() })
    }

    /// Writes the value block, if there is one.
    pub fn set_value(self, value: [u8; VALUE_BYTES]) {
        if self.has_value() {
            // SAFETY: valid, as `new` was promised; a value block has 32 bytes.
            unsafe { (*self.0).value.cast::<[u8; VALUE_BYTES]>().write_unaligned(value) };
        }
    }
}
