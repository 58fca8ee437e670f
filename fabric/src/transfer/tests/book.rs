//! What must be true: which bytes may be where, how each ticket may end, how many arrivals there are.

use crate::frame::Verdict;
use crate::region::{Memory, Span};
use std::collections::HashSet;
use std::sync::Arc;

/// Bytes of the region, and of the guard behind it in the same memory.
pub const REGION_BYTES: usize = 4096;
pub const GUARD_BYTES: usize = 512;
/// One transfer at a time goes to each cell.
pub const CELL_BYTES: usize = 512;
/// What no memory of the target may ever hold.
pub const BAD: u8 = 0xee;
/// Where nothing was read to.
pub const BLANK: u8 = 0x11;

/// A set of values of a byte.
#[derive(Clone, Copy, Default)]
struct Bytes([u64; 4]);

impl Bytes {
    fn only(byte: u8) -> Bytes {
        let mut bytes = Bytes::default();
        bytes.add(byte);
        bytes
    }

    fn add(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] & 1 << (byte & 63) != 0
    }
}

/// What should become of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Good,
    Refused(Verdict),
}

pub struct Entry {
    pub write: bool,
    pub notify: bool,
    pub expected: Expected,
    /// In the region.
    pub offset: usize,
    pub content: Vec<u8>,
    /// Its part of the memory at the end that asks.
    pub local: Span,
    pub spans: Vec<Span>,
    pub verdict: Option<Verdict>,
    pub is_cancelled: bool,
    /// Its part of the local memory when it was over.
    after: Vec<u8>,
}

pub struct Book {
    pub entries: Vec<Entry>,
    /// What each byte of the region may be.
    allowed: Vec<Bytes>,
    theirs: Arc<Memory>,
    /// Writes whose end was said: (slot, sequence).
    pub done: HashSet<(u16, u64)>,
    pub revocations: u32,
}

pub fn bytes(memory: &Arc<Memory>, offset: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Span::of(memory, offset, length).expect("within").copy_to(&mut bytes);
    bytes
}

fn gathered(spans: &[Span]) -> Vec<u8> {
    let parts: Vec<Vec<u8>> =
        spans.iter().map(|span| bytes(span.memory().0, span.memory().1, span.length())).collect();
    parts.concat()
}

impl Book {
    pub fn new(theirs: Arc<Memory>) -> Book {
        Book {
            entries: Vec::new(),
            allowed: vec![Bytes::only(0); REGION_BYTES],
            theirs,
            done: HashSet::new(),
            revocations: 0,
        }
    }

    pub fn is_cell_free(&self, cell: usize) -> bool {
        let there = |entry: &&Entry| entry.offset / CELL_BYTES == cell && entry.verdict.is_none();
        !self.entries.iter().any(|entry| there(&entry))
    }

    /// A transfer begins; its number is its ticket.
    pub fn begin(&mut self, entry: Entry) -> u64 {
        if entry.write && entry.expected == Expected::Good {
            for (at, byte) in entry.content.iter().enumerate() {
                self.allowed[entry.offset + at].add(*byte);
            }
        }
        self.entries.push(entry);
        self.entries.len() as u64 - 1
    }

    /// A ticket is over.
    pub fn finish(&mut self, ticket: u64, verdict: Verdict) -> Result<(), String> {
        let revoked = self.revocations > 0;
        let entry = self.entries.get_mut(ticket as usize).ok_or(format!("ticket {ticket} from nowhere"))?;
        if let Some(before) = entry.verdict.replace(verdict) {
            return Err(format!("ticket {ticket} finished as {before:?} and as {verdict:?}"));
        }
        let fits = match verdict {
            Verdict::Answered => entry.expected == Expected::Good,
            Verdict::Unheard => entry.is_cancelled,
            Verdict::Revoked => revoked,
            _ => entry.expected == Expected::Refused(verdict),
        };
        if !fits {
            return Err(format!("ticket {ticket}, {:?}, finished as {verdict:?}", entry.expected));
        }
        entry.after = entry.local_bytes();
        if verdict == Verdict::Answered {
            let there = bytes(&self.theirs, entry.offset, entry.content.len());
            let wanted = if entry.write { &entry.content } else { &gathered(&entry.spans) };
            if there != *wanted {
                return Err(format!("ticket {ticket} is done, but not all of it is there"));
            }
            if entry.write {
                for (at, byte) in entry.content.iter().enumerate() {
                    self.allowed[entry.offset + at] = Bytes::only(*byte);
                }
            }
        }
        Ok(())
    }

    /// The region is revoked: nothing changes it any more but what begins from here on.
    pub fn revoke(&mut self) {
        self.revocations += 1;
        let now = bytes(&self.theirs, 0, REGION_BYTES);
        self.allowed.iter_mut().zip(now).for_each(|(allowed, byte)| *allowed = Bytes::only(byte));
    }

    /// The memory of the target is what it may be.
    pub fn check_memory(&self) -> Result<(), String> {
        let now = bytes(&self.theirs, 0, REGION_BYTES + GUARD_BYTES);
        let wrong = self.allowed.iter().zip(&now).position(|(allowed, byte)| !allowed.has(*byte));
        if let Some(at) = wrong {
            return Err(format!("byte {at} is {}, which it may not be", now[at]));
        }
        let outside = now[REGION_BYTES..].iter().any(|byte| *byte != 0);
        if outside { Err("a byte behind the region has changed".into()) } else { Ok(()) }
    }

    /// At the end of the world.
    pub fn check_end(&self, arrivals: u64) -> Result<(), String> {
        self.check_memory()?;
        let mut surely = 0;
        let mut perhaps = 0;
        for (ticket, entry) in self.entries.iter().enumerate() {
            let Some(verdict) = entry.verdict else { return Err(format!("ticket {ticket} never finished")) };
            if entry.local_bytes() != entry.after {
                return Err(format!("memory of ticket {ticket} changed after it was over"));
            }
            self.check_local(ticket, entry)?;
            match (verdict, entry.write && entry.notify) {
                (Verdict::Answered, true) => surely += 1,
                (Verdict::Unheard | Verdict::Revoked, true) => {
                    perhaps += u64::from(entry.expected == Expected::Good);
                }
                _ => {}
            }
        }
        if (surely..=surely + perhaps).contains(&arrivals) {
            return Ok(());
        }
        Err(format!("{arrivals} arrivals, but {surely} notifying writes (and perhaps {perhaps})"))
    }

    /// What is around the pieces of a read is as it was.
    fn check_local(&self, ticket: usize, entry: &Entry) -> Result<(), String> {
        if entry.write {
            return Ok(());
        }
        let mut now = entry.after.clone();
        for span in &entry.spans {
            let at = span.memory().1 - entry.local.memory().1;
            now[at..at + span.length()].fill(BLANK);
        }
        let untouched = now.iter().all(|byte| *byte == BLANK);
        if untouched { Ok(()) } else { Err(format!("ticket {ticket} read beside its pieces")) }
    }
}

impl Entry {
    pub fn new(write: bool, offset: usize, content: Vec<u8>, local: Span, spans: Vec<Span>) -> Entry {
        Entry {
            write,
            notify: false,
            expected: Expected::Good,
            offset,
            content,
            local,
            spans,
            verdict: None,
            is_cancelled: false,
            after: Vec::new(),
        }
    }

    fn local_bytes(&self) -> Vec<u8> {
        gathered(std::slice::from_ref(&self.local))
    }
}
