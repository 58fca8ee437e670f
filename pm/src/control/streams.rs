//! The two directions of one stream of a task, as the home node sees them pass. Offsets count bytes since the start of
//! the stream; its end counts as one more.
//!
//! Invariant: what [`Output::forward`] lets through is the stream itself, no byte twice and none left out; what
//! [`Input`] holds is exactly what the client sent and `ssi-init` has not accepted.

use crate::wire::Piece;
use base::limits::STREAM_WINDOW_BYTES;
use std::collections::VecDeque;

/// The offset behind `piece`.
pub fn behind(piece: &Piece) -> u64 {
    piece.offset.saturating_add(piece.data.len() as u64).saturating_add(u64::from(piece.end))
}

/// The part of `piece` from `offset` on; `None` if there is nothing of it, or a gap before it.
fn rest_from(mut piece: Piece, offset: u64) -> Option<Piece> {
    if piece.offset > offset || behind(&piece) <= offset {
        return None;
    }
    let known = usize::try_from(offset - piece.offset).ok()?;
    piece.data.drain(..known);
    piece.offset = offset;
    Some(piece)
}

/// Why a client's input cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// Bytes are missing before it.
    #[error("input leaves a gap before offset {0}")]
    Gap(u64),
    /// More than the window is unaccepted.
    #[error("more than {STREAM_WINDOW_BYTES} bytes of input were sent without being accepted")]
    Window,
}

/// Input on its way to a task.
#[derive(Debug, Default)]
pub struct Input {
    pieces: VecDeque<Piece>,
    bytes: usize,
    next: Option<u64>,
    accepted: u64,
}

impl Input {
    /// Takes a piece from the client and gives back the part of it that is new.
    ///
    /// # Errors
    /// The client does not keep to the conversation.
    pub fn offer(&mut self, piece: Piece) -> Result<Option<Piece>, InputError> {
        let next = *self.next.get_or_insert(piece.offset);
        if piece.offset > next {
            return Err(InputError::Gap(piece.offset));
        }
        let Some(new) = rest_from(piece, next.max(self.accepted)) else { return Ok(None) };
        if self.bytes + new.data.len() > STREAM_WINDOW_BYTES {
            return Err(InputError::Window);
        }
        self.next = Some(behind(&new));
        self.bytes += new.data.len();
        self.pieces.push_back(new.clone());
        Ok(Some(new))
    }

    /// `ssi-init` has everything before `offset`. False if that was known.
    pub fn accepted(&mut self, offset: u64) -> bool {
        let news = offset > self.accepted;
        self.accepted = self.accepted.max(offset);
        while self.pieces.front().is_some_and(|piece| behind(piece) <= self.accepted) {
            self.bytes -= self.pieces.pop_front().map_or(0, |piece| piece.data.len());
        }
        news
    }

    /// How much `ssi-init` has.
    pub fn mark(&self) -> u64 {
        self.accepted
    }

    /// What `ssi-init` has not accepted, in order.
    pub fn unaccepted(&self) -> impl Iterator<Item = &Piece> {
        self.pieces.iter()
    }
}

/// Output on its way to the client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Output {
    sent: u64,
    acknowledged: u64,
}

impl Output {
    /// The part of `piece` that the client was not sent yet; the caller sends it.
    pub fn forward(&mut self, piece: Piece) -> Option<Piece> {
        let new = rest_from(piece, self.sent)?;
        self.sent = behind(&new);
        Some(new)
    }

    /// The client has everything before `offset`.
    pub fn acknowledged(&mut self, offset: u64) {
        self.acknowledged = self.acknowledged.max(offset);
        self.sent = self.sent.max(offset);
    }

    /// The client is connected again and has this much: the next piece it is sent starts there.
    pub fn resume(&mut self, offset: u64) {
        self.sent = offset;
        self.acknowledged = self.acknowledged.max(offset);
    }

    /// How much was sent to the client.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// How much the client has.
    pub fn mark(&self) -> u64 {
        self.acknowledged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn piece(offset: u64, data: &[u8], end: bool) -> Piece {
        Piece { stream: 1, offset, data: data.to_vec(), end }
    }

    #[test]
    fn input_is_held_until_accepted_and_never_twice() {
        let mut input = Input::default();
        assert_eq!(input.offer(piece(0, b"abc", false)), Ok(Some(piece(0, b"abc", false))));
        assert_eq!(input.offer(piece(1, b"bcde", true)), Ok(Some(piece(3, b"de", true))));
        assert_eq!(input.offer(piece(5, b"", true)), Ok(None), "the end again");
        assert_eq!(input.offer(piece(9, b"x", false)), Err(InputError::Gap(9)));
        assert!(input.accepted(3) && !input.accepted(2));
        assert_eq!(input.unaccepted().cloned().collect::<Vec<_>>(), [piece(3, b"de", true)]);
        assert!(input.accepted(6));
        assert_eq!(input.unaccepted().count(), 0);
    }

    #[test]
    fn a_client_that_ignores_the_window_is_refused() {
        let mut input = Input::default();
        assert!(input.offer(piece(0, &vec![0; STREAM_WINDOW_BYTES], false)).is_ok());
        assert_eq!(input.offer(piece(STREAM_WINDOW_BYTES as u64, b"x", false)), Err(InputError::Window));
    }

    proptest! {
        #[test]
        fn output_is_the_stream_whatever_is_repeated_or_left_out(
            length in 0usize..300, cuts in prop::collection::vec((0usize..300, 0usize..80), 0..40)
        ) {
            let whole: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let (mut output, mut received, mut ended) = (Output::default(), Vec::new(), false);
            let sequential = (0..=length).step_by(7).map(|start| (start, 50));
            for (start, size) in cuts.into_iter().chain(sequential) {
                let (start, stop) = (start.min(length), (start + size).min(length));
                let sent = piece(start as u64, &whole[start..stop.max(start)], stop == length);
                if let Some(new) = output.forward(sent) {
                    prop_assert!(!ended);
                    prop_assert_eq!(new.offset, received.len() as u64);
                    received.extend(new.data);
                    ended = new.end;
                }
            }
            prop_assert!(ended);
            prop_assert_eq!(received, whole);
            prop_assert_eq!(output.sent(), length as u64 + 1);
        }
    }
}
