//! Adds numbers, names and modes to the end of a batch.

use crate::message::Key;
use crate::mode::Mode;
use crate::resource::Value;

/// The batch.
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    pub fn new(out: &'a mut Vec<u8>) -> Writer<'a> {
        Writer { out }
    }

    pub fn head(&mut self, kind: u8, flags: u8, mode: Option<Mode>, key: Option<&Key>) -> &mut Self {
        let (length, lockspace) =
            key.map_or((0, 0), |key| (key.name.as_bytes().len() as u8, key.lockspace.0));
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
    }

    pub fn value(&mut self, value: &Value) -> &mut Self {
        if *value == Value::NEW {
            return self;
        }
        self.u64(value.serial).bytes(&value.bytes)
    }

    pub fn listed(&mut self, key: &Key) -> &mut Self {
        let name = key.name.as_bytes();
        self.u32(key.lockspace.0).u8(name.len() as u8).bytes(name)
    }
}
