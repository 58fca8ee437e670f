//! The heartbeat of a node's supervisor: one small datagram that proves itself.
//!
//! All integers little-endian:
//!
//! ```text
//!  0       4         5          8      12            20         28                      44
//!  | magic | version | zero (3) | node | incarnation | sequence | authentication code   |
//!  | "SSIh"| u8 = 1  |          | u32  | u64         | u64      | 16 bytes              |
//! ```
//!
//! The code is the first half of HMAC-SHA256 under the cluster key over a fixed label, the cluster's name (its length
//! as u32 in front) and the first 28 bytes. Invariant: whoever decodes one holds a datagram that somebody with the
//! key of *this* cluster made; [`Replay`] adds that it was not seen before.

use crate::Error;
use base::{Incarnation, NodeId};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of one datagram.
pub const HEARTBEAT_BYTES: usize = 44;

const MAGIC: [u8; 4] = *b"SSIh";
const VERSION: u8 = 1;
const LABEL: &[u8] = b"ssi heartbeat 1";
const SIGNED_BYTES: usize = 28;

/// "This life of this node goes on."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Who lives.
    pub node: NodeId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Grows with every datagram of this life.
    pub sequence: u64,
}

impl Heartbeat {
    /// The datagram, signed with the cluster `key` for the cluster named `cluster`.
    pub fn encode(&self, key: &[u8; 32], cluster: &str) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEARTBEAT_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[VERSION, 0, 0, 0]);
        bytes.extend_from_slice(&self.node.0.to_le_bytes());
        bytes.extend_from_slice(&self.incarnation.0.to_le_bytes());
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        let code = signature(&bytes, key, cluster).finalize().into_bytes();
        bytes.extend_from_slice(&code[..HEARTBEAT_BYTES - SIGNED_BYTES]);
        bytes
    }

    /// The heartbeat in a datagram.
    ///
    /// # Errors
    /// [`Error::Heartbeat`] for anything that a holder of the key did not make for this cluster.
    pub fn decode(bytes: &[u8], key: &[u8; 32], cluster: &str) -> Result<Heartbeat, Error> {
        let bytes: &[u8; HEARTBEAT_BYTES] =
            bytes.try_into().map_err(|_| Error::Heartbeat("it has not the length of one"))?;
        let (signed, code) = bytes.split_at(SIGNED_BYTES);
        if signed[..4] != MAGIC || signed[4..8] != [VERSION, 0, 0, 0] {
            return Err(Error::Heartbeat("it is of no version known here"));
        }
        signature(signed, key, cluster)
            .verify_truncated_left(code)
            .map_err(|_| Error::Heartbeat("its authentication code is wrong (another cluster or key)"))?;
        Ok(Heartbeat {
            node: NodeId(u32::from_le_bytes(field(signed, 8))),
            incarnation: Incarnation(u64::from_le_bytes(field(signed, 12))),
            sequence: u64::from_le_bytes(field(signed, 20)),
        })
    }
}

fn signature(signed: &[u8], key: &[u8; 32], cluster: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(LABEL);
    mac.update(&u32::try_from(cluster.len()).unwrap_or(u32::MAX).to_le_bytes());
    mac.update(cluster.as_bytes());
    mac.update(signed);
    mac
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

/// The last heartbeat taken from one node: an older one is a replay (or was overtaken) and proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    newest: Option<(Incarnation, u64)>,
}

impl Replay {
    /// True if `heartbeat` is newer than all before; it is then the newest.
    pub fn admit(&mut self, heartbeat: &Heartbeat) -> bool {
        let stamp = (heartbeat.incarnation, heartbeat.sequence);
        let fresh = self.newest.is_none_or(|newest| stamp > newest);
        if fresh {
            self.newest = Some(stamp);
        }
        fresh
    }

    /// The newest life heard of.
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.newest.map(|(incarnation, _)| incarnation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: [u8; 32] = [7; 32];

    fn beat(incarnation: u64, sequence: u64) -> Heartbeat {
        Heartbeat { node: NodeId(3), incarnation: Incarnation(incarnation), sequence }
    }

    #[test]
    fn a_heartbeat_comes_back_as_it_was_sent() {
        let sent = beat(0x0102_0304_0506_0708, 9);
        let bytes = sent.encode(&KEY, "blue");
        assert_eq!(bytes.len(), HEARTBEAT_BYTES);
        assert_eq!(bytes[..12], [b'S', b'S', b'I', b'h', 1, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!(Heartbeat::decode(&bytes, &KEY, "blue").unwrap(), sent);
    }

    #[test]
    fn another_key_or_another_cluster_is_refused() {
        let bytes = beat(1, 1).encode(&KEY, "blue");
        assert!(Heartbeat::decode(&bytes, &[8; 32], "blue").is_err());
        assert!(Heartbeat::decode(&bytes, &KEY, "red").is_err());
    }

    #[test]
    fn a_replay_and_an_older_life_are_refused() {
        let mut replay = Replay::default();
        assert!(replay.admit(&beat(1, 5)));
        assert!(!replay.admit(&beat(1, 5)));
        assert!(!replay.admit(&beat(1, 4)));
        assert!(replay.admit(&beat(2, 1)));
        assert!(!replay.admit(&beat(1, 6)));
        assert_eq!(replay.incarnation(), Some(Incarnation(2)));
    }

    proptest! {
        #[test]
        fn one_changed_bit_is_refused(at in 0..HEARTBEAT_BYTES, bit in 0..8) {
            let mut bytes = beat(4, 4).encode(&KEY, "blue");
            bytes[at] ^= 1u8 << bit;
            prop_assert!(Heartbeat::decode(&bytes, &KEY, "blue").is_err());
        }

        #[test]
        fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(Heartbeat::decode(&bytes, &KEY, "blue").is_err());
        }
    }
}
