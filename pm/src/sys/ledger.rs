//! The in-flight ledger: which trapped calls a control daemon has taken from the kernel and not answered yet.
//!
//! It lives in a memfd that `ssi-init` keeps, so a daemon that comes back answers what its predecessor had
//! taken: the kernel delivers a notification once, and its caller would wait for ever. A fixed table, written
//! in place by the one control daemon of the moment:
//!
//! ```text
//!  slot: 0        8       12      16                                 64
//!        | id u64 | nr u32 | pid  | six arguments, u64 each          |   id 0: the slot is free
//! ```
//!
//! All numbers are little-endian. Invariant: a slot is written whole by one pwrite.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// How many trapped calls may be in flight at once.
pub const SLOTS: usize = 4_096;
const SLOT_BYTES: usize = 64;

/// One trapped call that was taken and not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The kernel's id of the notification; never 0.
    pub id: u64,
    /// System call number.
    pub nr: u32,
    /// The caller's thread id, in the pid namespace of the reader of the listener.
    pub pid: u32,
    /// The call's arguments.
    pub args: [u64; 6],
}

impl Entry {
    fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut slot = [0; SLOT_BYTES];
        slot[..8].copy_from_slice(&self.id.to_le_bytes());
        slot[8..12].copy_from_slice(&self.nr.to_le_bytes());
        slot[12..16].copy_from_slice(&self.pid.to_le_bytes());
        for (place, arg) in slot[16..].chunks_exact_mut(8).zip(self.args) {
            place.copy_from_slice(&arg.to_le_bytes());
        }
        slot
    }

    fn decode(slot: &[u8]) -> Option<Entry> {
        let u64_at = |at: usize| Some(u64::from_le_bytes(*slot.get(at..)?.first_chunk()?));
        let u32_at = |at: usize| Some(u32::from_le_bytes(*slot.get(at..)?.first_chunk()?));
        let mut args = [0; 6];
        for (n, arg) in args.iter_mut().enumerate() {
            *arg = u64_at(16 + 8 * n)?;
        }
        let entry = Entry { id: u64_at(0)?, nr: u32_at(8)?, pid: u32_at(12)?, args };
        (entry.id != 0).then_some(entry)
    }
}

/// The table, opened. One process writes at a time: the control daemon that `ssi-init` welcomed last.
#[derive(Debug)]
pub struct Ledger {
    memory: OwnedFd,
    taken: Vec<u64>,
}

impl Ledger {
    /// A new, empty table in anonymous memory.
    ///
    /// # Errors
    /// memfd_create(2) or ftruncate(2) failed.
    pub fn create() -> io::Result<OwnedFd> {
        let memory = rustix::fs::memfd_create("ssi-ledger", rustix::fs::MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&memory, (SLOTS * SLOT_BYTES) as u64)?;
        Ok(memory)
    }

    /// Opens the table that a predecessor may have left entries in.
    ///
    /// # Errors
    /// The descriptor cannot be read.
    pub fn open(memory: OwnedFd) -> io::Result<Ledger> {
        let mut ledger = Ledger { memory, taken: vec![0; SLOTS] };
        for entry in ledger.scan()? {
            ledger.taken[entry.0] = entry.1.id;
        }
        Ok(ledger)
    }

    fn scan(&self) -> io::Result<Vec<(usize, Entry)>> {
        let mut table = vec![0; SLOTS * SLOT_BYTES];
        let mut filled = 0;
        while filled < table.len() {
            let n = rustix::io::pread(self.memory.as_fd(), &mut table[filled..], filled as u64)?;
            if n == 0 {
                break;
            }
            filled += n;
        }
        let slots = table[..filled].chunks_exact(SLOT_BYTES).enumerate();
        Ok(slots.filter_map(|(n, slot)| Some((n, Entry::decode(slot)?))).collect())
    }

    /// Notes that `entry` was taken and will be answered.
    ///
    /// # Errors
    /// The table is full (`StorageFull`: answer EAGAIN to the caller at once), or it cannot be written.
    pub fn record(&mut self, entry: &Entry) -> io::Result<()> {
        let free = self.taken.iter().position(|id| *id == 0).ok_or(io::ErrorKind::StorageFull)?;
        rustix::io::pwrite(&self.memory, &entry.encode(), (free * SLOT_BYTES) as u64)?;
        self.taken[free] = entry.id;
        Ok(())
    }

    /// Notes that the call with this id was answered, or that its caller is gone.
    ///
    /// # Errors
    /// The table cannot be written.
    pub fn clear(&mut self, id: u64) -> io::Result<()> {
        if let Some(slot) = self.taken.iter().position(|taken| *taken == id) {
            rustix::io::pwrite(&self.memory, &[0; SLOT_BYTES], (slot * SLOT_BYTES) as u64)?;
            self.taken[slot] = 0;
        }
        Ok(())
    }

    /// Every call that was taken and not answered, also by a predecessor.
    ///
    /// # Errors
    /// The table cannot be read.
    pub fn pending(&self) -> io::Result<Vec<Entry>> {
        Ok(self.scan()?.into_iter().map(|(_, entry)| entry).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_finds_exactly_what_was_not_answered() {
        let memory = Ledger::create().unwrap();
        let mut first = Ledger::open(memory.try_clone().unwrap()).unwrap();
        let entry = |id| Entry { id, nr: 62, pid: 7, args: [id, 2, 3, 4, 5, u64::MAX] };
        for id in 1..=3 {
            first.record(&entry(id)).unwrap();
        }
        first.clear(2).unwrap();
        drop(first);
        let mut second = Ledger::open(memory).unwrap();
        assert_eq!(second.pending().unwrap(), [entry(1), entry(3)]);
        second.clear(1).unwrap();
        second.clear(3).unwrap();
        assert_eq!(second.pending().unwrap(), []);
    }

    #[test]
    fn a_full_table_says_so() {
        let mut ledger = Ledger::open(Ledger::create().unwrap()).unwrap();
        for id in 1..=SLOTS as u64 {
            ledger.record(&Entry { id, nr: 0, pid: 0, args: [0; 6] }).unwrap();
        }
        let error = ledger.record(&Entry { id: 1 << 40, nr: 0, pid: 0, args: [0; 6] }).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
