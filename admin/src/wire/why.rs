//! Kinds of refusal, for programs: people read the text beside them.

/// Why a daemon refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Why {
    /// It failed, as the text says.
    Failed = 0,
    /// The question is unknown here: the daemon is older.
    Unknown = 1,
    /// The user who asks may not.
    NotPermitted = 2,
    /// The question contradicts itself or the table: no such node, a bad name.
    Invalid = 3,
    /// Not in the present state of the node or the cluster.
    Busy = 4,
    /// Nothing can change: no majority of voters can be reached, or nobody decided in time.
    NoQuorum = 5,
    /// What followed that transition is no longer kept.
    TooOld = 6,
    /// The cluster has no room for it.
    Full = 7,
}
