//! Takes numbers, names and modes off the front of a slice.
//!
//! Invariant: it never reads past the end, and what it gives is within the limits.

use super::writer::{BELOW, VALID, VALUE};
use crate::error::Error;
use crate::event::{Lockspace, VALUE_BYTES};
use crate::key::{Branch, Key};
use crate::mode::Mode;
use crate::name::Name;
use crate::policy::{Scope, Span};
use crate::resource::Value;

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

    /// The name of this length, and where below it if its highest bit is set.
    pub fn key(&mut self, lockspace: u32, length: u8) -> Result<Key, Error> {
        let (name, rest) = self
            .bytes
            .split_at_checked(usize::from(length & !BELOW))
            .ok_or(Error::Wire("a record ends in its middle"))?;
        self.bytes = rest;
        let name = Name::new(name)?;
        let branch = if length & BELOW == 0 { Branch::ROOT } else { Branch(self.array()?) };
        Ok(Key { lockspace: Lockspace(lockspace), name, branch })
    }

    /// A key with its lockspace and length before it.
    pub fn listed(&mut self) -> Result<Key, Error> {
        let (lockspace, length) = (self.u32()?, self.u8()?);
        self.key(lockspace, length)
    }

    /// A mode.
    pub fn mode(&mut self) -> Result<Mode, Error> {
        mode(self.u8()?)
    }

    /// A scope, not empty.
    pub fn scope(&mut self) -> Result<Scope, Error> {
        let scope = match self.u8()? {
            0 => Scope::Plain,
            1 => Scope::Bits(self.u64()?),
            2 => {
                let span = Span { first: self.u64()?, last: self.u64()? };
                Scope::Extent { span, desired: Span { first: self.u64()?, last: self.u64()? } }
            }
            _ => return Err(Error::Wire("a scope of an unknown kind")),
        };
        if scope.is_sound() { Ok(scope) } else { Err(Error::Wire("a scope that is about nothing")) }
    }

    /// A value block, if there is one, with these flags.
    pub fn value(&mut self, flags: u8) -> Result<Value, Error> {
        if flags & VALUE == 0 {
            return Ok(Value::NEW);
        }
        Ok(Value { serial: self.u64()?, bytes: self.value_bytes()?, is_valid: flags & VALID != 0 })
    }

    /// So many of them; room is made only for as many as the bytes that came can hold.
    pub fn list<T>(
        &mut self,
        count: u32,
        one: impl Fn(&mut Reader<'a>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut all = Vec::with_capacity((count as usize).min(self.left() / 6));
        for _ in 0..count {
            all.push(one(self)?);
        }
        Ok(all)
    }
}

/// The mode with this number.
pub fn mode(number: u8) -> Result<Mode, Error> {
    Mode::from_number(u32::from(number)).ok_or(Error::Wire("a mode that there is not"))
}
