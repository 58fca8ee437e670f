//! Adds numbers, names, modes and scopes to the end of a batch.

use crate::key::{Branch, Key};
use crate::mode::Mode;
use crate::policy::Scope;
use crate::resource::Value;

/// The bit in a name's length that says: where below it follows.
pub const BELOW: u8 = 0x80;
/// Flag of a value: it is there.
pub const VALUE: u8 = 1;
/// Flag of a value: it is valid.
pub const VALID: u8 = 2;

/// The batch.
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    pub fn new(out: &'a mut Vec<u8>) -> Writer<'a> {
        Writer { out }
    }

    pub fn head(&mut self, kind: u8, flags: u8, mode: Option<Mode>, key: Option<&Key>) -> &mut Self {
        let (length, lockspace) = key.map_or((0, 0), |key| (length(key), key.lockspace.0));
        self.out.extend_from_slice(&[kind, flags, mode.map_or(0, |mode| mode as u8), length]);
        self.u32(lockspace)
    }

    pub fn u8(&mut self, number: u8) -> &mut Self {
        self.out.push(number);
        self
    }

    pub fn u32(&mut self, number: u32) -> &mut Self {
        self.out.extend_from_slice(&number.to_le_bytes());
        self
    }

    pub fn u64(&mut self, number: u64) -> &mut Self {
        self.out.extend_from_slice(&number.to_le_bytes());
        self
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self
    }

    pub fn name(&mut self, key: &Key) {
        self.bytes(key.name.as_bytes());
        if key.branch != Branch::ROOT {
            self.bytes(&key.branch.0);
        }
    }

    pub fn scope(&mut self, scope: &Scope) -> &mut Self {
        match scope {
            Scope::Plain => self.u8(0),
            Scope::Bits(bits) => self.u8(1).u64(*bits),
            Scope::Extent { span, desired } => {
                self.u8(2).u64(span.first).u64(span.last).u64(desired.first).u64(desired.last)
            }
        }
    }

    pub fn value(&mut self, value: &Value) -> &mut Self {
        if *value == Value::NEW {
            return self;
        }
        self.u64(value.serial).bytes(&value.bytes)
    }

    pub fn listed(&mut self, key: &Key) -> &mut Self {
        self.u32(key.lockspace.0).u8(length(key)).name(key);
        self
    }

    /// The count of what follows, then each.
    pub fn list<T>(&mut self, all: &[T], one: impl Fn(&mut Self, &T)) -> &mut Self {
        self.u32(all.len() as u32);
        all.iter().for_each(|each| one(self, each));
        self
    }
}

fn length(key: &Key) -> u8 {
    let below = if key.branch == Branch::ROOT { 0 } else { BELOW };
    key.name.as_bytes().len() as u8 | below
}

/// The flags of a value.
pub fn value_flags(value: &Value) -> u8 {
    let there = if *value == Value::NEW { 0 } else { VALUE };
    there | if value.is_valid { VALID } else { 0 }
}
