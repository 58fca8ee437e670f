//! Which node gets which rank of a job: a pure function of the wish, the view and the loads.
//!
//! Ranks are laid out in blocks: consecutive ranks share a node. Without a limit a node first gets ranks for its free
//! cores, and when all cores of all nodes are taken the rest is spread by the size of the nodes.

use crate::error::Error;
use crate::table::NodeLoad;
use base::NodeId;
use base::limits::TASKS_PER_CLIENT_MAX;
use membership::{Node, NodeState, View};

/// Ranks in one job.
const RANKS_MAX: u32 = TASKS_PER_CLIENT_MAX as u32;

/// A node that may get ranks.
struct Candidate {
    node: NodeId,
    free_cores: u64,
    cores: u64,
    speed: u64,
    cost: u64,
}

/// The node of each of `ranks` ranks. `per_node` is the most that one node gets (0: as the load says), `hosts` are the
/// names or numbers of the nodes that may be used, in the order in which they are filled (empty: every node that is UP).
///
/// # Errors
/// [`Error`]: an unknown host, one that is not UP, or more ranks than are allowed.
pub fn placement(
    ranks: u32,
    per_node: u32,
    hosts: &[String],
    view: &View,
    loads: &[NodeLoad],
) -> Result<Vec<NodeId>, Error> {
    if ranks == 0 {
        return Err(Error::NoRanks);
    }
    if ranks > RANKS_MAX {
        return Err(Error::TooManyRanks { ranks, most: RANKS_MAX });
    }
    let candidates = candidates(hosts, view, loads)?;
    let counts = match per_node {
        0 => by_load(u64::from(ranks), &candidates),
        _ => by_limit(ranks, per_node, &candidates, hosts.is_empty())?,
    };
    let blocks = candidates.iter().zip(counts);
    Ok(blocks.flat_map(|(to, count)| (0..count).map(|_| to.node)).collect())
}

fn candidates(hosts: &[String], view: &View, loads: &[NodeLoad]) -> Result<Vec<Candidate>, Error> {
    let mut rows: Vec<&Node> = Vec::new();
    for host in hosts {
        let row = view.find(host).ok_or_else(|| Error::UnknownHost(host.clone()))?;
        if row.state() != NodeState::Up {
            return Err(Error::not_up(&row.name, row.state()));
        }
        if row.drained {
            return Err(Error::HostDrained(row.name.clone()));
        }
        if !rows.iter().any(|known| known.id == row.id) {
            rows.push(row);
        }
    }
    if hosts.is_empty() {
        rows = view.nodes.iter().filter(|row| takes_work(row)).collect();
    }
    if rows.is_empty() {
        return Err(Error::NoNode);
    }
    Ok(rows.into_iter().map(|row| candidate(row, loads)).collect())
}

/// True if new work may be placed there: the node is UP and not drained.
pub(crate) fn takes_work(row: &Node) -> bool {
    row.state() == NodeState::Up && !row.drained
}

fn candidate(row: &Node, loads: &[NodeLoad]) -> Candidate {
    let load = loads.iter().find(|load| load.sample.node == row.id && !load.is_stale());
    let cores = u64::from(row.cpus.max(1));
    // Whole cores: what a node does in passing must not make a job lopsided.
    let busy = load.map_or(cores, |load| (load.sample.busy_millicores() + 499) / 1_000);
    Candidate {
        node: row.node_id(),
        free_cores: cores.saturating_sub(busy),
        cores,
        speed: u64::from(row.speed.max(1)),
        cost: load.map_or(u64::MAX, |load| load.cost),
    }
}

/// At most `per_node` each: whole nodes, the least loaded ones if the user did not name them.
fn by_limit(ranks: u32, per_node: u32, nodes: &[Candidate], choose: bool) -> Result<Vec<u64>, Error> {
    let needed = ranks.div_ceil(per_node) as usize;
    if needed > nodes.len() {
        return Err(Error::TooManyPerNode { ranks, nodes: nodes.len(), per_node });
    }
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    if choose {
        order.sort_by_key(|&at| (nodes[at].cost, at));
    }
    let mut chosen = order[..needed].to_vec();
    chosen.sort_unstable();
    let mut counts = vec![0; nodes.len()];
    let mut left = ranks;
    for at in chosen {
        let count = left.min(per_node);
        counts[at] = u64::from(count);
        left -= count;
    }
    Ok(counts)
}

/// Free cores first, then by size.
fn by_load(ranks: u64, nodes: &[Candidate]) -> Vec<u64> {
    let free: u64 = nodes.iter().map(|node| node.free_cores).sum();
    if ranks <= free {
        return apportion(ranks, nodes, |node| node.free_cores * node.speed);
    }
    let rest = apportion(ranks - free, nodes, |node| node.cores * node.speed);
    nodes.iter().zip(rest).map(|(node, rest)| node.free_cores + rest).collect()
}

/// Shares out `ranks` in proportion to `weight`: the whole parts first, what is left to the largest fractions; among
/// equals to the cheaper node, then to the earlier one.
fn apportion(ranks: u64, nodes: &[Candidate], weight: impl Fn(&Candidate) -> u64) -> Vec<u64> {
    let total: u64 = nodes.iter().map(&weight).sum::<u64>().max(1);
    let mut counts: Vec<u64> = nodes.iter().map(|node| ranks * weight(node) / total).collect();
    let mut order: Vec<usize> = (0..nodes.len()).filter(|&at| weight(&nodes[at]) > 0).collect();
    let fraction = |at: usize| ranks * weight(&nodes[at]) % total;
    order.sort_by_key(|&at| (std::cmp::Reverse(fraction(at)), nodes[at].cost, at));
    let left = ranks - counts.iter().sum::<u64>();
    for &at in order.iter().cycle().take(left as usize) {
        counts[at] += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Table;
    use crate::wire::Sample;
    use base::Time;
    use proptest::prelude::*;
    use std::time::Duration;

    fn cluster(cpus: &[u32], busy: &[u32]) -> (View, Vec<NodeLoad>) {
        let mut view = View { epoch: 1, ..View::default() };
        let mut table = Table::default();
        for (id, (&cpus, &busy_permille)) in (1..).zip(cpus.iter().zip(busy)) {
            view.nodes.push(Node { id, name: format!("node{id}"), cpus, speed: 100, ..Node::default() });
            let sample =
                Sample { node: id, cpus, busy_permille, speed: 100, memory_total: 1, ..Sample::default() };
            table.take(Time(1), sample, Duration::ZERO);
        }
        let loads = table.rows(Time(1), &view);
        (view, loads)
    }

    fn place(
        ranks: u32,
        per_node: u32,
        hosts: &[&str],
        cluster: &(View, Vec<NodeLoad>),
    ) -> Result<Vec<u32>, Error> {
        let hosts: Vec<String> = hosts.iter().map(|host| host.to_string()).collect();
        let nodes = placement(ranks, per_node, &hosts, &cluster.0, &cluster.1)?;
        Ok(nodes.into_iter().map(|node| node.0).collect())
    }

    #[test]
    fn six_ranks_on_three_equal_idle_nodes_are_two_each_side_by_side() {
        for cpus in [1, 2, 4, 8] {
            let idle = cluster(&[cpus; 3], &[0, 30, 10]);
            assert_eq!(place(6, 0, &[], &idle).unwrap(), [1, 1, 2, 2, 3, 3], "{cpus} cpus");
        }
        let unknown = (cluster(&[2; 3], &[0; 3]).0, Vec::new());
        assert_eq!(place(6, 0, &[], &unknown).unwrap(), [1, 1, 2, 2, 3, 3]);
    }

    #[test]
    fn busy_nodes_get_fewer_and_small_nodes_too() {
        assert_eq!(place(4, 0, &[], &cluster(&[2; 3], &[1_000, 0, 0])).unwrap(), [2, 2, 3, 3]);
        assert_eq!(place(6, 0, &[], &cluster(&[4, 2], &[0, 0])).unwrap(), [1, 1, 1, 1, 2, 2]);
        assert_eq!(place(1, 0, &[], &cluster(&[2; 3], &[500, 0, 0])).unwrap(), [2]);
    }

    #[test]
    fn a_limit_fills_nodes_one_after_the_other() {
        let idle = cluster(&[2; 3], &[0; 3]);
        assert_eq!(place(5, 2, &[], &idle).unwrap(), [1, 1, 2, 2, 3]);
        assert_eq!(place(2, 1, &["node3", "2"], &idle).unwrap(), [3, 2]);
        assert_eq!(place(2, 2, &[], &cluster(&[2; 3], &[900, 100, 900])).unwrap(), [2, 2]);
        let error = place(7, 2, &[], &idle).unwrap_err();
        assert_eq!(error.to_string(), "7 ranks do not fit on 3 nodes with at most 2 ranks each (-ppn)");
    }

    #[test]
    fn hosts_that_cannot_be_used_are_named() {
        let mut three = cluster(&[2; 3], &[0; 3]);
        assert_eq!(place(1, 0, &["node9"], &three), Err(Error::UnknownHost("node9".into())));
        three.0.nodes[1].state = NodeState::Down as i32;
        assert_eq!(place(1, 0, &["node2"], &three).unwrap_err().to_string(), "node node2 is DOWN");
        assert_eq!(place(4, 0, &[], &three).unwrap(), [1, 1, 3, 3]);
        three.0.nodes[0].drained = true;
        assert!(place(1, 0, &["1"], &three).unwrap_err().to_string().starts_with("node node1 is drained"));
        assert_eq!(place(2, 0, &[], &three).unwrap(), [3, 3]);
        three.0.nodes.clear();
        assert_eq!(place(1, 0, &[], &three), Err(Error::NoNode));
        assert_eq!(place(0, 0, &[], &three), Err(Error::NoRanks));
        assert!(matches!(place(1_000_000, 0, &[], &three), Err(Error::TooManyRanks { .. })));
    }

    proptest! {
        #[test]
        fn every_rank_gets_a_node_in_blocks(
            ranks in 1u32..200, cpus in prop::collection::vec(1u32..9, 1..8), busy in prop::collection::vec(0u32..1_200, 8),
        ) {
            let nodes = place(ranks, 0, &[], &cluster(&cpus, &busy)).unwrap();
            prop_assert_eq!(nodes.len(), ranks as usize);
            prop_assert!(nodes.is_sorted());
        }
    }
}
