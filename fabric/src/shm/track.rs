//! Where a ring lies in the shared memory, and what its bits mean.
//!
//! ```text
//!  a line (64 bytes): 0           8
//!                     | word      | 56 bytes of content            a record: one line or several, content from the first on
//!
//!  the first line's word, as bits:  | which line, since the link began (45) | form (3) | length of the content (16) |
//!
//!  control lines, each on 128 bytes of its own
//!  head    how far the consumer has read             written by the consumer, now and then
//!  parked  not 0: the consumer sleeps, ring its bell  set by the consumer, cleared by who rings
//!  wanted  not 0: the producer waits for this head    set by the producer, cleared by who rings
//! ```
//!
//! Content never lies where a word would be, so no content can be taken for a word. The number of a line comes again after two PiB;
//! by then its place has begun other records.
//!
//! Invariant: every address that comes from here lies inside its own ring or control lines, whatever the position.

use super::sys::Shared;
use std::sync::atomic::AtomicU64;

/// Bytes of a cache line: records begin and end at one.
pub const LINE: usize = 64;
/// Bytes of a record's word.
const WORD: usize = 8;
/// Bytes of content in a line.
pub const LINE_BYTES: usize = LINE - WORD;
/// Bytes of the control lines of both directions.
const CONTROL_BYTES: usize = 4096;
/// After so many bytes the producer goes back to the start of the ring if the consumer has kept up.
pub const LAP_BYTES: u64 = 8 << 10;
/// The consumer says how far it has read when it is so many bytes further.
pub const PUBLISH_BYTES: u64 = LAP_BYTES / 4;
/// Bytes of the longest record in the longest rings.
const RECORD_BYTES_MAX: usize = 64 << 10;
/// Where in a word the number of its line begins.
pub const NUMBER_SHIFT: u32 = 19;
/// Where in a word its form begins; below it lies the length.
pub const FORM_SHIFT: u32 = 16;
/// The shortest and the longest ring.
const RING_BYTES: std::ops::RangeInclusive<usize> = 32 << 10..=16 << 20;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Form {
    /// A header and what it carries, or the beginning of that.
    Frame = 1,
    /// The next bytes of the frame before.
    More = 2,
    /// A piece whose bytes lie in lent memory: header, access, number of the memory, offset in it.
    Lent = 3,
    /// The end of a lent memory: its number.
    Forget = 4,
    /// Nothing: the next record is at the start of the ring.
    Jump = 5,
}

/// The forms, by number, from 1.
pub const FORMS: [Form; 5] = [Form::Frame, Form::More, Form::Lent, Form::Forget, Form::Jump];

/// Where one direction lies in the shared memory.
#[derive(Clone, Copy)]
pub struct Track {
    control: usize,
    data: usize,
    /// Bytes of the ring.
    pub size: usize,
}

impl Track {
    /// The two directions (to the accepting end, to the dialling end) with rings of so many bytes; `None` if there are no such rings.
    pub fn pair(ring_bytes: usize) -> Option<[Track; 2]> {
        let fits = RING_BYTES.contains(&ring_bytes) && ring_bytes.is_power_of_two();
        let track = |index: usize| Track {
            control: index * CONTROL_BYTES / 2,
            data: CONTROL_BYTES + index * ring_bytes,
            size: ring_bytes,
        };
        fits.then(|| [track(0), track(1)])
    }

    /// Bytes of the memory of both directions.
    pub fn memory_bytes(ring_bytes: usize) -> usize {
        CONTROL_BYTES + 2 * ring_bytes
    }

    /// Bytes of the longest content: a long frame is several records, so that it is read while it is still being written.
    #[inline]
    pub fn content_max(self) -> usize {
        (self.size / 8).min(RECORD_BYTES_MAX) / LINE * LINE_BYTES
    }

    /// Where the content of a record at `position` lies from `at` on: a part in each line. Yields address, bytes before, bytes.
    #[inline]
    pub fn parts(
        self,
        position: u64,
        at: usize,
        length: usize,
    ) -> impl Iterator<Item = (usize, usize, usize)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let (line, within) = ((at + done) / LINE_BYTES, (at + done) % LINE_BYTES);
            let part = (length - done).min(LINE_BYTES - within);
            let address = self.data + self.offset(position + (line * LINE) as u64) + WORD + within;
            done += part;
            (part > 0).then_some((address, done - part, part))
        })
    }

    /// Where in the ring a position is.
    #[inline]
    pub fn offset(self, position: u64) -> usize {
        position as usize & (self.size - 1)
    }

    /// Bytes from a position to the end of the ring.
    #[inline]
    pub fn to_end(self, position: u64) -> usize {
        self.size - self.offset(position)
    }

    /// The word of the line at a position.
    #[inline]
    pub fn word(self, shared: &Shared, position: u64) -> &AtomicU64 {
        shared.word(self.data + self.offset(position))
    }

    /// How far the consumer has read.
    #[inline]
    pub fn head(self, shared: &Shared) -> &AtomicU64 {
        shared.word(self.control)
    }

    /// Whether the consumer sleeps.
    #[inline]
    pub fn parked(self, shared: &Shared) -> &AtomicU64 {
        shared.word(self.control + 128)
    }

    /// What head the producer waits for.
    #[inline]
    pub fn wanted(self, shared: &Shared) -> &AtomicU64 {
        shared.word(self.control + 256)
    }
}

/// Bytes of the record with so much content.
#[inline]
pub fn record_bytes(content: usize) -> usize {
    content.div_ceil(LINE_BYTES).max(1) * LINE
}

/// What a word begins with at this position.
#[inline]
pub fn line_number(position: u64) -> u64 {
    (position / LINE as u64 + 1) & (u64::MAX >> NUMBER_SHIFT)
}
