//! The records of the metadata store and their keys. Integers in keys are big-endian, so that keys sort as numbers do.
//!
//! ```text
//!  'i' ino:8                                          -> Inode
//!  'd' directory:8 name                               -> Link           a name
//!  'c' directory:8 cookie:8                           -> Listed         the same name, in the directory's order
//!  'x' ino:8 name                                     -> value          an extended attribute
//!  'o' ino:8 node:4 incarnation:8 handle:8            -> (empty)        an open file
//!  'q' ino:8                                          -> Layout         objects of a file that is gone, to be destroyed
//!  'r' node:4 source:8 sequence:8                     -> MetaReply      what a change was answered with
//!  'm'                                                -> Counters
//! ```

use crate::layout::{Layout, Pattern};
use crate::wire::{Attr, Operation};

/// The inode number of the root directory.
pub const ROOT: u64 = 1;
/// Bits of a mode that tell the kind of file (S_IFMT).
pub const KIND_MASK: u32 = 0o170_000;
/// A directory.
pub const DIRECTORY: u32 = 0o040_000;
/// A regular file.
pub const REGULAR: u32 = 0o100_000;
/// A symbolic link.
pub const SYMLINK: u32 = 0o120_000;
/// The set-group-id bit; on a directory: new files take its group.
pub const SETGID: u32 = 0o2000;
/// The first cookie of a directory entry; `.` and `..` have 1 and 2.
pub const COOKIE_FIRST: u64 = 16;
/// What a directory says its size is.
const DIRECTORY_BYTES: u64 = 4096;

/// A file, directory, link or special file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Inode {
    /// Its number; never used again.
    #[prost(uint64, tag = "1")]
    pub ino: u64,
    /// Kind and permission bits.
    #[prost(uint32, tag = "2")]
    pub mode: u32,
    /// Names (a directory: 2 and one for each directory in it).
    #[prost(uint32, tag = "3")]
    pub nlink: u32,
    /// Owner.
    #[prost(uint32, tag = "4")]
    pub uid: u32,
    /// Group.
    #[prost(uint32, tag = "5")]
    pub gid: u32,
    /// Device number of a special file.
    #[prost(uint32, tag = "6")]
    pub rdev: u32,
    /// Access time in nanoseconds since 1970: only as set.
    #[prost(sint64, tag = "7")]
    pub atime: i64,
    /// Modification time; of a regular file as last set, writes are on the objects.
    #[prost(sint64, tag = "8")]
    pub mtime: i64,
    /// Change time.
    #[prost(sint64, tag = "9")]
    pub ctime: i64,
    /// Target of a symbolic link.
    #[prost(bytes = "vec", tag = "10")]
    pub target: Vec<u8>,
    /// Where a regular file's bytes lie.
    #[prost(message, optional, tag = "11")]
    pub layout: Option<Layout>,
    /// How files made in this directory are laid out.
    #[prost(message, optional, tag = "12")]
    pub pattern: Option<Pattern>,
    /// The directory above this directory.
    #[prost(uint64, tag = "13")]
    pub parent: u64,
    /// Names in this directory.
    #[prost(uint64, tag = "14")]
    pub entries: u64,
    /// The cookie of the next name.
    #[prost(uint64, tag = "15")]
    pub next_cookie: u64,
}

/// What a name stands for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Link {
    /// The inode.
    #[prost(uint64, tag = "1")]
    pub ino: u64,
    /// Its kind.
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    /// The name's place in the order of the directory.
    #[prost(uint64, tag = "3")]
    pub cookie: u64,
}

/// A name in the order of its directory.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Listed {
    /// The inode.
    #[prost(uint64, tag = "1")]
    pub ino: u64,
    /// Its kind.
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    /// The name.
    #[prost(bytes = "vec", tag = "3")]
    pub name: Vec<u8>,
}

/// Numbers of the whole filesystem.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Counters {
    /// The inode number to be given out next.
    #[prost(uint64, tag = "1")]
    pub next_ino: u64,
    /// Inodes in use.
    #[prost(uint64, tag = "2")]
    pub inodes: u64,
}

impl Inode {
    /// The upper bits of its mode.
    pub fn kind(&self) -> u32 {
        self.mode & KIND_MASK
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind() == DIRECTORY
    }

    /// Whether it is a regular file.
    pub fn is_regular(&self) -> bool {
        self.kind() == REGULAR
    }

    /// Its attributes, as far as the metadata server knows them.
    pub fn attr(&self) -> Attr {
        let (size, blocks) = match self.kind() {
            DIRECTORY => (DIRECTORY_BYTES, DIRECTORY_BYTES / 512),
            SYMLINK => (self.target.len() as u64, 0),
            _ => (0, 0),
        };
        Attr {
            ino: self.ino,
            mode: self.mode,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: self.rdev,
            size,
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            blocks,
        }
    }
}

fn key(kind: u8, number: u64, rest: &[u8]) -> Vec<u8> {
    [&[kind], &number.to_be_bytes()[..], rest].concat()
}

/// Key of [`Counters`].
pub const COUNTERS: &[u8] = b"m";
/// Prefix of all open files.
pub const OPENS: &[u8] = b"o";
/// Prefix of all files to be destroyed.
pub const PURGES: &[u8] = b"q";
/// Prefix of all kept replies.
pub const REPLIES: &[u8] = b"r";

/// Key of an [`Inode`].
pub fn inode_key(ino: u64) -> Vec<u8> {
    key(b'i', ino, &[])
}

/// Key of a [`Link`].
pub fn name_key(directory: u64, name: &[u8]) -> Vec<u8> {
    key(b'd', directory, name)
}

/// Key of a [`Listed`]; all of a directory sort behind [`listing_prefix`].
pub fn listing_key(directory: u64, cookie: u64) -> Vec<u8> {
    key(b'c', directory, &cookie.to_be_bytes())
}

/// Prefix of a directory's [`Listed`]s.
pub fn listing_prefix(directory: u64) -> Vec<u8> {
    key(b'c', directory, &[])
}

/// Key of an extended attribute; with an empty name the prefix of all of `ino`.
pub fn xattr_key(ino: u64, name: &[u8]) -> Vec<u8> {
    key(b'x', ino, name)
}

/// Prefix of the open handles of `ino`.
pub fn opens_prefix(ino: u64) -> Vec<u8> {
    key(b'o', ino, &[])
}

/// Key of a file that waits to be destroyed.
pub fn purge_key(ino: u64) -> Vec<u8> {
    key(b'q', ino, &[])
}

/// The file that the key of a purge names, if it is one.
pub fn ino_of_purge(key: &[u8]) -> Option<u64> {
    key.strip_prefix(PURGES)?.try_into().ok().map(u64::from_be_bytes)
}

/// Key of an open handle.
pub fn open_key(open: &crate::wire::Handle) -> Vec<u8> {
    let mut rest = open.node.to_be_bytes().to_vec();
    rest.extend_from_slice(&open.incarnation.to_be_bytes());
    rest.extend_from_slice(&open.handle.to_be_bytes());
    key(b'o', open.ino, &rest)
}

/// The handle whose key this is; `None` if it is none.
pub fn open_of_key(key: &[u8]) -> Option<crate::wire::Handle> {
    let rest = key.strip_prefix(OPENS)?;
    let (ino, rest) = rest.split_first_chunk::<8>()?;
    let (node, rest) = rest.split_first_chunk::<4>()?;
    let (incarnation, rest) = rest.split_first_chunk::<8>()?;
    let handle: [u8; 8] = rest.try_into().ok()?;
    Some(crate::wire::Handle {
        ino: u64::from_be_bytes(*ino),
        node: u32::from_be_bytes(*node),
        incarnation: u64::from_be_bytes(*incarnation),
        handle: u64::from_be_bytes(handle),
    })
}

/// Key of a kept reply.
pub fn reply_key(operation: &Operation) -> Vec<u8> {
    let mut key = REPLIES.to_vec();
    key.extend_from_slice(&operation.node.to_be_bytes());
    key.extend_from_slice(&operation.source.to_be_bytes());
    key.extend_from_slice(&operation.sequence.to_be_bytes());
    key
}

/// The change whose reply's key this is; `None` if it is none.
pub fn operation_of_key(key: &[u8]) -> Option<Operation> {
    let rest = key.strip_prefix(REPLIES)?;
    let (node, rest) = rest.split_first_chunk::<4>()?;
    let (source, rest) = rest.split_first_chunk::<8>()?;
    let sequence: [u8; 8] = rest.try_into().ok()?;
    Some(Operation {
        node: u32::from_be_bytes(*node),
        source: u64::from_be_bytes(*source),
        sequence: u64::from_be_bytes(sequence),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Handle;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_tell_what_they_were_made_from(ino in any::<u64>(), node in any::<u32>(), incarnation in any::<u64>(), handle in any::<u64>()) {
            let open = Handle { ino, node, incarnation, handle };
            prop_assert_eq!(open_of_key(&open_key(&open)), Some(open));
            let operation = Operation { node, source: incarnation, sequence: handle };
            prop_assert_eq!(operation_of_key(&reply_key(&operation)), Some(operation));
        }

        #[test]
        fn foreign_keys_are_nobodys(key in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = (open_of_key(&key), operation_of_key(&key));
        }
    }
}
