//! Where a signal for a pid must go: from the number alone, and the few ids that are not where their number says.
//!
//! ```text
//!  kill(T) trapped here --- hosted here -------------------------> native: the pid exists in this kernel
//!                       \-- origin is this node, T is away -------> the node where it runs
//!                       \-- origin is another node, alive --------> that node (it knows whether T is away)
//!                       \-- origin DOWN or no node ---------------> ESRCH
//! ```

use super::nodes::{Nodes, origin};
use base::{NodeId, PidRegions};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};

/// What to do with a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The kernel of this node knows the id.
    Here,
    /// Ask this node.
    Node(NodeId),
    /// Nobody can know it: answer this errno.
    Errno(Errno),
}

/// The ids of this node's region that run elsewhere, and those of other regions that run here.
#[derive(Clone, Debug)]
pub struct Routes {
    node: NodeId,
    regions: PidRegions,
    pub(super) nodes: Nodes,
    pub(super) away: BTreeMap<u32, NodeId>,
    pub(super) hosted: BTreeSet<u32>,
}

impl Routes {
    /// Nothing is away and nothing is hosted.
    pub fn new(node: NodeId, regions: PidRegions) -> Routes {
        Routes { node, regions, nodes: Nodes::default(), away: BTreeMap::new(), hosted: BTreeSet::new() }
    }

    /// The route of a kill(2) that a process of this node made: `target` as kill(2) takes it, not 0 or -1.
    pub fn from_here(&self, target: i32) -> Route {
        let id = target.unsigned_abs();
        if self.hosted.contains(&id) {
            return Route::Here;
        }
        match origin(self.regions, id) {
            None => Route::Here,
            Some(node) if node == self.node => match self.away.get(&id) {
                Some(node) if target > 0 => Route::Node(*node),
                _ => Route::Here,
            },
            Some(node) if self.nodes.is_alive(node) => Route::Node(node),
            Some(_) => Route::Errno(Errno::SRCH),
        }
    }

    /// True if the id is of this node's region: there a process with it may be only a shadow.
    pub fn is_home(&self, target: i32) -> bool {
        origin(self.regions, target.unsigned_abs()) == Some(self.node)
    }

    /// The route of a kill that another node sent here: never to a third node unless the id is of this node's region,
    /// so no message goes in circles.
    pub fn from_peer(&self, target: i32) -> Route {
        match origin(self.regions, target.unsigned_abs()) {
            _ if self.hosted.contains(&target.unsigned_abs()) => Route::Here,
            Some(node) if node == self.node => self.from_here(target),
            _ => Route::Errno(Errno::SRCH),
        }
    }

    /// Where the process runs as far as the number and this node's table tell: itself, or the node to ask.
    pub fn whereabouts(&self, pid: u32) -> Option<NodeId> {
        if self.hosted.contains(&pid) {
            return Some(self.node);
        }
        match (self.away.get(&pid), origin(self.regions, pid)) {
            (Some(node), _) => Some(*node),
            (None, Some(node)) if node == self.node || self.nodes.is_alive(node) => Some(node),
            (None, None) => Some(self.node),
            _ => None,
        }
    }

    /// Ids of this node's region whose process here is the shadow of one that runs elsewhere.
    pub fn shadows(&self) -> BTreeSet<u32> {
        self.away.keys().copied().collect()
    }

    /// The nodes that live.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// How pids are cut into home regions.
    pub fn regions(&self) -> PidRegions {
        self.regions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use membership::{Node, NodeState, View};
    use std::sync::Arc;

    /// Node 1 of three (3 is DOWN), regions of 1,024: 1030 runs on node 2, 2060 (of node 2) runs here.
    fn routes() -> Routes {
        let mut routes = Routes::new(NodeId(1), PidRegions::new(1024).unwrap());
        let node = |id, state: NodeState| Node { id, state: state as i32, ..Node::default() };
        let nodes = vec![node(1, NodeState::Up), node(2, NodeState::Stalled), node(3, NodeState::Down)];
        routes.nodes.update(&Arc::new(View { epoch: 1, nodes, ..View::default() }));
        routes.away.insert(1030, NodeId(2));
        routes.hosted.insert(2060);
        routes
    }

    #[test]
    fn a_kill_goes_where_the_process_runs() {
        let routes = routes();
        for (target, route) in [
            (300, Route::Here),
            (1025, Route::Here),
            (1030, Route::Node(NodeId(2))),
            (2060, Route::Here),
            (-2060, Route::Here),
            (2061, Route::Node(NodeId(2))),
            (-2061, Route::Node(NodeId(2))),
            (3072, Route::Errno(Errno::SRCH)),
            (9999, Route::Errno(Errno::SRCH)),
            (i32::MIN, Route::Errno(Errno::SRCH)),
        ] {
            assert_eq!(routes.from_here(target), route, "{target}");
        }
    }

    #[test]
    fn a_peers_kill_never_goes_in_circles() {
        let routes = routes();
        assert_eq!(
            routes.from_peer(2061),
            Route::Errno(Errno::SRCH),
            "node 2 is its origin and should have known"
        );
        assert_eq!(routes.from_peer(1030), Route::Node(NodeId(2)));
        assert_eq!(routes.from_peer(2060), Route::Here);
        assert_eq!(routes.from_peer(-1030), Route::Here, "the shadow leads the group here");
    }

    #[test]
    fn where_a_pid_is() {
        let routes = routes();
        assert_eq!(routes.whereabouts(1030), Some(NodeId(2)));
        assert_eq!(routes.whereabouts(2060), Some(NodeId(1)));
        assert_eq!(routes.whereabouts(2061), Some(NodeId(2)));
        assert_eq!(routes.whereabouts(3072), None);
    }
}
