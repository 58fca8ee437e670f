//! What a table is told, and what it says: plain values.
//!
//! Invariant: a request, conversion, unlock or cancel is answered by exactly one effect that carries its tag and
//! [ends](Effect::ended) it; before it there may be one [`Effect::Queued`].

mod config;

pub use config::Config;

use crate::flags::Flags;
use crate::message::Key;
use crate::mode::Mode;
use crate::name::Name;
use crate::policy::Scope;
use crate::resource::Value;
use base::{Epoch, NodeId, Time};

/// Bytes of a value block.
pub const VALUE_BYTES: usize = 32;

/// A space of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lockspace(pub u32);

/// A lock of one table. Never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockId(pub u64);

/// Who has a lock: a holder (a process, a thread, or the node itself) on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The node.
    pub node: NodeId,
    /// The holder's number on it.
    pub holder: u64,
}

/// Requests of one transaction are made by one actor: it waits for one at a time, and lets go of nothing meanwhile. 0: the owner is the actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Transaction(pub u64);

impl Transaction {
    /// Who acts in a transaction, or for itself.
    pub(crate) fn actor(self, owner: Owner) -> Actor {
        if self == Transaction(0) { Actor::Owner(owner) } else { Actor::Transaction(self) }
    }
}

/// Who waits and who is waited for, when deadlocks are searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Actor {
    /// A node that has asked for a token.
    Asker(NodeId, Key),
    /// A node that has one and was called back.
    Holder(NodeId, Key),
    /// An owner without a transaction.
    Owner(Owner),
    /// A transaction, wherever in the cluster.
    Transaction(Transaction),
}

/// A new lock is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The caller's name for this request: comes back in its effects.
    pub tag: u64,
    /// Whose it will be.
    pub owner: Owner,
    /// On whose behalf.
    pub transaction: Transaction,
    /// Where the name is; with a parent: where the parent is.
    pub lockspace: Lockspace,
    /// A granted lock of the same owner: the resource is below that lock's resource.
    pub parent: Option<LockId>,
    /// The resource's name.
    pub name: Name,
    /// The mode.
    pub mode: Mode,
    /// About what of the resource.
    pub scope: Scope,
    /// Flags.
    pub flags: Flags,
    /// When to give up waiting.
    pub deadline: Option<Time>,
}

/// A lock is to have another mode.
#[derive(Clone, Copy, Debug)]
pub struct Convert {
    /// The caller's name for this conversion.
    pub tag: u64,
    /// Who says so: the lock's owner.
    pub owner: Owner,
    /// The lock.
    pub lock: LockId,
    /// The new mode.
    pub mode: Mode,
    /// A smaller scope; only with a mode that the present one covers. `None`: as before.
    pub scope: Option<Scope>,
    /// Flags.
    pub flags: Flags,
    /// What the value block becomes, for the conversions that write it (VALBLK).
    pub value: Option<[u8; VALUE_BYTES]>,
    /// When to give up waiting.
    pub deadline: Option<Time>,
}

/// A lock is to go.
#[derive(Clone, Copy, Debug)]
pub struct Unlock {
    /// The caller's name for this unlock.
    pub tag: u64,
    /// Who says so: the lock's owner.
    pub owner: Owner,
    /// The lock.
    pub lock: LockId,
    /// Flags.
    pub flags: Flags,
    /// What the value block becomes, from PW or EX with VALBLK.
    pub value: Option<[u8; VALUE_BYTES]>,
}

/// Who is gone.
#[derive(Clone, Copy, Debug)]
pub enum Gone {
    /// A holder: its process ended.
    Holder(Owner),
    /// A node is DOWN; its locks that guard storage are held over until `until`, or until it is FENCED.
    Down {
        /// The node.
        node: NodeId,
        /// When its lease has surely run out.
        until: Time,
    },
    /// A node is FENCED: nothing of it is left.
    Fenced(NodeId),
    /// The orphans of a node: nobody will adopt them.
    Orphans(NodeId),
    /// The orphans of one holder: nobody will adopt them.
    OrphansOf(Owner),
}

/// What a table is told.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// A new lock.
    Request(Request),
    /// Another mode.
    Convert(Convert),
    /// A lock goes.
    Unlock(Unlock),
    /// The pending request or conversion of a lock is to end.
    Cancel {
        /// The caller's name for this.
        tag: u64,
        /// Who says so: the lock's owner.
        owner: Owner,
        /// The lock.
        lock: LockId,
    },
    /// Somebody is gone.
    Gone(Gone),
    /// A verdict from outside (the deadlock detector's): this wait of this lock is refused, if it still lasts.
    Victim {
        /// The lock.
        lock: LockId,
        /// The wait's number.
        wait: u64,
        /// Why.
        why: Refusal,
    },
    /// What waits with AWAIT is granted, in this mode and scope, by whoever decides. It goes with all that is granted here.
    Allow {
        /// The lock.
        lock: LockId,
        /// The mode.
        mode: Mode,
        /// What it is about.
        scope: Scope,
        /// The fencing token; 0: the table's next one.
        token: u64,
        /// The resource's value.
        value: Value,
    },
    /// What waits with AWAIT is refused.
    Deny {
        /// The lock.
        lock: LockId,
        /// Why.
        why: Refusal,
    },
    /// What the resource's value is, as its new master has found out. Nothing if there is no such resource.
    Value {
        /// Where the name is.
        lockspace: Lockspace,
        /// The resource's name; it is a root.
        name: Name,
        /// Its value.
        value: Value,
    },
    /// A new view: tokens are of this epoch from now on.
    Epoch(Epoch),
    /// Tokens are larger than this one from now on.
    Floor(u64),
    /// Time has passed, [`crate::Table::next_deadline`] is reached.
    Tick,
}

/// Remarks on a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Status {
    /// Granted in the other mode (ALTPR, ALTCW).
    pub is_other_mode: bool,
    /// The former mode was given up meanwhile (CONVDEADLK).
    pub was_demoted: bool,
    /// The value block is not valid: a writer died, or said so.
    pub value_not_valid: bool,
}

/// What it proves to hold this: nobody else on the resource has an incompatible mode for anything in `scope`, until the owner unlocks, converts, or is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The request or conversion that it answers.
    pub tag: u64,
    /// The lock.
    pub lock: LockId,
    /// Whose it is.
    pub owner: Owner,
    /// The mode that it has now.
    pub mode: Mode,
    /// What it is about.
    pub scope: Scope,
    /// Larger than any given before on this table.
    pub token: u64,
    /// Remarks.
    pub status: Status,
    /// The value block and its serial number, if it was to be read.
    pub value: Option<([u8; VALUE_BYTES], u64)>,
}

/// Why something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// NOQUEUE, and it cannot be granted at once.
    #[error("it cannot be granted at once: somebody else has it")]
    Again,
    /// Its deadline passed.
    #[error("its deadline passed while it waited")]
    TimedOut,
    /// It was cancelled.
    #[error("it was cancelled")]
    Cancelled,
    /// It would wait for ever.
    #[error("it waits for somebody who waits for it")]
    Deadlock,
    /// No such lock, or it is not the caller's.
    #[error("the caller has no such lock")]
    NoLock,
    /// The lock already waits or converts.
    #[error("the lock is waiting or converting: cancel that first")]
    Busy,
    /// There is nothing to cancel.
    #[error("the lock waits for nothing")]
    NotPending,
    /// There are locks below it.
    #[error("locks below it are still there: unlock them first")]
    HasChildren,
    /// No orphan of that name.
    #[error("there is no orphan to adopt")]
    NoOrphan,
    /// Flags, mode, scope or parent do not fit together.
    #[error("what it asks for is contradictory: {0}")]
    Invalid(&'static str),
    /// A limit is reached.
    #[error("the limit {0} is reached")]
    Limit(&'static str),
}

/// What must be told to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The request or conversion waits; the answer comes later.
    Queued {
        /// Which.
        tag: u64,
        /// Its lock.
        lock: LockId,
        /// Whose.
        owner: Owner,
    },
    /// The completion callback: granted.
    Granted(Grant),
    /// The completion callback: refused. A request leaves no lock, a conversion leaves it as it was.
    Refused {
        /// Which.
        tag: u64,
        /// The lock, if there is (or was) one.
        lock: Option<LockId>,
        /// Whose.
        owner: Owner,
        /// The mode that the lock has, if it has one. (NL, if it was given up in a conversion deadlock.)
        mode: Option<Mode>,
        /// Why.
        why: Refusal,
    },
    /// The unlock or cancel is done.
    Done {
        /// Which.
        tag: u64,
        /// The lock.
        lock: LockId,
        /// Whose.
        owner: Owner,
    },
    /// The blocking callback: somebody wants this mode, and this lock is in the way.
    Blocking {
        /// The lock that is in the way.
        lock: LockId,
        /// Whose.
        owner: Owner,
        /// The mode that is wanted.
        mode: Mode,
        /// About what.
        scope: Scope,
    },
    /// The lock went with its owner; what it waited for is not answered.
    Purged {
        /// The lock.
        lock: LockId,
        /// Whose it was.
        owner: Owner,
        /// The request or conversion that ends so.
        tag: Option<u64>,
    },
}

impl Effect {
    /// The tag of what this effect ends.
    pub fn ended(&self) -> Option<u64> {
        match self {
            Effect::Granted(grant) => Some(grant.tag),
            Effect::Refused { tag, .. } | Effect::Done { tag, .. } => Some(*tag),
            Effect::Purged { tag, .. } => *tag,
            Effect::Queued { .. } | Effect::Blocking { .. } => None,
        }
    }

    /// The lock of what this effect ends.
    pub(crate) fn lock_of_what_ended(&self) -> Option<LockId> {
        match self {
            Effect::Granted(grant) => Some(grant.lock),
            Effect::Refused { lock, .. } => *lock,
            Effect::Done { lock, .. } | Effect::Purged { lock, .. } => Some(*lock),
            Effect::Queued { .. } | Effect::Blocking { .. } => None,
        }
    }
}
