//! The cluster view as process control needs it: who lives, in which life, and how to say so to a user.

use base::{NodeId, PidRegions};
use membership::View;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::wire::Failed;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    name: String,
    incarnation: u64,
    alive: bool,
}

/// The nodes of the newest view.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    epoch: u64,
    known: BTreeMap<NodeId, Known>,
}

/// What a new view changed for process control.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Nodes whose processes of before have ended: DOWN, removed, or back in a new life.
    pub ended: Vec<NodeId>,
    /// Nodes that live now and did not before, or are in a new life.
    pub arrived: Vec<NodeId>,
}

impl Nodes {
    /// Takes a view over. Views that are not newer change nothing.
    pub fn update(&mut self, view: &Arc<View>) -> Changes {
        if view.epoch <= self.epoch && self.epoch != 0 {
            return Changes::default();
        }
        let new: BTreeMap<NodeId, Known> = view
            .nodes
            .iter()
            .map(|node| {
                let known =
                    Known { name: node.name.clone(), incarnation: node.incarnation, alive: node.is_alive() };
                (node.node_id(), known)
            })
            .collect();
        let lived = |nodes: &BTreeMap<NodeId, Known>, id: &NodeId| {
            nodes.get(id).filter(|known| known.alive).map(|known| known.incarnation)
        };
        let ended = self.known.keys().filter(|id| {
            let before = lived(&self.known, id);
            before.is_some() && before != lived(&new, id)
        });
        let arrived = new.keys().filter(|id| {
            let after = lived(&new, id);
            after.is_some() && after != lived(&self.known, id)
        });
        let changes = Changes { ended: ended.copied().collect(), arrived: arrived.copied().collect() };
        (self.epoch, self.known) = (view.epoch, new);
        changes
    }

    /// True while the node's processes live (UP or STALLED).
    pub fn is_alive(&self, node: NodeId) -> bool {
        self.known.get(&node).is_some_and(|known| known.alive)
    }

    /// All nodes that live.
    pub fn alive(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.known.iter().filter(|(_, known)| known.alive).map(|(id, _)| *id)
    }

    /// The number of the view that this is of; 0 before the first.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Why nothing can run on `node`; `None` if it lives.
    pub fn refusal(&self, node: NodeId) -> Option<Failed> {
        let what = match self.known.get(&node) {
            Some(known) if known.alive => return None,
            Some(known) => format!("node {node} ({}) is DOWN", known.name),
            None => format!("node {node}: no such node; the cluster has {}", self.spell()),
        };
        Some(Failed { errno: Errno::HOSTUNREACH.raw_os_error() as u32, what, node: node.0 })
    }

    /// "node 1", "nodes 1-3", "nodes 1-3, 5".
    fn spell(&self) -> String {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for id in self.known.keys() {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == id.0 => *last = id.0,
                _ => ranges.push((id.0, id.0)),
            }
        }
        let spelled: Vec<String> = ranges
            .iter()
            .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
            .collect();
        match self.known.len() {
            0 => "no nodes yet".to_owned(),
            1 => format!("node {}", spelled[0]),
            _ => format!("nodes {}", spelled.join(", ")),
        }
    }
}

/// A pid's meaning in the cluster: which node handed it out.
pub fn origin(regions: PidRegions, pid: u32) -> Option<NodeId> {
    regions.origin(base::Pid(pid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use membership::{Node, NodeState};

    fn view(epoch: u64, nodes: &[(u32, NodeState, u64)]) -> Arc<View> {
        let nodes = nodes.iter().map(|(id, state, incarnation)| Node {
            id: *id,
            name: format!("n{id}"),
            state: *state as i32,
            incarnation: *incarnation,
            ..Node::default()
        });
        Arc::new(View { epoch, nodes: nodes.collect(), ..View::default() })
    }

    #[test]
    fn a_new_life_ends_the_processes_of_the_old_one_even_if_down_was_never_seen() {
        let mut nodes = Nodes::default();
        let first = nodes.update(&view(1, &[(1, NodeState::Up, 10), (2, NodeState::Up, 20)]));
        assert_eq!(first, Changes { ended: vec![], arrived: vec![NodeId(1), NodeId(2)] });
        let second = nodes.update(&view(3, &[(1, NodeState::Stalled, 10), (2, NodeState::Up, 21)]));
        assert_eq!(second, Changes { ended: vec![NodeId(2)], arrived: vec![NodeId(2)] });
        let third = nodes.update(&view(4, &[(2, NodeState::Down, 21)]));
        assert_eq!(third, Changes { ended: vec![NodeId(1), NodeId(2)], arrived: vec![] });
        assert_eq!(nodes.update(&view(2, &[(1, NodeState::Up, 10)])), Changes::default(), "an old view");
    }

    #[test]
    fn a_refusal_says_what_there_is() {
        let mut nodes = Nodes::default();
        nodes.update(&view(
            1,
            &[(1, NodeState::Up, 1), (2, NodeState::Down, 1), (3, NodeState::Up, 1), (5, NodeState::Up, 1)],
        ));
        assert_eq!(
            nodes.refusal(NodeId(9)).unwrap().what,
            "node 9: no such node; the cluster has nodes 1-3, 5"
        );
        assert_eq!(nodes.refusal(NodeId(2)).unwrap().what, "node 2 (n2) is DOWN");
        assert_eq!(nodes.refusal(NodeId(3)), None);
    }
}
