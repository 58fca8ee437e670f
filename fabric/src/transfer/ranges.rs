//! Which bytes of a transfer: a set of ranges.
//!
//! Invariant: in order, none empty, none touching the next.

/// A set of ranges `[start, end)`.
#[derive(Debug, Default)]
pub(super) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Adds a range; what is in it already stays.
    pub(super) fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        // Those that touch it: from the first that ends at its start or later, to the last that starts at its end or earlier.
        let from = self.0.partition_point(|range| range.1 < start);
        let to = from + self.0[from..].partition_point(|range| range.0 <= end);
        if from == to {
            self.0.insert(from, (start, end));
            return;
        }
        let merged = (start.min(self.0[from].0), end.max(self.0[to - 1].1));
        self.0[from] = merged;
        self.0.drain(from + 1..to);
    }

    /// Adds all of another set.
    pub(super) fn merge(&mut self, other: &Ranges) {
        other.0.iter().for_each(|(start, end)| self.insert(*start, *end));
    }

    /// True if all of the range is in it. An empty range always is.
    pub(super) fn covers(&self, start: u64, end: u64) -> bool {
        let at = self.0.partition_point(|range| range.1 < end);
        start >= end || self.0.get(at).is_some_and(|range| range.0 <= start)
    }

    /// The first byte from 0 on that is not in it.
    pub(super) fn first_missing(&self) -> u64 {
        self.0.first().map_or(0, |range| if range.0 == 0 { range.1 } else { 0 })
    }

    /// Its first range.
    pub(super) fn first(&self) -> Option<(u64, u64)> {
        self.0.first().copied()
    }

    /// Takes out `length` bytes, which must not be more than its first range has, from its front.
    pub(super) fn take_front(&mut self, length: u64) {
        if let Some(first) = self.0.first_mut() {
            first.0 += length;
            if first.0 >= first.1 {
                self.0.remove(0);
            }
        }
    }

    /// How many ranges.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Empties it, and keeps its room.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_set_of_ranges_is_a_set_of_bytes(ranges in prop::collection::vec((0u64..60, 0u64..9), 0..30), taken in 0u64..5) {
            let mut set = Ranges::default();
            let mut bytes = [false; 80];
            for (start, length) in ranges {
                set.insert(start, start + length);
                bytes[start as usize..(start + length) as usize].fill(true);
            }
            if let Some((start, end)) = set.first() {
                let taken = taken.min(end - start);
                set.take_front(taken);
                bytes[start as usize..(start + taken) as usize].fill(false);
            }
            for start in 0..70 {
                for end in start..70 {
                    prop_assert_eq!(set.covers(start as u64, end as u64), bytes[start..end].iter().all(|byte| *byte));
                }
            }
            prop_assert_eq!(set.first_missing(), bytes.iter().position(|byte| !byte).unwrap() as u64);
            prop_assert!(set.0.windows(2).all(|pair| pair[0].1 < pair[1].0) && set.0.iter().all(|range| range.0 < range.1));
            let mut other = Ranges::default();
            other.merge(&set);
            prop_assert_eq!(other.0, set.0);
        }
    }
}
