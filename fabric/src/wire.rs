//! What is on the wire, byte by byte. All numbers are little-endian. README.md draws the same.
//!
//! ```text
//!  preamble, in the clear, from the end that dials:
//!  0              8            10            12        16             24
//!  | magic        | version min | version max | reserved | cluster tag |
//!  answer, in the clear, from the end that accepted:
//!  0              8        10            12            14         16
//!  | magic        | status | version min | version max | reserved |
//!  hello, inside each of the two handshake messages:
//!  0      4      5      6         8          16
//!  | node | role | lane | version | reserved |
//!  header of a frame, inside the sealed records; head and bulk follow it:
//!  0      1          2         4        5          8         16     20     24            28         32
//!  | kind | priority | service | status | reserved | call id | head | bulk | deadline ms | reserved |
//! ```

use crate::{Peer, Priority, Refusal, Role, ServiceId};
use base::NodeId;
use base::limits::{BULK_BYTES_MAX, HEAD_BYTES_MAX};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What the first eight bytes of a connection are. The line ends in it catch transports that meddle with text.
pub const MAGIC: [u8; 8] = *b"SSIFAB\r\n";
/// The oldest version of the protocol that this program speaks.
pub const VERSION_MIN: u16 = 1;
/// The newest version of the protocol that this program speaks.
pub const VERSION_MAX: u16 = 1;
/// Bytes of a [`Preamble`].
pub const PREAMBLE_BYTES: usize = 24;
/// Bytes of an [`Answer`].
pub const ANSWER_BYTES: usize = 16;
/// Bytes of a [`Hello`].
pub const HELLO_BYTES: usize = 16;
/// Bytes of a [`Header`].
pub const HEADER_BYTES: usize = 32;

/// Bytes that are not what the protocol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the protocol is broken: {0}")]
pub struct WireError(pub &'static str);

/// The first thing that the dialling end sends, so that a stranger is known by its first 24 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Preamble {
    magic: [u8; 8],
    version_min: U16,
    version_max: U16,
    reserved: U32,
    cluster_tag: U64,
}

impl Preamble {
    /// The preamble of a member of `cluster`.
    pub fn new(cluster: &str) -> Preamble {
        Preamble {
            magic: MAGIC,
            version_min: U16::new(VERSION_MIN),
            version_max: U16::new(VERSION_MAX),
            reserved: U32::new(0),
            cluster_tag: U64::new(cluster_tag(cluster)),
        }
    }

    /// The version that both ends speak, if this preamble comes from a member of `cluster`.
    ///
    /// # Errors
    /// Why its sender is refused.
    pub fn accept(&self, cluster: &str) -> Result<u16, Refusal> {
        if self.magic != MAGIC || self.version_min > self.version_max {
            return Err(Refusal::Garbage);
        }
        if self.cluster_tag.get() != cluster_tag(cluster) {
            return Err(Refusal::WrongCluster);
        }
        let version = self.version_max.get().min(VERSION_MAX);
        (version >= self.version_min.get().max(VERSION_MIN)).then_some(version).ok_or(Refusal::Version)
    }
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

/// Which of a link's two connections. Two, so that no megabyte of file data is ever in front of a heartbeat in one
/// socket's buffer; not four, because what shares a lane is alike enough for the outbox to order it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Control and Lock.
    Urgent = 0,
    /// Meta and Data.
    Bulk = 1,
}

impl Lane {
    /// The lane on which messages of this priority travel.
    pub fn of(priority: Priority) -> Lane {
        match priority {
            Priority::Control | Priority::Lock => Lane::Urgent,
            Priority::Meta | Priority::Data => Lane::Bulk,
        }
    }
}

/// What each end says of itself inside the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Who speaks.
    pub peer: Peer,
    /// Which connection of the link this is.
    pub lane: Lane,
    /// The accepting end: the version chosen. The dialling end: the newest it speaks.
    pub version: u16,
}

impl Hello {
    /// As bytes.
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let role = match self.peer.role {
            Role::Control => 0,
            Role::Data => 1,
        };
        let mut bytes = [0; HELLO_BYTES];
        bytes[..4].copy_from_slice(&self.peer.node.0.to_le_bytes());
        bytes[4] = role;
        bytes[5] = self.lane as u8;
        bytes[6..8].copy_from_slice(&self.version.to_le_bytes());
        bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// The role or the lane does not exist.
    pub fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Hello, WireError> {
        let [a, b, c, d, role, lane, low, high, ..] = *bytes;
        let role = match role {
            0 => Role::Control,
            1 => Role::Data,
            _ => return Err(WireError("a role that does not exist")),
        };
        let lane = match lane {
            0 => Lane::Urgent,
            1 => Lane::Bulk,
            _ => return Err(WireError("a lane that does not exist")),
        };
        let node = NodeId(u32::from_le_bytes([a, b, c, d]));
        Ok(Hello { peer: Peer { node, role }, lane, version: u16::from_le_bytes([low, high]) })
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Asks a service. From the end that dialled.
    Request,
    /// Answers the request of the same call id.
    Reply,
    /// The caller of this call id no longer waits: its reply need not be sent.
    Cancel,
}

/// How a request went, as far as the fabric is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The service answered.
    Answered,
    /// There is no such service.
    NoService,
    /// The service panicked, or answered more than a message may hold.
    Crashed,
}

/// What stands in front of each frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: Kind,
    /// How urgent it is; a reply is as urgent as its request.
    pub priority: Priority,
    /// The service that is asked.
    pub service: ServiceId,
    /// In a reply: how the request went.
    pub verdict: Verdict,
    /// Which call of this connection.
    pub call: u64,
    /// Bytes of the head that follows.
    pub head: u32,
    /// Bytes of the bulk that follows the head.
    pub bulk: u32,
    /// In a request: milliseconds that the caller still waits.
    pub deadline_ms: u32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawHeader {
    kind: u8,
    priority: u8,
    service: U16,
    verdict: u8,
    reserved: [u8; 3],
    call: U64,
    head: U32,
    bulk: U32,
    deadline_ms: U32,
    reserved_end: U32,
}

const PRIORITIES: [Priority; 4] = [Priority::Control, Priority::Lock, Priority::Meta, Priority::Data];
const KINDS: [Kind; 3] = [Kind::Request, Kind::Reply, Kind::Cancel];
const VERDICTS: [Verdict; 3] = [Verdict::Answered, Verdict::NoService, Verdict::Crashed];

impl Header {
    /// As bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let raw = RawHeader {
            kind: self.kind as u8,
            priority: self.priority as u8,
            service: U16::new(self.service.0),
            verdict: self.verdict as u8,
            reserved: [0; 3],
            call: U64::new(self.call),
            head: U32::new(self.head),
            bulk: U32::new(self.bulk),
            deadline_ms: U32::new(self.deadline_ms),
            reserved_end: U32::new(0),
        };
        zerocopy::transmute!(raw)
    }

    /// From bytes. Reserved bytes are not looked at: a later version may use them.
    ///
    /// # Errors
    /// A value that does not exist, or a length above the maximum.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, WireError> {
        let raw: RawHeader = zerocopy::transmute!(*bytes);
        let kind = *KINDS.get(usize::from(raw.kind)).ok_or(WireError("a kind that does not exist"))?;
        let priority =
            *PRIORITIES.get(usize::from(raw.priority)).ok_or(WireError("a priority that does not exist"))?;
        let verdict =
            *VERDICTS.get(usize::from(raw.verdict)).ok_or(WireError("a verdict that does not exist"))?;
        if raw.head.get() as usize > HEAD_BYTES_MAX || raw.bulk.get() as usize > BULK_BYTES_MAX {
            return Err(WireError("a message longer than any may be"));
        }
        Ok(Header {
            kind,
            priority,
            service: ServiceId(raw.service.get()),
            verdict,
            call: raw.call.get(),
            head: raw.head.get(),
            bulk: raw.bulk.get(),
            deadline_ms: raw.deadline_ms.get(),
        })
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
        assert_eq!(size_of::<RawHeader>(), HEADER_BYTES);
    }

    #[test]
    fn a_header_is_drawn_as_it_is_written() {
        let header = Header {
            kind: Kind::Reply,
            priority: Priority::Data,
            service: ServiceId(0x0102),
            verdict: Verdict::Crashed,
            call: 0x0807_0605_0403_0201,
            head: 0x11,
            bulk: 0x22,
            deadline_ms: 0x33,
        };
        let mut drawn = vec![1, 3, 2, 1, 2, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        drawn.extend([0x11, 0, 0, 0, 0x22, 0, 0, 0, 0x33, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(header.encode().to_vec(), drawn);
    }

    #[test]
    fn other_versions_and_clusters_are_told_apart() {
        let mut preamble = Preamble::new("blue");
        assert_eq!(preamble.accept("blue"), Ok(VERSION_MAX));
        assert_eq!(preamble.accept("red"), Err(Refusal::WrongCluster));
        preamble.version_max = U16::new(VERSION_MAX + 1);
        assert_eq!(preamble.accept("blue"), Ok(VERSION_MAX));
        preamble.version_min = U16::new(VERSION_MAX + 1);
        assert_eq!(preamble.accept("blue"), Err(Refusal::Version));
        preamble.version_max = U16::new(VERSION_MAX);
        assert_eq!(preamble.accept("blue"), Err(Refusal::Garbage));
    }

    proptest! {
        #[test]
        fn a_header_is_refused_or_reads_back(bytes in any::<[u8; HEADER_BYTES]>(), kind in 0u8..4, priority in 0u8..5) {
            let mut bytes = bytes;
            (bytes[0], bytes[1], bytes[4]) = (kind, priority, 0);
            (bytes[18], bytes[19], bytes[22], bytes[23]) = (bytes[18] & 0x3f, 0, bytes[22] & 0x3f, 0);
            if let Ok(header) = Header::decode(&bytes) {
                prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
                prop_assert!(header.head as usize <= HEAD_BYTES_MAX && header.bulk as usize <= BULK_BYTES_MAX);
            }
        }

        #[test]
        fn any_bytes_are_a_hello_or_none(bytes in any::<[u8; HELLO_BYTES]>()) {
            if let Ok(hello) = Hello::decode(&bytes) {
                prop_assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
            }
        }
    }
}
