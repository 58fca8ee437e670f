//! What nodes say to each other about locks.
//!
//! Invariant: messages of one node to another arrive once and in their order, while both lives last (the fabric sees to it). Each carries the
//! era in which it was sent ([`Envelope`]).

use crate::event::{LockId, Refusal, Transaction, VALUE_BYTES};
use crate::flags::Flags;
pub use crate::key::Key;
use crate::mode::Mode;
use crate::policy::Scope;
use crate::resource::Value;
use crate::table::Edge;
use base::{Epoch, Incarnation, NodeId};

/// A message and who sent it when.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// The sender.
    pub from: NodeId,
    /// Its life.
    pub life: Incarnation,
    /// The last era that it knew: the epoch of the last view in which a life began or ended.
    pub era: Epoch,
    /// What it says.
    pub message: Message,
}

/// A node wants a token, or its token in a stronger mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The asker's number for this: never used again by this life.
    pub tag: u64,
    /// For what.
    pub key: Key,
    /// The mode.
    pub mode: Mode,
    /// The token that the asker has, by its lock at the master. A master that knows another one of this node has a `Drop` to come: an ask that
    /// goes by way of the directory can overtake it.
    pub holds: Option<LockId>,
    /// Refuse it if somebody really uses what is in its way, or waits before it.
    pub tries: bool,
    /// The value block will be read under a mode beside which others may write it: it must be what it is at some moment from now on.
    pub reads: bool,
    /// A user's lock on a resource with scopes: nothing of the node's, and `holds` is that lock at the master.
    pub scoped: Option<Scoped>,
}

/// What a master must know of one user's request on a resource with scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scoped {
    /// The lock in its node's own table.
    pub lock: LockId,
    /// The owner, on the asker's node.
    pub holder: u64,
    /// On whose behalf.
    pub transaction: Transaction,
    /// The flags of the request or conversion.
    pub flags: Flags,
    /// About what.
    pub scope: Scope,
}

/// What a node gives back of its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drop {
    /// Of what.
    pub key: Key,
    /// The token's lock at the master.
    pub lock: LockId,
    /// The mode that it keeps; `None`: nothing.
    pub mode: Option<Mode>,
    /// The scope that it keeps, if it was not about the whole.
    pub scope: Option<Scope>,
    /// The value block, if it was changed, and whether it is valid.
    pub value: Option<([u8; VALUE_BYTES], bool)>,
    /// The largest fencing token that this node has given.
    pub floor: u64,
}

/// A token as its holder knows it: what a new master learns of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Of what.
    pub key: Key,
    /// Its mode.
    pub mode: Mode,
    /// The value block as the holder knows it.
    pub value: Value,
}

/// A user's lock on a resource with scopes, as its node knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopedCopy {
    /// Of what.
    pub key: Key,
    /// The lock in its node's own table.
    pub lock: LockId,
    /// Its owner, on that node.
    pub holder: u64,
    /// On whose behalf.
    pub transaction: Transaction,
    /// The mode; while a conversion is under way the holder relies only on what this and `wanted` have in common.
    pub mode: Mode,
    /// About what.
    pub scope: Scope,
    /// The mode of a conversion under way.
    pub wanted: Option<Mode>,
    /// The value block as this node has seen it last.
    pub value: Value,
}

/// Where a lock with a scope is in the table of its new master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Of what.
    pub key: Key,
    /// The lock in its node's own table.
    pub lock: LockId,
    /// The lock at the master.
    pub at_master: LockId,
    /// Its mode: that of a conversion under way, if the dead master must have granted it.
    pub mode: Mode,
}

/// A tree that was given away, as its former master says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handed {
    /// Its root.
    pub key: Key,
    /// To whom.
    pub to: NodeId,
    /// The era in which that life of the new master ended, if it has.
    pub ended: Option<Epoch>,
}

/// What a node tells the owner of partitions in a new era.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Report {
    /// Trees that it is the master of.
    pub masters: Vec<Key>,
    /// Trees that it has given away: nobody has confirmed that yet.
    pub handed: Vec<Handed>,
    /// Its tokens whose master is gone.
    pub orphans: Vec<Copy>,
    /// Its users' locks on resources with scopes whose master is gone.
    pub scoped: Vec<ScopedCopy>,
    /// The largest fencing token that it has given or seen.
    pub floor: u64,
    /// More reports of this era follow.
    pub more: bool,
}

/// About deadlocks: see the detector. It counts in the era in which it was sent only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Search {
    /// To the detector: somebody here has waited for long.
    Wanted,
    /// Detector to all: who waits for whom at yours?
    Gather {
        /// The detector's number for this.
        round: u64,
    },
    /// The answer.
    Waits {
        /// To which question.
        round: u64,
        /// Who waits for whom.
        edges: Vec<Edge>,
    },
    /// Detector to whoever has said so: are these still there?
    Confirm {
        /// The detector's number for this.
        round: u64,
        /// What it has said.
        edges: Vec<Edge>,
    },
    /// The answer: these are.
    StillWaits {
        /// To which question.
        round: u64,
        /// What is still so.
        edges: Vec<Edge>,
    },
    /// Detector to a user's node: refuse this wait, if it still lasts.
    Victim {
        /// The user's lock.
        lock: LockId,
        /// The wait's number.
        wait: u64,
    },
}

/// A message.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// To the directory: whoever is master, or else me.
    Lookup(Ask),
    /// To the master.
    Ask(Ask),
    /// Directory to master: this node asks.
    Forward {
        /// The asker.
        from: NodeId,
        /// Its life.
        life: Incarnation,
        /// What it wants.
        ask: Ask,
    },
    /// Directory to asker: you are the master.
    Yours {
        /// The tree.
        key: Key,
        /// Your fencing tokens are larger than this.
        floor: u64,
    },
    /// Master to asker.
    Queued {
        /// The ask.
        tag: u64,
        /// For what.
        key: Key,
    },
    /// Master to asker.
    Granted {
        /// The ask.
        tag: u64,
        /// For what.
        key: Key,
        /// The token's lock at the master.
        lock: LockId,
        /// The mode that it has now.
        mode: Mode,
        /// What it is about.
        scope: Scope,
        /// A fencing token larger than any before.
        token: u64,
        /// The value block.
        value: Value,
    },
    /// Master to asker.
    Denied {
        /// The ask.
        tag: u64,
        /// For what.
        key: Key,
        /// Why.
        why: Refusal,
    },
    /// Asker to master: that ask is not wanted any more. It is answered all the same.
    Cancel {
        /// The ask.
        tag: u64,
        /// For what.
        key: Key,
    },
    /// Master to holder: somebody wants this mode.
    Callback {
        /// Of what.
        key: Key,
        /// Your token.
        lock: LockId,
        /// What is wanted.
        mode: Mode,
        /// About what.
        scope: Scope,
        /// Say `InUse` if you cannot give way now.
        tries: bool,
    },
    /// Holder to master: I cannot give way for that mode now.
    InUse {
        /// Of what.
        key: Key,
        /// The mode that is wanted.
        mode: Mode,
    },
    /// Master to a holder that may change the value block: what is it now?
    Fetch {
        /// Of what.
        key: Key,
        /// Your token.
        lock: LockId,
        /// The master's number for this.
        number: u64,
    },
    /// Holder to master.
    Fetched {
        /// Of what.
        key: Key,
        /// The master's number for this.
        number: u64,
        /// The value block, if it was changed since the master saw it, and whether it is valid.
        value: Option<([u8; VALUE_BYTES], bool)>,
    },
    /// Holder to master.
    Drop(Drop),
    /// To a node: take the orphans of one of its holders away, or all that it has.
    Purge {
        /// Whose; `None`: all.
        holder: Option<u64>,
    },
    /// To the asker: I am not the master.
    NotMaster {
        /// The ask.
        tag: u64,
        /// For what.
        key: Key,
    },
    /// Master to directory: I have no such tree any more.
    Release {
        /// The tree.
        key: Key,
        /// The largest fencing token given.
        floor: u64,
    },
    /// Directory to master.
    Released {
        /// The tree.
        key: Key,
    },
    /// About deadlocks.
    Search(Search),
    /// Master to holders: I want to give the tree away. Say nothing more to me about it until you are told who has it.
    Moving {
        /// The tree.
        key: Key,
        /// Who shall have it.
        to: NodeId,
        /// The master's number for this.
        number: u64,
    },
    /// Holder to master.
    Noted {
        /// The tree.
        key: Key,
        /// The master's number for this.
        number: u64,
    },
    /// Master to the new one: what each node has.
    Tree {
        /// The tree.
        key: Key,
        /// Tokens.
        tokens: Vec<(NodeId, Copy)>,
        /// Users' locks with scopes.
        scoped: Vec<(NodeId, ScopedCopy)>,
        /// All who must be told.
        nodes: Vec<NodeId>,
        /// The largest fencing token given.
        floor: u64,
        /// More messages of it follow.
        more: bool,
    },
    /// New master to directory: I have it.
    Took {
        /// The tree.
        key: Key,
    },
    /// Directory to new master: I know.
    Confirmed {
        /// The tree.
        key: Key,
    },
    /// New master to the former one: forget it.
    Taken {
        /// The tree.
        key: Key,
    },
    /// New master, or one that stays, to holders: your locks of it are known here by these.
    Moved {
        /// The tree.
        key: Key,
        /// Tokens.
        tokens: Vec<(Key, LockId)>,
        /// Users' locks with scopes.
        scoped: Vec<Placed>,
        /// More messages of it follow.
        more: bool,
    },
    /// To every owner of partitions, in a new era.
    Report(Report),
    /// Owner to all: my partitions serve; and these tokens of yours are known here by these locks.
    Recovered {
        /// Trees that have a new master: the sender.
        trees: Vec<(Key, LockId)>,
        /// Your users' locks with scopes on them.
        scoped: Vec<Placed>,
        /// This was the last: all is said of this era.
        done: bool,
    },
}
