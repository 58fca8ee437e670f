//! The network: how long messages take, how many are lost or doubled, and which ways are cut.

use base::Prng;
use std::collections::BTreeSet;

/// What the network does to a message.
#[derive(Clone, Debug)]
pub struct Network {
    /// The longest delay, microseconds. Messages overtake one another.
    pub delay_us_max: u64,
    pub lost_per_mille: u64,
    pub doubled_per_mille: u64,
    /// Ways that are cut, each in one direction. Nobody is told.
    pub cut: BTreeSet<(u32, u32)>,
}

impl Default for Network {
    fn default() -> Network {
        Network { delay_us_max: 1_000, lost_per_mille: 0, doubled_per_mille: 0, cut: BTreeSet::new() }
    }
}

impl Network {
    /// After how many nanoseconds a message arrives: never, once or twice.
    pub fn fate(&self, prng: &mut Prng, from: u32, to: u32) -> Vec<u64> {
        if self.cut.contains(&(from, to)) || prng.below(1_000) < self.lost_per_mille {
            return Vec::new();
        }
        let copies = 1 + usize::from(prng.below(1_000) < self.doubled_per_mille);
        (0..copies).map(|_| 20_000 + prng.below(self.delay_us_max * 1_000)).collect()
    }

    pub fn isolate(&mut self, one: u32, all: &[u32]) {
        all.iter()
            .filter(|&&other| other != one)
            .for_each(|&other| self.cut.extend([(one, other), (other, one)]));
    }
}
