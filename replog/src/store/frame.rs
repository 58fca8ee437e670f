//! Frames: what one group commit puts to the end of a segment, all or nothing. README.md draws it byte by byte.
//!
//! Invariant: a frame is written only after the one before it is safe. So a broken frame with a whole one behind it is
//! damage, and a broken one with nothing behind it is what a crash has left.

use crate::entry::{Entry, HardState};
use crate::error::Error;
use crate::ids::{DiskId, Index, Stamp, Term};
use crate::wire;
use bytes::{Buf, Bytes};

/// Bytes before a frame's body.
pub const HEADER_BYTES: usize = 20;
const MAGIC: [u8; 4] = *b"RLFR";
const RECORD_HEADER_BYTES: usize = 5;

/// One thing that a frame says.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// The promises, from now on.
    Hard(HardState),
    /// Everything from here on is out of the log.
    Truncate(Index),
    /// The next entry.
    Entry(Entry),
    /// The log is empty, and goes on behind this.
    Reset(Stamp),
}

impl Record {
    fn kind(&self) -> u8 {
        match self {
            Record::Hard(_) => 1,
            Record::Truncate(_) => 2,
            Record::Entry(_) => 3,
            Record::Reset(_) => 4,
        }
    }
}

/// Adds a record to a body.
pub fn put_record(record: &Record, body: &mut Vec<u8>) {
    body.push(record.kind());
    let length_at = body.len();
    body.extend_from_slice(&[0; 4]);
    match record {
        Record::Hard(hard) => body.extend_from_slice(&wire::encode_hard(hard)),
        Record::Truncate(from) => body.extend_from_slice(&from.0.to_le_bytes()),
        Record::Entry(entry) => wire::encode_entry(entry, body),
        Record::Reset(stamp) => {
            body.extend_from_slice(&stamp.term.0.to_le_bytes());
            body.extend_from_slice(&stamp.index.0.to_le_bytes());
        }
    }
    let length = u32::try_from(body.len() - length_at - 4).expect("a proposal is far smaller than 4 GiB");
    body[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
}

/// The records of a body.
///
/// # Errors
/// [`Error::Malformed`]: the body is whole (its checksum was right), but not ours.
pub fn records(mut body: Bytes) -> Result<Vec<Record>, Error> {
    let mut found = Vec::new();
    while !body.is_empty() {
        if body.len() < RECORD_HEADER_BYTES {
            return Err(Error::Malformed("a record is cut off".into()));
        }
        let kind = body.get_u8();
        let length = usize::try_from(body.get_u32_le()).unwrap_or(usize::MAX);
        if body.len() < length {
            return Err(Error::Malformed("a record is longer than its frame".into()));
        }
        found.push(record(kind, body.split_to(length))?);
    }
    Ok(found)
}

fn record(kind: u8, mut bytes: Bytes) -> Result<Record, Error> {
    match (kind, bytes.len()) {
        (1, _) => Ok(Record::Hard(wire::decode_hard(bytes)?)),
        (2, 8) => Ok(Record::Truncate(Index(bytes.get_u64_le()))),
        (3, _) => Ok(Record::Entry(wire::decode_entry(bytes)?)),
        (4, 16) => {
            let term = Term(bytes.get_u64_le());
            Ok(Record::Reset(Stamp { term, index: Index(bytes.get_u64_le()) }))
        }
        (kind, length) => Err(Error::Malformed(format!("a record of kind {kind} with {length} bytes"))),
    }
}

/// A frame around a body. The disk's identity goes into the checksum, so that bytes of another disk, or of a file that
/// somebody put into the log as data, are no frames.
pub fn frame(disk: DiskId, number: u64, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a batch is far smaller than 4 GiB");
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    let sum = checksum(disk, &bytes, body);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn checksum(disk: DiskId, header: &[u8], body: &[u8]) -> u32 {
    let sum = crc32c::crc32c(&disk.0.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(sum, header), body)
}

/// The frame that begins at `at`: its number, body and end. `None`: no whole one begins there.
pub fn frame_at(disk: DiskId, bytes: &Bytes, at: usize) -> Option<(u64, Bytes, usize)> {
    let header = bytes.get(at..at.checked_add(HEADER_BYTES)?)?;
    if header[..4] != MAGIC {
        return None;
    }
    let mut fields = &header[4..];
    let length = usize::try_from(fields.get_u32_le()).ok()?;
    let number = fields.get_u64_le();
    let sum = fields.get_u32_le();
    let (start, end) = (at + HEADER_BYTES, (at + HEADER_BYTES).checked_add(length)?);
    let body = bytes.get(start..end)?;
    (checksum(disk, &header[..16], body) == sum).then(|| (number, bytes.slice(start..end), end))
}

/// Where a whole frame begins behind `at`, with a number larger than `number`.
pub fn later_frame(disk: DiskId, bytes: &Bytes, at: usize, number: u64) -> Option<usize> {
    let starts = memchr_magic(bytes, at + 1);
    starts.into_iter().find(|&start| frame_at(disk, bytes, start).is_some_and(|(found, ..)| found > number))
}

fn memchr_magic(bytes: &Bytes, from: usize) -> Vec<usize> {
    let rest = bytes.get(from..).unwrap_or(&[]);
    rest.windows(MAGIC.len())
        .enumerate()
        .filter(|(_, four)| *four == MAGIC)
        .map(|(at, _)| from + at)
        .collect()
}
