//! Sealing records: AES-256-GCM, one key and one counter for each direction.
//!
//! A record's nonce is its number in its direction, and the bytes in front of it are authenticated with it: a record that was left out,
//! doubled, swapped, cut or changed does not open. Both ends replace the key by its own encryption of nothing (as Noise does) after
//! [`KEY_RECORDS_MAX`] records, so that no key sees more than the cipher is good for.
//!
//! Invariant: no number is used twice with one key.

use super::record::PREFIX_BYTES;
use crate::frame::WireError;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, Tag, UnboundKey};

/// Bytes of the tag at the end of a sealed record.
pub const TAG_BYTES: usize = 16;
/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Records that are sealed with one key: 64 GiB of the longest.
const KEY_RECORDS_MAX: u64 = 1 << 18;

/// A key and the number of the next record.
struct Counter {
    key: LessSafeKey,
    next: u64,
}

impl Counter {
    fn new(key: &[u8; KEY_BYTES]) -> Counter {
        Counter { key: cipher(key), next: 0 }
    }

    /// The nonce of the next record, under the key that is its.
    fn nonce(&mut self) -> Nonce {
        if self.next == KEY_RECORDS_MAX {
            let mut key = [0; KEY_BYTES];
            let sealed = self.key.seal_in_place_separate_tag(numbered(u64::MAX), Aad::empty(), &mut key);
            assert!(sealed.is_ok(), "a few bytes always seal");
            (self.key, self.next) = (cipher(&key), 0);
        }
        self.next += 1;
        numbered(self.next - 1)
    }
}

fn cipher(key: &[u8; KEY_BYTES]) -> LessSafeKey {
    let key = UnboundKey::new(&AES_256_GCM, key);
    LessSafeKey::new(key.expect("a key of this cipher has this length"))
}

fn numbered(number: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - size_of::<u64>()..].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// Seals this end's records.
pub struct Sealer(Counter);

impl Sealer {
    /// Begins with record 0.
    pub fn new(key: &[u8; KEY_BYTES]) -> Sealer {
        Sealer(Counter::new(key))
    }

    /// Encrypts `body` where it is; its tag and `prefix` belong to it.
    pub fn seal(&mut self, prefix: [u8; PREFIX_BYTES], body: &mut [u8]) -> [u8; TAG_BYTES] {
        let nonce = self.0.nonce();
        let tag = self.0.key.seal_in_place_separate_tag(nonce, Aad::from(prefix), body);
        let tag = tag.expect("a record is shorter than the cipher's limit");
        let mut bytes = [0; TAG_BYTES];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }
}

/// Opens the other end's records.
pub struct Opener(Counter);

impl Opener {
    /// Begins with record 0.
    pub fn new(key: &[u8; KEY_BYTES]) -> Opener {
        Opener(Counter::new(key))
    }

    /// Decrypts `body` where it is.
    ///
    /// # Errors
    /// It was not sealed by the other end as its next record. What `body` holds then is nothing to use.
    pub fn open(
        &mut self,
        prefix: [u8; PREFIX_BYTES],
        body: &mut [u8],
        tag: [u8; TAG_BYTES],
    ) -> Result<(), WireError> {
        let nonce = self.0.nonce();
        let opened =
            self.0.key.open_in_place_separate_tag(nonce, Aad::from(prefix), Tag::from(tag), body, 0..);
        opened.map(|_| ()).map_err(|_| WireError("a record does not open"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_sealed_opens_once_and_nothing_else_does(
            plain in prop::collection::vec(any::<u8>(), 1..300), at in any::<prop::sample::Index>(), bit in 0u8..8, part in 0..3,
        ) {
            let (mut sealer, mut opener) = (Sealer::new(&[7; 32]), Opener::new(&[7; 32]));
            let mut prefix = [1, 2, 3, 4];
            let mut body = plain.clone();
            let mut tag = sealer.seal(prefix, &mut body);
            let first = (prefix, body.clone(), tag);
            prop_assert!(opener.open(prefix, &mut body, tag).is_ok());
            prop_assert_eq!(&body, &plain);
            let (again, mut replayed, old) = first;
            let mut other = Opener::new(&[7; 32]);
            other.0.next = 1;
            prop_assert!(other.open(again, &mut replayed, old).is_err());

            tag = sealer.seal(prefix, &mut body);
            match part {
                0 => prefix[at.index(4)] ^= 1 << bit,
                1 => tag[at.index(16)] ^= 1 << bit,
                _ => { let at = at.index(body.len()); body[at] ^= 1 << bit }
            }
            prop_assert!(opener.open(prefix, &mut body, tag).is_err());
        }
    }

    #[test]
    fn both_ends_change_the_key_at_the_same_record() {
        let (mut sealer, mut opener) = (Sealer::new(&[7; 32]), Opener::new(&[7; 32]));
        (sealer.0.next, opener.0.next) = (KEY_RECORDS_MAX - 1, KEY_RECORDS_MAX - 1);
        let mut old = Opener::new(&[7; 32]);
        for record in 0..3 {
            let mut body = *b"body";
            let tag = sealer.seal([0; 4], &mut body);
            let mut copy = body;
            assert!(opener.open([0; 4], &mut body, tag).is_ok());
            assert_eq!(&body, b"body");
            old.0.next = record.max(1) - 1;
            assert!(old.open([0; 4], &mut copy, tag).is_err(), "the old key is of no use");
        }
    }
}
