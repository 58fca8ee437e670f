//! To and from the object servers.

use super::Operation;
use crate::layout::Layout;

/// A request to an object server. File data of a write rides in the bulk.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ObjectRequest {
    /// The file.
    #[prost(uint64, tag = "1")]
    pub ino: u64,
    /// Which of its objects.
    #[prost(uint32, tag = "2")]
    pub stripe: u32,
    /// What is asked.
    #[prost(oneof = "ObjectVerb", tags = "3, 4, 5, 6, 7, 8, 9, 10, 11, 12")]
    pub verb: Option<ObjectVerb>,
}

/// What can be asked of an object server.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ObjectVerb {
    /// Bytes of the object; fewer where it ends.
    #[prost(message, tag = "3")]
    Read(Run),
    /// Put the bulk at this offset of the object.
    #[prost(uint64, tag = "4")]
    Write(u64),
    /// The object's length, blocks and time of last change.
    #[prost(message, tag = "5")]
    Glimpse(()),
    /// Cut or stretch the object.
    #[prost(message, tag = "6")]
    Resize(Resize),
    /// Set the time of the last change of an object that exists.
    #[prost(sint64, tag = "7")]
    Stamp(i64),
    /// fallocate(2) on the object.
    #[prost(message, tag = "8")]
    Allocate(Allocate),
    /// Reply when the object is on disk.
    #[prost(message, tag = "9")]
    Sync(()),
    /// Remove the object.
    #[prost(message, tag = "10")]
    Destroy(()),
    /// Put the bulk at the end of the file: asked of the server of object 0, which orders all appends to the file.
    #[prost(message, tag = "11")]
    Append(Append),
    /// Room on the server's disk.
    #[prost(message, tag = "12")]
    Statfs(()),
}

/// A run of bytes.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Run {
    /// From here.
    #[prost(uint64, tag = "1")]
    pub offset: u64,
    /// So many.
    #[prost(uint64, tag = "2")]
    pub length: u64,
}

/// An object's new length.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Resize {
    /// Bytes.
    #[prost(uint64, tag = "1")]
    pub length: u64,
    /// The time of change, nanoseconds since 1970.
    #[prost(sint64, tag = "2")]
    pub mtime: i64,
}

/// fallocate(2).
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Allocate {
    /// FALLOC_FL_*: 0, KEEP_SIZE (1), KEEP_SIZE | PUNCH_HOLE (3).
    #[prost(uint32, tag = "1")]
    pub mode: u32,
    /// The bytes of the object.
    #[prost(message, optional, tag = "2")]
    pub run: Option<Run>,
}

/// Bytes for the end of a file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Append {
    /// Which append this is.
    #[prost(message, optional, tag = "1")]
    pub operation: Option<Operation>,
    /// The whole file's layout.
    #[prost(message, optional, tag = "2")]
    pub layout: Option<Layout>,
}

/// The object server's answer. Data of a read rides in the bulk.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ObjectReply {
    /// 0, or why not.
    #[prost(uint32, tag = "1")]
    pub errno: u32,
    /// The object as it is now (Glimpse, Resize).
    #[prost(message, optional, tag = "2")]
    pub object: Option<Object>,
    /// Bytes written, also when `errno` tells why not all of them.
    #[prost(uint64, tag = "3")]
    pub written: u64,
    /// Room on the disk (Statfs).
    #[prost(message, optional, tag = "4")]
    pub space: Option<Space>,
    /// Where an append went, in the file.
    #[prost(uint64, tag = "5")]
    pub offset: u64,
}

/// An object; absent in the reply where there is none.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Object {
    /// Bytes up to its end.
    #[prost(uint64, tag = "1")]
    pub length: u64,
    /// Blocks of 512 bytes in use.
    #[prost(uint64, tag = "2")]
    pub blocks: u64,
    /// Nanoseconds since 1970.
    #[prost(sint64, tag = "3")]
    pub mtime: i64,
}

/// Room on an object server's disk.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Space {
    /// Bytes in all.
    #[prost(uint64, tag = "1")]
    pub total: u64,
    /// Bytes free.
    #[prost(uint64, tag = "2")]
    pub free: u64,
    /// Bytes free to ordinary users.
    #[prost(uint64, tag = "3")]
    pub available: u64,
}
