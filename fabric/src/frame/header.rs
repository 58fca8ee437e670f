//! The header in front of each frame.

use crate::{Priority, ServiceId};
use base::limits::{BULK_BYTES_MAX, HEAD_BYTES_MAX};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a [`Header`].
pub const HEADER_BYTES: usize = 32;
/// The most bytes of head and bulk that one frame carries. What is longer goes on in [`Kind::Chunk`] frames, so that a more urgent
/// frame waits for one chunk at most.
pub const CHUNK_BYTES: usize = 256 << 10;

/// Bytes that are not what the protocol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the protocol is broken: {0}")]
pub struct WireError(pub &'static str);

/// What a frame is. "Caller" is the end that dialled the link, "callee" the end that accepted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Caller: asks a service. `slot`, `sequence` (of the channel), `service`, `deadline_ms`, `head`, `bulk` (whole lengths).
    Request = 0,
    /// Callee: answers the request of the same channel, slot and sequence. `verdict`, `head`, `bulk` (whole lengths), `credit`.
    Reply = 1,
    /// Both: the next bytes of the request (caller) or reply (callee) of this channel, slot and sequence. `head` is 0, `bulk` what this frame carries.
    Chunk = 2,
    /// Caller: nobody waits for this request any more. It is answered all the same, by a reply without a body.
    Cancel = 3,
    /// Caller: the reply of this slot and sequence has come; the callee need not keep it.
    Taken = 4,
    /// Callee: `credit` of this channel, when no reply carries it.
    Credit = 5,
    /// Caller: a piece of a one-sided write. `slot` and `sequence` of the transfer; the head is an [`super::Access`], the bulk goes to the region at
    /// `access.offset + access.at`.
    Write = 6,
    /// Caller: asks for a one-sided read. The head is an [`super::Access`]; no bulk.
    Read = 7,
    /// Callee: a piece of what was asked to be read: the head is an [`super::Access`], of which `at` says where in the read it belongs.
    ReadData = 8,
    /// Callee: the transfer of this slot and sequence is over; `verdict` says how.
    Done = 9,
    /// Both: this end closes. No frame follows.
    Goodbye = 10,
}

/// How a request or a transfer went, as far as the fabric is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// The service answered; the transfer is done.
    Answered = 0,
    /// There is no such service.
    NoService = 1,
    /// The service panicked, or answered more than a message may hold.
    Crashed = 2,
    /// It was cancelled, or nobody waits (one-way): there is no body.
    Unheard = 3,
    /// The key is none of this region and peer, or its rights do not reach.
    Denied = 4,
    /// The region's epoch is another by now.
    Revoked = 5,
    /// The region is shorter than that.
    OutOfBounds = 6,
}

/// Bits of a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// In a request, reply or chunk: the frame carries less than is left; chunks follow.
    pub const MORE: u8 = 1;
    /// In a request: nobody waits for the reply; answer without a body as soon as it is started. In a write or read without bulk: the
    /// transfer is given up; place and send no more of it, then answer with `Done`.
    pub const ONE_WAY: u8 = 2;
    /// In a request, write or read: this is sent again after a link broke. In a done: data of this read was lost with a link; ask again from
    /// the first byte on that is missing.
    pub const AGAIN: u8 = 4;
    const ALL: u8 = 7;

    /// True if the bit is set.
    pub fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    /// With the bit set or not.
    #[must_use]
    pub fn with(self, bit: u8, set: bool) -> Flags {
        Flags(if set { self.0 | bit } else { self.0 & !bit })
    }
}

/// What stands in front of each frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: Kind,
    /// The channel; a reply goes on its request's.
    pub channel: Priority,
    /// The service that is asked.
    pub service: ServiceId,
    /// In a reply or done: how it went.
    pub verdict: Verdict,
    /// Bits.
    pub flags: Flags,
    /// Which slot of the channel (calls) or of the session (transfers).
    pub slot: u16,
    /// The request's number in its channel, from 1; the transfer's number in its slot, from 1.
    pub sequence: u64,
    /// Bytes of the whole head.
    pub head: u32,
    /// Bytes of the whole bulk. In a chunk, write or read data: of this frame.
    pub bulk: u32,
    /// In a request: milliseconds that the caller still waits, at least 1.
    pub deadline_ms: u32,
    /// From the callee: KiB of requests that the caller may have sent on this channel since the session began (wrapping).
    pub credit: u32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Raw {
    kind: u8,
    channel: u8,
    service: U16,
    verdict: u8,
    flags: u8,
    slot: U16,
    sequence: U64,
    head: U32,
    bulk: U32,
    deadline_ms: U32,
    credit: U32,
}

const CHANNELS: [Priority; 4] = [Priority::Control, Priority::Lock, Priority::Meta, Priority::Data];
const KINDS: [Kind; 11] = [
    Kind::Request,
    Kind::Reply,
    Kind::Chunk,
    Kind::Cancel,
    Kind::Taken,
    Kind::Credit,
    Kind::Write,
    Kind::Read,
    Kind::ReadData,
    Kind::Done,
    Kind::Goodbye,
];
const VERDICTS: [Verdict; 7] = [
    Verdict::Answered,
    Verdict::NoService,
    Verdict::Crashed,
    Verdict::Unheard,
    Verdict::Denied,
    Verdict::Revoked,
    Verdict::OutOfBounds,
];

impl Header {
    /// A header of this kind whose other fields are empty.
    pub fn new(kind: Kind, channel: Priority) -> Header {
        Header {
            kind,
            channel,
            service: ServiceId(0),
            verdict: Verdict::Answered,
            flags: Flags::default(),
            slot: 0,
            sequence: 0,
            head: 0,
            bulk: 0,
            deadline_ms: 0,
            credit: 0,
        }
    }

    /// Bytes that follow this header in its frame.
    pub fn carried(&self) -> usize {
        let whole = self.head as usize + self.bulk as usize;
        if self.flags.has(Flags::MORE) { whole.min(CHUNK_BYTES) } else { whole }
    }

    /// As bytes.
    #[inline]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let raw = Raw {
            kind: self.kind as u8,
            channel: self.channel as u8,
            service: U16::new(self.service.0),
            verdict: self.verdict as u8,
            flags: self.flags.0,
            slot: U16::new(self.slot),
            sequence: U64::new(self.sequence),
            head: U32::new(self.head),
            bulk: U32::new(self.bulk),
            deadline_ms: U32::new(self.deadline_ms),
            credit: U32::new(self.credit),
        };
        zerocopy::transmute!(raw)
    }

    /// From bytes.
    ///
    /// # Errors
    /// A value that does not exist, or a length above the maximum.
    #[inline]
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, WireError> {
        let raw: Raw = zerocopy::transmute!(*bytes);
        let kind = *KINDS.get(usize::from(raw.kind)).ok_or(WireError("a kind that does not exist"))?;
        let channel =
            *CHANNELS.get(usize::from(raw.channel)).ok_or(WireError("a channel that does not exist"))?;
        let verdict =
            *VERDICTS.get(usize::from(raw.verdict)).ok_or(WireError("a verdict that does not exist"))?;
        if raw.flags & !Flags::ALL != 0 {
            return Err(WireError("a flag that does not exist"));
        }
        let header = Header {
            kind,
            channel,
            service: ServiceId(raw.service.get()),
            verdict,
            flags: Flags(raw.flags),
            slot: raw.slot.get(),
            sequence: raw.sequence.get(),
            head: raw.head.get(),
            bulk: raw.bulk.get(),
            deadline_ms: raw.deadline_ms.get(),
            credit: raw.credit.get(),
        };
        header.check().map(|()| header)
    }

    /// Lengths and flags that fit the kind.
    fn check(&self) -> Result<(), WireError> {
        let (head, bulk) = (self.head as usize, self.bulk as usize);
        let more = self.flags.has(Flags::MORE);
        match self.kind {
            Kind::Request | Kind::Reply => {
                if head > HEAD_BYTES_MAX || bulk > BULK_BYTES_MAX {
                    return Err(WireError("a message longer than any may be"));
                }
                if more != (head + bulk > CHUNK_BYTES) {
                    return Err(WireError("a message cut where it must not be"));
                }
                Ok(())
            }
            Kind::Chunk
                if head == 0 && (1..=CHUNK_BYTES).contains(&bulk) && !(more && bulk < CHUNK_BYTES) =>
            {
                Ok(())
            }
            Kind::Write | Kind::ReadData
                if head == super::ACCESS_BYTES && bulk <= CHUNK_BYTES - super::ACCESS_BYTES && !more =>
            {
                Ok(())
            }
            Kind::Read if head == super::ACCESS_BYTES && bulk == 0 && !more => Ok(()),
            Kind::Cancel | Kind::Taken | Kind::Credit | Kind::Done | Kind::Goodbye
                if head == 0 && bulk == 0 && !more =>
            {
                Ok(())
            }
            _ => Err(WireError("lengths that this kind of frame cannot have")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_is_drawn_as_it_is_written() {
        assert_eq!(size_of::<Raw>(), HEADER_BYTES);
        let header = Header {
            service: ServiceId(0x0102),
            verdict: Verdict::Crashed,
            flags: Flags(Flags::AGAIN),
            slot: 0x0304,
            sequence: 0x0807_0605_0403_0201,
            head: 0x11,
            bulk: 0x22,
            deadline_ms: 0x33,
            credit: 0x44,
            ..Header::new(Kind::Reply, Priority::Data)
        };
        let mut drawn = vec![1, 3, 2, 1, 2, 4, 4, 3, 1, 2, 3, 4, 5, 6, 7, 8];
        drawn.extend([0x11, 0, 0, 0, 0x22, 0, 0, 0, 0x33, 0, 0, 0, 0x44, 0, 0, 0]);
        assert_eq!(header.encode().to_vec(), drawn);
    }

    #[test]
    fn a_long_message_says_that_more_follows_and_a_short_one_does_not() {
        let mut header = Header::new(Kind::Request, Priority::Meta);
        header.bulk = CHUNK_BYTES as u32 + 1;
        assert!(Header::decode(&header.encode()).is_err());
        header.flags = header.flags.with(Flags::MORE, true);
        assert_eq!(Header::decode(&header.encode()).map(|header| header.carried()), Ok(CHUNK_BYTES));
        header.bulk = 1;
        assert!(Header::decode(&header.encode()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header_or_none(bytes in any::<[u8; HEADER_BYTES]>(), kind in 0u8..12, lengths in any::<bool>()) {
            let mut bytes = bytes;
            (bytes[0], bytes[1] , bytes[4], bytes[5]) = (kind, bytes[1] & 3, bytes[4] % 8, bytes[5] & 7);
            if lengths {
                (bytes[18], bytes[19], bytes[22], bytes[23]) = (bytes[18] & 3, 0, bytes[22] & 3, 0);
            }
            if let Ok(header) = Header::decode(&bytes) {
                prop_assert_eq!(header.encode(), bytes);
                prop_assert!(header.carried() <= CHUNK_BYTES);
            }
        }
    }
}
