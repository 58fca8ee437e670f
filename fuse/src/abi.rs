//! The kernel's layouts (`include/uapi/linux/fuse.h`, protocol 7.31 to 7.45), in the machine's byte order.
//!
//! ```text
//!  request:  | InHeader 40 | argument structure | names, each ended by a NUL, or data |
//!  reply:    | OutHeader 16 | result structure or data |            (error != 0: the header alone)
//! ```
//!
//! Field names are the kernel's, so that the header file and this one can be read side by side.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! layouts {
    ($($(#[$doc:meta])* $name:ident $size:literal { $($field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
        #[repr(C)]
        #[allow(missing_docs, reason = "the fields are named and explained in linux/fuse.h")]
        pub struct $name { $(pub $field: $type),* }
        const _: () = assert!(size_of::<$name>() == $size);
    )*};
}

layouts! {
    /// In front of every request.
    InHeader 40 { len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32, total_extlen: u16, padding: u16 }
    /// In front of every reply (`error` is a negative errno) and notification (`unique` 0, `error` its code).
    OutHeader 16 { len: u32, error: i32, unique: u64 }
    /// INIT as every kernel sends it.
    InitIn 16 { major: u32, minor: u32, max_readahead: u32, flags: u32 }
    /// The answer to INIT.
    InitOut 64 {
        major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16, congestion_threshold: u16,
        max_write: u32, time_gran: u32, max_pages: u16, map_alignment: u16, flags2: u32, max_stack_depth: u32,
        request_timeout: u16, unused: [u16; 11],
    }
    /// FORGET.
    ForgetIn 8 { nlookup: u64 }
    /// BATCH_FORGET, followed by `count` of [`ForgetOne`].
    BatchForgetIn 8 { count: u32, dummy: u32 }
    /// One of BATCH_FORGET.
    ForgetOne 16 { nodeid: u64, nlookup: u64 }
    /// GETATTR.
    GetAttrIn 16 { getattr_flags: u32, dummy: u32, fh: u64 }
    /// SETATTR.
    SetAttrIn 88 {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    }
    /// MKNOD, followed by the name.
    MkNodIn 16 { mode: u32, rdev: u32, umask: u32, padding: u32 }
    /// MKDIR, followed by the name.
    MkDirIn 8 { mode: u32, umask: u32 }
    /// RENAME, followed by the old and the new name.
    RenameIn 8 { newdir: u64 }
    /// RENAME2, followed by the old and the new name.
    Rename2In 16 { newdir: u64, flags: u32, padding: u32 }
    /// LINK, followed by the new name.
    LinkIn 8 { oldnodeid: u64 }
    /// OPEN and OPENDIR.
    OpenIn 8 { flags: u32, open_flags: u32 }
    /// CREATE, followed by the name.
    CreateIn 16 { flags: u32, mode: u32, umask: u32, open_flags: u32 }
    /// READ, READDIR and READDIRPLUS.
    ReadIn 40 { fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    /// WRITE, followed by the data.
    WriteIn 40 { fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    /// RELEASE and RELEASEDIR.
    ReleaseIn 24 { fh: u64, flags: u32, release_flags: u32, lock_owner: u64 }
    /// FLUSH.
    FlushIn 24 { fh: u64, unused: u32, padding: u32, lock_owner: u64 }
    /// FSYNC and FSYNCDIR.
    FsyncIn 16 { fh: u64, fsync_flags: u32, padding: u32 }
    /// SETXATTR without `SETXATTR_EXT`, followed by the name and the value.
    SetXattrIn 8 { size: u32, flags: u32 }
    /// GETXATTR (followed by the name) and LISTXATTR.
    GetXattrIn 8 { size: u32, padding: u32 }
    /// GETLK, SETLK and SETLKW.
    LkIn 48 { fh: u64, owner: u64, lk: FileLock, lk_flags: u32, padding: u32 }
    /// A lock, in both directions.
    FileLock 24 { start: u64, end: u64, kind: u32, pid: u32 }
    /// ACCESS.
    AccessIn 8 { mask: u32, padding: u32 }
    /// INTERRUPT.
    InterruptIn 8 { unique: u64 }
    /// IOCTL, followed by `in_size` bytes.
    IoctlIn 32 { fh: u64, flags: u32, cmd: u32, arg: u64, in_size: u32, out_size: u32 }
    /// POLL.
    PollIn 24 { fh: u64, kh: u64, flags: u32, events: u32 }
    /// FALLOCATE.
    FallocateIn 32 { fh: u64, offset: u64, length: u64, mode: u32, padding: u32 }
    /// LSEEK.
    LseekIn 24 { fh: u64, offset: u64, whence: u32, padding: u32 }
    /// COPY_FILE_RANGE.
    CopyFileRangeIn 56 { fh_in: u64, off_in: u64, nodeid_out: u64, fh_out: u64, off_out: u64, len: u64, flags: u64 }
    /// A file's attributes.
    AttrOut 88 {
        ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64, atimensec: u32, mtimensec: u32,
        ctimensec: u32, mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32, blksize: u32, flags: u32,
    }
    /// LOOKUP, MKDIR, ...: a name's answer.
    Entry 128 {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nsec: u32,
        attr_valid_nsec: u32, attr: AttrOut,
    }
    /// GETATTR and SETATTR: the answer.
    AttrReply 104 { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: AttrOut }
    /// OPEN, OPENDIR and (after an [`Entry`]) CREATE: the answer.
    OpenOut 16 { fh: u64, open_flags: u32, backing_id: i32 }
    /// WRITE and COPY_FILE_RANGE: the answer.
    WriteOut 8 { size: u32, padding: u32 }
    /// STATFS: the answer.
    StatFsOut 80 {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, bsize: u32, namelen: u32, frsize: u32,
        padding: u32, spare: [u32; 6],
    }
    /// GETXATTR and LISTXATTR with size 0: the answer.
    GetXattrOut 8 { size: u32, padding: u32 }
    /// LSEEK: the answer.
    LseekOut 8 { offset: u64 }
    /// POLL: the answer.
    PollOut 8 { revents: u32, padding: u32 }
    /// IOCTL: the answer, followed by data.
    IoctlOut 16 { result: i32, flags: u32, in_iovs: u32, out_iovs: u32 }
    /// A directory entry, followed by the name and zeros up to a multiple of 8.
    Dirent 24 { ino: u64, off: u64, namelen: u32, kind: u32 }
}

/// `fuse_in_header.opcode`.
#[allow(missing_docs, reason = "the kernel's names")]
pub mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const GETLK: u32 = 31;
    pub const SETLK: u32 = 32;
    pub const SETLKW: u32 = 33;
    pub const ACCESS: u32 = 34;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const IOCTL: u32 = 39;
    pub const POLL: u32 = 40;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
}

/// What can be agreed at INIT: bits of `flags | flags2 << 32`.
#[allow(missing_docs, reason = "the kernel's names")]
pub mod init_flags {
    pub const ASYNC_READ: u64 = 1 << 0;
    pub const POSIX_LOCKS: u64 = 1 << 1;
    pub const ATOMIC_O_TRUNC: u64 = 1 << 3;
    pub const BIG_WRITES: u64 = 1 << 5;
    pub const DONT_MASK: u64 = 1 << 6;
    pub const FLOCK_LOCKS: u64 = 1 << 10;
    pub const AUTO_INVAL_DATA: u64 = 1 << 12;
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    pub const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub const ASYNC_DIO: u64 = 1 << 15;
    pub const WRITEBACK_CACHE: u64 = 1 << 16;
    pub const NO_OPEN_SUPPORT: u64 = 1 << 17;
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    pub const MAX_PAGES: u64 = 1 << 22;
    pub const CACHE_SYMLINKS: u64 = 1 << 23;
    pub const NO_OPENDIR_SUPPORT: u64 = 1 << 24;
    pub const INIT_EXT: u64 = 1 << 30;
    pub const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;
    pub const HAS_RESEND: u64 = 1 << 39;
}

/// `fuse_open_out.open_flags`: how the kernel treats this open file.
#[allow(missing_docs, reason = "the kernel's names")]
pub mod open_flags {
    pub const DIRECT_IO: u32 = 1 << 0;
    pub const KEEP_CACHE: u32 = 1 << 1;
    pub const NONSEEKABLE: u32 = 1 << 2;
    pub const CACHE_DIR: u32 = 1 << 3;
    pub const STREAM: u32 = 1 << 4;
    pub const NOFLUSH: u32 = 1 << 5;
    pub const PARALLEL_DIRECT_WRITES: u32 = 1 << 6;
}

/// Notification: deliver every request again that was read and not answered.
pub const NOTIFY_RESEND: i32 = 7;
/// `InHeader.unique` of a request that is delivered again. The answer must bear it too.
pub const UNIQUE_RESEND: u64 = 1 << 63;
