//! One direction of a link: a ring of records with one producer and one consumer, in two processes.
//!
//! ```text
//!  a record: a whole number of cache lines (64 bytes), never across the end of the ring
//!  0        4      8
//!  | length | form | content ...                     the word (length and form) is 0 while there is no record yet
//!
//!  control lines, each on 128 bytes of its own
//!  head    how far the consumer has read             written by the consumer, now and then
//!  parked  not 0: the consumer sleeps, ring its bell  set by the consumer, cleared by who rings
//!  wanted  not 0: the producer waits for this head    set by the producer, cleared by who rings
//! ```
//!
//! There is no tail in the memory: before a record's word is published, the word *behind* the record is set to 0, so the consumer looks
//! at the record itself, and a small record costs two cache lines and not three. The head is published after every
//! [`PUBLISH_BYTES`], which costs next to nothing.
//!
//! When the consumer keeps up, the producer turns back to the start after [`LAP_BYTES`]: the lines stay in the caches, and an idle
//! link holds few pages.
//!
//! Invariant: the producer writes only what the published head has left behind; the consumer believes nothing that it reads: a
//! word is read once and lies inside the ring, or the link ends.

use super::sys::Shared;
use crate::frame::WireError;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU64, fence};

/// Bytes of a cache line: records begin and end at one.
const LINE: usize = 64;
/// Bytes of a record's word.
const WORD: usize = 8;
/// Bytes of content in a record's first line.
pub const FIRST_BYTES: usize = LINE - WORD;
/// Bytes of the control lines of both directions.
const CONTROL_BYTES: usize = 4096;
/// After so many bytes the producer goes back to the start of the ring if the consumer has kept up.
const LAP_BYTES: u64 = 8 << 10;
/// The consumer says how far it has read when it is so many bytes further.
const PUBLISH_BYTES: u64 = LAP_BYTES / 4;
/// The shortest and the longest ring.
const RING_BYTES: std::ops::RangeInclusive<usize> = 32 << 10..=16 << 20;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Form {
    /// A header and what it carries, or the beginning of that.
    Frame = 1,
    /// The next bytes of the frame before.
    More = 2,
    /// A piece whose bytes lie in lent memory: header, access, number of the memory, offset in it.
    Lent = 3,
    /// The end of a lent memory: its number.
    Forget = 4,
    /// Nothing: the next record is at the start of the ring.
    Jump = 5,
}

const FORMS: [Form; 5] = [Form::Frame, Form::More, Form::Lent, Form::Forget, Form::Jump];

/// Where one direction lies in the shared memory.
#[derive(Clone, Copy)]
pub struct Track {
    control: usize,
    data: usize,
    size: usize,
}

impl Track {
    /// The two directions (to the accepting end, to the dialling end) with rings of so many bytes; `None` if there are no such rings.
    pub fn pair(ring_bytes: usize) -> Option<[Track; 2]> {
        let fits = RING_BYTES.contains(&ring_bytes) && ring_bytes.is_power_of_two();
        let track = |index: usize| Track {
            control: index * CONTROL_BYTES / 2,
            data: CONTROL_BYTES + index * ring_bytes,
            size: ring_bytes,
        };
        fits.then(|| [track(0), track(1)])
    }

    /// Bytes of the memory of both directions.
    pub fn memory_bytes(ring_bytes: usize) -> usize {
        CONTROL_BYTES + 2 * ring_bytes
    }

    /// Bytes of the longest record: a long frame is several, so that it is read while it is still being written.
    #[inline]
    fn record_max(self) -> usize {
        self.size / 8
    }

    #[inline]
    fn offset(self, position: u64) -> usize {
        position as usize & (self.size - 1)
    }

    #[inline]
    fn to_end(self, position: u64) -> usize {
        self.size - self.offset(position)
    }

    #[inline]
    fn word(self, shared: &Shared, position: u64) -> &AtomicU64 {
        shared.word(self.data + self.offset(position))
    }

    #[inline]
    fn head(self, shared: &Shared) -> &AtomicU64 {
        shared.word(self.control)
    }

    #[inline]
    fn parked(self, shared: &Shared) -> &AtomicU64 {
        shared.word(self.control + 128)
    }

    #[inline]
    fn wanted(self, shared: &Shared) -> &AtomicU64 {
        shared.word(self.control + 256)
    }
}

/// Bytes of the record with so much content.
#[inline]
fn record_bytes(content: usize) -> usize {
    (WORD + content).next_multiple_of(LINE)
}

/// The end that writes.
pub struct Producer {
    shared: Arc<Shared>,
    track: Track,
    /// Where the next record begins, counted from the beginning of the link.
    tail: u64,
    /// The consumer's head when it was last looked at; head <= tail <= head + size.
    head: u64,
    /// Where to think about going back to the start.
    lap_end: u64,
}

impl Producer {
    /// Of a fresh memory.
    pub fn new(shared: Arc<Shared>, track: Track) -> Producer {
        Producer { shared, track, tail: 0, head: 0, lap_end: LAP_BYTES }
    }

    /// Bytes that are free, as far as is known.
    #[inline]
    pub fn free(&self) -> usize {
        self.track.size - (self.tail - self.head) as usize
    }

    /// Where the next record begins.
    pub fn tail(&self) -> u64 {
        self.tail
    }

    /// How far the consumer had read when that was last looked at.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Looks how far the consumer has read.
    ///
    /// # Errors
    /// It cannot have read that.
    pub fn refresh(&mut self) -> Result<(), WireError> {
        let head = self.track.head(&self.shared).load(Acquire);
        if head < self.head || head > self.tail || !head.is_multiple_of(LINE as u64) {
            return Err(WireError("a ring's head where it cannot be"));
        }
        self.head = head;
        Ok(())
    }

    /// How much of `wanted` bytes fits into a record now, which is then written at [`Producer::content`] and published, neither more
    /// nor less. 0: the ring is full.
    ///
    /// Whoever polls looks at the record's first line all the time, and fetches it back after each store that he is too early for: so
    /// it is best written last and at one go, [`FIRST_BYTES`] of content and then the word.
    ///
    /// # Errors
    /// As [`Producer::refresh`].
    #[inline]
    pub fn begin(&mut self, wanted: usize) -> Result<usize, WireError> {
        if self.tail >= self.lap_end {
            self.end_lap()?;
        }
        // The line behind the record stays free: its word says that there is nothing yet.
        let whole = record_bytes(wanted).min(self.track.record_max());
        if self.free() < whole + LINE {
            self.refresh()?;
        }
        let most = self.free().saturating_sub(LINE).min(self.track.to_end(self.tail)).min(whole);
        let content = wanted.min((most - most % LINE).saturating_sub(WORD));
        if content > 0 {
            self.clear(self.tail + record_bytes(content) as u64);
        }
        Ok(content)
    }

    /// Says that there is no record at this position yet.
    #[inline]
    fn clear(&self, position: u64) {
        self.track.word(&self.shared, position).store(0, Relaxed);
    }

    /// Like [`Producer::begin`], for a short record that cannot be cut: true if it fits whole.
    ///
    /// # Errors
    /// As [`Producer::refresh`].
    pub fn begin_whole(&mut self, wanted: usize) -> Result<bool, WireError> {
        let whole = record_bytes(wanted) + LINE;
        let skipped = self.track.to_end(self.tail);
        if skipped < record_bytes(wanted) {
            if self.free() < skipped + whole {
                self.refresh()?;
            }
            if self.free() < skipped + whole {
                return Ok(false);
            }
            self.jump();
        }
        Ok(self.begin(wanted)? == wanted)
    }

    /// Where in the shared memory the content of the next record lies.
    #[inline]
    pub fn content(&self) -> usize {
        self.track.data + self.track.offset(self.tail) + WORD
    }

    /// Publishes the next record.
    #[inline]
    pub fn publish(&mut self, form: Form, content: usize) {
        self.publish_until(form, content, self.tail + record_bytes(content) as u64);
    }

    #[inline]
    fn publish_until(&mut self, form: Form, content: usize, next: u64) {
        let word = u64::from(form as u8) << 32 | content as u64;
        self.track.word(&self.shared, self.tail).store(word, Release);
        self.tail = next;
    }

    /// Back to the start, if the consumer is so close behind that the part before the lap's end is free.
    fn end_lap(&mut self) -> Result<(), WireError> {
        self.refresh()?;
        if self.track.offset(self.tail) as u64 >= LAP_BYTES && self.tail - self.head <= LAP_BYTES / 2 {
            self.jump();
        }
        self.lap_end = self.tail + LAP_BYTES;
        Ok(())
    }

    /// The next record is at the start of the ring. Who calls knows that the start is free.
    fn jump(&mut self) {
        let start = self.tail + self.track.to_end(self.tail) as u64;
        self.clear(start);
        self.publish_until(Form::Jump, 0, start);
    }

    /// After records were published: true if the consumer sleeps and its bell must be rung.
    #[inline]
    pub fn must_ring(&self) -> bool {
        // With the fence in `Consumer::park`: either the consumer sees the record, or this sees that it is parked.
        fence(SeqCst);
        let parked = self.track.parked(&self.shared);
        parked.load(Relaxed) != 0 && parked.swap(0, Relaxed) != 0
    }

    /// Asks to be rung when the head is at this position, which must lie [`PUBLISH_BYTES`] before the tail or behind a record after
    /// which the head is published. True if it is there already.
    ///
    /// # Errors
    /// As [`Producer::refresh`].
    pub fn await_head(&mut self, position: u64) -> Result<bool, WireError> {
        let wanted = self.track.wanted(&self.shared);
        wanted.store(position.max(1), Relaxed);
        // With the fence in `Consumer::publish`: either the consumer sees the wish, or this sees the head.
        fence(SeqCst);
        self.refresh()?;
        let there = self.head >= position;
        if there {
            self.track.wanted(&self.shared).store(0, Relaxed);
        }
        Ok(there)
    }

    /// The position of the head at which a quarter of the ring is free.
    pub fn quarter_free(&self) -> u64 {
        (self.tail + self.track.size as u64 / 4).saturating_sub(self.track.size as u64)
    }

    /// The memory.
    #[inline]
    pub fn shared(&self) -> &Shared {
        &self.shared
    }
}

/// A record, as its word describes it; checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is.
    pub form: Form,
    /// Where in the shared memory its content lies.
    pub at: usize,
    /// Bytes of its content.
    pub length: usize,
}

/// The end that reads.
pub struct Consumer {
    shared: Arc<Shared>,
    track: Track,
    head: u64,
    published: u64,
}

impl Consumer {
    /// Of a fresh memory.
    pub fn new(shared: Arc<Shared>, track: Track) -> Consumer {
        Consumer { shared, track, head: 0, published: 0 }
    }

    /// The next record, if there is one.
    ///
    /// # Errors
    /// What is there is none.
    #[inline]
    pub fn next(&self) -> Result<Option<Record>, WireError> {
        let word = self.track.word(&self.shared, self.head).load(Acquire);
        if word == 0 {
            return Ok(None);
        }
        let length = word as u32 as usize;
        let form = usize::try_from(word >> 32).ok().and_then(|form| FORMS.get(form.wrapping_sub(1)));
        let most = self.track.to_end(self.head).min(self.track.record_max());
        match form {
            Some(form) if WORD + length <= most => Ok(Some(Record {
                form: *form,
                at: self.track.data + self.track.offset(self.head) + WORD,
                length,
            })),
            _ => Err(WireError("a record of shared memory that cannot be")),
        }
    }

    /// Goes on behind this record, which is done with. True if the head is due to be published.
    #[inline]
    pub fn advance(&mut self, record: &Record) -> bool {
        self.head += match record.form {
            Form::Jump => self.track.to_end(self.head) as u64,
            _ => record_bytes(record.length) as u64,
        };
        self.head - self.published >= PUBLISH_BYTES
    }

    /// Tells the producer how far this end has read. True if it waits for that and its bell must be rung.
    pub fn publish(&mut self) -> bool {
        self.published = self.head;
        self.track.head(&self.shared).store(self.head, Release);
        fence(SeqCst);
        let wanted = self.track.wanted(&self.shared);
        let position = wanted.load(Relaxed);
        position != 0 && position <= self.head && wanted.swap(0, Relaxed) != 0
    }

    /// From here on the producer rings. True if a record (or what is none) is there already.
    pub fn park(&self) -> bool {
        self.track.parked(&self.shared).store(1, Relaxed);
        fence(SeqCst);
        self.track.word(&self.shared, self.head).load(Relaxed) != 0
    }

    /// The producer need not ring any more.
    pub fn unpark(&self) {
        self.track.parked(&self.shared).store(0, Relaxed);
    }

    /// The memory.
    #[inline]
    pub fn shared(&self) -> &Shared {
        &self.shared
    }
}
