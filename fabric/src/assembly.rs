//! Puts frames together from a stream of bytes that was cut anywhere. Pure.
//!
//! Owns at most one incomplete frame; what it allocates for it is what the frame's header announced, within the limits.

use crate::Message;
use crate::wire::{HEADER_BYTES, Header, WireError};
use bytes::Bytes;

/// A whole frame.
pub type Received = (Header, Message);

/// The place where the next byte belongs.
#[derive(Default)]
pub struct Assembly {
    header_bytes: [u8; HEADER_BYTES],
    header_filled: usize,
    body: Option<Body>,
}

/// A frame whose header is known: its head and bulk, both at their full length, `filled` bytes of which have come.
struct Body {
    header: Header,
    head: Vec<u8>,
    bulk: Vec<u8>,
    filled: usize,
}

impl Body {
    fn new(header: Header) -> Body {
        // Zeroed pages of the kernel: what never comes is never touched.
        let (head, bulk) = (vec![0; header.head as usize], vec![0; header.bulk as usize]);
        Body { header, head, bulk, filled: 0 }
    }

    /// The rest of the part that is being filled; empty when the frame is whole.
    fn room(&mut self) -> &mut [u8] {
        match self.filled.checked_sub(self.head.len()) {
            None => &mut self.head[self.filled..],
            Some(0) if self.bulk.is_empty() => &mut [],
            Some(filled) => &mut self.bulk[filled..],
        }
    }

    fn is_whole(&self) -> bool {
        self.filled == self.head.len() + self.bulk.len()
    }
}

impl Assembly {
    /// Where `bytes` more bytes of the stream may be put without a copy, if all of them belong to one part of a frame.
    /// Follow it with [`Assembly::advance`].
    pub fn room(&mut self, bytes: usize) -> Option<&mut [u8]> {
        let room = self.body.as_mut()?.room();
        (bytes > 0 && room.len() >= bytes).then(|| &mut room[..bytes])
    }

    /// Says that `bytes` were put into [`Assembly::room`]. Gives back the frame that is whole now.
    pub fn advance(&mut self, bytes: usize) -> Option<Received> {
        let body = self.body.as_mut()?;
        body.filled += bytes;
        self.finish()
    }

    /// Takes from the front of `bytes` until a frame is whole or nothing is left.
    ///
    /// # Errors
    /// The stream holds something that is no frame; it cannot be read on.
    pub fn push(&mut self, bytes: &mut &[u8]) -> Result<Option<Received>, WireError> {
        loop {
            let Some(body) = &mut self.body else {
                if !self.push_header(bytes)? {
                    return Ok(None);
                }
                continue;
            };
            let room = body.room();
            let length = room.len().min(bytes.len());
            room[..length].copy_from_slice(&bytes[..length]);
            *bytes = &bytes[length..];
            body.filled += length;
            if body.is_whole() {
                return Ok(self.finish());
            }
            if bytes.is_empty() {
                return Ok(None);
            }
        }
    }

    /// True once the header is complete.
    fn push_header(&mut self, bytes: &mut &[u8]) -> Result<bool, WireError> {
        let length = (HEADER_BYTES - self.header_filled).min(bytes.len());
        self.header_bytes[self.header_filled..self.header_filled + length].copy_from_slice(&bytes[..length]);
        *bytes = &bytes[length..];
        self.header_filled += length;
        if self.header_filled < HEADER_BYTES {
            return Ok(false);
        }
        self.header_filled = 0;
        self.body = Some(Body::new(Header::decode(&self.header_bytes)?));
        Ok(true)
    }

    fn finish(&mut self) -> Option<Received> {
        let body = self.body.take_if(|body| body.is_whole())?;
        Some((body.header, Message { head: Bytes::from(body.head), bulk: Bytes::from(body.bulk) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Kind, Verdict};
    use crate::{Priority, ServiceId};
    use proptest::prelude::*;

    fn frame(call: u64, head: Vec<u8>, bulk: Vec<u8>) -> (Header, Message) {
        let header = Header {
            kind: Kind::Request,
            priority: Priority::Meta,
            service: ServiceId(9),
            verdict: Verdict::Answered,
            call,
            head: head.len() as u32,
            bulk: bulk.len() as u32,
            deadline_ms: 5,
        };
        (header, Message { head: head.into(), bulk: bulk.into() })
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..100)
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(parts in prop::collection::vec((bytes(), bytes()), 0..6), cut in 1usize..90, direct: bool) {
            let sent: Vec<_> = (0u64..).zip(parts).map(|(call, (head, bulk))| frame(call, head, bulk)).collect();
            let stream: Vec<u8> =
                sent.iter().flat_map(|(header, m)| [&header.encode()[..], &m.head, &m.bulk].concat()).collect();
            let (mut assembly, mut received) = (Assembly::default(), Vec::new());
            for mut piece in stream.chunks(cut) {
                if direct && let Some(room) = assembly.room(piece.len()) {
                    room.copy_from_slice(piece);
                    received.extend(assembly.advance(piece.len()));
                    continue;
                }
                while let Some(frame) = assembly.push(&mut piece).unwrap() {
                    received.push(frame);
                }
            }
            prop_assert_eq!(received, sent);
        }

        #[test]
        fn garbage_is_an_error_or_nothing(garbage in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut assembly = Assembly::default();
            let mut rest = &garbage[..];
            while let Ok(Some(_)) = assembly.push(&mut rest) {}
        }
    }
}
