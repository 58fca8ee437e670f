//! A request of the kernel, decoded and owned.

use crate::abi::FileLock;
use bytes::Bytes;
use std::ffi::OsString;

/// Who asks, about what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The kernel's number of this request.
    pub unique: u64,
    /// The node it is about ([`crate::ROOT_ID`] is the root); the directory where a name is given.
    pub nodeid: u64,
    /// The asker's file system user id, in the mounter's user namespace.
    pub uid: u32,
    /// The asker's file system group id, likewise.
    pub gid: u32,
    /// The asker's *thread* id in the mounter's pid namespace; 0 if it has none there.
    pub pid: u32,
}

/// Seconds and nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Whole seconds; negative before 1970.
    pub seconds: i64,
    /// Nanoseconds, below 10^9.
    pub nanos: u32,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The server's own now.
    Now,
    /// This one.
    At(Timestamp),
}

/// What SETATTR changes; `None` leaves as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// The open file it comes through (ftruncate).
    pub fh: Option<u64>,
    /// Permission bits and type.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length in bytes.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of content.
    pub mtime: Option<SetTime>,
    /// Last change of anything (only with a write-back cache).
    pub ctime: Option<Timestamp>,
}

/// `nlookup` references to `nodeid` are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// The node.
    pub nodeid: u64,
    /// How many of the entries that were answered for it.
    pub nlookup: u64,
}

/// A byte range lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    /// First byte.
    pub start: u64,
    /// Last byte.
    pub end: u64,
    /// `F_RDLCK`, `F_WRLCK` or `F_UNLCK`.
    pub kind: u32,
    /// The holder's process id.
    pub pid: u32,
}

impl From<FileLock> for Lock {
    fn from(FileLock { start, end, kind, pid }: FileLock) -> Lock {
        Lock { start, end, kind, pid }
    }
}

impl From<Lock> for FileLock {
    fn from(Lock { start, end, kind, pid }: Lock) -> FileLock {
        FileLock { start, end, kind, pid }
    }
}

/// What is asked. The comment names the method of [`crate::Reply`] that answers it; [`crate::Reply::error`] always does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the system call of the same name")]
pub enum Operation {
    /// Find `name` in the directory: `entry`.
    Lookup { name: OsString },
    /// References are gone (of FORGET and BATCH_FORGET): `none`.
    Forget { forgotten: Vec<Forgotten> },
    /// Attributes: `attr`.
    GetAttr { fh: Option<u64> },
    /// Change attributes: `attr`.
    SetAttr(SetAttr),
    /// A symbolic link's target: `data`.
    ReadLink,
    /// Make a symbolic link: `entry`.
    SymLink { name: OsString, target: OsString },
    /// Make a node; `mode` holds the type, and the umask is not yet applied (DONT_MASK): `entry`.
    MkNod { name: OsString, mode: u32, rdev: u32, umask: u32 },
    /// Make a directory: `entry`.
    MkDir { name: OsString, mode: u32, umask: u32 },
    /// Remove a name that is no directory: `empty`.
    Unlink { name: OsString },
    /// Remove an empty directory: `empty`.
    RmDir { name: OsString },
    /// Move `name` to `new_name` of `new_parent`, `flags` as renameat2(2): `empty`.
    Rename { name: OsString, new_parent: u64, new_name: OsString, flags: u32 },
    /// Another name for the node `existing` in the header's directory: `entry`.
    Link { existing: u64, new_name: OsString },
    /// Open: `opened`.
    Open { flags: u32 },
    /// Read, at most `size` bytes; fewer means end of file: `data`.
    Read { fh: u64, offset: u64, size: u32, flags: u32, lock_owner: Option<u64> },
    /// Write: `written`. `cached`: the kernel's page cache writes, the header's ids are not the writer's.
    Write { fh: u64, offset: u64, data: Bytes, flags: u32, lock_owner: Option<u64>, cached: bool },
    /// Figures of the file system: `statfs`.
    StatFs,
    /// The last descriptor of an open file is closed: `empty`.
    Release { fh: u64, flags: u32, lock_owner: Option<u64> },
    /// Make durable: `empty`.
    Fsync { fh: u64, datasync: bool },
    /// `empty`.
    SetXattr { name: OsString, value: Bytes, flags: u32 },
    /// With `size` 0 `xattr_size`, else `data` (ERANGE if it does not fit).
    GetXattr { name: OsString, size: u32 },
    /// As GetXattr, of all names, each ended by a NUL.
    ListXattr { size: u32 },
    /// `empty`.
    RemoveXattr { name: OsString },
    /// A descriptor is closed (one of several perhaps): `empty`.
    Flush { fh: u64, lock_owner: u64 },
    /// Open a directory: `opened`.
    OpenDir { flags: u32 },
    /// Entries after `offset`: `directory`.
    ReadDir { fh: u64, offset: u64, size: u32 },
    /// Entries with attributes: `directory`.
    ReadDirPlus { fh: u64, offset: u64, size: u32 },
    /// `empty`.
    ReleaseDir { fh: u64, flags: u32 },
    /// `empty`.
    FsyncDir { fh: u64, datasync: bool },
    /// access(2), only without `default_permissions`: `empty`.
    Access { mask: u32 },
    /// Make and open a file: `created`.
    Create { name: OsString, mode: u32, umask: u32, flags: u32 },
    /// The asker of request `unique` was sent a signal: answer that one soon, with EINTR perhaps. `none`.
    Interrupt { unique: u64 },
    /// The mount goes away: `empty`.
    Destroy,
    /// `empty`.
    Fallocate { fh: u64, offset: u64, length: u64, mode: u32 },
    /// SEEK_DATA and SEEK_HOLE: `seeked`.
    Lseek { fh: u64, offset: u64, whence: u32 },
    /// Copy inside the server: `written`.
    CopyFileRange {
        fh_in: u64,
        offset_in: u64,
        nodeid_out: u64,
        fh_out: u64,
        offset_out: u64,
        length: u64,
        flags: u64,
    },
    /// `ioctl`.
    Ioctl { fh: u64, flags: u32, command: u32, argument: u64, input: Bytes, out_size: u32 },
    /// `polled`.
    Poll { fh: u64, kh: u64, flags: u32, events: u32 },
    /// Who holds a lock that stands in the way: `lock`.
    GetLock { fh: u64, owner: u64, lock: Lock, flock: bool },
    /// Lock or unlock, `wait`ing for it if asked: `empty`.
    SetLock { fh: u64, owner: u64, lock: Lock, flock: bool, wait: bool },
}
