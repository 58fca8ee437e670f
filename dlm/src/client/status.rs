//! How something ended, as a number: libdlm's, which are Linux's errors and three of its own.

use crate::event::Refusal;

/// Granted; also: a cancellation that was carried out.
pub const OK: u32 = 0;
/// Not permitted (EPERM).
pub const NOT_PERMITTED: u32 = 1;
/// No such lock, lockspace or orphan (ENOENT).
pub const NOT_THERE: u32 = 2;
/// NOQUEUE, and it cannot be granted at once (EAGAIN).
pub const AGAIN: u32 = 11;
/// A limit is reached (ENOMEM).
pub const NO_ROOM: u32 = 12;
/// The mode bits of the lockspace forbid it (EACCES).
pub const NO_ACCESS: u32 = 13;
/// The lock is waiting or converting; the lockspace has locks (EBUSY).
pub const BUSY: u32 = 16;
/// The lockspace is there already (EEXIST).
pub const EXISTS: u32 = 17;
/// The lockspace has been taken away (ENODEV).
pub const NO_SPACE: u32 = 19;
/// Contradictory (EINVAL).
pub const INVALID: u32 = 22;
/// It would wait for ever (EDEADLK).
pub const DEADLOCK: u32 = 35;
/// There are locks below it (ENOTEMPTY).
pub const HAS_CHILDREN: u32 = 39;
/// The connection to the lock manager is gone, and the locks with it (ENOTCONN).
pub const GONE: u32 = 107;
/// Its deadline passed (ETIMEDOUT).
pub const TIMED_OUT: u32 = 110;
/// The lock is being unlocked already (EINPROGRESS).
pub const UNLOCKING: u32 = 115;
/// It was cancelled (libdlm's ECANCEL).
pub const CANCELLED: u32 = 0x1_0001;
/// It is unlocked (libdlm's EUNLOCK).
pub const UNLOCKED: u32 = 0x1_0002;
/// It is under way (libdlm's EINPROG).
pub const UNDER_WAY: u32 = 0x1_0003;

/// In the flags of a completion: the former mode was given up meanwhile.
pub const DEMOTED: u32 = 0x01;
/// In the flags of a completion: the value block is not valid.
pub const VALUE_NOT_VALID: u32 = 0x02;
/// In the flags of a completion: granted in the other mode.
pub const OTHER_MODE: u32 = 0x04;

/// The number for a refusal.
pub fn of(why: Refusal) -> u32 {
    match why {
        Refusal::Again => AGAIN,
        Refusal::TimedOut => TIMED_OUT,
        Refusal::Cancelled => CANCELLED,
        Refusal::Deadlock => DEADLOCK,
        Refusal::NoLock | Refusal::NoOrphan => NOT_THERE,
        Refusal::Busy | Refusal::NotPending => BUSY,
        Refusal::HasChildren => HAS_CHILDREN,
        Refusal::Invalid(_) => INVALID,
        Refusal::Limit(_) => NO_ROOM,
    }
}

/// What a number means, in words.
pub fn words(status: u32) -> &'static str {
    match status {
        OK => "granted",
        NOT_PERMITTED => "not permitted: only root, or who runs the node, may",
        NOT_THERE => "there is no such lock or lockspace",
        AGAIN => "somebody else has it",
        NO_ROOM => "a limit is reached",
        NO_ACCESS => "the lockspace's mode does not let this user in",
        BUSY => "it is in use, waiting or converting",
        EXISTS => "the lockspace is there already",
        NO_SPACE => "the lockspace has been taken away",
        INVALID => "what was asked for is contradictory",
        DEADLOCK => "it waits for somebody who waits for it",
        HAS_CHILDREN => "locks below it are still there",
        GONE => "the lock manager of this node has ended, and the locks of this connection with it",
        TIMED_OUT => "it was not granted in time",
        UNLOCKING => "it is being unlocked already",
        CANCELLED => "it was cancelled",
        UNLOCKED => "unlocked",
        UNDER_WAY => "under way",
        _ => "an unknown reason",
    }
}
