//! The receiving half of a link: records into frames.
//!
//! The other process may change the shared memory at any time. So a record's word is read once, header and access are copied out before
//! they are looked at, and bodies are copied before anybody sees them.
//!
//! Invariant: what a record says about lengths is checked against the ring and the frame's own header before it is used; a
//! region's memory is touched inside [`Incoming::take`] only, between `Sink::place` and `Sink::placed`.

use super::bell::Bell;
use super::lending::Borrower;
use super::outgoing::LENT_RECORD_BYTES;
use super::ring::{Consumer, Record};
use super::track::Form;
use crate::frame::{ACCESS_BYTES, Access, HEADER_BYTES, Header, Kind, WireError};
use crate::provider::{LinkError, Place, Sink};
use crate::region::Span;
use bytes::{Bytes, BytesMut};
use std::os::fd::BorrowedFd;

/// Bodies up to this length share blocks, so that a small one that is kept does not keep a large block.
const SMALL_BYTES_MAX: usize = 2 << 10;
/// Bytes of such a block.
const BLOCK_BYTES: usize = 8 << 10;

/// The receiving half of a link.
pub struct Incoming {
    ring: Consumer,
    borrower: Borrower,
    /// A frame whose first records have come, and the bytes that are missing. They are in `large` so far.
    partial: Option<(Header, usize)>,
    small: BytesMut,
    large: BytesMut,
    frames: u64,
    bytes: u64,
}

impl Incoming {
    /// Out of this ring.
    pub fn new(ring: Consumer) -> Incoming {
        Incoming {
            ring,
            borrower: Borrower::default(),
            partial: None,
            small: BytesMut::new(),
            large: BytesMut::new(),
            frames: 0,
            bytes: 0,
        }
    }

    /// Frames and bytes that came.
    pub fn traffic(&self) -> (u64, u64) {
        (self.frames, self.bytes)
    }

    /// Gives back the memory that only long frames need.
    #[inline]
    pub fn tidy(&mut self) {
        if self.large.capacity() > 0 && self.partial.is_none() {
            self.large = BytesMut::new();
        }
    }

    /// True if no record is there.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.ring.is_empty()
    }

    /// From here on the other end rings. True if something is there already.
    pub fn park(&self) -> bool {
        self.ring.park()
    }

    /// The other end need not ring any more.
    pub fn unpark(&self) {
        self.ring.unpark();
    }

    /// Takes the next record: the bytes that it stands for, `None` if there is no record.
    ///
    /// # Errors
    /// The other end broke the protocol, or passed memory that cannot be mapped.
    #[inline]
    pub fn take(
        &mut self,
        socket: BorrowedFd<'_>,
        theirs: &Bell,
        sink: &mut dyn Sink,
    ) -> Result<Option<usize>, LinkError> {
        let Some(record) = self.ring.next()? else { return Ok(None) };
        let bytes = match record.form {
            Form::Frame => self.frame(&record, sink)?,
            Form::More => self.more(&record, sink)?,
            Form::Lent => self.lent(&record, socket, sink)?,
            Form::Forget => self.forget(&record)?,
            Form::Jump => 0,
        };
        self.bytes += bytes as u64;
        // Who lends waits for having it back.
        if (self.ring.advance(&record) || record.form == Form::Lent) && self.ring.publish() {
            theirs.ring();
        }
        Ok(Some(bytes))
    }

    #[inline]
    fn frame(&mut self, record: &Record, sink: &mut dyn Sink) -> Result<usize, WireError> {
        if self.partial.is_some() {
            return Err(WireError("a frame inside a frame"));
        }
        let header = self.header(record)?;
        let carried = record.length - HEADER_BYTES;
        if carried > header.carried() {
            return Err(WireError("a record longer than its frame"));
        }
        if carried < header.carried() {
            make_room(&mut self.large, header.carried(), 0);
            self.ring.append_to(HEADER_BYTES, carried, &mut self.large);
            self.partial = Some((header, header.carried() - carried));
            return Ok(record.length);
        }
        self.frames += 1;
        if is_piece(&header) {
            let access = Access::decode(&self.ring.read(HEADER_BYTES))?;
            place(&header, &access, sink, |span| self.ring.read_span(HEADER_BYTES + ACCESS_BYTES, span))?;
        } else {
            let body = self.body(carried);
            sink.frame(header, body)?;
        }
        Ok(record.length)
    }

    /// The header of the next record.
    #[inline]
    fn header(&self, record: &Record) -> Result<Header, WireError> {
        if record.length < HEADER_BYTES {
            return Err(WireError("a record shorter than a header"));
        }
        Header::decode(&self.ring.read(0))
    }

    /// Copies out what follows the header.
    #[inline]
    fn body(&mut self, length: usize) -> Bytes {
        if length == 0 {
            return Bytes::new();
        }
        let (buffer, block) = match length {
            0..=SMALL_BYTES_MAX => (&mut self.small, BLOCK_BYTES),
            _ => (&mut self.large, 0),
        };
        make_room(buffer, length, block);
        self.ring.append_to(HEADER_BYTES, length, buffer);
        buffer.split().freeze()
    }

    fn more(&mut self, record: &Record, sink: &mut dyn Sink) -> Result<usize, WireError> {
        let (header, missing) = self.partial.take().ok_or(WireError("more of no frame"))?;
        if record.length == 0 || record.length > missing {
            return Err(WireError("more of a frame than it has"));
        }
        self.ring.append_to(0, record.length, &mut self.large);
        if record.length < missing {
            self.partial = Some((header, missing - record.length));
            return Ok(record.length);
        }
        self.frames += 1;
        let body = self.large.split().freeze();
        if is_piece(&header) {
            let (access, bytes) =
                body.split_first_chunk().ok_or(WireError("a piece without what it touches"))?;
            place(&header, &Access::decode(access)?, sink, |span| span.fill(bytes))?;
        } else {
            sink.frame(header, body)?;
        }
        Ok(record.length)
    }

    /// Copies a piece straight from the other end's memory.
    fn lent(
        &mut self,
        record: &Record,
        socket: BorrowedFd<'_>,
        sink: &mut dyn Sink,
    ) -> Result<usize, LinkError> {
        if self.partial.is_some() || record.length != LENT_RECORD_BYTES {
            return Err(WireError("a lent piece where none can be").into());
        }
        let header = self.header(record)?;
        if !is_piece(&header) {
            return Err(WireError("a lent frame that is no piece").into());
        }
        let access = Access::decode(&self.ring.read(HEADER_BYTES))?;
        let number = u64::from_le_bytes(self.ring.read(LENT_RECORD_BYTES - 16));
        let offset = u64::from_le_bytes(self.ring.read(LENT_RECORD_BYTES - 8));
        let memory = self.borrower.memory(number, socket)?;
        let offset =
            usize::try_from(offset).ok().filter(|offset| memory.holds(*offset, header.bulk as usize));
        let offset = offset.ok_or(LinkError::Wire(WireError("a lent piece beyond its memory")))?;
        place(&header, &access, sink, |span| memory.read_span(offset, span))?;
        self.frames += 1;
        Ok(HEADER_BYTES + header.carried())
    }

    fn forget(&mut self, record: &Record) -> Result<usize, WireError> {
        if record.length != 8 {
            return Err(WireError("a forgotten memory without its number"));
        }
        self.borrower.forget(u64::from_le_bytes(self.ring.read(0)));
        Ok(0)
    }
}

/// True if the frame's bulk goes into a region.
#[inline]
fn is_piece(header: &Header) -> bool {
    matches!(header.kind, Kind::Write | Kind::ReadData) && header.bulk > 0
}

/// Has a piece put where the sink says.
fn place(
    header: &Header,
    access: &Access,
    sink: &mut dyn Sink,
    copy: impl FnOnce(&Span),
) -> Result<(), WireError> {
    let Place::Span(span) = sink.place(header, access)? else { return Ok(()) };
    assert_eq!(span.length(), header.bulk as usize, "a place is as long as its piece");
    copy(&span);
    sink.placed(header, access)
}

/// Makes sure that so much can be appended, in a block of this length if it takes a new one. Takes none if all that was cut off the
/// buffer has been dropped.
#[inline]
fn make_room(buffer: &mut BytesMut, length: usize, block: usize) {
    if buffer.capacity() - buffer.len() < length {
        buffer.reserve(length.max(block));
    }
}
