//! The two directions of a task's stream: numbered bytes, kept until the other end says it has them. Pure.
//!
//! ```text
//!  Output   acknowledged ......... sent ......... read from the task
//!           |  kept, told to the daemon | kept      |   at most STREAM_WINDOW_BYTES are kept
//!  Input    accepted ............ received
//!           |  kept, not yet written into the task  |   what is accepted, the client need not keep
//! ```

use crate::wire::{Mark, Piece};
use base::limits::{STREAM_CHUNK_BYTES, STREAM_WINDOW_BYTES};
use std::collections::VecDeque;

/// From the task to its client.
#[derive(Debug)]
pub struct Output {
    stream: u32,
    kept: VecDeque<u8>,
    acknowledged: u64,
    sent: u64,
    ended: bool,
    end_sent: bool,
}

impl Output {
    /// An empty stream with this number.
    pub fn new(stream: u32) -> Output {
        Output { stream, kept: VecDeque::new(), acknowledged: 0, sent: 0, ended: false, end_sent: false }
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.stream
    }

    /// How many bytes may be read from the task now.
    pub fn room(&self) -> usize {
        if self.ended { 0 } else { STREAM_WINDOW_BYTES.saturating_sub(self.kept.len()) }
    }

    /// The task wrote this.
    pub fn push(&mut self, bytes: &[u8]) {
        self.kept.extend(bytes);
    }

    /// The task will write no more.
    pub fn finish(&mut self) {
        self.ended = true;
    }

    fn length(&self) -> u64 {
        self.acknowledged + self.kept.len() as u64
    }

    /// The next piece that this daemon was not told yet.
    pub fn next_piece(&mut self) -> Option<Piece> {
        let start = (self.sent - self.acknowledged) as usize;
        let end = self.kept.len().min(start + STREAM_CHUNK_BYTES);
        let is_end = self.ended && end == self.kept.len() && !self.end_sent;
        if start == end && !is_end {
            return None;
        }
        let data = self.kept.range(start..end).copied().collect();
        let offset = self.sent;
        self.sent = self.acknowledged + end as u64;
        self.end_sent |= is_end;
        Some(Piece { stream: self.stream, offset, data, end: is_end })
    }

    /// The client has everything up to `offset`.
    pub fn acknowledge(&mut self, offset: u64) {
        let offset = offset.min(self.length());
        if let Some(n) = offset.checked_sub(self.acknowledged) {
            self.kept.drain(..n as usize);
            self.acknowledged = offset;
            self.sent = self.sent.max(offset);
        }
    }

    /// Tell everything from `offset` on again (as far as it is still kept).
    pub fn rewind(&mut self, offset: u64) {
        self.sent = offset.clamp(self.acknowledged, self.length());
        self.end_sent = false;
    }
}

/// From the client into the task.
#[derive(Debug)]
pub struct Input {
    stream: u32,
    kept: VecDeque<u8>,
    accepted: u64,
    ends: bool,
    closed: bool,
    broken: bool,
}

impl Input {
    /// An empty stream with this number.
    pub fn new(stream: u32) -> Input {
        Input { stream, kept: VecDeque::new(), accepted: 0, ends: false, closed: false, broken: false }
    }

    fn received(&self) -> u64 {
        self.accepted + self.kept.len() as u64
    }

    /// Takes what is new of `piece`. Bytes that came before, or that leave a gap, or exceed the window, are dropped: the
    /// client sends again from the accepted mark.
    pub fn push(&mut self, piece: &Piece) {
        let Some(known) = self.received().checked_sub(piece.offset) else { return };
        let fresh = piece.data.get(known.min(usize::MAX as u64) as usize..).unwrap_or_default();
        if self.closed {
            return;
        }
        if self.broken {
            self.accepted += fresh.len() as u64;
        } else {
            let room = STREAM_WINDOW_BYTES.saturating_sub(self.kept.len());
            self.kept.extend(&fresh[..fresh.len().min(room)]);
        }
        self.ends |= piece.end && self.received() == piece.offset + piece.data.len() as u64;
    }

    /// What to write into the task next.
    pub fn next_bytes(&self) -> &[u8] {
        self.kept.as_slices().0
    }

    /// So many bytes were written.
    pub fn wrote(&mut self, n: usize) {
        self.kept.drain(..n);
        self.accepted += n as u64;
    }

    /// Nobody reads this stream any more: what is left and what comes counts as accepted and goes nowhere.
    pub fn discard(&mut self) {
        self.accepted = self.received();
        self.kept.clear();
        self.broken = true;
    }

    /// True once, when everything before the end was written: close it now.
    pub fn take_end(&mut self) -> bool {
        let now = self.ends && self.kept.is_empty() && !self.closed;
        self.closed |= now;
        now
    }

    /// How far the stream was accepted; its end counts as one more.
    pub fn mark(&self) -> Mark {
        Mark { stream: self.stream, offset: self.accepted + u64::from(self.closed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_new_daemon_hears_everything_that_was_not_acknowledged_once_more() {
        let mut output = Output::new(1);
        output.push(b"hello world");
        assert_eq!(output.next_piece().unwrap().data, b"hello world");
        assert_eq!(output.next_piece(), None);
        output.acknowledge(6);
        output.finish();
        output.rewind(0);
        let piece = output.next_piece().unwrap();
        assert_eq!((piece.offset, &piece.data[..], piece.end), (6, &b"world"[..], true));
        assert_eq!(output.next_piece(), None);
        output.acknowledge(12);
        output.rewind(0);
        assert_eq!(output.next_piece().unwrap(), Piece { stream: 1, offset: 11, data: vec![], end: true });
    }

    #[test]
    fn a_full_window_stops_reading_until_it_is_acknowledged() {
        let mut output = Output::new(1);
        output.push(&vec![7; STREAM_WINDOW_BYTES]);
        assert_eq!(output.room(), 0);
        output.acknowledge(10);
        assert_eq!(output.room(), 10);
    }

    #[test]
    fn input_with_a_gap_or_beyond_the_window_is_not_taken() {
        let mut input = Input::new(0);
        input.push(&Piece { stream: 0, offset: 5, data: b"x".to_vec(), end: true });
        assert_eq!(input.next_bytes(), b"");
        let much = vec![1; STREAM_WINDOW_BYTES + 9];
        input.push(&Piece { stream: 0, offset: 0, data: much, end: true });
        input.wrote(STREAM_WINDOW_BYTES);
        assert!(!input.take_end(), "nine bytes and the end have to come again");
        assert_eq!(input.mark().offset, STREAM_WINDOW_BYTES as u64);
    }

    #[test]
    fn a_stream_that_nobody_reads_swallows_everything() {
        let mut input = Input::new(0);
        input.push(&Piece { stream: 0, offset: 0, data: b"abc".to_vec(), end: false });
        input.discard();
        input.push(&Piece { stream: 0, offset: 3, data: b"de".to_vec(), end: true });
        assert!(input.take_end());
        assert_eq!(input.mark().offset, 6);
    }

    proptest! {
        #[test]
        fn input_arrives_whole_however_often_it_is_repeated(
            data in prop::collection::vec(any::<u8>(), 0..200),
            cuts in prop::collection::vec((0usize..200, 0usize..60), 0..40),
        ) {
            let (mut input, mut written) = (Input::new(0), Vec::new());
            let whole = Piece { stream: 0, offset: 0, data: data.clone(), end: true };
            let pieces = cuts.into_iter().map(|(at, len)| {
                let at = at.min(data.len());
                let end = data.len().min(at + len);
                Piece { stream: 0, offset: at as u64, data: data[at..end].to_vec(), end: end == data.len() }
            });
            for piece in pieces.chain([whole]) {
                input.push(&piece);
                let n = input.next_bytes().len().div_ceil(2);
                written.extend_from_slice(&input.next_bytes()[..n]);
                input.wrote(n);
            }
            while !input.next_bytes().is_empty() {
                let n = input.next_bytes().len();
                written.extend_from_slice(input.next_bytes());
                input.wrote(n);
            }
            prop_assert_eq!(written, data.clone());
            prop_assert!(input.take_end());
            prop_assert_eq!(input.mark().offset, data.len() as u64 + 1);
        }
    }
}
