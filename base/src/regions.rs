//! Which node a process id belongs to: plain arithmetic on the number, so nobody need be asked.
//!
//! ```text
//!  0            size          2*size         3*size                    4,194,304
//!  | node-local  | home of 1   | home of 2   | home of 3 | ...  | spare blocks |
//! ```

use crate::{NodeId, Pid};
use std::ops::Range;

/// The largest pid a Linux kernel hands out, plus one (`PID_MAX_LIMIT` on 64-bit machines).
pub const PID_LIMIT: u32 = 4_194_304;

/// How the pid space is cut into home regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PidRegions {
    size: u32,
}

impl PidRegions {
    /// Regions of `size` ids each; `size` must be a power of two between 512 and 2^20, otherwise `None`.
    /// (A kernel never hands out ids below 300 after its first lap, so smaller regions would be unusable.)
    pub fn new(size: u32) -> Option<PidRegions> {
        (size.is_power_of_two() && (512..=1 << 20).contains(&size)).then_some(PidRegions { size })
    }

    /// Ids in each region.
    pub fn size(self) -> u32 {
        self.size
    }

    /// The ids that `node` hands out natively.
    pub fn home(self, node: NodeId) -> Range<u32> {
        node.0 * self.size..(node.0 + 1) * self.size
    }

    /// The ids that mean something on one node only (daemons, low ids, overflow).
    pub fn node_local(self) -> Range<u32> {
        0..self.size
    }

    /// The node whose home region holds `pid`; `None` for a node-local id.
    pub fn origin(self, pid: Pid) -> Option<NodeId> {
        let node = pid.0 / self.size;
        (node != 0).then_some(NodeId(node))
    }

    /// The largest node number that has a home region.
    pub fn node_max(self) -> NodeId {
        NodeId(PID_LIMIT / self.size - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_of_a_home_region_names_its_node_and_no_other() {
        let regions = PidRegions::new(16_384).unwrap();
        for node in [1, 2, 3, 255] {
            let home = regions.home(NodeId(node));
            assert_eq!(regions.origin(Pid(home.start)), Some(NodeId(node)));
            assert_eq!(regions.origin(Pid(home.end - 1)), Some(NodeId(node)));
            assert_ne!(regions.origin(Pid(home.end)), Some(NodeId(node)));
        }
        assert_eq!(regions.origin(Pid(1)), None);
        assert_eq!(regions.node_max(), NodeId(255));
    }

    #[test]
    fn sizes_that_the_kernel_could_not_keep_are_refused() {
        for size in [0, 256, 1000, 16_383, 1 << 21] {
            assert_eq!(PidRegions::new(size), None, "{size}");
        }
    }
}
