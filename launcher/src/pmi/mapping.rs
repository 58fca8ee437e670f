//! `PMI_process_mapping`: which ranks share a machine.

use super::VALUE_BYTES_MAX;
use base::NodeId;
use std::collections::BTreeMap;

/// The placement as MPICH reads it: `(vector,(first node,nodes,ranks a node),...)`, nodes numbered from 0 in the order
/// of their first rank. It tells the physical truth, uneven placements included: ranks of one node share /dev/shm.
/// `None` if it would not fit into a value; an MPI library then finds out by itself (slower), which a wrong or cut
/// mapping would not let it.
pub fn process_mapping(placement: &[NodeId]) -> Option<String> {
    let mut numbers: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut blocks: Vec<Block> = Vec::new();
    for node in placement {
        let next = numbers.len();
        let number = *numbers.entry(*node).or_insert(next);
        match blocks.last_mut() {
            Some(last) if last.first == number => last.ranks += 1,
            _ => blocks.push(Block { first: number, nodes: 1, ranks: 1 }),
        }
    }
    let parts: Vec<String> = merge(blocks)
        .iter()
        .map(|block| format!("({},{},{})", block.first, block.nodes, block.ranks))
        .collect();
    let text = format!("(vector,{})", parts.join(","));
    (!parts.is_empty() && text.len() <= VALUE_BYTES_MAX).then_some(text)
}

/// `nodes` nodes from `first` on, each with `ranks` ranks one after the other.
struct Block {
    first: usize,
    nodes: usize,
    ranks: usize,
}

/// Neighbouring blocks on consecutive nodes with equally many ranks become one.
fn merge(blocks: Vec<Block>) -> Vec<Block> {
    let mut merged: Vec<Block> = Vec::new();
    for block in blocks {
        match merged.last_mut() {
            Some(last) if last.first + last.nodes == block.first && last.ranks == block.ranks => {
                last.nodes += 1
            }
            _ => merged.push(block),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mapping(nodes: &[u32]) -> String {
        process_mapping(&nodes.iter().map(|&node| NodeId(node)).collect::<Vec<_>>()).unwrap()
    }

    /// What MPICH makes of it: the node of each rank.
    fn read_back(text: &str, ranks: usize) -> Vec<usize> {
        let mut nodes = Vec::new();
        for block in text.trim_start_matches("(vector,(").trim_end_matches("))").split("),(") {
            let numbers: Vec<usize> = block.split(',').map(|number| number.parse().unwrap()).collect();
            for node in numbers[0]..numbers[0] + numbers[1] {
                nodes.extend(std::iter::repeat_n(node, numbers[2]));
            }
        }
        assert_eq!(nodes.len(), ranks);
        nodes
    }

    #[test]
    fn even_uneven_and_interleaved_placements_are_told_as_they_are() {
        assert_eq!(mapping(&[1, 1, 2, 2, 3, 3]), "(vector,(0,3,2))");
        assert_eq!(mapping(&[3]), "(vector,(0,1,1))");
        assert_eq!(mapping(&[1, 1, 1, 2, 3]), "(vector,(0,1,3),(1,2,1))");
        assert_eq!(mapping(&[1, 2, 1, 2]), "(vector,(0,2,1),(0,2,1))");
        assert_eq!(process_mapping(&[]), None);
    }

    #[test]
    fn a_mapping_that_does_not_fit_is_left_out() {
        let placement: Vec<NodeId> =
            (0..2_000u32).map(|rank| NodeId(rank * 7919 % 13 + 1 + rank % 5)).collect();
        assert_eq!(process_mapping(&placement), None);
    }

    proptest! {
        #[test]
        fn ranks_share_a_machine_in_it_exactly_when_they_do(nodes in prop::collection::vec(1u32..6, 1..60)) {
            let read = read_back(&mapping(&nodes), nodes.len());
            for a in 0..nodes.len() {
                for b in 0..nodes.len() {
                    prop_assert_eq!(nodes[a] == nodes[b], read[a] == read[b]);
                }
            }
        }
    }
}
