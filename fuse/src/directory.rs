//! The entries of one READDIR or READDIRPLUS answer.

use crate::abi;
use crate::reply::EntryOut;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use zerocopy::IntoBytes;

/// What a directory entry names: the type bits of a mode, shifted down (`DT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum FileType {
    /// Not told; the reader must stat.
    Unknown = 0,
    /// A named pipe.
    Fifo = 1,
    /// A character device.
    CharDevice = 2,
    /// A directory.
    Directory = 4,
    /// A block device.
    BlockDevice = 6,
    /// A regular file.
    Regular = 8,
    /// A symbolic link.
    SymLink = 10,
    /// A socket.
    Socket = 12,
}

impl FileType {
    /// The type in the `S_IFMT` bits of `mode`.
    pub fn of_mode(mode: u32) -> FileType {
        match (mode >> 12) & 0o17 {
            1 => FileType::Fifo,
            2 => FileType::CharDevice,
            4 => FileType::Directory,
            6 => FileType::BlockDevice,
            8 => FileType::Regular,
            10 => FileType::SymLink,
            12 => FileType::Socket,
            _ => FileType::Unknown,
        }
    }
}

/// Entries in the kernel's layout, as many as fit into what was asked for.
#[derive(Debug)]
pub struct DirBuffer {
    bytes: Vec<u8>,
    size_max: usize,
}

impl DirBuffer {
    /// Room for `size` bytes, as READDIR asked.
    pub fn new(size: u32) -> DirBuffer {
        let size_max = size as usize;
        DirBuffer { bytes: Vec::with_capacity(size_max.min(64 << 10)), size_max }
    }

    /// Adds an entry for READDIR. `offset` is where the next READDIR goes on *after* this entry (never 0).
    /// False if it does not fit: stop here.
    #[must_use]
    pub fn add(&mut self, ino: u64, offset: u64, kind: FileType, name: &OsStr) -> bool {
        self.push(&[], ino, offset, kind, name)
    }

    /// Adds an entry for READDIRPLUS: like an answered LOOKUP, it counts as one reference to `entry.nodeid`, unless that
    /// is 0 (`.`, `..`, or nothing known).
    #[must_use]
    pub fn add_plus(&mut self, entry: &EntryOut, offset: u64, name: &OsStr) -> bool {
        let kind = FileType::of_mode(entry.attr.mode);
        self.push(entry.raw().as_bytes(), entry.attr.ino, offset, kind, name)
    }

    /// True if nothing was added.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What the kernel is sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn push(&mut self, front: &[u8], ino: u64, offset: u64, kind: FileType, name: &OsStr) -> bool {
        let name = name.as_bytes();
        let length = (front.len() + size_of::<abi::Dirent>() + name.len()).next_multiple_of(8);
        if self.bytes.len() + length > self.size_max {
            return false;
        }
        let end = self.bytes.len() + length;
        let dirent = abi::Dirent { ino, off: offset, namelen: name.len() as u32, kind: kind as u32 };
        self.bytes.extend_from_slice(front);
        self.bytes.extend_from_slice(dirent.as_bytes());
        self.bytes.extend_from_slice(name);
        self.bytes.resize(end, 0);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_padded_and_bounded() {
        let mut buffer = DirBuffer::new(70);
        assert!(buffer.add(2, 1, FileType::Regular, OsStr::new("abc")));
        assert_eq!(buffer.as_bytes().len(), 32);
        assert!(buffer.add(3, 2, FileType::Directory, OsStr::new("12345678")));
        assert_eq!(buffer.as_bytes().len(), 64);
        assert!(!buffer.add(4, 3, FileType::Regular, OsStr::new("x")));
        assert_eq!(buffer.as_bytes().len(), 64);
    }

    #[test]
    fn types_are_those_of_a_mode() {
        assert_eq!(FileType::of_mode(0o120_777), FileType::SymLink);
        assert_eq!(FileType::of_mode(0o040_755), FileType::Directory);
        assert_eq!(FileType::of_mode(0), FileType::Unknown);
    }
}
