//! What a link was given to send and the socket has not taken yet.
//!
//! ```text
//!  push: | prefix header body | prefix header head ^ |      copied bytes, in `copied`
//!        parts:  Copied(n) .................... Held(bulk), Piece(span): memory that is lent, sent from where it is
//! ```
//!
//! Small frames are copied behind each other into one open record, which ends when it is full, when something long follows, or when it is
//! flushed. Sealed, everything is copied, because sealing copies anyway, and sealed where it lies.
//!
//! Invariant: records stand in the parcel in the order in which they were begun, and only the last one may still grow.

use super::parcel::{Parcel, Part};
use super::record::{
    DIRECT_BYTES_MIN, PREFIX_BYTES, RECORD_BYTES_MAX, Record, SHARED_BYTES_MAX, SMALL_BYTES_MAX,
};
use super::seal::{Sealer, TAG_BYTES};
use super::sys::{self, Gather};
use crate::frame::{HEADER_BYTES, Kind};
use crate::provider::{Body, Frame};
use crate::reactor::Buffers;
use crate::region::Span;
use bytes::Bytes;
use std::sync::Arc;

/// The most bytes that wait in a link for its socket, but for what the last frame went over it.
pub const ROOM_BYTES: usize = 256 << 10;
/// Bytes of a message that are worth a part of their own instead of a copy.
const HELD_BYTES_MIN: usize = 4 << 10;
/// Bytes of a piece in one sealed record: what the other end receives and opens while it is in a cache.
const SEALED_PIECE_BYTES: usize = 64 << 10;

/// A record that still grows.
struct Open {
    /// Where its prefix is in `copied`.
    at: usize,
    /// Bytes of its body so far.
    length: usize,
}

/// What a link sends.
pub struct Outbox {
    parcel: Parcel,
    open: Option<Open>,
    sealer: Option<Sealer>,
    queued: usize,
    blocked: bool,
    buffers: Arc<Buffers>,
}

impl Outbox {
    /// Nothing to send.
    pub fn new(sealer: Option<Sealer>, buffers: Arc<Buffers>) -> Outbox {
        Outbox { parcel: Parcel::default(), open: None, sealer, queued: 0, blocked: false, buffers }
    }

    /// Bytes that may still be pushed.
    pub fn room(&self) -> usize {
        if self.blocked { 0 } else { ROOM_BYTES.saturating_sub(self.queued) }
    }

    /// Bytes of memory that it holds.
    #[cfg(test)]
    pub fn held_bytes(&self) -> usize {
        self.parcel.copied.capacity()
    }

    /// Says that the socket takes no more for now.
    pub fn block(&mut self) {
        self.blocked = true;
    }

    /// Takes a frame.
    pub fn push(&mut self, frame: Frame) {
        let header = frame.header.encode();
        match frame.body {
            Body::Piece(access, span) => {
                debug_assert!(matches!(frame.header.kind, Kind::Write | Kind::ReadData));
                debug_assert_eq!(span.length(), frame.header.bulk as usize, "a piece is as long as it says");
                let inside = if span.length() < DIRECT_BYTES_MIN { span.length() } else { 0 };
                let access = access.encode();
                self.room_in_record(HEADER_BYTES + access.len() + inside);
                self.add(&header);
                self.add(&access);
                if inside > 0 {
                    self.add_span(&span);
                } else if span.length() > 0 {
                    self.end();
                    self.direct(span);
                }
            }
            Body::Access(access) => {
                let access = access.encode();
                self.room_in_record(HEADER_BYTES + access.len());
                self.add(&header);
                self.add(&access);
            }
            Body::Message(head, bulk) => {
                debug_assert_eq!(head.len() + bulk.len(), frame.header.carried(), "all that it carries");
                self.message(&header, head, bulk);
            }
            Body::Empty => {
                self.room_in_record(HEADER_BYTES);
                self.add(&header);
            }
        }
    }

    fn message(&mut self, header: &[u8], head: Bytes, bulk: Bytes) {
        let carried = head.len() + bulk.len();
        if carried <= SMALL_BYTES_MAX {
            self.room_in_record(header.len() + carried);
            self.add(header);
            self.add(&head);
            self.add(&bulk);
        } else {
            debug_assert!(header.len() + carried <= RECORD_BYTES_MAX, "a frame carries a chunk at most");
            self.end();
            self.begin();
            self.parcel.copied.reserve(if self.sealer.is_some() {
                carried + TAG_BYTES + header.len()
            } else {
                0
            });
            self.add(header);
            self.hold(head);
            self.hold(bulk);
            self.end();
        }
    }

    /// Makes sure that a record is open which has room for so many bytes.
    fn room_in_record(&mut self, bytes: usize) {
        if self.open.as_ref().is_some_and(|open| open.length + bytes > SHARED_BYTES_MAX) {
            self.end();
        }
        if self.open.is_none() {
            self.begin();
        }
    }

    fn begin(&mut self) {
        if self.parcel.copied.capacity() == 0 {
            self.parcel.copied = self.buffers.borrow_send();
        }
        self.open = Some(Open { at: self.parcel.copied.len(), length: 0 });
        self.copy(&[0; PREFIX_BYTES]);
    }

    /// Ends the open record, if one is: its prefix says how long it became, and it is sealed.
    pub fn end(&mut self) {
        let Some(open) = self.open.take() else { return };
        let prefix = Record { length: open.length, direct: false }.encode(self.tag_bytes());
        let (front, body) = self.parcel.copied[open.at..].split_at_mut(PREFIX_BYTES);
        front.copy_from_slice(&prefix);
        if let Some(sealer) = &mut self.sealer {
            let tag = sealer.seal(prefix, body);
            self.copy(&tag);
        }
    }

    fn tag_bytes(&self) -> usize {
        if self.sealer.is_some() { TAG_BYTES } else { 0 }
    }

    /// Adds bytes to the open record.
    fn add(&mut self, bytes: &[u8]) {
        self.grow(bytes.len());
        self.copy(bytes);
    }

    fn add_span(&mut self, span: &Span) {
        self.grow(span.length());
        self.copy_span(span);
    }

    fn hold(&mut self, bytes: Bytes) {
        if self.sealer.is_some() || bytes.len() < HELD_BYTES_MIN {
            return self.add(&bytes);
        }
        self.grow(bytes.len());
        self.queued += bytes.len();
        self.parcel.parts.push_back(Part::Held(bytes));
    }

    fn grow(&mut self, bytes: usize) {
        if let Some(open) = &mut self.open {
            open.length += bytes;
        }
    }

    /// The bytes of a piece, in records of their own.
    fn direct(&mut self, span: Span) {
        let Some(sealer) = &mut self.sealer else {
            self.copy(&Record { length: span.length(), direct: true }.encode(0));
            self.queued += span.length();
            self.parcel.parts.push_back(Part::Piece(span));
            return;
        };
        let before = self.parcel.copied.len();
        let records = span.length().div_ceil(SEALED_PIECE_BYTES);
        self.parcel.copied.reserve(span.length() + records * (PREFIX_BYTES + TAG_BYTES));
        for at in (0..span.length()).step_by(SEALED_PIECE_BYTES) {
            let length = SEALED_PIECE_BYTES.min(span.length() - at);
            let Some(part) = span.part(at, length) else { break };
            let prefix = Record { length, direct: true }.encode(TAG_BYTES);
            self.parcel.copied.extend_from_slice(&prefix);
            let body = self.parcel.copied.len();
            sys::append(&part, &mut self.parcel.copied);
            let tag = sealer.seal(prefix, &mut self.parcel.copied[body..]);
            self.parcel.copied.extend_from_slice(&tag);
        }
        self.copied_more(self.parcel.copied.len() - before);
    }

    fn copy(&mut self, bytes: &[u8]) {
        self.parcel.copied.extend_from_slice(bytes);
        self.copied_more(bytes.len());
    }

    fn copy_span(&mut self, span: &Span) {
        sys::append(span, &mut self.parcel.copied);
        self.copied_more(span.length());
    }

    fn copied_more(&mut self, bytes: usize) {
        self.queued += bytes;
        self.parcel.copied_more(bytes);
    }

    /// What goes next; nothing if all is sent.
    pub fn gather(&self) -> Gather<'_> {
        self.parcel.gather()
    }

    /// Says that so many bytes more were sent.
    pub fn advance(&mut self, bytes: usize) {
        self.queued -= bytes;
        self.parcel.advance(bytes);
        if self.parcel.is_empty() {
            self.blocked = false;
            self.buffers.give_send(self.parcel.empty());
        }
    }

    /// All that waits, to be sent by somebody else; until it is, there is no room and nothing more is taken. `None` if nothing waits.
    pub fn take(&mut self) -> Option<Parcel> {
        if self.blocked || self.parcel.is_empty() {
            return None;
        }
        self.blocked = true;
        Some(std::mem::take(&mut self.parcel))
    }

    /// Says that so many bytes of the parcel that was taken were sent.
    pub fn sent(&mut self, bytes: usize) {
        self.queued -= bytes;
    }

    /// The parcel that was taken is sent; its memory comes back, if nobody reads it any more.
    pub fn give_back(&mut self, parcel: Option<Parcel>) {
        self.blocked = false;
        if let Some(mut parcel) = parcel {
            self.buffers.give_send(parcel.empty());
        }
    }
}
