//! One direction of a TCP connection, put in order: what came twice counts once, what came early waits.

use std::collections::BTreeMap;

/// Bytes that wait for what should have come before them. More, and that is taken for missing in the capture.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// What a segment leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The next bytes of the stream.
    Bytes(Vec<u8>),
    /// So many bytes are missing in the capture.
    Missing(u64),
}

/// One direction.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// The number of its first byte, once one was seen.
    first: Option<u32>,
    /// Bytes in order so far.
    heard: u64,
    /// By their place in the stream.
    waiting: BTreeMap<u64, Vec<u8>>,
    waiting_bytes: usize,
}

impl Stream {
    /// It begins with the byte of this number.
    pub fn begin(&mut self, sequence: u32) {
        *self = Stream { first: Some(sequence), ..Stream::default() };
    }

    /// Takes a segment: what is in order now.
    pub fn take(&mut self, sequence: u32, bytes: &[u8]) -> Vec<Piece> {
        let first = *self.first.get_or_insert(sequence);
        // Where the next byte is, by numbers that go round.
        let next = first.wrapping_add(self.heard as u32);
        let ahead = i64::from(sequence.wrapping_sub(next).cast_signed());
        let at = self.heard.cast_signed() + ahead;
        let (at, bytes) = match at {
            ..0 => (0, bytes.get(at.unsigned_abs() as usize..).unwrap_or_default()),
            _ => (at.unsigned_abs(), bytes),
        };
        self.keep(at, bytes);
        let mut pieces = self.in_order();
        while self.waiting_bytes > WAITING_BYTES_MAX {
            pieces.extend(self.skip());
            pieces.extend(self.in_order());
        }
        pieces
    }

    /// Nothing more comes: what waits, with what is missing before it.
    pub fn end(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        while !self.waiting.is_empty() {
            pieces.extend(self.skip());
            pieces.extend(self.in_order());
        }
        pieces
    }

    fn keep(&mut self, at: u64, bytes: &[u8]) {
        let longer = self.waiting.get(&at).is_none_or(|known| known.len() < bytes.len());
        if at + bytes.len() as u64 > self.heard && longer {
            self.waiting_bytes += bytes.len();
            if let Some(former) = self.waiting.insert(at, bytes.to_vec()) {
                self.waiting_bytes -= former.len();
            }
        }
    }

    fn in_order(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        while let Some(entry) = self.waiting.first_entry().filter(|entry| *entry.key() <= self.heard) {
            let (at, bytes) = entry.remove_entry();
            self.waiting_bytes -= bytes.len();
            let news = bytes.get((self.heard - at) as usize..).unwrap_or_default();
            if !news.is_empty() {
                self.heard += news.len() as u64;
                pieces.push(Piece::Bytes(news.to_vec()));
            }
        }
        pieces
    }

    fn skip(&mut self) -> Option<Piece> {
        let at = *self.waiting.first_key_value()?.0;
        let missing = at.saturating_sub(self.heard);
        self.heard += missing;
        Some(Piece::Missing(missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(pieces: &[Piece]) -> Vec<u8> {
        let bytes = pieces.iter().flat_map(|piece| match piece {
            Piece::Bytes(bytes) => bytes.clone(),
            Piece::Missing(missing) => panic!("{missing} bytes are missing"),
        });
        bytes.collect()
    }

    #[test]
    fn what_the_capture_lacks_is_said_to_be_missing() {
        let mut stream = Stream::default();
        stream.begin(u32::MAX);
        assert_eq!(stream.take(u32::MAX, b"ab"), [Piece::Bytes(b"ab".to_vec())]);
        assert_eq!(stream.take(4, b"z"), []);
        assert_eq!(stream.end(), [Piece::Missing(3), Piece::Bytes(b"z".to_vec())]);
    }

    proptest! {
        #[test]
        fn segments_in_any_order_and_more_than_once_make_the_stream(
            first in any::<u32>(), length in 1usize..400, cuts in prop::collection::vec((any::<prop::sample::Index>(), 1usize..50), 0..60),
        ) {
            let whole: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let mut stream = Stream::default();
            stream.begin(first);
            let mut came = Vec::new();
            let all = (0..length).step_by(7).map(|at| (at, 7));
            for (at, part) in cuts.iter().map(|(at, part)| (at.index(length), *part)).chain(all) {
                let part = &whole[at..(at + part).min(length)];
                came.extend(bytes(&stream.take(first.wrapping_add(at as u32), part)));
            }
            prop_assert_eq!(came, whole);
        }
    }
}
