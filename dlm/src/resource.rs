//! A resource: a name, three queues, a value block.
//!
//! Invariant: `granted_count` counts the granted modes of granted and converting locks, `wanted_count` the wanted ones of converting and waiting
//! locks; the interval trees (EXTENT only) hold exactly these locks.

use crate::event::{Lockspace, VALUE_BYTES};
use crate::extents::Extents;
use crate::key::Branch;
use crate::lock::State;
use crate::mode::{Mode, ModeSet};
use crate::name::Name;
use crate::policy::Policy;
use crate::queue::{Chain, QUEUE};
use base::Time;

/// The value block of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// Its bytes.
    pub bytes: [u8; VALUE_BYTES],
    /// How often it was written: the larger the newer.
    pub serial: u64,
    /// False after a writer died, until the next write.
    pub is_valid: bool,
}

impl Value {
    /// That of a resource nobody has written.
    pub const NEW: Value = Value { bytes: [0; VALUE_BYTES], serial: 0, is_valid: true };
}

/// How many locks have, or want, each mode.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    counts: [u32; 6],
    modes: ModeSet,
}

impl Counts {
    /// One more.
    pub fn add(&mut self, mode: Mode) {
        self.counts[mode as usize] += 1;
        self.modes.insert(mode);
    }

    /// One less.
    pub fn take(&mut self, mode: Mode) {
        self.counts[mode as usize] -= 1;
        if self.counts[mode as usize] == 0 {
            self.modes.remove(mode);
        }
    }

    /// The modes that occur.
    pub fn modes(&self) -> ModeSet {
        self.modes
    }

    /// The modes that occur besides one occurrence of `mode`.
    pub fn modes_besides(&self, mode: Option<Mode>) -> ModeSet {
        let mut modes = self.modes;
        if let Some(mode) = mode.filter(|mode| self.counts[*mode as usize] == 1) {
            modes.remove(mode);
        }
        modes
    }
}

/// A resource.
#[derive(Clone, Debug)]
pub struct Resource {
    pub lockspace: Lockspace,
    pub name: Name,
    pub hash: u64,
    /// The resource above it, and how many are below it.
    pub parent: u32,
    pub children: u32,
    pub depth: u8,
    /// Where it is below its root.
    pub branch: Branch,
    pub policy: Policy,
    pub granted: Chain<QUEUE>,
    pub converting: Chain<QUEUE>,
    pub waiting: Chain<QUEUE>,
    pub granted_count: Counts,
    pub wanted_count: Counts,
    /// Pending locks that pass the queue (NOORDER).
    pub passing: u32,
    /// Pending locks for which another mode will do (ALTPR, ALTCW).
    pub flexible: u32,
    pub value: Value,
    /// Until when it stays though it is empty, so that the next one learns of the loss.
    pub loss_until: Option<Time>,
    pub extents: Option<Box<Extents>>,
}

impl Resource {
    /// The queue of the locks in `state`.
    pub fn queue(&mut self, state: State) -> &mut Chain<QUEUE> {
        match state {
            State::Granted => &mut self.granted,
            State::Converting => &mut self.converting,
            State::Waiting => &mut self.waiting,
        }
    }

    /// True if somebody waits or converts.
    pub fn has_pending(&self) -> bool {
        !(self.waiting.is_empty() && self.converting.is_empty())
    }

    /// True if no lock is on it.
    pub fn has_no_lock(&self) -> bool {
        self.granted.is_empty() && !self.has_pending()
    }
}
