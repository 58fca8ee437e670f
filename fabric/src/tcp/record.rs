//! What stands between the frames and the stream: records.
//!
//! ```text
//!  0          3       4                            4 + length
//!  | length   | flags | body                       |
//!
//!  plain   body = frames, whole; or, with flag DIRECT, bytes of the piece that the frame before announced
//!  sealed  body = the same, encrypted, and a tag of 16 bytes at the end; the four bytes in front are authenticated too
//! ```
//!
//! Small frames share a record. The bytes of a piece of [`DIRECT_BYTES_MIN`] or more follow its frame in records of their own, so that
//! whoever receives them knows where they go before they come; a shorter piece travels in its frame.
//!
//! Invariant: no length is believed that a rightful sender would not send.

use crate::frame::{ACCESS_BYTES, CHUNK_BYTES, HEADER_BYTES, WireError};

/// Bytes in front of a record's body.
pub const PREFIX_BYTES: usize = 4;
/// A piece of so many bytes or more goes in records of its own.
pub const DIRECT_BYTES_MIN: usize = 4 << 10;
/// A message that carries more than this goes in a record of its own, from and into memory of its own.
pub const SMALL_BYTES_MAX: usize = 16 << 10;
/// The most bytes of frames that share a record.
pub const SHARED_BYTES_MAX: usize = SMALL_BYTES_MAX + HEADER_BYTES + ACCESS_BYTES;
/// The most bytes of frames in a record.
pub const RECORD_BYTES_MAX: usize = CHUNK_BYTES + HEADER_BYTES;

const LENGTH_BITS: u32 = 24;
const DIRECT: u32 = 1 << LENGTH_BITS;

/// What the bytes in front of a record say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Bytes of the body, without a tag.
    pub length: usize,
    /// True if the body is a part of a piece.
    pub direct: bool,
}

impl Record {
    /// As bytes, for a stream whose records end with `tag` bytes.
    pub fn encode(self, tag: usize) -> [u8; PREFIX_BYTES] {
        let length = (self.length + tag) as u32;
        debug_assert!(length < DIRECT, "a record is shorter than its length field can say");
        (length | if self.direct { DIRECT } else { 0 }).to_le_bytes()
    }

    /// From bytes.
    ///
    /// # Errors
    /// A flag that does not exist, or a length that no record has.
    pub fn decode(bytes: [u8; PREFIX_BYTES], tag: usize) -> Result<Record, WireError> {
        let word = u32::from_le_bytes(bytes);
        if word >> LENGTH_BITS > 1 {
            return Err(WireError("a flag of a record that does not exist"));
        }
        let direct = word & DIRECT != 0;
        let length = (word & (DIRECT - 1)) as usize;
        let shortest = if direct { 1 } else { HEADER_BYTES };
        match length.checked_sub(tag) {
            Some(length) if (shortest..=RECORD_BYTES_MAX).contains(&length) => Ok(Record { length, direct }),
            _ => Err(WireError("a length that no record has")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_prefix_is_drawn_as_it_is_written() {
        let record = Record { length: 0x0001_0203, direct: true };
        assert_eq!(record.encode(0), [3, 2, 1, 1]);
        assert_eq!(Record { length: 0x40, direct: false }.encode(16), [0x50, 0, 0, 0]);
    }

    #[test]
    fn a_record_longer_than_any_is_refused() {
        let longest = Record { length: RECORD_BYTES_MAX, direct: false };
        assert_eq!(Record::decode(longest.encode(16), 16), Ok(longest));
        assert!(
            Record::decode(Record { length: RECORD_BYTES_MAX + 1, direct: false }.encode(16), 16).is_err()
        );
        assert!(Record::decode([15, 0, 0, 1], 16).is_err());
        assert!(Record::decode([16, 0, 0, 1], 16).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_prefix_or_none(bytes in any::<[u8; 4]>(), tag in prop::sample::select(vec![0usize, 16])) {
            let bytes = [bytes[0], bytes[1], bytes[2] & 7, bytes[3] & 3];
            if let Ok(record) = Record::decode(bytes, tag) {
                prop_assert_eq!(record.encode(tag), bytes);
            }
        }
    }
}
