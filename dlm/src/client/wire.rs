//! The messages on the local sockets, each in one of `base`'s frames.
//!
//! Invariant: numbers of modes, flags and statuses are libdlm's.

/// The conversation's name in the hello.
pub const SERVICE: &str = "locks";
/// The version that both ends say in their hello.
pub const VERSION: u32 = 1;
/// Bytes of a lockspace's name at most.
pub const SPACE_BYTES_MAX: usize = 64;

/// What a program asks.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Call {
    /// The program's name for this call: comes back in its reply and its completion.
    #[prost(uint64, tag = "1")]
    pub tag: u64,
    /// What.
    #[prost(oneof = "What", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11")]
    pub what: Option<What>,
}

/// The calls.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum What {
    /// Makes this connection a holder in a lockspace. Once a connection.
    #[prost(message, tag = "2")]
    Open(Open),
    /// Takes a lockspace away; what this connection holds goes first.
    #[prost(message, tag = "3")]
    Release(Release),
    /// A new lock.
    #[prost(message, tag = "4")]
    Lock(Lock),
    /// Another mode.
    #[prost(message, tag = "5")]
    Convert(Convert),
    /// A lock goes.
    #[prost(message, tag = "6")]
    Unlock(Unlock),
    /// What this lock waits for is to end, as cancelled.
    #[prost(uint32, tag = "7")]
    Cancel(u32),
    /// What this lock waits for is to end, as the victim of a deadlock.
    #[prost(uint32, tag = "8")]
    DeadlockCancel(u32),
    /// Locks go: this connection's, or orphans.
    #[prost(message, tag = "9")]
    Purge(Purge),
    /// All locks of all programs in the cluster.
    #[prost(message, tag = "10")]
    List(()),
    /// Who waits for whom.
    #[prost(message, tag = "11")]
    Waits(()),
}

/// A lockspace is wanted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Open {
    /// Its name, 1 to 64 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub name: Vec<u8>,
    /// Make it, if it is not there.
    #[prost(bool, tag = "2")]
    pub create: bool,
    /// With `create`: only if it is not there.
    #[prost(bool, tag = "3")]
    pub exclusive: bool,
    /// With `create`: who may use it, as a file's mode; read and write are needed.
    #[prost(uint32, tag = "4")]
    pub mode: u32,
    /// The program's process id as it sees it itself, for lists.
    #[prost(uint32, tag = "5")]
    pub pid: u32,
}

/// A lockspace is to go.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Release {
    /// Its name.
    #[prost(bytes = "vec", tag = "1")]
    pub name: Vec<u8>,
    /// Even if others have locks in it: they lose them.
    #[prost(bool, tag = "2")]
    pub force: bool,
}

/// A new lock is wanted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Lock {
    /// The resource, 1 to 64 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub name: Vec<u8>,
    /// The mode's number.
    #[prost(uint32, tag = "2")]
    pub mode: u32,
    /// Flags.
    #[prost(uint32, tag = "3")]
    pub flags: u32,
    /// A granted lock of this connection, above it; 0: none.
    #[prost(uint32, tag = "4")]
    pub parent: u32,
    /// Milliseconds until it gives up waiting; 0: never.
    #[prost(uint64, tag = "5")]
    pub timeout_ms: u64,
    /// On whose behalf, for deadlocks; 0: nobody who holds anything else.
    #[prost(uint64, tag = "6")]
    pub transaction: u64,
}

/// Another mode is wanted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Convert {
    /// The lock.
    #[prost(uint32, tag = "1")]
    pub lkid: u32,
    /// The mode's number.
    #[prost(uint32, tag = "2")]
    pub mode: u32,
    /// Flags.
    #[prost(uint32, tag = "3")]
    pub flags: u32,
    /// What the value block becomes: nothing, or 32 bytes.
    #[prost(bytes = "vec", tag = "4")]
    pub value: Vec<u8>,
    /// Milliseconds until it gives up waiting; 0: never.
    #[prost(uint64, tag = "5")]
    pub timeout_ms: u64,
}

/// A lock is to go.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Unlock {
    /// The lock.
    #[prost(uint32, tag = "1")]
    pub lkid: u32,
    /// Flags.
    #[prost(uint32, tag = "2")]
    pub flags: u32,
    /// What the value block becomes: nothing, or 32 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub value: Vec<u8>,
}

/// Locks are to go without a completion.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Purge {
    /// The node whose orphans go; 0: this one.
    #[prost(uint32, tag = "1")]
    pub node: u32,
    /// The process whose orphans go; 0: all; this connection's own: its locks.
    #[prost(uint32, tag = "2")]
    pub pid: u32,
}

/// The answer to a call.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reply {
    /// The call's tag.
    #[prost(uint64, tag = "1")]
    pub tag: u64,
    /// Not 0: refused, and this is why (see `status`).
    #[prost(uint32, tag = "2")]
    pub status: u32,
    /// `Lock`: the lock's number, unlike that of every other lock of this server.
    #[prost(uint32, tag = "3")]
    pub lkid: u32,
    /// `List`: locks.
    #[prost(message, repeated, tag = "4")]
    pub rows: Vec<Row>,
    /// `Waits`: who waits.
    #[prost(message, repeated, tag = "5")]
    pub waits: Vec<Wait>,
    /// More of the same answer follows in the next reply.
    #[prost(bool, tag = "6")]
    pub more: bool,
    /// `List`: nodes that did not answer, so that their locks are missing.
    #[prost(uint32, repeated, tag = "7")]
    pub silent: Vec<u32>,
}

/// A lock in a list.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Row {
    /// The lockspace.
    #[prost(bytes = "vec", tag = "1")]
    pub space: Vec<u8>,
    /// The resource.
    #[prost(bytes = "vec", tag = "2")]
    pub name: Vec<u8>,
    /// The node whose program has it.
    #[prost(uint32, tag = "3")]
    pub node: u32,
    /// The program.
    #[prost(uint32, tag = "4")]
    pub pid: u32,
    /// Its user.
    #[prost(uint32, tag = "5")]
    pub uid: u32,
    /// The lock.
    #[prost(uint32, tag = "6")]
    pub lkid: u32,
    /// The mode that it has.
    #[prost(uint32, optional, tag = "7")]
    pub granted: Option<u32>,
    /// The mode that it waits for.
    #[prost(uint32, optional, tag = "8")]
    pub wanted: Option<u32>,
    /// Milliseconds since it has been granted, or has waited.
    #[prost(uint64, tag = "9")]
    pub since_ms: u64,
    /// The token of its last grant.
    #[prost(uint64, tag = "10")]
    pub token: u64,
    /// Its program is gone, and it stays.
    #[prost(bool, tag = "11")]
    pub orphan: bool,
    /// The lock above it; 0: none.
    #[prost(uint32, tag = "12")]
    pub parent: u32,
}

/// Somebody waits for somebody.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Wait {
    /// Who waits.
    #[prost(message, optional, tag = "1")]
    pub waiter: Option<Row>,
    /// Until this is gone or does less.
    #[prost(message, optional, tag = "2")]
    pub blocker: Option<Row>,
    /// The number of the circle that it is part of; 0: of none.
    #[prost(uint32, tag = "3")]
    pub circle: u32,
}

/// What a program is told when it happens.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Notice {
    /// What.
    #[prost(oneof = "Told", tags = "1, 2")]
    pub told: Option<Told>,
}

/// The notices.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Told {
    /// A call has come to its end.
    #[prost(message, tag = "1")]
    Completion(Completion),
    /// A lock is in somebody's way.
    #[prost(message, tag = "2")]
    Blocking(Blocking),
}

/// A call has come to its end.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Completion {
    /// The call's tag.
    #[prost(uint64, tag = "1")]
    pub tag: u64,
    /// Its lock.
    #[prost(uint32, tag = "2")]
    pub lkid: u32,
    /// How it ended (see `status`).
    #[prost(uint32, tag = "3")]
    pub status: u32,
    /// Remarks: DEMOTED, VALUE_NOT_VALID, OTHER_MODE.
    #[prost(uint32, tag = "4")]
    pub flags: u32,
    /// The mode that the lock has now, if it has one.
    #[prost(uint32, optional, tag = "5")]
    pub mode: Option<u32>,
    /// Granted: larger than any token given before.
    #[prost(uint64, tag = "6")]
    pub token: u64,
    /// The value block, if it was to be read: 32 bytes.
    #[prost(bytes = "vec", tag = "7")]
    pub value: Vec<u8>,
}

/// A lock is in somebody's way.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Blocking {
    /// The lock.
    #[prost(uint32, tag = "1")]
    pub lkid: u32,
    /// The mode that somebody wants.
    #[prost(uint32, tag = "2")]
    pub mode: u32,
}
