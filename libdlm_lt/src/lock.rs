//! The functions about locks.

#![allow(unsafe_code)]

use crate::errno::fail;
use crate::lksb::{Block, Lksb};
use crate::registry::{default_handle, find, open_default};
use crate::space::{Ask, Callback, Callbacks, Handle, Place, Space, Under};
use dlm::client::status;
use dlm::client::wire::{self, Purge, What};
use dlm::{Flags, NAME_BYTES_MAX};
use libc::{c_int, c_uint, c_void};
use std::ptr::null_mut;

const LKF_CANCEL: u32 = 0x2;
const LKF_CONVERT: u32 = 0x4;
/// Only between the functions of this library: wait for the completion.
const LKF_WAIT: u32 = 0x8000_0000;

/// The arguments of the functions that lock.
struct LockArguments {
    mode: u32,
    lksb: *mut Lksb,
    flags: u32,
    name: *const c_void,
    name_length: c_uint,
    parent: u32,
    ast: Option<Callback>,
    argument: *mut c_void,
    bast: Option<Callback>,
    range: *mut c_void,
    transaction: u64,
    /// Hundredths of a second; 0: none.
    timeout: u64,
}

/// # Safety
/// As `dlm_lock` has it: pointers are null or valid, the block until the completion.
unsafe fn lock(space: &Space, arguments: &LockArguments) -> Result<(), c_int> {
    let LockArguments { mode, flags, parent, .. } = *arguments;
    if !arguments.range.is_null() {
        return Err(libc::ENOSYS);
    }
    // SAFETY: the caller's promise.
    let block = unsafe { Block::new(arguments.lksb) }.ok_or(libc::EINVAL)?;
    let waits = flags & LKF_WAIT != 0;
    let lacks_value = Flags(flags).has(Flags::VALBLK) && !block.has_value();
    if lacks_value || !waits && arguments.ast.is_none() {
        return Err(libc::EINVAL);
    }
    let flags = flags & !(LKF_WAIT | LKF_CONVERT | LKF_CANCEL);
    let timeout_ms = if Flags(flags).has(Flags::TIMEOUT) { arguments.timeout.saturating_mul(10) } else { 0 };
    let is_conversion = arguments.flags & LKF_CONVERT != 0;
    let what = if is_conversion {
        let value = block.value().filter(|_| Flags(flags).has(Flags::VALBLK));
        let value = value.map(|value| value.to_vec()).unwrap_or_default();
        What::Convert(wire::Convert { lkid: block.lkid(), mode, flags, value, timeout_ms })
    } else {
        // SAFETY: the caller's promise.
        let name = unsafe { name(arguments.name, arguments.name_length) }?;
        let transaction = arguments.transaction;
        What::Lock(wire::Lock { name, mode, flags, parent, timeout_ms, transaction })
    };
    let callbacks = Callbacks {
        ast: arguments.ast.filter(|_| !waits),
        ast_argument: Place(arguments.argument),
        bast: arguments.bast,
        bast_argument: Place(arguments.argument),
        block: Some(block),
    };
    let before = block.status();
    block.set_status(status::UNDER_WAY);
    match space.begin(what, Under { kind: Ask::Lock, lkid: 0, callbacks, is_awaited: waits }) {
        Ok((tag, lkid)) => {
            if waits {
                space.wait_for(tag);
            } else if !is_conversion && block.status() == status::UNDER_WAY {
                block.set_lkid(lkid);
            }
            Ok(())
        }
        Err(error) => {
            block.set_status(before);
            Err(error)
        }
    }
}

/// # Safety
/// `name` is null, or `length` bytes can be read there.
unsafe fn name(name: *const c_void, length: c_uint) -> Result<Vec<u8>, c_int> {
    let length = usize::try_from(length).map_err(|_| libc::EINVAL)?;
    if name.is_null() || length > NAME_BYTES_MAX {
        return Err(libc::EINVAL);
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(name.cast::<u8>(), length) }.to_vec())
}

/// # Safety
/// As `dlm_unlock` has it: the block is null, or valid until the completion.
unsafe fn unlock(
    space: &Space,
    lkid: u32,
    flags: u32,
    lksb: *mut Lksb,
    argument: *mut c_void,
) -> Result<(), c_int> {
    if lkid == 0 {
        return Err(libc::EINVAL);
    }
    // SAFETY: the caller's promise.
    let block = unsafe { Block::new(lksb) };
    let is_awaited = flags & LKF_WAIT != 0;
    let argument = Place(argument);
    let callbacks =
        Callbacks { ast: None, ast_argument: argument, bast: None, bast_argument: argument, block };
    if flags & LKF_CANCEL != 0 {
        return cancel(space, lkid, Under { kind: Ask::Cancel, lkid, callbacks, is_awaited });
    }
    let value = block.and_then(Block::value).filter(|_| Flags(flags).has(Flags::VALBLK));
    // Without a value there is none to write.
    let flags = flags & !(LKF_WAIT | if value.is_none() { Flags::VALBLK.0 } else { 0 });
    let value = value.map(|value| value.to_vec()).unwrap_or_default();
    let before = block.map(Block::status);
    block.inspect(|block| block.set_status(status::UNDER_WAY));
    let what = What::Unlock(wire::Unlock { lkid, flags, value });
    match space.begin(what, Under { kind: Ask::Unlock, lkid, callbacks, is_awaited }) {
        Ok((tag, _)) if is_awaited => space.wait_for(tag),
        Ok(_) => {}
        Err(error) => {
            block.zip(before).inspect(|(block, before)| block.set_status(*before));
            return Err(error);
        }
    }
    Ok(())
}

/// The wait that ends tells of it. That nothing waits any more is no error: it was granted meanwhile.
fn cancel(space: &Space, lkid: u32, under: Under) -> Result<(), c_int> {
    match space.begin(What::Cancel(lkid), under) {
        Ok((tag, _)) if under.is_awaited => space.wait_for(tag),
        Ok(_) | Err(libc::EBUSY) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

fn outcome(result: Result<(), c_int>) -> c_int {
    result.map_or_else(fail, |()| 0)
}

/// Requests or converts a lock.
///
/// # Safety
/// As dlm_ls_lockx(3): `lksb` is valid until the completion, `name` has `namelen` bytes, `xid` and `timeout` are null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlm_ls_lockx(
    ls: Handle,
    mode: u32,
    lksb: *mut Lksb,
    flags: u32,
    name: *const c_void,
    namelen: c_uint,
    parent: u32,
    astaddr: Option<Callback>,
    astarg: *mut c_void,
    bastaddr: Option<Callback>,
    xid: *mut u64,
    timeout: *mut u64,
) -> c_int {
    // SAFETY: the caller's promise.
    let number = |number: *mut u64| if number.is_null() { 0 } else { unsafe { number.read_unaligned() } };
    let arguments = LockArguments {
        mode,
        lksb,
        flags,
        name,
        name_length: namelen,
        parent,
        ast: astaddr,
        argument: astarg,
        bast: bastaddr,
        range: null_mut(),
        transaction: number(xid),
        timeout: number(timeout),
    };
    // SAFETY: the caller's promise.
    outcome(find(ls).and_then(|space| unsafe { lock(&space, &arguments) }))
}

/// Requests or converts a lock in a lockspace.
///
/// # Safety
/// As dlm_ls_lock(3): `lksb` is valid until the completion, `name` has `namelen` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlm_ls_lock(
    ls: Handle,
    mode: u32,
    lksb: *mut Lksb,
    flags: u32,
    name: *const c_void,
    namelen: c_uint,
    parent: u32,
    astaddr: Option<Callback>,
    astarg: *mut c_void,
    bastaddr: Option<Callback>,
    range: *mut c_void,
) -> c_int {
    let arguments = LockArguments {
        mode,
        lksb,
        flags,
        name,
        name_length: namelen,
        parent,
        ast: astaddr,
        argument: astarg,
        bast: bastaddr,
        range,
        transaction: 0,
        timeout: 0,
    };
    // SAFETY: the caller's promise.
    outcome(find(ls).and_then(|space| unsafe { lock(&space, &arguments) }))
}

/// Requests or converts a lock in a lockspace, and waits for its end.
///
/// # Safety
/// As dlm_ls_lock_wait(3): `lksb` is valid, `name` has `namelen` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlm_ls_lock_wait(
    ls: Handle,
    mode: u32,
    lksb: *mut Lksb,
    flags: u32,
    name: *const c_void,
    namelen: c_uint,
    parent: u32,
    bastarg: *mut c_void,
    bastaddr: Option<Callback>,
    range: *mut c_void,
) -> c_int {
    let flags = flags | LKF_WAIT;
    // SAFETY: the caller's promise.
    unsafe { dlm_ls_lock(ls, mode, lksb, flags, name, namelen, parent, None, bastarg, bastaddr, range) }
}

/// Requests or converts a lock in the default lockspace.
///
/// # Safety
/// As dlm_lock(3): `lksb` is valid until the completion, `name` has `namelen` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlm_lock(
    mode: u32,
    lksb: *mut Lksb,
    flags: u32,
    name: *const c_void,
    namelen: c_uint,
    parent: u32,
    astaddr: Option<Callback>,
    astarg: *mut c_void,
    bastaddr: Option<Callback>,
    range: *mut c_void,
) -> c_int {
    match default_handle() {
        // SAFETY: the caller's promise.
        Ok(ls) => unsafe {
            dlm_ls_lock(ls, mode, lksb, flags, name, namelen, parent, astaddr, astarg, bastaddr, range)
        },
        Err(error) => fail(error),
    }
}

/// Requests or converts a lock in the default lockspace, and waits for its end.
///
/// # Safety
/// As dlm_lock_wait(3): `lksb` is valid, `name` has `namelen` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlm_lock_wait(
    mode: u32,
    lksb: *mut Lksb,
    flags: u32,
    name: *const c_void,
    namelen: c_uint,
    parent: u32,
    bastarg: *mut c_void,
    bastaddr: Option<Callback>,
    range: *mut c_void,
) -> c_int {
    let flags = flags | LKF_WAIT;
    // SAFETY: the caller's promise.
    unsafe { dlm_lock(mode, lksb, flags, name, namelen, parent, None, bastarg, bastaddr, range) }
}

/// Unlocks, or cancels what a lock waits for.
///
/// # Safety
/// As dlm_ls_unlock(3): `lksb` is null, or valid until the completion.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlm_ls_unlock(
    ls: Handle,
    lkid: u32,
    flags: u32,
    lksb: *mut Lksb,
    astarg: *mut c_void,
) -> c_int {
    // SAFETY: the caller's promise.
    outcome(find(ls).and_then(|space| unsafe { unlock(&space, lkid, flags, lksb, astarg) }))
}

/// Unlocks or cancels, and waits for the end.
///
/// # Safety
/// As dlm_ls_unlock_wait(3): `lksb` is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlm_ls_unlock_wait(ls: Handle, lkid: u32, flags: u32, lksb: *mut Lksb) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { dlm_ls_unlock(ls, lkid, flags | LKF_WAIT, lksb, null_mut()) }
}

/// Unlocks or cancels in the default lockspace.
///
/// # Safety
/// As dlm_unlock(3): `lksb` is null, or valid until the completion.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlm_unlock(lkid: u32, flags: u32, lksb: *mut Lksb, astarg: *mut c_void) -> c_int {
    match open_default() {
        // SAFETY: the caller's promise.
        Some(ls) => unsafe { dlm_ls_unlock(ls, lkid, flags, lksb, astarg) },
        None => fail(libc::ENOTCONN),
    }
}

/// Unlocks or cancels in the default lockspace, and waits for the end.
///
/// # Safety
/// As dlm_unlock_wait(3): `lksb` is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlm_unlock_wait(lkid: u32, flags: u32, lksb: *mut Lksb) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { dlm_unlock(lkid, flags | LKF_WAIT, lksb, null_mut()) }
}

/// Ends what a lock waits for, with EDEADLK.
///
/// # Safety
/// `ls` may be anything; what is no handle is refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlm_ls_deadlock_cancel(ls: Handle, lkid: u32, _flags: u32) -> c_int {
    let none = Place(null_mut());
    let callbacks = Callbacks { ast: None, ast_argument: none, bast: None, bast_argument: none, block: None };
    let under = Under { kind: Ask::Cancel, lkid, callbacks, is_awaited: false };
    outcome(find(ls).and_then(|space| match lkid {
        0 => Err(libc::EINVAL),
        lkid => space.begin(What::DeadlockCancel(lkid), under).map(drop),
    }))
}

/// Takes away locks that nobody can unlock any more: orphans of a process of a node, or all that this handle has.
///
/// # Safety
/// `ls` may be anything; what is no handle is refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlm_ls_purge(ls: Handle, nodeid: c_int, pid: c_int) -> c_int {
    let (Ok(node), Ok(pid)) = (u32::try_from(nodeid), u32::try_from(pid)) else { return fail(libc::EINVAL) };
    outcome(find(ls).and_then(|space| space.ask(What::Purge(Purge { node, pid })).map(drop)))
}
