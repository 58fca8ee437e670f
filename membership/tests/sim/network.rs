//! The network: how long messages take, how many are lost, and which links are cut.

use std::collections::BTreeSet;

/// What the network does to a message.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// The longest delay, microseconds.
    pub delay_us_max: u64,
    /// Of a thousand messages and datagrams so many are lost.
    pub lost_per_mille: u64,
}

impl Default for Network {
    fn default() -> Network {
        Network { delay_us_max: 2_000, lost_per_mille: 0 }
    }
}

/// The links that are cut. Nobody is told: packets just vanish.
#[derive(Default)]
pub struct Cuts(BTreeSet<(u32, u32)>);

impl Cuts {
    /// Cuts the link between two nodes, or heals it.
    pub fn set(&mut self, one: u32, other: u32, cut: bool) {
        for pair in [(one, other), (other, one)] {
            if cut {
                self.0.insert(pair);
            } else {
                self.0.remove(&pair);
            }
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
