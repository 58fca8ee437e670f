//! A cluster key on its way to those who hold another one: it never crosses a network in the clear, not even an authenticated one.
//!
//! ```text
//!  0       12                        44      60
//!  | nonce | the new key, encrypted  | tag   |     AES-256-GCM; its key is HMAC-SHA256(old key, PURPOSE)
//! ```
//!
//! Invariant: a nonce is random and used once; what does not open says nothing about the key.

use super::{ClusterKey, KeyError};
use hmac::{Hmac, KeyInit, Mac};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::Sha256;

/// Tells this use of a cluster key from its others.
const PURPOSE: &[u8] = b"ssi: a cluster key wrapped under another, 1";
/// Bytes of a wrapped key.
const WRAPPED_BYTES: usize = NONCE_LEN + 32 + 16;

impl ClusterKey {
    /// `other` for the eyes of those who hold this key.
    ///
    /// # Errors
    /// [`KeyError::NoRandomness`].
    pub fn wrap(&self, other: &ClusterKey) -> Result<Vec<u8>, KeyError> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| KeyError::NoRandomness)?;
        let mut body = other.0.to_vec();
        let sealed = self.wrapping().seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::empty(),
            &mut body,
        );
        assert!(sealed.is_ok(), "a few bytes always seal");
        Ok([nonce.as_slice(), &body].concat())
    }

    /// The key that was wrapped under this one; `None` if it was wrapped under another, or is none.
    pub fn unwrap_key(&self, wrapped: &[u8]) -> Option<ClusterKey> {
        if wrapped.len() != WRAPPED_BYTES {
            return None;
        }
        let (nonce, body) = wrapped.split_first_chunk::<NONCE_LEN>()?;
        let mut body = body.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.wrapping().open_in_place(nonce, Aad::empty(), &mut body).ok()?;
        <[u8; 32]>::try_from(&*opened).ok().map(ClusterKey)
    }

    fn wrapping(&self) -> LessSafeKey {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(PURPOSE);
        let key = UnboundKey::new(&AES_256_GCM, &mac.finalize().into_bytes());
        LessSafeKey::new(key.expect("a hash has the length of a key of this cipher"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_wrapped_key_opens_with_the_key_it_was_wrapped_under_only_and_is_not_in_the_bytes() {
        let (old, new, other) = ([1; 32], [2; 32], [3; 32]);
        let [old, new, other] = [old, new, other].map(ClusterKey::from_bytes);
        let wrapped = old.wrap(&new).unwrap();
        assert_eq!(old.unwrap_key(&wrapped), Some(new.clone()));
        assert_eq!((other.unwrap_key(&wrapped), new.unwrap_key(&wrapped)), (None, None));
        assert!(!wrapped.windows(4).any(|window| window == [2; 4]));
        assert_ne!(old.wrap(&new).unwrap(), wrapped, "no nonce is used twice");
    }

    proptest! {
        #[test]
        fn what_was_changed_or_cut_does_not_open(at in 0..WRAPPED_BYTES, bit in 0..8u8, length in 0..100usize) {
            let old = ClusterKey::from_bytes([1; 32]);
            let wrapped = old.wrap(&ClusterKey::from_bytes([2; 32])).unwrap();
            let mut changed = wrapped.clone();
            changed[at] ^= 1 << bit;
            prop_assert_eq!(old.unwrap_key(&changed), None);
            if length != WRAPPED_BYTES {
                let mut cut = wrapped;
                cut.resize(length, 0);
                prop_assert_eq!(old.unwrap_key(&cut), None);
            }
        }
    }
}
