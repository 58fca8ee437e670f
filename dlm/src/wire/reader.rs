//! Takes numbers, names and modes off the front of a slice.
//!
//! Invariant: it never reads past the end, and what it gives is within the limits.

use crate::error::Error;
use crate::event::{Lockspace, VALUE_BYTES};
use crate::message::Key;
use crate::mode::Mode;
use crate::name::Name;

/// The bytes that are left.
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn left(&self) -> usize {
        self.bytes.len()
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (front, rest) =
            self.bytes.split_first_chunk().ok_or(Error::Wire("a record ends in its middle"))?;
        self.bytes = rest;
        Ok(*front)
    }

    pub fn u8(&mut self) -> Result<u8, Error> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn value_bytes(&mut self) -> Result<[u8; VALUE_BYTES], Error> {
        self.array()
    }

    /// The name of this length.
    pub fn key(&mut self, lockspace: u32, length: u8) -> Result<Key, Error> {
        let (name, rest) = self
            .bytes
            .split_at_checked(usize::from(length))
            .ok_or(Error::Wire("a record ends in its middle"))?;
        self.bytes = rest;
        Ok(Key { lockspace: Lockspace(lockspace), name: Name::new(name)? })
    }
}

/// The mode with this number.
pub fn mode(number: u8) -> Result<Mode, Error> {
    Mode::from_number(u32::from(number)).ok_or(Error::Wire("a mode that there is not"))
}
