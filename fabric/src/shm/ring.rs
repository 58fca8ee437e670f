//! One direction of a link: a ring of records with one producer and one consumer, in two processes. [`super::track`] draws it.
//!
//! There is no tail in the memory: the consumer looks at the place where the next record will be, until the word there says that
//! it is that very line and no older one. So a small record costs its two cache lines and no third one, and a look in vain
//! costs nothing. The head is published after every [`PUBLISH_BYTES`], which costs next to nothing.
//!
//! When the consumer keeps up, the producer turns back to the start after [`LAP_BYTES`]: the lines stay in the caches, and an idle
//! link holds few pages.
//!
//! Invariant: the producer writes only what the published head has left behind; the consumer believes nothing that it reads: a
//! word is read once and its length is one that records have, or the link ends.

use super::sys::Shared;
use super::track::{
    FORM_SHIFT, FORMS, Form, LAP_BYTES, LINE, LINE_BYTES, NUMBER_SHIFT, PUBLISH_BYTES, Track, line_number,
    record_bytes,
};
use crate::frame::WireError;
use crate::region::Span;
use bytes::BytesMut;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::fence;

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

    /// How much of `wanted` bytes fits into a record now, which is then written and published. 0: the ring is full.
    ///
    /// Whoever polls looks at the record's first line all the time, and fetches it back after each store that he is too early for: so
    /// the first [`LINE_BYTES`] of the content are best written last and at one go.
    ///
    /// # Errors
    /// As [`Producer::refresh`].
    #[inline]
    pub fn begin(&mut self, wanted: usize) -> Result<usize, WireError> {
        if self.tail >= self.lap_end {
            self.end_lap()?;
        }
        let most = wanted.min(self.track.content_max());
        if self.free() < record_bytes(most) {
            self.refresh()?;
        }
        Ok(most.min(self.free() / LINE * LINE_BYTES))
    }

    /// Writes bytes into the next record, from `at` on.
    #[inline]
    pub fn write(&self, at: usize, bytes: &[u8]) {
        for (address, done, part) in self.track.parts(self.tail, at, bytes.len()) {
            self.shared.write(address, &bytes[done..done + part]);
        }
    }

    /// Writes `length` bytes of a span, from `from` on, into the next record.
    pub fn write_span(&self, at: usize, span: &Span, from: usize, length: usize) {
        for (address, done, part) in self.track.parts(self.tail, at, length) {
            self.shared.write_span(address, span, from + done, part);
        }
    }

    /// Publishes the next record.
    #[inline]
    pub fn publish(&mut self, form: Form, content: usize) {
        self.publish_until(form, content, self.tail + record_bytes(content) as u64);
    }

    #[inline]
    fn publish_until(&mut self, form: Form, content: usize, next: u64) {
        let word = line_number(self.tail) << NUMBER_SHIFT | (form as u64) << FORM_SHIFT | content as u64;
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
        self.publish_until(Form::Jump, 0, self.tail + self.track.to_end(self.tail) as u64);
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
}

/// A record, as its word describes it; checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is.
    pub form: Form,
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

    #[inline]
    fn word(&self) -> u64 {
        self.track.word(&self.shared, self.head).load(Acquire)
    }

    /// The next record, if there is one.
    ///
    /// # Errors
    /// What is there is none.
    #[inline]
    pub fn next(&self) -> Result<Option<Record>, WireError> {
        let word = self.word();
        if word >> NUMBER_SHIFT != line_number(self.head) {
            return Ok(None);
        }
        let (form, length) = (word >> FORM_SHIFT & 7, usize::from(word as u16));
        match FORMS.get((form as usize).wrapping_sub(1)) {
            Some(form) if length <= self.track.content_max() => Ok(Some(Record { form: *form, length })),
            _ => Err(WireError("a record of shared memory that cannot be")),
        }
    }

    /// True if no record is there.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.word() >> NUMBER_SHIFT != line_number(self.head)
    }

    /// Copies bytes out of the next record, from `at` on.
    #[inline]
    pub fn read<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        for (address, done, part) in self.track.parts(self.head, at, N) {
            self.shared.read(address, &mut bytes[done..done + part]);
        }
        bytes
    }

    /// Copies bytes out of the next record, behind what `out` holds, which has room for them.
    #[inline]
    pub fn append_to(&self, at: usize, length: usize, out: &mut BytesMut) {
        for (address, _, part) in self.track.parts(self.head, at, length) {
            self.shared.append_to(address, part, out);
        }
    }

    /// Copies out of the next record into a span as many bytes as it is long.
    pub fn read_span(&self, at: usize, span: &Span) {
        for (address, done, part) in self.track.parts(self.head, at, span.length()) {
            self.shared.read_span(address, span, done, part);
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
        self.word() >> NUMBER_SHIFT == line_number(self.head)
    }

    /// The producer need not ring any more.
    pub fn unpark(&self) {
        self.track.parked(&self.shared).store(0, Relaxed);
    }
}
