//! The ranges of one resource: who is where, in logarithmic time.
//!
//! Twelve interval trees share one arena: one for each granted mode, one for each wanted mode. Each is a treap ordered by (first, lock) in which
//! every node knows the largest `last` below it.
//!
//! ```text
//!            [40, 49] up to 90          conflict with [s, e]:  a range that meets it, visited left to right
//!            /               \          room below s:          largest `last` among ranges that begin before s
//!   [10, 90] up to 90   [60, 65] up to 65   room above e:      smallest `first` among ranges that end after e
//! ```
//!
//! Invariant: `last_most` of a node is the maximum of `last` over its subtree. Priorities come from a counter, so the shape depends on
//! the history alone.

use crate::mode::{Mode, ModeSet};
use crate::policy::Span;
use crate::slab::NONE;
use base::Prng;

#[derive(Clone, Debug)]
struct Node {
    span: Span,
    lock: u32,
    priority: u64,
    last_most: u64,
    left: u32,
    right: u32,
}

/// Which of a lock's interests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// What it has.
    Granted,
    /// What it waits for.
    Wanted,
}

/// The ranges of one resource's locks.
#[derive(Clone, Debug)]
pub struct Extents {
    nodes: Vec<Node>,
    free: Vec<u32>,
    roots: [[u32; 6]; 2],
    priorities: Prng,
}

impl Default for Extents {
    fn default() -> Self {
        Extents { nodes: Vec::new(), free: Vec::new(), roots: [[NONE; 6]; 2], priorities: Prng::new(0) }
    }
}

impl Extents {
    /// Adds a lock's range.
    pub fn insert(&mut self, interest: Interest, mode: Mode, span: Span, lock: u32) {
        let priority = self.priorities.next_u64();
        let node = Node { span, lock, priority, last_most: span.last, left: NONE, right: NONE };
        let index = match self.free.pop() {
            Some(index) => {
                self.nodes[index as usize] = node;
                index
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() as u32 - 1
            }
        };
        let root = self.roots[interest as usize][mode as usize];
        let (below, above) = self.split(root, (span.first, lock));
        let joined = self.merge(below, index);
        self.roots[interest as usize][mode as usize] = self.merge(joined, above);
    }

    /// Takes a lock's range, which was added so, out.
    pub fn remove(&mut self, interest: Interest, mode: Mode, span: Span, lock: u32) {
        let root = self.roots[interest as usize][mode as usize];
        let (below, rest) = self.split(root, (span.first, lock));
        let (found, above) = self.split(rest, (span.first, lock + 1));
        debug_assert!(found != NONE, "a range is removed as it was added");
        self.free.push(found);
        self.roots[interest as usize][mode as usize] = self.merge(below, above);
    }

    /// Shows the locks with one of `modes` whose ranges meet `span`, until `stop` says true; says whether it did.
    pub fn any(
        &self,
        interest: Interest,
        modes: ModeSet,
        span: Span,
        mut stop: impl FnMut(u32) -> bool,
    ) -> bool {
        let roots = self.roots[interest as usize];
        modes.strongest_first().any(|mode| self.visit(roots[mode as usize], span, &mut stop))
    }

    /// `required`, grown within `desired` up to the nearest range of anybody with one of `modes`, granted or wanted.
    pub fn grown(&self, modes: ModeSet, required: Span, desired: Span) -> Span {
        let mut grown = desired;
        for mode in modes.strongest_first() {
            for roots in self.roots {
                let root = roots[mode as usize];
                if let Some(last) = self.last_of_those_before(root, required.first) {
                    grown.first = grown.first.max(last.saturating_add(1).min(required.first));
                }
                if let Some(first) = self.first_of_those_beyond(root, required.last) {
                    grown.last = grown.last.min(first.saturating_sub(1).max(required.last));
                }
            }
        }
        grown
    }

    fn at(&self, index: u32) -> Option<&Node> {
        self.nodes.get(index as usize)
    }

    /// The largest `last` of the ranges that begin before `at`.
    fn last_of_those_before(&self, mut root: u32, at: u64) -> Option<u64> {
        let mut most = None;
        while let Some(node) = self.at(root) {
            if node.span.first < at {
                let left = self.at(node.left).map(|left| left.last_most);
                most = most.max(left).max(Some(node.span.last));
                root = node.right;
            } else {
                root = node.left;
            }
        }
        most
    }

    /// The smallest `first` of the ranges that end after `at`.
    fn first_of_those_beyond(&self, mut root: u32, at: u64) -> Option<u64> {
        while let Some(node) = self.at(root) {
            if self.at(node.left).is_some_and(|left| left.last_most > at) {
                root = node.left;
            } else if node.span.last > at {
                return Some(node.span.first);
            } else {
                root = node.right;
            }
        }
        None
    }

    fn visit(&self, root: u32, span: Span, stop: &mut impl FnMut(u32) -> bool) -> bool {
        let Some(node) = self.at(root) else { return false };
        if node.last_most < span.first {
            return false;
        }
        self.visit(node.left, span, stop)
            || (node.span.meets(span) && stop(node.lock))
            || (node.span.first <= span.last && self.visit(node.right, span, stop))
    }

    fn refresh(&mut self, index: u32) {
        let node = &self.nodes[index as usize];
        let below = [node.left, node.right].map(|side| self.at(side).map_or(0, |side| side.last_most));
        self.nodes[index as usize].last_most = node.span.last.max(below[0]).max(below[1]);
    }

    /// Those before `key`, and the others.
    fn split(&mut self, root: u32, key: (u64, u32)) -> (u32, u32) {
        let Some(node) = self.at(root) else { return (NONE, NONE) };
        if (node.span.first, node.lock) < key {
            let (below, above) = self.split(node.right, key);
            self.nodes[root as usize].right = below;
            self.refresh(root);
            (root, above)
        } else {
            let (below, above) = self.split(node.left, key);
            self.nodes[root as usize].left = above;
            self.refresh(root);
            (below, root)
        }
    }

    /// Both as one; all of `below` comes before all of `above`.
    fn merge(&mut self, below: u32, above: u32) -> u32 {
        let (Some(one), Some(other)) = (self.at(below), self.at(above)) else {
            return below.min(above);
        };
        if one.priority > other.priority {
            let right = self.merge(one.right, above);
            self.nodes[below as usize].right = right;
            self.refresh(below);
            below
        } else {
            let left = self.merge(below, other.left);
            self.nodes[above as usize].left = left;
            self.refresh(above);
            above
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span(first: u64, length: u64) -> Span {
        Span { first, last: first + length }
    }

    proptest! {
        #[test]
        fn the_trees_answer_like_a_list(
            history in prop::collection::vec((0u64..60, 0u64..12, any::<bool>(), any::<prop::sample::Index>()), 1..80),
            asked in (0u64..60, 0u64..12),
        ) {
            let mut extents = Extents::default();
            let mut list: Vec<(u32, Span, Interest)> = Vec::new();
            for (number, (first, length, goes, which)) in history.into_iter().enumerate() {
                if goes && !list.is_empty() {
                    let (lock, span, interest) = list.swap_remove(which.index(list.len()));
                    extents.remove(interest, Mode::PW, span, lock);
                } else {
                    let interest = if number % 3 == 0 { Interest::Wanted } else { Interest::Granted };
                    extents.insert(interest, Mode::PW, span(first, length), number as u32);
                    list.push((number as u32, span(first, length), interest));
                }
            }
            let asked = span(asked.0, asked.1);
            let mut seen = Vec::new();
            let modes = ModeSet::of(&[Mode::EX, Mode::PW]);
            extents.any(Interest::Granted, modes, asked, |lock| { seen.push(lock); false });
            let mut expected: Vec<u32> = list.iter()
                .filter(|(_, span, interest)| *interest == Interest::Granted && span.meets(asked))
                .map(|(lock, ..)| *lock).collect();
            seen.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(seen, expected);
            let grown = extents.grown(modes, asked, Span::ALL);
            // Number by number, as far as nobody is.
            let free = |number: u64| !list.iter().any(|(_, span, _)| span.first <= number && number <= span.last);
            let first = (0..asked.first).rev().take_while(|number| free(*number)).last().unwrap_or(asked.first);
            let last = (asked.last + 1..100).take_while(|number| free(*number)).last().unwrap_or(asked.last);
            prop_assert_eq!(grown.first, first);
            prop_assert_eq!(grown.last.min(last.max(99)), last);
        }
    }
}
