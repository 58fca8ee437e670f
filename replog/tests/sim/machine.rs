//! One machine: its disk, its clock, and while it runs its core and state machine.

use super::state::State;
use super::store::SimStore;
use crate::{Core, DiskId, Index, Member, Voters};
use base::{NodeId, Time};

/// One machine.
pub struct Machine {
    pub me: Member,
    pub store: SimStore,
    pub core: Option<Core>,
    pub state: State,
    pub run: u64,
    /// What its clock is fast or slow by, millionths.
    pub drift_ppm: i64,
    /// It does nothing until then.
    pub paused: Time,
    /// When it will be woken.
    pub alarm: Option<Time>,
    pub commit: Index,
    pub disk_us_max: u64,
}

impl Machine {
    pub fn new(node: u32, disk: u128, first: Option<Voters>) -> Machine {
        Machine {
            me: Member { node: NodeId(node), disk: DiskId(disk) },
            store: SimStore::new(DiskId(disk), first),
            core: None,
            state: State::default(),
            run: 0,
            drift_ppm: 0,
            paused: Time(0),
            alarm: None,
            commit: Index(0),
            disk_us_max: 500,
        }
    }

    /// What its own clock shows. Each starts somewhere else.
    pub fn clock(&self, now: Time) -> Time {
        let own = i128::from(now.0) + i128::from(now.0) * i128::from(self.drift_ppm) / 1_000_000;
        Time(own.max(0) as u64 + u64::from(self.me.node.0) * 1_000_000_000)
    }

    /// When its own clock will show `own`, or shortly after.
    pub fn when(&self, own: Time) -> Time {
        let own = i128::from(own.0) - i128::from(self.me.node.0) * 1_000_000_000;
        Time((own * 1_000_000 / (1_000_000 + i128::from(self.drift_ppm))).max(0) as u64 + 1)
    }
}
