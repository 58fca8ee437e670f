//! The functions about lockspaces, descriptors and versions.

#![allow(unsafe_code)]

use crate::errno::{fail, set};
use crate::registry::{self, default_space, find, find_fd};
use crate::space::{Handle, Space};
use dlm::client::wire::{Open, SPACE_BYTES_MAX};
use libc::{c_char, c_int, mode_t};
use std::ffi::CStr;
use std::ptr::null_mut;

/// In the flags of `dlm_new_lockspace`: it must not be there.
const DLM_LSFL_NEWEXCL: u32 = 0x8;
/// The version of the interface that we stand in for.
const VERSION: [u32; 3] = [6, 0, 2];

/// # Safety
/// `name` is null, or a C string.
unsafe fn name(name: *const c_char) -> Result<Vec<u8>, c_int> {
    if name.is_null() {
        return Err(libc::EINVAL);
    }
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes();
    if (1..=SPACE_BYTES_MAX).contains(&name.len()) { Ok(name.to_vec()) } else { Err(libc::EINVAL) }
}

/// What new files lack. Reading it from /proc changes nothing, unlike umask(2).
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok()).unwrap_or(0o077)
}

/// # Safety
/// `name` is null, or a C string.
unsafe fn open(bytes: *const c_char, create: Option<(mode_t, bool)>) -> Handle {
    // SAFETY: the caller's promise.
    let name = match unsafe { name(bytes) } {
        Ok(name) => name,
        Err(error) => {
            set(error);
            return null_mut();
        }
    };
    let (mode, exclusive) = create.unwrap_or((0, false));
    let (create, mode) = (create.is_some(), mode & !umask());
    registry::open(Open { name, create, exclusive, mode, pid: std::process::id() })
}

/// Opens a lockspace that is there; null if it cannot be opened.
///
/// # Safety
/// As dlm_open_lockspace(3): `name` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlm_open_lockspace(name: *const c_char) -> Handle {
    // SAFETY: the caller's promise.
    unsafe { open(name, None) }
}

/// Makes a lockspace and opens it; null if it cannot be made.
///
/// # Safety
/// As dlm_create_lockspace(3): `name` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlm_create_lockspace(name: *const c_char, mode: mode_t) -> Handle {
    // SAFETY: the caller's promise.
    unsafe { open(name, Some((mode, false))) }
}

/// Makes a lockspace and opens it; null if it cannot be made.
///
/// # Safety
/// As dlm_new_lockspace(3): `name` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlm_new_lockspace(name: *const c_char, mode: mode_t, flags: u32) -> Handle {
    // SAFETY: the caller's promise.
    unsafe { open(name, Some((mode, flags & DLM_LSFL_NEWEXCL != 0))) }
}

/// Closes a lockspace and lets all go that was locked through this handle.
///
/// # Safety
/// `ls` may be anything; what is no handle is refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlm_close_lockspace(ls: Handle) -> c_int {
    match registry::close(ls) {
        Ok(space) => {
            space.end();
            0
        }
        Err(_) => fail(libc::EINVAL),
    }
}

/// Takes a lockspace away, and closes the handle.
///
/// # Safety
/// As dlm_release_lockspace(3): `name` is a C string; `ls` is null, or a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlm_release_lockspace(lockspace: *const c_char, ls: Handle, force: c_int) -> c_int {
    // SAFETY: the caller's promise.
    let name = match unsafe { name(lockspace) } {
        Ok(name) => name,
        Err(error) => return fail(error),
    };
    let released = if ls.is_null() {
        Space::connect().and_then(|space| release(&space, name, force))
    } else {
        registry::close(ls).and_then(|space| release(&space, name, force))
    };
    released.map_or_else(fail, |()| 0)
}

fn release(space: &Space, name: Vec<u8>, force: c_int) -> Result<(), c_int> {
    let released = space.release(name, force != 0);
    space.end();
    released
}

/// The descriptor of a lockspace: readable when there is something to dispatch.
///
/// # Safety
/// `ls` may be anything; for what is no handle it is -1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlm_ls_get_fd(ls: Handle) -> c_int {
    find(ls).map_or_else(fail, |space| space.fd())
}

/// The descriptor of the default lockspace, which is opened if it is not yet.
///
/// # Safety
/// Always safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlm_get_fd() -> c_int {
    default_space().map_or_else(fail, |space| space.fd())
}

/// Calls the callbacks that are due.
///
/// # Safety
/// The callbacks that the program gave can be called with their arguments, here and now.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlm_dispatch(fd: c_int) -> c_int {
    let dispatched = find_fd(fd).and_then(|space| space.dispatch());
    dispatched.map_or_else(fail, |()| 0)
}

/// # Safety
/// Each is null or valid for a write.
unsafe fn give_version(places: [*mut u32; 3]) {
    for (place, part) in places.into_iter().zip(VERSION) {
        if !place.is_null() {
            // SAFETY: the caller's promise.
            unsafe { place.write(part) };
        }
    }
}

/// The version of the lock manager's interface.
///
/// # Safety
/// Each argument is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlm_kernel_version(maj: *mut u32, min: *mut u32, patch: *mut u32) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { give_version([maj, min, patch]) };
    0
}

/// The version of this library's interface.
///
/// # Safety
/// Each argument is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlm_library_version(maj: *mut u32, min: *mut u32, patch: *mut u32) {
    // SAFETY: the caller's promise.
    unsafe { give_version([maj, min, patch]) };
}
