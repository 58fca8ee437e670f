//! A lock: one owner's interest in one resource.
//!
//! ```text
//!  state        granted        pending
//!  Waiting      None           Some        a new request in the waiting queue
//!  Granted      Some           None
//!  Converting   Some           Some        has the old mode, waits for the new one
//! ```
//!
//! Invariant: state, granted and pending are as in the table.

use crate::event::{Actor, LockId, Owner, Transaction};
use crate::flags::Flags;
use crate::mode::{Mode, ModeSet};
use crate::policy::Scope;
use crate::queue::Link;
use base::Time;

/// In which queue of its resource a lock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Has its mode.
    Granted,
    /// Has a mode and waits for another one.
    Converting,
    /// Waits for its first mode.
    Waiting,
}

/// What is asked for: by a new request or a conversion.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    pub tag: u64,
    pub mode: Mode,
    pub scope: Scope,
    pub flags: Flags,
    pub deadline: Option<Time>,
}

/// A wish that waits.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    pub wish: Wish,
    /// Since when.
    pub since: Time,
    /// Its number: unlike that of every other wait of this table.
    pub number: u64,
    /// Place in its queue: smaller ones are ahead.
    pub place: i64,
}

/// A lock.
#[derive(Clone, Debug)]
pub struct Lock {
    pub owner: Owner,
    pub owner_slot: u32,
    pub transaction: Transaction,
    pub resource: u32,
    pub links: [Link; 2],
    pub state: State,
    pub granted: Option<Mode>,
    pub pending: Option<Pending>,
    /// What it holds; while it waits, what it requires.
    pub scope: Scope,
    /// The flags of its request that describe the lock for all its life.
    pub lasting: Flags,
    pub token: u64,
    /// The modes for which its holder has been called back since its last grant; for IBITS, about which aspects in each mode.
    pub called: ModeSet,
    pub called_bits: Option<Box<[u64; 6]>>,
    /// The lock above it, and how many are below it.
    pub parent: Option<LockId>,
    pub children: u32,
    /// Its node is DOWN and not yet harmless: only time or a fence ends it.
    pub held_over: bool,
    /// Its owner is gone, and wanted it to stay.
    pub orphan: bool,
    /// Its granted mode was given up in a conversion deadlock.
    pub demoted: bool,
}

/// The flags that a lock keeps.
pub const LASTING: Flags =
    Flags(Flags::PERSISTENT.0 | Flags::GUARD.0 | Flags::NODLCKBLK.0 | Flags::NODLCKWT.0);

impl Lock {
    /// Who acts through it, for deadlocks.
    pub fn actor(&self) -> Actor {
        self.transaction.actor(self.owner)
    }
}
