//! What somebody sees of a TCP connection who hears both its directions and holds no key: for reading captures.
//!
//! ```text
//!  from the end that dials   preamble, sealed hello, sealed terms, records
//!  from the one that accepts   answer, sealed hello, sealed terms, records
//! ```
//!
//! Records of a connection that is authenticated only are read frame by frame; of an encrypted one no more than their length can be seen.
//! Pure: bytes in, [`Seen`] out. Invariant: it holds at most one record, whatever comes.

use crate::frame::{ACCESS_BYTES, Access, HEADER_BYTES, Header, Kind, WireError};
use crate::setup::{ANSWER_BYTES, Answer, PREAMBLE_BYTES, Preamble, SEALED_HELLO_BYTES, TERMS_BYTES_MAX};
use crate::tcp::record::{DIRECT_BYTES_MIN, PREFIX_BYTES, Record};
use zerocopy::FromBytes;

const TAG_BYTES: usize = 16;

/// Something that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The dialling end's first words.
    Preamble(Preamble),
    /// The accepting end's first words.
    Answer(Answer),
    /// Who the speaker is, sealed: so many bytes.
    Hello(usize),
    /// What the link is to be, sealed: so many bytes.
    Terms(usize),
    /// A record, sealed: so many bytes, the tag not counted.
    Sealed(usize),
    /// A frame; of a one-sided one also what it touches.
    Frame(Header, Option<Access>),
    /// Bytes of the one-sided piece that the last such frame announced.
    Piece(usize),
    /// It is none of this protocol, or breaks it. Nothing more is seen of this direction.
    Broken(WireError),
}

/// Which end speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The end that dialled.
    Dialling,
    /// The end that accepted.
    Accepting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Opening(Speaker),
    Hello,
    Terms,
    FirstRecord,
    /// With so many bytes of tag.
    Record(usize),
    Nothing,
}

/// One direction of a connection.
#[derive(Debug)]
pub struct Bystander {
    next: Next,
    buffer: Vec<u8>,
    /// Bytes of a piece that are still to come in records of their own.
    piece: usize,
}

impl Bystander {
    /// One that hears this end from its first byte on.
    pub fn new(speaker: Speaker) -> Bystander {
        Bystander { next: Next::Opening(speaker), buffer: Vec::new(), piece: 0 }
    }

    /// Takes the next bytes, and gives what is whole.
    pub fn hear(&mut self, bytes: &[u8]) -> Vec<Seen> {
        let mut seen = Vec::new();
        if self.next == Next::Nothing {
            return seen;
        }
        self.buffer.extend_from_slice(bytes);
        loop {
            match self.step(&mut seen) {
                Ok(true) => {}
                Ok(false) => return seen,
                Err(error) => {
                    seen.push(Seen::Broken(error));
                    (self.next, self.buffer) = (Next::Nothing, Vec::new());
                    return seen;
                }
            }
        }
    }

    /// True if something was seen, and there may be more.
    fn step(&mut self, seen: &mut Vec<Seen>) -> Result<bool, WireError> {
        match self.next {
            Next::Opening(speaker) => return self.opening(speaker, seen),
            Next::Hello => {
                let Some(hello) = self.take(SEALED_HELLO_BYTES) else { return Ok(false) };
                seen.push(Seen::Hello(hello.len()));
                self.next = Next::Terms;
            }
            Next::Terms => {
                let Some(length) = self.buffer.first_chunk::<2>().copied() else { return Ok(false) };
                let length = usize::from(u16::from_le_bytes(length));
                if !(TAG_BYTES..=TERMS_BYTES_MAX).contains(&length) {
                    return Err(WireError("terms of a length that they cannot have"));
                }
                if self.take(2 + length).is_none() {
                    return Ok(false);
                }
                seen.push(Seen::Terms(length - TAG_BYTES));
                self.next = Next::FirstRecord;
            }
            Next::FirstRecord => match self.tag() {
                Some(tag) => self.next = Next::Record(tag),
                None => return Ok(false),
            },
            Next::Record(tag) => return self.record(tag, seen),
            Next::Nothing => return Ok(false),
        }
        Ok(true)
    }

    fn opening(&mut self, speaker: Speaker, seen: &mut Vec<Seen>) -> Result<bool, WireError> {
        let words = self.buffer.len().min(crate::setup::MAGIC.len());
        if self.buffer[..words] != crate::setup::MAGIC[..words] {
            return Err(WireError("it does not begin as this protocol does"));
        }
        let length = match speaker {
            Speaker::Dialling => PREAMBLE_BYTES,
            Speaker::Accepting => ANSWER_BYTES,
        };
        let Some(bytes) = self.take(length) else { return Ok(false) };
        let unread = || WireError("its first words have another length");
        seen.push(match speaker {
            Speaker::Dialling => Seen::Preamble(Preamble::read_from_bytes(&bytes).map_err(|_| unread())?),
            Speaker::Accepting => Seen::Answer(Answer::read_from_bytes(&bytes).map_err(|_| unread())?),
        });
        self.next = Next::Hello;
        Ok(true)
    }

    /// Whether records are sealed: the first one begins with a frame's header, or with what looks like none.
    fn tag(&self) -> Option<usize> {
        let prefix = self.buffer.first_chunk::<PREFIX_BYTES>()?;
        let header = self.buffer[PREFIX_BYTES..].first_chunk::<HEADER_BYTES>()?;
        let plain = Record::decode(*prefix, 0).ok().filter(|record| !record.direct);
        let plain = plain.zip(Header::decode(header).ok());
        let fits = plain.is_some_and(|(record, header)| HEADER_BYTES + inside(&header) <= record.length);
        Some(if fits { 0 } else { TAG_BYTES })
    }

    fn record(&mut self, tag: usize, seen: &mut Vec<Seen>) -> Result<bool, WireError> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX_BYTES>() else { return Ok(false) };
        let record = Record::decode(*prefix, tag)?;
        let Some(bytes) = self.take(PREFIX_BYTES + record.length + tag) else { return Ok(false) };
        if tag > 0 {
            seen.push(Seen::Sealed(record.length));
        } else if record.direct {
            self.piece =
                self.piece.checked_sub(record.length).ok_or(WireError("more bytes than the piece has"))?;
            seen.push(Seen::Piece(record.length));
        } else {
            self.frames(&bytes[PREFIX_BYTES..], seen)?;
        }
        Ok(true)
    }

    fn frames(&mut self, mut body: &[u8], seen: &mut Vec<Seen>) -> Result<(), WireError> {
        while !body.is_empty() {
            let header = body.first_chunk().ok_or(WireError("a record that ends in a header"))?;
            let header = Header::decode(header)?;
            body = &body[HEADER_BYTES..];
            let one_sided = matches!(header.kind, Kind::Write | Kind::Read | Kind::ReadData);
            let access = match body.first_chunk::<ACCESS_BYTES>() {
                Some(access) if one_sided => Some(Access::decode(access)?),
                _ => None,
            };
            body = body.get(inside(&header)..).ok_or(WireError("a record that ends in a frame"))?;
            self.piece += header.carried() - inside(&header);
            seen.push(Seen::Frame(header, access));
        }
        Ok(())
    }

    fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        (self.buffer.len() >= length).then(|| self.buffer.drain(..length).collect())
    }
}

/// Bytes behind a header that are in its record: a long piece has records of its own.
fn inside(header: &Header) -> usize {
    let piece =
        matches!(header.kind, Kind::Write | Kind::ReadData) && header.bulk as usize >= DIRECT_BYTES_MIN;
    if piece { header.head as usize } else { header.carried() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Priority;
    use proptest::prelude::*;

    /// A connection of which only the records matter.
    fn connection(records: &[u8]) -> Vec<u8> {
        let mut bytes = crate::setup::MAGIC.to_vec();
        bytes.resize(ANSWER_BYTES + SEALED_HELLO_BYTES, 0);
        bytes.extend([20, 0]);
        bytes.extend([7; 20]);
        bytes.extend_from_slice(records);
        bytes
    }

    fn plain(header: Header, body: usize) -> Vec<u8> {
        let record = Record { length: HEADER_BYTES + body, direct: false };
        let mut bytes = record.encode(0).to_vec();
        bytes.extend(header.encode());
        bytes.resize(PREFIX_BYTES + HEADER_BYTES + body, 0);
        bytes
    }

    #[test]
    fn frames_are_seen_wherever_the_stream_is_cut() {
        let request = Header { head: 10, bulk: 5, ..Header::new(Kind::Request, Priority::Lock) };
        let write = Header { head: 48, bulk: 5_000, ..Header::new(Kind::Write, Priority::Data) };
        let mut records = plain(request, 15);
        records.extend(plain(write, 48));
        records.extend(Record { length: 5_000, direct: true }.encode(0));
        records.resize(records.len() + 5_000, 1);
        let bytes = connection(&records);
        for cut in [1, 13, 100_000] {
            let mut bystander = Bystander::new(Speaker::Accepting);
            let seen: Vec<Seen> = bytes.chunks(cut).flat_map(|bytes| bystander.hear(bytes)).collect();
            assert_eq!(seen[1..3], [Seen::Hello(64), Seen::Terms(4)]);
            assert_eq!(seen[3], Seen::Frame(request, None));
            assert!(matches!(seen[4], Seen::Frame(header, Some(_)) if header == write), "{:?}", seen[4]);
            assert_eq!(seen[5..], [Seen::Piece(5_000)]);
        }
    }

    #[test]
    fn of_sealed_records_the_length_is_seen() {
        let record = Record { length: 40, direct: false };
        let mut records = record.encode(TAG_BYTES).to_vec();
        records.resize(records.len() + 56, 0xa5);
        let seen = Bystander::new(Speaker::Accepting).hear(&connection(&records));
        assert_eq!(seen.last(), Some(&Seen::Sealed(40)));
    }

    #[test]
    fn a_stranger_is_known_by_his_first_byte() {
        let mut bystander = Bystander::new(Speaker::Dialling);
        assert!(matches!(bystander.hear(b"GET /")[..], [Seen::Broken(_)]));
        assert!(bystander.hear(b" HTTP/1.1").is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_heard_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), small in any::<bool>(), cut in 1usize..50) {
            let bytes: Vec<u8> = if small { bytes.iter().map(|byte| byte % 12).collect() } else { bytes };
            let mut bystander = Bystander::new(Speaker::Accepting);
            for bytes in connection(&bytes).chunks(cut) {
                bystander.hear(bytes);
            }
        }
    }
}
