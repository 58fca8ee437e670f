//! The sending half of a link: frames into records.
//!
//! A frame that fits goes into the ring at once, as one record. What does not fit waits here, the first of it already in the ring, until
//! the other end has read on. A large piece of a region is lent, not copied ([`super::lending`]).
//!
//! Invariant: frames enter the ring whole, in order and one after the other; a span that was lent is held until the other end has
//! read past its record; no more than [`LENT_BYTES_MAX`] and one piece are lent at a time.

use super::lending::Lender;
use super::ring::Producer;
use super::track::{Form, LINE_BYTES};
use crate::frame::{ACCESS_BYTES, HEADER_BYTES, WireError};
use crate::provider::{Body, Frame};
use crate::region::Span;
use std::collections::VecDeque;
use std::ops::Range;
use std::os::fd::BorrowedFd;

/// A piece of so many bytes or more is lent. Below, two copies cost less than looking up the memory, and reading its cold lines.
const LEND_BYTES_MIN: usize = 4 << 10;
/// Bytes that may be lent and not yet copied by the other end: what comes behind them waits for so much copying at most.
const LENT_BYTES_MAX: usize = 2 << 20;
/// Bytes of a record of the form [`Form::Lent`]: header, access, number, offset.
pub const LENT_RECORD_BYTES: usize = PREFIX_BYTES + 16;
/// The most bytes in front of a frame's body.
const PREFIX_BYTES: usize = HEADER_BYTES + ACCESS_BYTES;

/// A frame of so many bytes or less takes the short way.
const SHORT_BYTES_MAX: usize = 4 << 10;

/// A frame on its way into the ring.
struct Load {
    prefix: [u8; PREFIX_BYTES],
    prefix_bytes: usize,
    body: Body,
    length: usize,
    done: usize,
}

impl Load {
    fn new(frame: Frame) -> Load {
        let mut prefix = [0; PREFIX_BYTES];
        prefix[..HEADER_BYTES].copy_from_slice(&frame.header.encode());
        let (prefix_bytes, rest) = match &frame.body {
            Body::Message(head, bulk) => (HEADER_BYTES, head.len() + bulk.len()),
            Body::Piece(access, span) => {
                prefix[HEADER_BYTES..].copy_from_slice(&access.encode());
                (PREFIX_BYTES, span.length())
            }
            Body::Access(access) => {
                prefix[HEADER_BYTES..].copy_from_slice(&access.encode());
                (PREFIX_BYTES, 0)
            }
            Body::Empty => (HEADER_BYTES, 0),
        };
        let length = prefix_bytes + rest;
        debug_assert_eq!(
            length,
            HEADER_BYTES + frame.header.carried(),
            "a body is as long as its header says"
        );
        Load { prefix, prefix_bytes, body: frame.body, length, done: 0 }
    }

    /// The span, if it is to be lent.
    fn lendable(&self) -> Option<&Span> {
        match &self.body {
            Body::Piece(_, span) if span.length() >= LEND_BYTES_MIN && self.done == 0 => Some(span),
            _ => None,
        }
    }
}

/// Why a frame waits.
enum Stop {
    /// The ring is full.
    Full,
    /// Too much is lent.
    Lent,
}

/// The sending half of a link.
pub struct Outgoing {
    ring: Producer,
    lender: Lender,
    waiting: VecDeque<Load>,
    /// Lent spans, and where in the ring the records behind theirs begin.
    lent: VecDeque<(u64, Span)>,
    lent_bytes: usize,
    broken: Option<WireError>,
    /// Records were published since the other end was last looked after.
    fresh: bool,
    frames: u64,
    bytes: u64,
}

impl Outgoing {
    /// Into this ring.
    pub fn new(ring: Producer) -> Outgoing {
        Outgoing {
            ring,
            lender: Lender::default(),
            waiting: VecDeque::new(),
            lent: VecDeque::new(),
            lent_bytes: 0,
            broken: None,
            fresh: false,
            frames: 0,
            bytes: 0,
        }
    }

    /// As [`crate::provider::Link::room`].
    pub fn room(&self) -> usize {
        // The ring may have more room than is known; then the next frame finds out.
        if self.waiting.is_empty() { self.ring.free().max(1) } else { 0 }
    }

    /// Frames and bytes that were taken.
    pub fn traffic(&self) -> (u64, u64) {
        (self.frames, self.bytes)
    }

    /// Takes a frame, and writes it if there is room.
    #[inline]
    pub fn push(&mut self, frame: Frame, socket: BorrowedFd<'_>) {
        self.frames += 1;
        self.bytes += (HEADER_BYTES + frame.header.carried()) as u64;
        if self.waiting.is_empty() && self.write_short(&frame) {
            return;
        }
        let mut load = Load::new(frame);
        if self.waiting.is_empty() && self.write(&mut load, socket).is_none() {
            return;
        }
        self.waiting.push_back(load);
    }

    /// Writes a frame that is a short record, as most are. False if this is none, or does not fit.
    #[inline]
    fn write_short(&mut self, frame: &Frame) -> bool {
        let (head, bulk): (&[u8], &[u8]) = match &frame.body {
            Body::Message(head, bulk) => (head, bulk),
            Body::Empty => (&[], &[]),
            Body::Piece(..) | Body::Access(_) => return false,
        };
        let length = HEADER_BYTES + head.len() + bulk.len();
        // An error shows again, and is kept then.
        if length > SHORT_BYTES_MAX || self.ring.begin(length) != Ok(length) {
            return false;
        }
        let header = frame.header.encode();
        self.lay(0, LINE_BYTES..length, [&header, head, bulk]);
        self.lay(0, 0..LINE_BYTES, [&header, head, bulk]);
        self.publish(Form::Frame, length);
        true
    }

    /// Writes what waits, as far as there is room. True if nothing waits any more or the other end will ring when it has read on.
    /// False if the other end has to be woken first, or there is room by now: then again.
    ///
    /// # Errors
    /// The other end broke the protocol.
    pub fn pump(&mut self, socket: BorrowedFd<'_>) -> Result<bool, WireError> {
        self.settle();
        let mut stop = None;
        while let Some(mut load) = self.waiting.pop_front() {
            stop = self.write(&mut load, socket);
            if stop.is_some() {
                self.waiting.push_front(load);
                break;
            }
        }
        if let Some(error) = self.broken {
            return Err(error);
        }
        let position = match stop {
            None => return Ok(true),
            Some(_) if self.fresh => return Ok(false),
            Some(Stop::Full) => self.ring.quarter_free(),
            Some(Stop::Lent) => self.lent.get(self.lent.len() / 2).map_or(0, |lent| lent.0),
        };
        Ok(!self.ring.await_head(position)?)
    }

    /// True if the other end sleeps and has something to read: its bell must be rung.
    #[inline]
    pub fn must_ring(&mut self) -> bool {
        std::mem::take(&mut self.fresh) && self.ring.must_ring()
    }

    /// True if frames wait.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Before this end sleeps: lets go what the other end has copied, and tells it which memories are no more.
    ///
    /// # Errors
    /// The other end broke the protocol.
    #[inline]
    pub fn tidy(&mut self) -> Result<(), WireError> {
        if !self.lent.is_empty() {
            self.ring.refresh()?;
            self.settle();
        }
        while self.waiting.is_empty()
            && let Some(number) = self.lender.ended()
            && self.ring.begin(8)? == 8
        {
            self.ring.write(0, &number.to_le_bytes());
            self.publish(Form::Forget, 8);
            self.lender.forget(number);
        }
        Ok(())
    }

    /// Writes a frame, or as much of it as there is room for.
    #[inline]
    fn write(&mut self, load: &mut Load, socket: BorrowedFd<'_>) -> Option<Stop> {
        if let Some(span) = load.lendable()
            && let Some(number) = self.lender.number(span.memory().0, socket)
        {
            let span = span.clone();
            return self.lend(load, span, number);
        }
        while load.done < load.length {
            let length = match self.ring.begin(load.length - load.done) {
                Ok(0) => return Some(Stop::Full),
                Ok(length) => length,
                Err(error) => return self.fail(error),
            };
            self.copy(load, length);
            self.publish(if load.done == 0 { Form::Frame } else { Form::More }, length);
            load.done += length;
        }
        None
    }

    fn fail(&mut self, error: WireError) -> Option<Stop> {
        self.broken = Some(error);
        Some(Stop::Full)
    }

    #[inline]
    fn publish(&mut self, form: Form, length: usize) {
        self.ring.publish(form, length);
        self.fresh = true;
    }

    /// Copies the next `length` bytes of a frame into the record that was begun.
    fn copy(&self, load: &Load, length: usize) {
        let (head, bulk): (&[u8], &[u8]) = match &load.body {
            Body::Message(head, bulk) => (head, bulk),
            _ => (&[], &[]),
        };
        if let Body::Piece(_, span) = &load.body {
            let prefix = load.prefix_bytes.saturating_sub(load.done).min(length);
            let from = load.done.saturating_sub(load.prefix_bytes);
            self.ring.write_span(prefix, span, from, length - prefix);
        }
        let parts = [&load.prefix[..load.prefix_bytes], head, bulk];
        let first = load.done + LINE_BYTES.min(length);
        self.lay(load.done, first..load.done + length, parts);
        self.lay(load.done, load.done..first, parts);
    }

    /// Writes this range of a frame, which is these parts one behind the other, into a record that begins with the frame's byte `begin`.
    #[inline]
    fn lay(&self, begin: usize, range: Range<usize>, parts: [&[u8]; 3]) {
        let mut start = 0;
        for part in parts {
            let end = start + part.len();
            let (from, to) = (range.start.clamp(start, end), range.end.clamp(start, end));
            if from < to {
                self.ring.write(from - begin, &part[from - start..to - start]);
            }
            start = end;
        }
    }

    /// Lends the span of a piece.
    fn lend(&mut self, load: &mut Load, span: Span, number: u64) -> Option<Stop> {
        if self.lent_bytes >= LENT_BYTES_MAX {
            if let Err(error) = self.ring.refresh() {
                return self.fail(error);
            }
            self.settle();
            if self.lent_bytes >= LENT_BYTES_MAX {
                return Some(Stop::Lent);
            }
        }
        match self.ring.begin(LENT_RECORD_BYTES) {
            Ok(LENT_RECORD_BYTES) => {}
            Ok(_) => return Some(Stop::Full),
            Err(error) => return self.fail(error),
        }
        let mut record = [0; LENT_RECORD_BYTES];
        record[..PREFIX_BYTES].copy_from_slice(&load.prefix);
        record[PREFIX_BYTES..PREFIX_BYTES + 8].copy_from_slice(&number.to_le_bytes());
        record[PREFIX_BYTES + 8..].copy_from_slice(&(span.memory().1 as u64).to_le_bytes());
        self.ring.write(0, &record);
        self.publish(Form::Lent, LENT_RECORD_BYTES);
        load.done = load.length;
        self.lent_bytes += span.length();
        self.lent.push_back((self.ring.tail(), span));
        None
    }

    /// Lets go of lent spans that the other end has copied.
    fn settle(&mut self) {
        while self.lent.front().is_some_and(|lent| lent.0 <= self.ring.head())
            && let Some((_, span)) = self.lent.pop_front()
        {
            self.lent_bytes -= span.length();
        }
    }
}
