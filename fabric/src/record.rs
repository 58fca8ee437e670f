//! Sealed records: what a connection carries once both ends have proved the key.
//!
//! ```text
//!  0        2                        2 + length
//!  | length | ciphertext ... tag(16) |
//! ```
//!
//! A record is one Noise transport message. Its nonce is its place in its direction of the connection, so a record
//! that is left out, doubled, swapped or changed does not open. Owns the nonces: none is used twice.

use crate::wire::WireError;
use snow::StatelessTransportState;
use std::sync::Arc;

/// Bytes of the length in front of a record.
pub const LENGTH_BYTES: usize = 2;
/// Bytes of the authentication tag at the end of a record.
pub const TAG_BYTES: usize = 16;
/// The most bytes one record carries.
pub const PLAIN_BYTES_MAX: usize = 65_535 - TAG_BYTES;

/// Seals this end's records.
pub struct Sealer {
    cipher: Arc<StatelessTransportState>,
    nonce: u64,
}

/// Opens the other end's records.
pub struct Opener {
    cipher: Arc<StatelessTransportState>,
    nonce: u64,
}

/// The two halves of an agreed cipher.
pub fn halves(cipher: StatelessTransportState) -> (Sealer, Opener) {
    let cipher = Arc::new(cipher);
    (Sealer { cipher: cipher.clone(), nonce: 0 }, Opener { cipher, nonce: 0 })
}

/// Records that wait to be written. Its memory is used again and again, so it is not cleared in between.
#[derive(Default)]
pub struct Sealed {
    memory: Vec<u8>,
    filled: usize,
    written: usize,
}

impl Sealed {
    /// What has not been written.
    pub fn unwritten(&self) -> &[u8] {
        &self.memory[self.written..self.filled]
    }

    /// Says that this many bytes more have been written.
    pub fn advance(&mut self, bytes: usize) {
        self.written += bytes;
        assert!(self.written <= self.filled, "nobody writes more than there is");
        if self.written == self.filled {
            (self.written, self.filled) = (0, 0);
        }
    }

    /// Room for `bytes` more at the end.
    fn room(&mut self, bytes: usize) -> &mut [u8] {
        let start = self.filled;
        self.filled += bytes;
        if self.memory.len() < self.filled {
            let mut memory = vec![0; self.filled.next_power_of_two()];
            memory[..start].copy_from_slice(&self.memory[..start]);
            self.memory = memory;
        }
        &mut self.memory[start..self.filled]
    }
}

impl Sealer {
    /// Appends to `out` the record that carries `plain`.
    pub fn seal(&mut self, plain: &[u8], out: &mut Sealed) {
        assert!(plain.len() <= PLAIN_BYTES_MAX, "whoever fills a record knows how much it holds");
        let length = plain.len() + TAG_BYTES;
        let (front, sealed) = out.room(LENGTH_BYTES + length).split_at_mut(LENGTH_BYTES);
        front.copy_from_slice(&(length as u16).to_le_bytes());
        let written = self.cipher.write_message(self.nonce, plain, sealed);
        assert_eq!(written.ok(), Some(length), "a record of a legal length always seals");
        self.nonce += 1;
    }
}

impl Opener {
    /// Opens the record whose bytes after the length are `sealed` into `plain`, which must have room for it.
    /// Gives back how many bytes it carried.
    ///
    /// # Errors
    /// It was not sealed by the other end as its next record.
    pub fn open(&mut self, sealed: &[u8], plain: &mut [u8]) -> Result<usize, WireError> {
        let opened = self.cipher.read_message(self.nonce, sealed, plain);
        self.nonce += 1;
        opened.map_err(|_| WireError("a record does not open"))
    }
}

/// The sealed part of a record and the bytes after it.
pub type Split<'a> = (&'a [u8], &'a [u8]);

/// Splits the first record off `bytes`; `None` while it is incomplete.
///
/// # Errors
/// The record is too short to be sealed.
pub fn split_record(bytes: &[u8]) -> Result<Option<Split<'_>>, WireError> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = usize::from(u16::from_le_bytes(*length));
    if length < TAG_BYTES {
        return Err(WireError("a record without its tag"));
    }
    Ok(rest.split_at_checked(length))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::handshake::tests::agreed;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_is_sealed_opens_and_nothing_else_does(
            plain in prop::collection::vec(any::<u8>(), 0..300), flip in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let (ours, theirs) = agreed();
            let ((mut sealer, _), (_, mut opener)) = (halves(ours), halves(theirs));
            let mut wire = Sealed::default();
            sealer.seal(&plain, &mut wire);
            sealer.seal(&plain, &mut wire);
            let (first, rest) = split_record(wire.unwritten()).unwrap().unwrap();
            let mut out = vec![0; PLAIN_BYTES_MAX];
            prop_assert_eq!(opener.open(first, &mut out), Ok(plain.len()));
            prop_assert_eq!(&out[..plain.len()], &plain[..]);
            let (second, _) = split_record(rest).unwrap().unwrap();
            let mut changed = second.to_vec();
            changed[flip.index(second.len())] ^= 1 << bit;
            prop_assert!(opener.open(&changed, &mut out).is_err());
        }
    }

    #[test]
    fn a_replayed_record_does_not_open() {
        let (ours, theirs) = agreed();
        let ((mut sealer, _), (_, mut opener)) = (halves(ours), halves(theirs));
        let mut wire = Sealed::default();
        sealer.seal(b"pay 100", &mut wire);
        let (record, _) = split_record(wire.unwritten()).unwrap().unwrap();
        let mut out = [0; 16];
        assert_eq!(opener.open(record, &mut out), Ok(7));
        assert!(opener.open(record, &mut out).is_err());
    }

    #[test]
    fn a_record_without_a_tag_is_refused() {
        assert!(split_record(&[15, 0, 1, 2]).is_err());
        assert_eq!(split_record(&[16]), Ok(None));
    }
}
