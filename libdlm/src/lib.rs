//! `libdlm.so.3`: all of `libdlm_lt.so.3`, and the functions for programs with threads.
//!
//! Invariant: with a thread of ours, callbacks are called there and nowhere else.

#![allow(unsafe_code)]

use libc::{EINVAL, ENOTCONN, c_char, c_int};
use libdlm_lt::{
    Handle, Lksb, default_space, dlm_lock_wait, dlm_unlock_wait, fail, find, open_default, take_default,
};
use std::ffi::CStr;
use std::ptr::null_mut;

/// In the flags of a lock: it is there already, and gets another mode.
const LKF_CONVERT: c_int = 0x4;
/// The status of a lock that is gone, as it should be.
const EUNLOCK: c_int = 0x1_0002;

fn outcome(result: Result<(), c_int>) -> c_int {
    result.map_or_else(fail, |()| 0)
}

/// Has a thread call the callbacks of the default lockspace.
///
/// # Safety
/// The callbacks that the program gives can be called in another thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlm_pthread_init() -> c_int {
    outcome(default_space().and_then(|space| space.start_thread()))
}

/// Has a thread call the callbacks of a lockspace.
///
/// # Safety
/// The callbacks that the program gives can be called in another thread. What is no handle is refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlm_ls_pthread_init(ls: Handle) -> c_int {
    outcome(find(ls).and_then(|space| space.start_thread()))
}

/// Ends the default lockspace's thread, and closes that lockspace.
///
/// # Safety
/// Always safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlm_pthread_cleanup() -> c_int {
    if let Some(space) = take_default() {
        space.end();
    }
    0
}

/// Locks or converts in the default lockspace and waits; `lockid` receives the lock, or names the one to convert.
///
/// # Safety
/// `resource` is a C string; `lockid` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_resource(
    resource: *const c_char,
    mode: c_int,
    flags: c_int,
    lockid: *mut c_int,
) -> c_int {
    if open_default().is_none() {
        // SAFETY: as dlm_pthread_init(3) has it; the program gives no callbacks here.
        let started = unsafe { dlm_pthread_init() };
        if started != 0 {
            return started;
        }
    }
    if lockid.is_null() || resource.is_null() {
        return fail(EINVAL);
    }
    let mut block = Lksb { status: 0, lkid: 0, flags: 0, value: null_mut() };
    // SAFETY: both are not null, so they are what the caller promised.
    let name = unsafe {
        if flags & LKF_CONVERT != 0 {
            block.lkid = (*lockid).cast_unsigned();
        }
        CStr::from_ptr(resource).to_bytes()
    };
    let Ok(length) = u32::try_from(name.len()) else { return fail(EINVAL) };
    let (mode, flags) = (mode.cast_unsigned(), flags.cast_unsigned());
    let name = name.as_ptr().cast();
    // SAFETY: the block lives until this returns, which is after the completion; the name has that length.
    let asked =
        unsafe { dlm_lock_wait(mode, &raw mut block, flags, name, length, 0, null_mut(), None, null_mut()) };
    if asked != 0 {
        return asked;
    }
    // SAFETY: as above.
    unsafe { lockid.write(block.lkid.cast_signed()) };
    if block.status == 0 { 0 } else { fail(block.status) }
}

/// Unlocks in the default lockspace and waits.
///
/// # Safety
/// Always safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlock_resource(lockid: c_int) -> c_int {
    if open_default().is_none() {
        return fail(ENOTCONN);
    }
    let mut block = Lksb { status: 0, lkid: 0, flags: 0, value: null_mut() };
    // SAFETY: the block lives until this returns, which is after the completion.
    let asked = unsafe { dlm_unlock_wait(lockid.cast_unsigned(), 0, &raw mut block) };
    match (asked, block.status) {
        (0, EUNLOCK) => 0,
        (0, status) => fail(status),
        (asked, _) => asked,
    }
}
