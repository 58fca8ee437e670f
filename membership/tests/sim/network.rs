//! The network: how long messages take, how many are lost or doubled, and which ways are cut.

use std::collections::BTreeSet;

/// What the network does to a message.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// The longest delay, microseconds.
    pub delay_us_max: u64,
    /// Of a thousand messages and datagrams so many are lost.
    pub lost_per_mille: u64,
    /// And so many come twice.
    pub doubled_per_mille: u64,
}

impl Default for Network {
    fn default() -> Network {
        Network { delay_us_max: 2_000, lost_per_mille: 0, doubled_per_mille: 0 }
    }
}

/// The ways that are cut. Nobody is told: packets just vanish.
#[derive(Default)]
pub struct Cuts(BTreeSet<(u32, u32)>);

impl Cuts {
    /// Cuts the way from one node to another, or heals it.
    pub fn set_way(&mut self, from: u32, to: u32, cut: bool) {
        if cut {
            self.0.insert((from, to));
        } else {
            self.0.remove(&(from, to));
        }
    }

    /// Heals all.
    pub fn heal(&mut self) {
        self.0.clear();
    }

    pub fn connects(&self, from: u32, to: u32) -> bool {
        !self.0.contains(&(from, to))
    }
}
