//! The memory of this end that a transfer gathers from or scatters to.
//!
//! Invariant: bytes `[0, length)` of the transfer are the spans one after another; none of them is empty.

use crate::region::Span;

/// Parts of memory, one after another.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    spans: Vec<Span>,
    /// Where each ends in the whole.
    ends: Vec<u64>,
}

impl Pieces {
    pub(super) fn of(spans: Vec<Span>) -> Pieces {
        let mut pieces = Pieces { spans, ends: Vec::new() };
        pieces.spans.retain(|span| span.length() > 0);
        pieces.ends.extend(pieces.spans.iter().scan(0, |end, span| {
            *end += span.length() as u64;
            Some(*end)
        }));
        pieces
    }

    /// Bytes of the whole.
    pub(super) fn length(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// What lies at `at`: at most `longest` bytes, and not beyond the span's end.
    pub(super) fn at(&self, at: u64, longest: u64) -> Option<Span> {
        let index = self.ends.partition_point(|end| *end <= at);
        let (span, end) = (self.spans.get(index)?, *self.ends.get(index)?);
        let start = end - span.length() as u64;
        // All below the length of a span of this process.
        span.part((at - start) as usize, longest.min(end - at) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::Memory;

    #[test]
    fn pieces_are_cut_where_a_span_ends() {
        let memory = Memory::new(100).unwrap();
        let spans =
            [(10, 5), (50, 0), (0, 3)].map(|(offset, length)| Span::of(&memory, offset, length).unwrap());
        let pieces = Pieces::of(spans.to_vec());
        let place = |at, longest| pieces.at(at, longest).map(|span| (span.memory().1, span.length()));
        assert_eq!(pieces.length(), 8);
        assert_eq!([place(0, 9), place(3, 9), place(3, 1)], [Some((10, 5)), Some((13, 2)), Some((13, 1))]);
        assert_eq!([place(5, 9), place(7, 9), place(8, 9)], [Some((0, 3)), Some((2, 1)), None]);
    }
}
