//! Answers to requests. One [`Reply`] answers one request, once, from any thread.

use crate::abi;
use crate::directory::DirBuffer;
use crate::operation::{Lock, Timestamp};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;
use zerocopy::IntoBytes;

/// A file's attributes, as stat(2) shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Blocks of 512 bytes in use.
    pub blocks: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of anything.
    pub ctime: Timestamp,
    /// Type and permission bits.
    pub mode: u32,
    /// Names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What a device node stands for.
    pub rdev: u32,
    /// The size that reads and writes best have, in bytes.
    pub blksize: u32,
}

impl Attr {
    fn raw(&self) -> abi::AttrOut {
        abi::AttrOut {
            ino: self.ino,
            size: self.size,
            blocks: self.blocks,
            atime: self.atime.seconds.cast_unsigned(),
            mtime: self.mtime.seconds.cast_unsigned(),
            ctime: self.ctime.seconds.cast_unsigned(),
            atimensec: self.atime.nanos,
            mtimensec: self.mtime.nanos,
            ctimensec: self.ctime.nanos,
            mode: self.mode,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: self.rdev,
            blksize: self.blksize,
            flags: 0,
        }
    }
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryOut {
    /// The node; 0 with an `entry_valid` lets the kernel remember that there is no such name.
    pub nodeid: u64,
    /// Tells nodes apart that had the same number one after the other.
    pub generation: u64,
    /// How long the kernel may believe the name.
    pub entry_valid: Duration,
    /// How long it may believe the attributes.
    pub attr_valid: Duration,
    /// The attributes.
    pub attr: Attr,
}

impl EntryOut {
    pub(crate) fn raw(&self) -> abi::Entry {
        abi::Entry {
            nodeid: self.nodeid,
            generation: self.generation,
            entry_valid: self.entry_valid.as_secs(),
            attr_valid: self.attr_valid.as_secs(),
            entry_valid_nsec: self.entry_valid.subsec_nanos(),
            attr_valid_nsec: self.attr_valid.subsec_nanos(),
            attr: self.attr.raw(),
        }
    }
}

/// Figures of a file system, as statfs(2) shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatFs {
    /// Blocks of `frsize` bytes.
    pub blocks: u64,
    /// Free ones.
    pub bfree: u64,
    /// Free ones for ordinary users.
    pub bavail: u64,
    /// Inodes.
    pub files: u64,
    /// Free ones.
    pub ffree: u64,
    /// The block size that suits transfers, bytes.
    pub bsize: u32,
    /// The longest name, bytes.
    pub namelen: u32,
    /// The block size that the figures count, bytes.
    pub frsize: u32,
}

/// The right, and the duty, to answer one request. Dropped unused it answers EIO.
#[derive(Debug)]
pub struct Reply {
    device: Arc<OwnedFd>,
    unique: u64,
    /// True while the kernel still waits for an answer.
    owed: bool,
}

impl Reply {
    pub(crate) fn new(device: Arc<OwnedFd>, unique: u64, owed: bool) -> Reply {
        Reply { device, unique, owed }
    }

    /// It failed.
    pub fn error(self, errno: Errno) {
        self.send(errno.raw_os_error(), &[]);
    }

    /// It is done and there is nothing to say.
    pub fn empty(self) {
        self.send(0, &[]);
    }

    /// No answer is expected (Forget, Interrupt); to any other request it answers EIO.
    pub fn none(self) {}

    /// What the name stands for.
    pub fn entry(self, entry: &EntryOut) {
        self.send(0, &[entry.raw().as_bytes()]);
    }

    /// The attributes, and how long the kernel may believe them.
    pub fn attr(self, attr: &Attr, valid: Duration) {
        let out = abi::AttrReply {
            attr_valid: valid.as_secs(),
            attr_valid_nsec: valid.subsec_nanos(),
            dummy: 0,
            attr: attr.raw(),
        };
        self.send(0, &[out.as_bytes()]);
    }

    /// Bytes: of a file, a link's target, an extended attribute.
    pub fn data(self, data: &[u8]) {
        self.send(0, &[data]);
    }

    /// Bytes in several pieces (at most [`Reply::PIECES_MAX`]), without putting them together first.
    pub fn data_vectored(self, pieces: &[&[u8]]) {
        if pieces.len() <= Self::PIECES_MAX {
            self.send(0, pieces);
        } else {
            self.send(0, &[&pieces.concat()]);
        }
    }

    /// The most pieces that [`Reply::data_vectored`] sends without copying.
    pub const PIECES_MAX: usize = 1_000;

    /// So many bytes are written.
    pub fn written(self, bytes: u32) {
        self.send(0, &[abi::WriteOut { size: bytes, padding: 0 }.as_bytes()]);
    }

    /// Open, as `fh`, with [`crate::open_flags`].
    pub fn opened(self, fh: u64, flags: u32) {
        self.send(0, &[abi::OpenOut { fh, open_flags: flags, backing_id: 0 }.as_bytes()]);
    }

    /// Made and open.
    pub fn created(self, entry: &EntryOut, fh: u64, flags: u32) {
        let open = abi::OpenOut { fh, open_flags: flags, backing_id: 0 };
        self.send(0, &[entry.raw().as_bytes(), open.as_bytes()]);
    }

    /// The file system's figures.
    pub fn statfs(self, figures: &StatFs) {
        let StatFs { blocks, bfree, bavail, files, ffree, bsize, namelen, frsize } = *figures;
        let (padding, spare) = (0, [0; 6]);
        let out =
            abi::StatFsOut { blocks, bfree, bavail, files, ffree, bsize, namelen, frsize, padding, spare };
        self.send(0, &[out.as_bytes()]);
    }

    /// Directory entries; an empty buffer is the end of the directory.
    pub fn directory(self, entries: &DirBuffer) {
        self.send(0, &[entries.as_bytes()]);
    }

    /// How many bytes the extended attribute, or the list of names, has.
    pub fn xattr_size(self, bytes: u32) {
        self.send(0, &[abi::GetXattrOut { size: bytes, padding: 0 }.as_bytes()]);
    }

    /// The offset that LSEEK found.
    pub fn seeked(self, offset: u64) {
        self.send(0, &[abi::LseekOut { offset }.as_bytes()]);
    }

    /// What is ready.
    pub fn polled(self, revents: u32) {
        self.send(0, &[abi::PollOut { revents, padding: 0 }.as_bytes()]);
    }

    /// The value that ioctl(2) returns, and the bytes it fills in.
    pub fn ioctl(self, result: i32, output: &[u8]) {
        let out = abi::IoctlOut { result, ..Default::default() };
        self.send(0, &[out.as_bytes(), output]);
    }

    /// The lock that stands in the way; kind `F_UNLCK` if none does.
    pub fn lock(self, lock: Lock) {
        self.send(0, &[abi::FileLock::from(lock).as_bytes()]);
    }

    pub(crate) fn initialised(self, out: &abi::InitOut) {
        self.send(0, &[out.as_bytes()]);
    }

    fn send(mut self, errno: i32, pieces: &[&[u8]]) {
        if std::mem::take(&mut self.owed) {
            write_reply(&self.device, self.unique, errno, pieces);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if std::mem::take(&mut self.owed) {
            tracing::debug!(
                unique = self.unique,
                "a FUSE request was dropped without an answer; it gets EIO"
            );
            write_reply(&self.device, self.unique, Errno::IO.raw_os_error(), &[]);
        }
    }
}

fn write_reply(device: &OwnedFd, unique: u64, errno: i32, pieces: &[&[u8]]) {
    let body: usize = pieces.iter().map(|piece| piece.len()).sum();
    let length = size_of::<abi::OutHeader>() + body;
    let header = abi::OutHeader { len: length as u32, error: -errno, unique };
    let mut slices = Vec::with_capacity(1 + pieces.len());
    slices.push(IoSlice::new(header.as_bytes()));
    slices.extend(pieces.iter().filter(|piece| !piece.is_empty()).map(|piece| IoSlice::new(piece)));
    match rustix::io::retry_on_intr(|| rustix::io::writev(device.as_fd(), &slices)) {
        Ok(_) => {}
        // The asker was killed meanwhile, or the mount is gone: nobody is left to hear.
        Err(Errno::NOENT | Errno::NODEV | Errno::CONNABORTED | Errno::PERM) => {}
        Err(refused) if errno != 0 || body == 0 => {
            tracing::error!(unique, errno, "the kernel refuses a FUSE reply: {refused}");
        }
        Err(refused) => {
            // The asker must not hang because its answer was malformed (too long, a bad error number).
            tracing::error!(unique, length, "the kernel refuses a FUSE reply: {refused}; it gets EIO");
            write_reply(device, unique, Errno::IO.raw_os_error(), &[]);
        }
    }
}
