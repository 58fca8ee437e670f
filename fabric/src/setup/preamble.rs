//! The first bytes of a connection, in the clear, and the hello inside the two handshake messages. All numbers are little-endian.
//!
//! ```text
//!  preamble, from the end that dials:
//!  0              8            10            12        16             24
//!  | magic        | version min | version max | key tag | cluster tag |
//!  answer, from the end that accepted:
//!  0              8        10            12            14         16
//!  | magic        | status | version min | version max | reserved |
//!  hello:
//!  0      4      5          6         8          16
//!  | node | role | reserved | version | reserved |
//! ```

use crate::frame::WireError;
use crate::{ClusterKey, Peer, Refusal, Role};
use base::NodeId;
use sha2::{Digest, Sha256};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What the first eight bytes of a connection are. The line ends in it catch transports that meddle with text.
pub const MAGIC: [u8; 8] = *b"SSIFAB\r\n";
/// The oldest version of the protocol that this program speaks: 2, which has no [`crate::frame::Kind::Taken`].
pub const VERSION_MIN: u16 = 2;
/// The newest version of the protocol that this program speaks.
pub const VERSION_MAX: u16 = 3;
/// The versions that an end speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub min: u16,
    /// The newest.
    pub max: u16,
}

impl Default for Versions {
    /// All that this program speaks.
    fn default() -> Versions {
        Versions { min: VERSION_MIN, max: VERSION_MAX }
    }
}

/// Bytes of a [`Preamble`].
pub const PREAMBLE_BYTES: usize = 24;
/// Bytes of an [`Answer`].
pub const ANSWER_BYTES: usize = 16;
/// Bytes of a [`Hello`].
pub const HELLO_BYTES: usize = 16;

/// The first thing that the dialling end sends, so that a stranger is known by its first 24 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Preamble {
    magic: [u8; 8],
    version_min: U16,
    version_max: U16,
    key_tag: U32,
    cluster_tag: U64,
}

impl Preamble {
    /// The preamble of a member of `cluster` who will prove this key.
    pub fn new(cluster: &str, key: &ClusterKey, versions: Versions) -> Preamble {
        Preamble {
            magic: MAGIC,
            version_min: U16::new(versions.min),
            version_max: U16::new(versions.max),
            key_tag: U32::new(key_tag(key)),
            cluster_tag: U64::new(cluster_tag(cluster)),
        }
    }

    /// The newest version that both ends speak, if this preamble comes from a member of `cluster`.
    ///
    /// # Errors
    /// Why its sender is refused.
    pub fn accept(&self, cluster: &str, ours: Versions) -> Result<u16, Refusal> {
        if self.magic != MAGIC || self.version_min > self.version_max {
            return Err(Refusal::Garbage);
        }
        if self.cluster_tag.get() != cluster_tag(cluster) {
            return Err(Refusal::WrongCluster);
        }
        let version = self.version_max.get().min(ours.max);
        (version >= self.version_min.get().max(ours.min)).then_some(version).ok_or(Refusal::Version)
    }

    /// The oldest and the newest version that its sender speaks.
    pub fn versions(&self) -> (u16, u16) {
        (self.version_min.get(), self.version_max.get())
    }

    /// The numbers that its sender made of the key and of the cluster's name.
    pub fn tags(&self) -> (u32, u64) {
        (self.key_tag.get(), self.cluster_tag.get())
    }

    /// True if this is the key that its sender means to prove.
    pub fn means(&self, key: &ClusterKey) -> bool {
        self.key_tag.get() == key_tag(key)
    }
}

/// A number made of a key, by which the accepting end finds which of its keys is meant. It tells nothing about the key.
fn key_tag(key: &ClusterKey) -> u32 {
    let digest = Sha256::new().chain_update(b"ssi fabric key tag").chain_update(key.as_bytes()).finalize();
    u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]])
}

/// A number made of a cluster's name (FNV-1a), only to tell an honest member of another cluster why it is refused.
fn cluster_tag(cluster: &str) -> u64 {
    cluster
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |tag, byte| (tag ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// What the accepting end sends first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Answer {
    magic: [u8; 8],
    status: U16,
    version_min: U16,
    version_max: U16,
    reserved: U16,
}

impl Answer {
    /// The answer that goes on with the handshake (`None`) or says why not.
    pub fn new(refused: Option<Refusal>) -> Answer {
        let status = match refused {
            None => 0,
            Some(Refusal::Version) => 1,
            Some(Refusal::WrongCluster) => 2,
            Some(Refusal::WrongKey) => 3,
            Some(_) => 4,
        };
        Answer {
            magic: MAGIC,
            status: U16::new(status),
            version_min: U16::new(VERSION_MIN),
            version_max: U16::new(VERSION_MAX),
            reserved: U16::new(0),
        }
    }

    /// The oldest and the newest version that its sender speaks.
    pub fn versions(&self) -> (u16, u16) {
        (self.version_min.get(), self.version_max.get())
    }

    /// Ok if the handshake goes on.
    ///
    /// # Errors
    /// Why the other end refuses, as it says. Nobody has vouched for that yet: it is good for a message only.
    pub fn check(&self) -> Result<(), Refusal> {
        match (self.magic == MAGIC, self.status.get()) {
            (false, _) => Err(Refusal::Garbage),
            (true, 0) => Ok(()),
            (true, 1) => Err(Refusal::Version),
            (true, 2) => Err(Refusal::WrongCluster),
            (true, 3) => Err(Refusal::WrongKey),
            (true, _) => Err(Refusal::Stranger),
        }
    }
}

/// What each end says of itself inside the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Who it is.
    pub peer: Peer,
    /// From the accepting end: the version that is spoken from here on.
    pub version: u16,
}

impl Hello {
    /// As bytes.
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[..4].copy_from_slice(&self.peer.node.0.to_le_bytes());
        bytes[4] = match self.peer.role {
            Role::Control => 0,
            Role::Data => 1,
        };
        bytes[6..8].copy_from_slice(&self.version.to_le_bytes());
        bytes
    }

    /// From bytes. Reserved bytes are not looked at: a later version may use them.
    ///
    /// # Errors
    /// The role does not exist.
    pub fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Hello, WireError> {
        let [a, b, c, d, role, _, low, high, ..] = *bytes;
        let role = match role {
            0 => Role::Control,
            1 => Role::Data,
            _ => return Err(WireError("a role that does not exist")),
        };
        let node = NodeId(u32::from_le_bytes([a, b, c, d]));
        Ok(Hello { peer: Peer { node, role }, version: u16::from_le_bytes([low, high]) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_layouts_are_as_long_as_they_are_drawn() {
        assert_eq!(size_of::<Preamble>(), PREAMBLE_BYTES);
        assert_eq!(size_of::<Answer>(), ANSWER_BYTES);
    }

    #[test]
    fn other_versions_and_clusters_are_told_apart() {
        let key = ClusterKey::from_bytes([7; 32]);
        let accept = |preamble: &Preamble, cluster| preamble.accept(cluster, Versions::default());
        let mut preamble = Preamble::new("blue", &key, Versions::default());
        assert!(preamble.means(&key) && !preamble.means(&ClusterKey::from_bytes([8; 32])));
        assert_eq!(accept(&preamble, "blue"), Ok(VERSION_MAX));
        assert_eq!(accept(&preamble, "red"), Err(Refusal::WrongCluster));
        preamble.version_max = U16::new(VERSION_MAX + 1);
        assert_eq!(accept(&preamble, "blue"), Ok(VERSION_MAX));
        preamble.version_min = U16::new(VERSION_MAX + 1);
        assert_eq!(accept(&preamble, "blue"), Err(Refusal::Version));
        preamble.version_max = U16::new(VERSION_MAX);
        assert_eq!(accept(&preamble, "blue"), Err(Refusal::Garbage));
        (preamble.version_min, preamble.version_max) = (U16::new(1), U16::new(VERSION_MIN));
        assert_eq!(accept(&preamble, "blue"), Ok(VERSION_MIN));
        preamble.version_max = U16::new(VERSION_MIN - 1);
        assert_eq!(accept(&preamble, "blue"), Err(Refusal::Version));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_hello_or_none(bytes in any::<[u8; HELLO_BYTES]>()) {
            if let Ok(hello) = Hello::decode(&bytes) {
                prop_assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
            }
        }
    }
}
