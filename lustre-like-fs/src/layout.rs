//! Striping arithmetic: which byte of a file lies where. Pure.
//!
//! A file is cut into stripes of `stripe_size` bytes, dealt in turn to its objects; object `k` lies on server `osts[k]`.
//!
//! ```text
//!  file    | 0 | 1 | 2 | 3 | 4 | 5 | 6 ...        stripes
//!  object 0| 0 | 3 | 6 |
//!  object 1| 1 | 4 |                              each object is dense: its stripes follow one another
//!  object 2| 2 | 5 |
//! ```
//!
//! Invariant: a layout never changes once its file exists, so whoever holds one need not ask again.

use base::NodeId;
use std::ops::Range;

/// Bytes of a stripe unless somebody chose otherwise.
pub const STRIPE_BYTES_DEFAULT: u64 = 1 << 20;
/// The smallest stripe, and what every stripe size is a multiple of: 64 KiB, as in Lustre.
pub const STRIPE_BYTES_MIN: u64 = 64 << 10;
/// The largest stripe.
pub const STRIPE_BYTES_MAX: u64 = 1 << 30;
/// The largest file: what an `off_t` can name.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// Where the bytes of one file lie.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Layout {
    /// Bytes in each stripe.
    #[prost(uint64, tag = "1")]
    pub stripe_size: u64,
    /// The nodes whose object servers hold object 0, 1, ...
    #[prost(uint32, repeated, tag = "2")]
    pub osts: Vec<u32>,
}

/// How layouts of new files are chosen; a directory may carry one, and hands it down to what is made in it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Pattern {
    /// Bytes in each stripe; 0: the default.
    #[prost(uint64, tag = "1")]
    pub stripe_size: u64,
    /// Objects in each file; 0: one on every object server.
    #[prost(uint32, tag = "2")]
    pub stripe_count: u32,
    /// The object server (index into the ordered list of servers) of object 0, plus one; 0: the servers take turns.
    #[prost(uint32, tag = "3")]
    pub start: u32,
}

/// A run of bytes that lies in one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which object.
    pub stripe: u32,
    /// Where the run begins in the object.
    pub object_offset: u64,
    /// Where it begins in the file.
    pub file_offset: u64,
    /// Its bytes.
    pub length: u64,
}

impl Pattern {
    /// Whether files can be laid out so.
    pub fn is_valid(&self) -> bool {
        self.stripe_size == 0
            || (self.stripe_size.is_multiple_of(STRIPE_BYTES_MIN) && self.stripe_size <= STRIPE_BYTES_MAX)
    }

    /// The layout of file `ino` over `servers` (ordered by node number); `None` when there is no server.
    pub fn layout(&self, ino: u64, servers: &[NodeId]) -> Option<Layout> {
        if servers.is_empty() {
            return None;
        }
        let count = match self.stripe_count as usize {
            0 => servers.len(),
            count => count.min(servers.len()),
        };
        let start = match self.start {
            0 => (ino % servers.len() as u64) as usize,
            start => (start - 1) as usize % servers.len(),
        };
        let osts = (0..count).map(|k| servers[(start + k) % servers.len()].0).collect();
        let stripe_size = if self.stripe_size == 0 { STRIPE_BYTES_DEFAULT } else { self.stripe_size };
        Some(Layout { stripe_size, osts })
    }
}

impl Layout {
    /// Number of objects.
    pub fn count(&self) -> u32 {
        self.osts.len() as u32
    }

    /// Whether the arithmetic below is defined: a layout from the wire may be anything.
    pub fn is_valid(&self) -> bool {
        !self.osts.is_empty() && (1..=STRIPE_BYTES_MAX).contains(&self.stripe_size)
    }

    /// The node that holds object `stripe`.
    pub fn server(&self, stripe: u32) -> NodeId {
        NodeId(self.osts[stripe as usize])
    }

    /// The runs that make up `length` bytes of the file from `offset` on, in the order of the file.
    pub fn pieces(&self, offset: u64, length: u64) -> Vec<Piece> {
        let end = offset.saturating_add(length).min(FILE_BYTES_MAX);
        let mut pieces = Vec::new();
        let mut at = offset;
        while at < end {
            let stripe_number = at / self.stripe_size;
            let inside = at % self.stripe_size;
            let run = (self.stripe_size - inside).min(end - at);
            pieces.push(Piece {
                stripe: (stripe_number % u64::from(self.count())) as u32,
                object_offset: stripe_number / u64::from(self.count()) * self.stripe_size + inside,
                file_offset: at,
                length: run,
            });
            at += run;
        }
        self.joined(pieces)
    }

    /// With one object neighbouring runs are one run.
    fn joined(&self, pieces: Vec<Piece>) -> Vec<Piece> {
        if self.count() > 1 || pieces.len() < 2 {
            return pieces;
        }
        let length = pieces.iter().map(|piece| piece.length).sum();
        vec![Piece { length, ..pieces[0] }]
    }

    /// Bytes of object `stripe` that belong to the first `size` bytes of the file.
    pub fn object_length(&self, stripe: u32, size: u64) -> u64 {
        let round = self.stripe_size.saturating_mul(u64::from(self.count()));
        let rest = size % round;
        let before = u64::from(stripe) * self.stripe_size;
        size / round * self.stripe_size + rest.saturating_sub(before).min(self.stripe_size)
    }

    /// Where the file ends if object `stripe` holds `length` bytes and no object reaches further.
    pub fn file_end(&self, stripe: u32, length: u64) -> u64 {
        let Some(last) = length.checked_sub(1) else { return 0 };
        let number = (last / self.stripe_size)
            .saturating_mul(u64::from(self.count()))
            .saturating_add(u64::from(stripe));
        number.saturating_mul(self.stripe_size).saturating_add(last % self.stripe_size).saturating_add(1)
    }

    /// The bytes of object `stripe` that belong to `range` of the file: they are one run.
    pub fn object_range(&self, stripe: u32, range: Range<u64>) -> Range<u64> {
        self.object_length(stripe, range.start)..self.object_length(stripe, range.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layouts() -> impl Strategy<Value = Layout> {
        (1u64..20, 1u32..6)
            .prop_map(|(stripe_size, count)| Layout { stripe_size, osts: (1..=count).collect() })
    }

    proptest! {
        #[test]
        fn pieces_cover_the_range_once_and_agree_with_the_lengths(layout in layouts(), offset in 0u64..500, length in 0u64..500) {
            let pieces = layout.pieces(offset, length);
            let mut at = offset;
            for piece in &pieces {
                prop_assert_eq!(piece.file_offset, at);
                prop_assert!(piece.length > 0);
                let run = layout.object_range(piece.stripe, piece.file_offset..piece.file_offset + piece.length);
                prop_assert_eq!(run, piece.object_offset..piece.object_offset + piece.length);
                at += piece.length;
            }
            prop_assert_eq!(at, offset + length);
        }

        #[test]
        fn the_longest_object_end_is_the_size(layout in layouts(), size in 0u64..2_000) {
            let end = (0..layout.count()).map(|k| layout.file_end(k, layout.object_length(k, size))).max().unwrap();
            prop_assert_eq!(end, size);
            let total: u64 = (0..layout.count()).map(|k| layout.object_length(k, size)).sum();
            prop_assert_eq!(total, size);
        }

        #[test]
        fn a_layout_from_the_wire_never_panics(stripe_size in 1u64..=STRIPE_BYTES_MAX, count in 1u32..40, stripe in 0u32..40, at in any::<u64>()) {
            let layout = Layout { stripe_size, osts: (1..=count).collect() };
            layout.file_end(stripe % count, at);
            layout.object_length(stripe % count, at);
            layout.pieces(at, 100);
        }
    }

    #[test]
    fn a_pattern_chooses_count_size_and_start() {
        let servers = [NodeId(1), NodeId(2), NodeId(3)];
        let layout = Pattern { stripe_size: 65_536, stripe_count: 2, start: 3 }.layout(9, &servers).unwrap();
        assert_eq!(layout, Layout { stripe_size: 65_536, osts: vec![3, 1] });
        let all = Pattern::default().layout(4, &servers).unwrap();
        assert_eq!(all, Layout { stripe_size: STRIPE_BYTES_DEFAULT, osts: vec![2, 3, 1] });
        assert_eq!(Pattern::default().layout(4, &[]), None);
    }
}
