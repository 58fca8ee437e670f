//! Resource names: 1 to 64 bytes of anything, held inline.
//!
//! Invariant: a `Name` exists only if [`Name::new`] has checked its length, also when its bytes come from a peer.

use crate::error::Error;
use std::fmt;
use std::hash::{Hash, Hasher};

/// Bytes of a name at most.
pub const NAME_BYTES_MAX: usize = 64;

/// The name of a resource within its parent, or within its lockspace.
#[derive(Clone, Copy)]
pub struct Name {
    length: u8,
    bytes: [u8; NAME_BYTES_MAX],
}

impl Name {
    /// The name with these bytes.
    ///
    /// # Errors
    /// [`Error::NameLength`] if there are none, or more than 64.
    pub fn new(bytes: &[u8]) -> Result<Name, Error> {
        if bytes.is_empty() || bytes.len() > NAME_BYTES_MAX {
            return Err(Error::NameLength { length: bytes.len() });
        }
        let mut name = Name { length: bytes.len() as u8, bytes: [0; NAME_BYTES_MAX] };
        name.bytes[..bytes.len()].copy_from_slice(bytes);
        Ok(name)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Name) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Name) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.as_bytes());
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_1_to_64_bytes_exist() {
        assert!(Name::new(b"").is_err());
        assert!(Name::new(&[7; 65]).is_err());
        assert_eq!(Name::new(&[7; 64]).unwrap().as_bytes(), [7; 64]);
    }

    #[test]
    fn a_name_is_not_its_prefix_nor_padded_with_zeros() {
        assert_ne!(Name::new(b"a").unwrap(), Name::new(b"a\0").unwrap());
        assert_ne!(Name::new(b"a").unwrap(), Name::new(b"ab").unwrap());
    }
}
