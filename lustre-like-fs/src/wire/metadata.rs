//! To and from the metadata server.

use super::Operation;
use crate::layout::{Layout, Pattern};

/// A request to the metadata server.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MetaRequest {
    /// Which change this is; unset for questions.
    #[prost(message, optional, tag = "1")]
    pub operation: Option<Operation>,
    /// The caller's user.
    #[prost(uint32, tag = "2")]
    pub uid: u32,
    /// The caller's group.
    #[prost(uint32, tag = "3")]
    pub gid: u32,
    /// What is asked.
    #[prost(
        oneof = "MetaVerb",
        tags = "4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22"
    )]
    pub verb: Option<MetaVerb>,
}

/// What can be asked of the metadata server.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum MetaVerb {
    /// The inode behind a name.
    #[prost(message, tag = "4")]
    Lookup(Place),
    /// The attributes (and layout) of an inode.
    #[prost(uint64, tag = "5")]
    Getattr(u64),
    /// Change attributes.
    #[prost(message, tag = "6")]
    Setattr(Setattr),
    /// The target of a symbolic link.
    #[prost(uint64, tag = "7")]
    Readlink(u64),
    /// Make a file, directory, symbolic link or special file; open it as well if `handle` is set.
    #[prost(message, tag = "8")]
    Create(Create),
    /// Remove a name that is no directory.
    #[prost(message, tag = "9")]
    Unlink(Place),
    /// Remove an empty directory.
    #[prost(message, tag = "10")]
    Rmdir(Place),
    /// Move a name.
    #[prost(message, tag = "11")]
    Rename(Rename),
    /// Give an inode another name.
    #[prost(message, tag = "12")]
    Link(Link),
    /// Note that a file is open: it outlives its last name until the release.
    #[prost(message, tag = "13")]
    Open(Handle),
    /// The handle is closed.
    #[prost(message, tag = "14")]
    Release(Handle),
    /// Names in a directory.
    #[prost(message, tag = "15")]
    Readdir(Readdir),
    /// Set an extended attribute.
    #[prost(message, tag = "16")]
    Setxattr(Setxattr),
    /// The value of an extended attribute.
    #[prost(message, tag = "17")]
    Getxattr(Place),
    /// The names of extended attributes, each ended by a zero byte.
    #[prost(uint64, tag = "18")]
    Listxattr(u64),
    /// Remove an extended attribute.
    #[prost(message, tag = "19")]
    Removexattr(Place),
    /// Reply when everything answered so far is on disk.
    #[prost(message, tag = "20")]
    Sync(()),
    /// Set the striping pattern that a directory hands to new files.
    #[prost(message, tag = "21")]
    SetPattern(SetPattern),
    /// How many inodes there are.
    #[prost(message, tag = "22")]
    Statfs(()),
}

/// A name in a directory (or of an extended attribute of an inode).
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Place {
    /// The directory (or inode).
    #[prost(uint64, tag = "1")]
    pub parent: u64,
    /// The name: any bytes but `/` and zero.
    #[prost(bytes = "vec", tag = "2")]
    pub name: Vec<u8>,
}

/// A time to be set.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct SetTime {
    /// The server's now; `at` does not count.
    #[prost(bool, tag = "1")]
    pub now: bool,
    /// Nanoseconds since 1970.
    #[prost(sint64, tag = "2")]
    pub at: i64,
}

/// Which attributes to change.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Setattr {
    /// The inode.
    #[prost(uint64, tag = "1")]
    pub ino: u64,
    /// Permission bits (07777).
    #[prost(uint32, optional, tag = "2")]
    pub mode: Option<u32>,
    /// Owner.
    #[prost(uint32, optional, tag = "3")]
    pub uid: Option<u32>,
    /// Group.
    #[prost(uint32, optional, tag = "4")]
    pub gid: Option<u32>,
    /// The file is about to be cut or stretched: check that it may, and stamp mtime and ctime.
    #[prost(bool, tag = "5")]
    pub resized: bool,
    /// Access time.
    #[prost(message, optional, tag = "6")]
    pub atime: Option<SetTime>,
    /// Modification time.
    #[prost(message, optional, tag = "7")]
    pub mtime: Option<SetTime>,
}

/// What to make.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Create {
    /// Where.
    #[prost(message, optional, tag = "1")]
    pub place: Option<Place>,
    /// Kind and permission bits, the umask already taken off.
    #[prost(uint32, tag = "2")]
    pub mode: u32,
    /// Of a device.
    #[prost(uint32, tag = "3")]
    pub rdev: u32,
    /// Of a symbolic link.
    #[prost(bytes = "vec", tag = "4")]
    pub target: Vec<u8>,
    /// Open it under this handle as well.
    #[prost(message, optional, tag = "5")]
    pub handle: Option<Handle>,
    /// A pattern chosen for this file alone.
    #[prost(message, optional, tag = "6")]
    pub pattern: Option<Pattern>,
}

/// An open file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Handle {
    /// The file; 0 while it is being created.
    #[prost(uint64, tag = "1")]
    pub ino: u64,
    /// The node where it is open.
    #[prost(uint32, tag = "2")]
    pub node: u32,
    /// The life of that node: the handle ends with it.
    #[prost(fixed64, tag = "3")]
    pub incarnation: u64,
    /// The handle's number, unique in that life.
    #[prost(fixed64, tag = "4")]
    pub handle: u64,
}

/// From where to where.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Rename {
    /// The old name.
    #[prost(message, optional, tag = "1")]
    pub from: Option<Place>,
    /// The new name.
    #[prost(message, optional, tag = "2")]
    pub to: Option<Place>,
    /// RENAME_NOREPLACE (1) or RENAME_EXCHANGE (2), as in renameat2(2).
    #[prost(uint32, tag = "3")]
    pub flags: u32,
}

/// Another name for `ino`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Link {
    /// The inode.
    #[prost(uint64, tag = "1")]
    pub ino: u64,
    /// Its new name.
    #[prost(message, optional, tag = "2")]
    pub to: Option<Place>,
}

/// Which names.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Readdir {
    /// The directory.
    #[prost(uint64, tag = "1")]
    pub ino: u64,
    /// Names after this cookie.
    #[prost(uint64, tag = "2")]
    pub after: u64,
    /// At most so many.
    #[prost(uint32, tag = "3")]
    pub limit: u32,
}

/// One extended attribute.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Setxattr {
    /// The inode and the attribute's name.
    #[prost(message, optional, tag = "1")]
    pub place: Option<Place>,
    /// Its value.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
    /// XATTR_CREATE (1), XATTR_REPLACE (2), as in setxattr(2).
    #[prost(uint32, tag = "3")]
    pub flags: u32,
}

/// A directory's pattern.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetPattern {
    /// The directory.
    #[prost(uint64, tag = "1")]
    pub ino: u64,
    /// How files made in it from now on are laid out.
    #[prost(message, optional, tag = "2")]
    pub pattern: Option<Pattern>,
}

/// What the metadata server knows of an inode.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Attr {
    /// Inode number.
    #[prost(uint64, tag = "1")]
    pub ino: u64,
    /// Kind and permission bits.
    #[prost(uint32, tag = "2")]
    pub mode: u32,
    /// Names.
    #[prost(uint32, tag = "3")]
    pub nlink: u32,
    /// Owner.
    #[prost(uint32, tag = "4")]
    pub uid: u32,
    /// Group.
    #[prost(uint32, tag = "5")]
    pub gid: u32,
    /// Device.
    #[prost(uint32, tag = "6")]
    pub rdev: u32,
    /// Bytes; of a regular file the object servers know.
    #[prost(uint64, tag = "7")]
    pub size: u64,
    /// Access time, nanoseconds since 1970.
    #[prost(sint64, tag = "8")]
    pub atime: i64,
    /// Modification time; of a regular file see [`crate::client`].
    #[prost(sint64, tag = "9")]
    pub mtime: i64,
    /// Change time.
    #[prost(sint64, tag = "10")]
    pub ctime: i64,
    /// Blocks of 512 bytes that are in use.
    #[prost(uint64, tag = "11")]
    pub blocks: u64,
}

/// A name in a directory.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Entry {
    /// The inode.
    #[prost(uint64, tag = "1")]
    pub ino: u64,
    /// Its kind: the upper bits of its mode.
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    /// Its place in the order of the directory; never 0, 1 or 2.
    #[prost(uint64, tag = "3")]
    pub cookie: u64,
    /// The name.
    #[prost(bytes = "vec", tag = "4")]
    pub name: Vec<u8>,
}

/// The metadata server's answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MetaReply {
    /// 0, or why not.
    #[prost(uint32, tag = "1")]
    pub errno: u32,
    /// The inode in question.
    #[prost(message, optional, tag = "2")]
    pub attr: Option<Attr>,
    /// Where its bytes lie, if it is a regular file.
    #[prost(message, optional, tag = "3")]
    pub layout: Option<Layout>,
    /// A link's target, an attribute's value, a list of attributes.
    #[prost(bytes = "vec", tag = "4")]
    pub data: Vec<u8>,
    /// Names of a directory.
    #[prost(message, repeated, tag = "5")]
    pub entries: Vec<Entry>,
    /// The directory above (of a directory).
    #[prost(uint64, tag = "6")]
    pub parent: u64,
    /// The pattern that a directory hands down.
    #[prost(message, optional, tag = "7")]
    pub pattern: Option<Pattern>,
    /// Inodes in use.
    #[prost(uint64, tag = "8")]
    pub inodes: u64,
}
