//! The cluster as one node knows it: who lives, and who owns which partition of the directory.
//!
//! Invariant: an owner is a function of the partition and the set of live nodes alone; so nodes that know the same view agree.

use crate::message::Key;
use base::{Epoch, Incarnation, NodeId};
use std::collections::BTreeMap;

/// Partitions of the directory.
pub const PARTITIONS: u32 = 1_024;

/// What a view says of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// UP or STALLED: its locks are its own.
    Alive,
    /// Its users are gone for everybody; what it may still do to storage is another question.
    Down,
    /// It can do nothing any more.
    Fenced,
}

/// A node in a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// The life that the view speaks of.
    pub life: Incarnation,
    /// What it says.
    pub state: MemberState,
}

/// The partition of a tree: FNV-1a over lockspace and name, with a finalizer. Part of the protocol.
pub fn partition(key: &Key) -> u32 {
    let lockspace = key.lockspace.0.to_le_bytes();
    let bytes = lockspace.iter().chain(key.name.as_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (mix(hash) % u64::from(PARTITIONS)) as u32
}

fn mix(number: u64) -> u64 {
    base::Prng::new(number).next_u64()
}

/// Who lives, and who owns what.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    era: Epoch,
    live: BTreeMap<NodeId, Incarnation>,
    owners: Vec<NodeId>,
    moved: Vec<Epoch>,
}

impl Cluster {
    /// The last era.
    pub fn era(&self) -> Epoch {
        self.era
    }

    /// True if this life of the node is UP or STALLED.
    pub fn is_live_life(&self, node: NodeId, life: Incarnation) -> bool {
        self.live.get(&node) == Some(&life)
    }

    /// True if some life of the node is UP or STALLED.
    pub fn is_live(&self, node: NodeId) -> bool {
        self.live.contains_key(&node)
    }

    /// The life of a node that is UP or STALLED.
    pub fn life(&self, node: NodeId) -> Option<Incarnation> {
        self.live.get(&node).copied()
    }

    /// All that live.
    pub fn live(&self) -> Vec<NodeId> {
        self.live.keys().copied().collect()
    }

    /// How many live.
    pub fn live_count(&self) -> usize {
        self.live.len()
    }

    /// Who owns a partition; `None` before the first view.
    pub fn owner(&self, partition: u32) -> Option<NodeId> {
        self.owners.get(partition as usize).copied()
    }

    /// True if the partition has got another owner after `era`.
    pub fn moved_since(&self, partition: u32, era: Epoch) -> bool {
        self.moved.get(partition as usize).is_none_or(|moved| *moved > era)
    }

    /// Takes a new set of lives. The lives that ended, if the set has changed.
    pub fn change(&mut self, era: Epoch, live: BTreeMap<NodeId, Incarnation>) -> Option<Vec<NodeId>> {
        if live == self.live {
            return None;
        }
        let old = std::mem::replace(&mut self.live, live);
        let ended = old.iter().filter(|(node, life)| !self.is_live_life(**node, **life));
        let ended: Vec<NodeId> = ended.map(|(node, _)| *node).collect();
        self.era = era;
        let owners: Vec<NodeId> = (0..PARTITIONS).filter_map(|partition| self.choose(partition)).collect();
        self.moved.resize(PARTITIONS as usize, era);
        for (partition, owner) in owners.iter().enumerate() {
            let stays = self.owners.get(partition) == Some(owner) && !ended.contains(owner);
            if !stays {
                self.moved[partition] = era;
            }
        }
        self.owners = owners;
        Some(ended)
    }

    /// The live node with the largest number drawn for this partition: few partitions move when one comes or goes.
    fn choose(&self, partition: u32) -> Option<NodeId> {
        let draw = |node: &NodeId| mix(u64::from(node.0) << 32 | u64::from(partition));
        self.live.keys().copied().max_by_key(draw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lives(nodes: &[u32]) -> BTreeMap<NodeId, Incarnation> {
        nodes.iter().map(|node| (NodeId(*node), Incarnation(1))).collect()
    }

    #[test]
    fn only_what_a_dead_node_owned_moves() {
        let mut cluster = Cluster::default();
        cluster.change(Epoch(1), lives(&[1, 2, 3, 4]));
        let before = cluster.owners.clone();
        assert_eq!(cluster.change(Epoch(2), lives(&[1, 2, 4])), Some(vec![NodeId(3)]));
        for (partition, owner) in before.iter().enumerate() {
            let moved = cluster.moved_since(partition as u32, Epoch(1));
            assert_eq!(moved, *owner == NodeId(3));
            assert_eq!(cluster.owners[partition] == *owner, !moved);
        }
        let share = |node| before.iter().filter(|owner| **owner == NodeId(node)).count();
        assert!((1..=4).all(|node| share(node) > 150), "{:?}", (1..=4).map(share).collect::<Vec<_>>());
        assert_eq!(cluster.change(Epoch(3), lives(&[1, 2, 4])), None);
    }
}
