//! Frames on a byte stream: a length (u32, little-endian), then one tagged message of that many bytes.
//!
//! ```text
//!  0        4                4 + length
//!  | length | message ...    |
//! ```

use crate::limits::FRAME_BYTES_MAX;
use prost::Message;

/// What a peer's bytes can be besides a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length in front is larger than any frame may be.
    #[error("a frame of {0} bytes is announced; the maximum is {FRAME_BYTES_MAX}")]
    TooLong(usize),
    /// The bytes are no message of the expected kind.
    #[error("a frame does not decode: {0}")]
    Malformed(#[from] prost::DecodeError),
}

/// The first frame that a client sends on a node's admin socket: which conversation follows.
#[derive(Clone, PartialEq, Message)]
pub struct ServiceHello {
    /// The conversation's name: `tasks`, ...
    #[prost(string, tag = "1")]
    pub service: String,
    /// The version of that conversation which the client speaks.
    #[prost(uint32, tag = "2")]
    pub version: u32,
}

/// The frame that carries `message`.
pub fn encode_frame<M: Message>(message: &M) -> Vec<u8> {
    let length = message.encoded_len();
    assert!(length <= FRAME_BYTES_MAX, "the sender keeps its messages within FRAME_BYTES_MAX");
    let mut frame = Vec::with_capacity(4 + length);
    frame.extend_from_slice(&(length as u32).to_le_bytes());
    message.encode(&mut frame).expect("a Vec grows");
    frame
}

/// Takes bytes as they arrive and gives back whole messages. Pure: it does not know where the bytes come from.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
    taken: usize,
}

impl FrameReader {
    /// Adds bytes as they came from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, `None` while it is incomplete.
    ///
    /// # Errors
    /// [`FrameError`]: the stream cannot be read on; close it.
    #[allow(clippy::should_implement_trait, reason = "each call may ask for another kind of message")]
    pub fn next<M: Message + Default>(&mut self) -> Result<Option<M>, FrameError> {
        let rest = &self.buffer[self.taken..];
        let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong(length));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let message = M::decode(body)?;
        self.taken += 4 + length;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, PartialEq, Message)]
    struct Sample {
        #[prost(bytes = "vec", tag = "1")]
        body: Vec<u8>,
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..8), cut in 1usize..20) {
            let sent: Vec<Sample> = bodies.into_iter().map(|body| Sample { body }).collect();
            let stream: Vec<u8> = sent.iter().flat_map(encode_frame).collect();
            let mut reader = FrameReader::default();
            let mut received = Vec::new();
            for piece in stream.chunks(cut) {
                reader.push(piece);
                while let Some(sample) = reader.next::<Sample>().unwrap() {
                    received.push(sample);
                }
            }
            prop_assert_eq!(received, sent);
        }

        #[test]
        fn garbage_is_an_error_or_nothing(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = FrameReader::default();
            reader.push(&bytes);
            while let Ok(Some(_)) = reader.next::<Sample>() {}
        }
    }
}
