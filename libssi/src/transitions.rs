//! The functions about transitions.
//!
//! Invariant: `*transid` moves on only to what the program has been given. So nothing is missed.

#![allow(unsafe_code)]

use crate::errno::{guard, of};
use crate::layout::{TransInfo, hand_over, size};
use crate::nodes::here;
use admin::{Change, Error, TransId, Which};
use libc::{EINVAL, c_int};
use std::time::Duration;

/// Changes that one call gives at most.
const CHANGES_MAX: c_int = 4_096;

/// Where a program wants a change, and where it is.
struct Reader {
    transid: *mut u64,
    bytes: usize,
    transinfo: *mut TransInfo,
}

impl Reader {
    fn new(transid: *mut u64, bytes: c_int, transinfo: *mut TransInfo) -> Result<Reader, c_int> {
        let bytes = size::<TransInfo>(bytes)?;
        let usable = !transid.is_null() && !transinfo.is_null();
        if usable { Ok(Reader { transid, bytes, transinfo }) } else { Err(EINVAL) }
    }

    /// # Safety
    /// `transid` can be read.
    unsafe fn position(&self) -> TransId {
        // SAFETY: the caller's promise.
        TransId(unsafe { self.transid.read() })
    }

    /// Gives the changes to the program, and moves on.
    ///
    /// # Safety
    /// `transid` can be written; `transinfo` for as many structures as there are changes.
    unsafe fn give(&self, changes: &[Change]) {
        for (at, change) in changes.iter().enumerate() {
            // SAFETY: the caller's promise; structures of the program's size stand one behind the other.
            unsafe {
                let place = self.transinfo.byte_add(at * self.bytes);
                hand_over(&TransInfo::from(change), place, self.bytes);
            }
        }
        if let Some(last) = changes.last() {
            // SAFETY: the caller's promise.
            unsafe { self.transid.write(last.id.0) };
        }
    }
}

/// The next change after `*transid` by which a node becomes UP or no longer is.
///
/// # Safety
/// As cluster_transition(3): the pointers are null, or can be read and written, `transinfo` for `bytes`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cluster_transition(
    transid: *mut u64,
    bytes: c_int,
    transinfo: *mut TransInfo,
) -> c_int {
    guard(-1, || {
        let reader = Reader::new(transid, bytes, transinfo)?;
        // SAFETY: the caller's promise; they are not null.
        let position = unsafe { reader.position() };
        let next = here()?.next_simple(position).map_err(|error| of(&error))?;
        let next = next.ok_or(libc::EAGAIN)?;
        // SAFETY: the caller's promise; they are not null.
        unsafe { reader.give(&[next]) };
        Ok(0)
    })
}

/// A change, in relation to `*transid`.
///
/// # Safety
/// As cluster_detailedtransition(3): the pointers are null, or can be read and written, `transinfo` for `bytes`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cluster_detailedtransition(
    which: c_int,
    transid: *mut u64,
    bytes: c_int,
    transinfo: *mut TransInfo,
) -> c_int {
    guard(-1, || {
        let reader = Reader::new(transid, bytes, transinfo)?;
        let all = [Which::This, Which::Next, Which::Previous, Which::First, Which::Last];
        let which = usize::try_from(which).ok().and_then(|which| all.get(which)).ok_or(EINVAL)?;
        // SAFETY: the caller's promise; they are not null.
        let position = unsafe { reader.position() };
        let found = here()?.transition(*which, position).map_err(|error| match (error, which) {
            (Error::NoTransition, Which::Next) => libc::EAGAIN,
            (error, _) => of(&error),
        })?;
        // SAFETY: the caller's promise; they are not null.
        unsafe { reader.give(&[found]) };
        Ok(0)
    })
}

/// Waits for changes after `*transid`. Gives how many came; 0 if the time was over first.
///
/// # Safety
/// As cluster_waittransition(3): the pointers are null, or can be read and written, `transinfo` for `count` structures of `bytes`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cluster_waittransition(
    transid: *mut u64,
    detailed: c_int,
    timeout_ms: c_int,
    count: c_int,
    bytes: c_int,
    transinfo: *mut TransInfo,
) -> c_int {
    guard(-1, || {
        let reader = Reader::new(transid, bytes, transinfo)?;
        if !(0..=1).contains(&detailed) || count < 1 {
            return Err(EINVAL);
        }
        let most = usize::try_from(count.min(CHANGES_MAX)).map_err(|_| EINVAL)?;
        let limit = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
        // SAFETY: the caller's promise; they are not null.
        let position = unsafe { reader.position() };
        let changes = here()?.wait(position, detailed == 0, most, limit).map_err(|error| of(&error))?;
        // SAFETY: the caller's promise; they are not null, and there are at most `count`.
        unsafe { reader.give(&changes) };
        Ok(c_int::try_from(changes.len()).unwrap_or(c_int::MAX))
    })
}
