//! The cluster key: whoever holds it belongs to the cluster.

mod wrapped;

use std::fmt;

/// 32 secret bytes shared by all nodes. Neither `Debug` nor `Display` shows them.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey([u8; 32]);

/// Why a text is no cluster key. It never quotes the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The number of characters is wrong.
    #[error("a cluster key is 64 hexadecimal digits, this text has {0} characters")]
    Length(usize),
    /// A character is no hexadecimal digit.
    #[error("a cluster key is 64 hexadecimal digits, character {0} is none")]
    Digit(usize),
    /// The machine gives no random bytes.
    #[error("the machine gives no random bytes for a cluster key")]
    NoRandomness,
}

impl ClusterKey {
    /// The key made of these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> ClusterKey {
        ClusterKey(bytes)
    }

    /// A new key from the kernel's randomness.
    ///
    /// # Errors
    /// [`KeyError::NoRandomness`].
    pub fn generate() -> Result<ClusterKey, KeyError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|_| KeyError::NoRandomness)?;
        Ok(ClusterKey(bytes))
    }

    /// Reads the text of a key file: 64 hexadecimal digits, white space around them.
    ///
    /// # Errors
    /// [`KeyError`], which says where the text is wrong but not what it is.
    pub fn parse(text: &str) -> Result<ClusterKey, KeyError> {
        let text = text.trim();
        let digits: Vec<char> = text.chars().collect();
        if digits.len() != 64 {
            return Err(KeyError::Length(digits.len()));
        }
        let mut bytes = [0u8; 32];
        for (at, digit) in digits.iter().enumerate() {
            let value = digit.to_digit(16).ok_or(KeyError::Digit(at + 1))?;
            bytes[at / 2] = (bytes[at / 2] << 4) | value as u8;
        }
        Ok(ClusterKey(bytes))
    }

    /// The text for a key file. It is the secret itself.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The bytes, for the handshake and for others that authenticate with this key (heartbeats).
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(secret)")
    }
}

impl fmt::Display for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_key_file_reads_back() {
        let key = ClusterKey::generate().unwrap();
        assert_eq!(ClusterKey::parse(&format!(" {}\n", key.to_hex())), Ok(key));
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_quoted() {
        assert_eq!(ClusterKey::parse("abc"), Err(KeyError::Length(3)));
        let text = "g".repeat(64);
        let error = ClusterKey::parse(&text).unwrap_err();
        assert_eq!(error, KeyError::Digit(1));
        assert!(!error.to_string().contains("gg"));
        assert_eq!(ClusterKey::parse(&"é".repeat(64)), Err(KeyError::Digit(1)));
    }

    #[test]
    fn a_key_is_never_shown() {
        let key = ClusterKey::from_bytes([0xab; 32]);
        assert!(!format!("{key:?} {key}").contains("ab"));
    }
}
