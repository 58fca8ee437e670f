//! The state machine of the simulation: a chain of hashes over everything that was carried out, and the sessions.
//!
//! Invariant: two machines that have applied the same entries have the same chain.

use crate::{Committed, Index, Origin, Payload, Sessions, Turn};
use bytes::{BufMut, Bytes, BytesMut};

/// What a member has applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub index: Index,
    pub chain: u64,
    pub sessions: Sessions,
}

/// Mixes a number into a hash (splitmix64's finish).
pub fn mix(hash: u64, word: u64) -> u64 {
    let mut z = (hash ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 27)
}

/// A hash of bytes.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(7, |hash, byte| mix(hash, u64::from(*byte)))
}

impl State {
    /// Applies an entry; gives the request if it was carried out now.
    pub fn apply(&mut self, committed: &Committed) -> Option<Origin> {
        self.index = committed.entry.stamp.index;
        let Payload::Command { origin, bytes } = &committed.entry.payload else { return None };
        if origin.is_some_and(|origin| self.sessions.turn(origin) != Turn::New) {
            return None;
        }
        self.chain = mix(self.chain, hash(bytes));
        if let Some(origin) = origin {
            self.sessions.done(*origin, self.index, Bytes::copy_from_slice(&self.chain.to_le_bytes()));
        }
        *origin
    }

    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u64_le(self.index.0);
        bytes.put_u64_le(self.chain);
        bytes.put_slice(&self.sessions.encode());
        bytes.freeze()
    }

    pub fn decode(mut bytes: Bytes) -> State {
        let sessions = bytes.split_off(16);
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        State { index: Index(word(0)), chain: word(8), sessions: Sessions::decode(sessions).unwrap() }
    }
}
