//! Memory of one end that the other end has mapped, so that bulk is copied once: by the receiver, straight from the sender's region.
//!
//! The sender passes a memory's file over the socket when it first sends from it, and then names it by number: 0, 1, 2... The receiver
//! takes file n off the socket when the first record comes that names n. Both keep the same [`LENT_MAX`] latest numbers: number n takes
//! the place of n - [`LENT_MAX`], and as records are read in order no record names the older one after that.
//!
//! A lent memory is sealed against shrinking (a page beyond the end would be a deadly signal) and can only be read.
//!
//! Invariant: neither table is longer than [`LENT_MAX`]; the sender's does not keep memory alive; nothing is mapped that could shrink.

use super::passing;
use super::sys::Foreign;
use crate::frame::WireError;
use crate::provider::LinkError;
use crate::region::Memory;
use rustix::fs::{SealFlags, fcntl_get_seals, fstat};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

/// The most memories that are lent at a time, in each direction.
pub const LENT_MAX: usize = 64;
/// Bytes of the message that passes a memory's file: number and length.
const MESSAGE_BYTES: usize = 16;

/// What this end has lent.
#[derive(Default)]
pub struct Lender {
    /// By number modulo [`LENT_MAX`].
    entries: Vec<(u64, Weak<Memory>)>,
    next: u64,
    /// Where the memory was that was asked for last.
    latest: usize,
}

impl Lender {
    /// The number of this memory, which is passed over if it has none. `None` if that cannot be done now.
    pub fn number(&mut self, memory: &Arc<Memory>, socket: impl AsFd) -> Option<u64> {
        let same = |entry: &(u64, Weak<Memory>)| std::ptr::eq(entry.1.as_ptr(), Arc::as_ptr(memory));
        if !self.entries.get(self.latest).is_some_and(same) {
            self.latest = match self.entries.iter().position(same) {
                Some(index) => index,
                None => self.pass(memory, socket)?,
            };
        }
        Some(self.entries[self.latest].0)
    }

    fn pass(&mut self, memory: &Arc<Memory>, socket: impl AsFd) -> Option<usize> {
        let mut message = [0; MESSAGE_BYTES];
        message[..8].copy_from_slice(&self.next.to_le_bytes());
        message[8..].copy_from_slice(&(memory.length() as u64).to_le_bytes());
        // A socket that is full or broken: the bytes go through the ring, and the link's end is found by whoever receives.
        passing::send(socket, &message, &[memory.file()]).ok()?;
        let index = (self.next % LENT_MAX as u64) as usize;
        let entry = (self.next, Arc::downgrade(memory));
        match self.entries.get_mut(index) {
            Some(place) => *place = entry,
            None => self.entries.push(entry),
        }
        self.next += 1;
        Some(index)
    }

    /// A lent memory that is no more, so that the other end can unmap it.
    pub fn ended(&self) -> Option<u64> {
        self.entries
            .iter()
            .find(|(number, memory)| *number != FORGOTTEN && memory.strong_count() == 0)
            .map(|(number, _)| *number)
    }

    /// The other end has been told.
    pub fn forget(&mut self, number: u64) {
        if let Some(entry) = self.entries.get_mut((number % LENT_MAX as u64) as usize) {
            *entry = (FORGOTTEN, Weak::new());
        }
    }
}

/// The number of no memory.
const FORGOTTEN: u64 = u64::MAX;

/// What the other end has lent.
#[derive(Default)]
pub struct Borrower {
    /// By number modulo [`LENT_MAX`].
    entries: Vec<(u64, Option<Foreign>)>,
    next: u64,
}

impl Borrower {
    /// The memory of this number, taken off the socket if it is new.
    ///
    /// # Errors
    /// There is no such memory, or it is none that can be mapped.
    pub fn memory(&mut self, number: u64, socket: impl AsFd) -> Result<&Foreign, LinkError> {
        // One new memory a record at most, for the record that is first to name a memory comes right after its file.
        if number == self.next {
            self.take(socket)?;
        }
        let entry = self.entries.get((number % LENT_MAX as u64) as usize).filter(|entry| entry.0 == number);
        entry
            .and_then(|entry| entry.1.as_ref())
            .ok_or(LinkError::Wire(WireError("a memory that was never lent or is forgotten")))
    }

    fn take(&mut self, socket: impl AsFd) -> Result<(), LinkError> {
        let (message, descriptors) = passing::receive::<MESSAGE_BYTES>(socket)?
            .ok_or(LinkError::Wire(WireError("a memory that was not passed over")))?;
        let [file]: [OwnedFd; 1] = descriptors
            .try_into()
            .map_err(|_| LinkError::Wire(WireError("a memory with no descriptor, or several")))?;
        let word =
            |at: usize| message[at..at + 8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let (number, length) = (word(0), word(8));
        if number != self.next {
            return Err(WireError("a memory lent out of turn").into());
        }
        let length = usize::try_from(length).map_err(|_| WireError("a memory longer than all memory"))?;
        check_sealed(&file, length)?;
        let entry = (number, Some(Foreign::map(&file, length)?));
        match self.entries.get_mut((number % LENT_MAX as u64) as usize) {
            Some(place) => *place = entry,
            None => self.entries.push(entry),
        }
        self.next += 1;
        Ok(())
    }

    /// The other end has given it up.
    pub fn forget(&mut self, number: u64) {
        let entry = self.entries.get_mut((number % LENT_MAX as u64) as usize);
        if let Some(entry) = entry.filter(|entry| entry.0 == number) {
            entry.1 = None;
        }
    }
}

/// Makes sure that the file has this many bytes and always will.
///
/// # Errors
/// It has not, or may shrink.
pub fn check_sealed(file: &OwnedFd, length: usize) -> io::Result<()> {
    let bad = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    // Only memory files have seals; for all others this fails.
    if !fcntl_get_seals(file)?.contains(SealFlags::SHRINK) {
        return bad("the other end passed memory that could shrink");
    }
    match u64::try_from(fstat(file)?.st_size) {
        Ok(size) if length > 0 && size >= length as u64 => Ok(()),
        _ => bad("the other end passed memory that is shorter than it said"),
    }
}
