//! How messages look on the wire: many in one batch, each a short record with its name at the end. All numbers little-endian.
//!
//! ```text
//!  batch
//!  0         1      2       4       8      16          24    32       40    48
//!  | version | kind | flags | count | life | to's life | era | number | ack | records ...      kind 0; flags 1: acknowledge this at once
//!
//!  record (records.rs): | kind | flags | mode | name length | lockspace (u32) | ... by kind ... | name |
//! ```
//!
//! Invariant: what decodes is within the limits, and a name is made by [`crate::Name::new`] alone; everything else is an [`Error::Wire`], whoever
//! sent it. Nothing is allocated that the bytes which came do not pay for.

mod bulk;
mod reader;
mod records;
mod search;
#[cfg(test)]
mod tests;
mod writer;

use crate::error::Error;
use crate::message::Message;
use base::limits::HEAD_BYTES_MAX;
use base::{Epoch, Incarnation};
use bytes::Bytes;
use reader::Reader;

/// The version that this node speaks.
pub const VERSION: u8 = 1;
/// Bytes before the first record.
pub const HEADER_BYTES: usize = 48;
/// A batch that has so many bytes takes no more records: one record may be longer, up to the fabric's head.
pub const BATCH_BYTES: usize = 64 << 10;
/// Records of a batch at most.
pub const RECORDS_MAX: u32 = 65_536;

const KIND_BATCH: u8 = 0;
const ANSWER_AT_ONCE: u16 = 1;

/// What a batch says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The life of the sender.
    pub life: Incarnation,
    /// For which life of the receiver it is.
    pub to: Incarnation,
    /// The era in which its messages were sent.
    pub era: Epoch,
    /// Its place among the batches of these two lives, from 1; 0: it has no messages.
    pub number: u64,
    /// All batches of the other direction up to this one have come.
    pub ack: u64,
    /// The sender holds back more until it knows that this one has come.
    pub is_urgent: bool,
}

impl Header {
    /// Writes the header, for `count` records, into the first [`HEADER_BYTES`] of a batch.
    pub fn write(&self, count: u32, batch: &mut [u8]) {
        let flags = if self.is_urgent { ANSWER_AT_ONCE } else { 0 };
        let numbers = [self.life.0, self.to.0, self.era.0, self.number, self.ack];
        let Some(place) = batch.first_chunk_mut::<HEADER_BYTES>() else { return };
        place[..2].copy_from_slice(&[VERSION, KIND_BATCH]);
        place[2..4].copy_from_slice(&flags.to_le_bytes());
        place[4..8].copy_from_slice(&count.to_le_bytes());
        for (place, number) in place[8..].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
    }

    /// A batch without messages.
    pub fn alone(&self) -> Bytes {
        let mut batch = [0; HEADER_BYTES];
        self.write(0, &mut batch);
        Bytes::copy_from_slice(&batch)
    }
}

/// Adds a message to the records of a batch.
pub fn put(message: &Message, out: &mut Vec<u8>) {
    records::put(message, out);
}

/// The header of a batch, and how many records follow it.
///
/// # Errors
/// [`Error::Wire`].
pub fn header(bytes: &[u8]) -> Result<(Header, u32), Error> {
    if bytes.len() > HEAD_BYTES_MAX {
        return Err(Error::Wire("a batch is longer than a message may be"));
    }
    let mut reader = Reader::new(bytes);
    let version = reader.u8()?;
    if version != VERSION {
        return Err(Error::Version { spoken: version, known: VERSION });
    }
    if reader.u8()? != KIND_BATCH {
        return Err(Error::Wire("an unknown kind of message"));
    }
    let (flags, count) = (reader.u16()?, reader.u32()?);
    let [life, to, era, number, ack] =
        [reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?];
    if flags & !ANSWER_AT_ONCE != 0 {
        return Err(Error::Wire("unknown flags"));
    }
    if count > RECORDS_MAX || (number == 0) != (count == 0) {
        return Err(Error::Wire("a batch counts its records wrongly"));
    }
    let header = Header {
        life: Incarnation(life),
        to: Incarnation(to),
        era: Epoch(era),
        number,
        ack,
        is_urgent: flags & ANSWER_AT_ONCE != 0,
    };
    Ok((header, count))
}

/// The messages of a batch, in their order.
///
/// # Errors
/// [`Error::Wire`]: none of them counts.
pub fn messages(bytes: &Bytes) -> Result<Vec<Message>, Error> {
    let (_, count) = header(bytes)?;
    let mut reader = Reader::new(bytes.get(HEADER_BYTES..).unwrap_or_default());
    // A record has 8 bytes at least.
    let mut messages = Vec::with_capacity((count as usize).min(bytes.len() / 8));
    for _ in 0..count {
        messages.push(records::take(&mut reader)?);
    }
    if !reader.is_empty() {
        return Err(Error::Wire("bytes are left after the last record"));
    }
    Ok(messages)
}
