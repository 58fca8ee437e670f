//! The receiving half of a link: messages into frames.
//!
//! A message is the next at most [`SLOT_BYTES`](super::SLOT_BYTES) bytes of the frames on their way, one behind the other. A header, and
//! the access behind it, are never cut. Its immediate number says how many messages its sender has taken so far (wrapping), so that this
//! end knows how many buffers are there; a message without bytes says only that.
//!
//! Invariant: there are never more messages than were promised; a region's memory is touched only where `Sink::place` told, until the
//! piece is placed or its region forsaken.

use crate::frame::{ACCESS_BYTES, Access, HEADER_BYTES, Header, Kind, WireError};
use crate::provider::{Place, Sink};
use crate::region::Span;
use bytes::{Bytes, BytesMut};

/// Bodies up to this length share blocks, so that a small one that is kept does not keep a large block.
const SMALL_BYTES_MAX: usize = 2 << 10;
/// Bytes of such a block.
const BLOCK_BYTES: usize = 8 << 10;

/// A frame whose first bytes have come.
enum Partial {
    Frame { header: Header, body: BytesMut },
    Piece { header: Header, access: Access, place: Option<Span>, done: usize },
}

/// The receiving half of a link.
pub struct Incoming {
    partial: Option<Partial>,
    small: BytesMut,
    /// Messages that the other end may send before it is told of more.
    promised: u32,
    /// Messages that were taken.
    taken: u32,
    /// Of these the other end knows.
    told: u32,
    frames: u64,
    bytes: u64,
}

impl Incoming {
    /// Nothing came yet, and so many messages may come.
    pub fn new(promised: u32) -> Incoming {
        let (partial, small) = (None, BytesMut::new());
        Incoming { partial, small, promised, taken: 0, told: 0, frames: 0, bytes: 0 }
    }

    /// Frames and bytes that came.
    pub fn traffic(&self) -> (u64, u64) {
        (self.frames, self.bytes)
    }

    /// What the other end is told with each message. It is told.
    pub fn tell(&mut self) -> u32 {
        self.told = self.taken;
        self.taken
    }

    /// True if the other end must be told, or it may have to wait.
    pub fn must_tell(&self) -> bool {
        self.taken.wrapping_sub(self.told) >= self.promised.div_ceil(2)
    }

    /// Takes a message.
    ///
    /// # Errors
    /// The other end broke the protocol.
    pub fn take(&mut self, mut message: &[u8], sink: &mut dyn Sink) -> Result<(), WireError> {
        if message.is_empty() {
            return Ok(());
        }
        self.taken = self.taken.wrapping_add(1);
        if self.taken.wrapping_sub(self.told) > self.promised {
            return Err(WireError("more messages than buffers were promised"));
        }
        self.bytes += message.len() as u64;
        while !message.is_empty() {
            message = match self.partial.take() {
                Some(Partial::Frame { header, body }) => self.more(header, body, message, sink)?,
                Some(Partial::Piece { header, access, place, done }) => {
                    self.piece(header, access, place, done, message, sink)?
                }
                None => self.begin(message, sink)?,
            };
        }
        Ok(())
    }

    fn begin<'a>(&mut self, message: &'a [u8], sink: &mut dyn Sink) -> Result<&'a [u8], WireError> {
        let (header, rest) = message
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(WireError("a message that ends in a header"))?;
        let header = Header::decode(header)?;
        if matches!(header.kind, Kind::Write | Kind::ReadData) && header.bulk > 0 {
            let (access, rest) = rest
                .split_first_chunk::<ACCESS_BYTES>()
                .ok_or(WireError("a message that ends in an access"))?;
            let access = Access::decode(access)?;
            let place = match sink.place(&header, &access)? {
                Place::Span(span) if span.length() == header.bulk as usize => Some(span),
                Place::Span(_) => return Err(WireError("a piece of another length than its place")),
                Place::Skip => None,
            };
            return self.piece(header, access, place, 0, rest, sink);
        }
        let carried = header.carried();
        if carried > rest.len() {
            let mut body = BytesMut::with_capacity(carried);
            body.extend_from_slice(rest);
            self.partial = Some(Partial::Frame { header, body });
            return Ok(&[]);
        }
        let (body, rest) = rest.split_at(carried);
        let body = self.copied(body);
        self.frames += 1;
        sink.frame(header, body)?;
        Ok(rest)
    }

    fn more<'a>(
        &mut self,
        header: Header,
        mut body: BytesMut,
        message: &'a [u8],
        sink: &mut dyn Sink,
    ) -> Result<&'a [u8], WireError> {
        let (more, rest) = message.split_at(message.len().min(header.carried() - body.len()));
        body.extend_from_slice(more);
        if body.len() < header.carried() {
            self.partial = Some(Partial::Frame { header, body });
        } else {
            self.frames += 1;
            sink.frame(header, body.freeze())?;
        }
        Ok(rest)
    }

    fn piece<'a>(
        &mut self,
        header: Header,
        access: Access,
        place: Option<Span>,
        done: usize,
        message: &'a [u8],
        sink: &mut dyn Sink,
    ) -> Result<&'a [u8], WireError> {
        let length = header.bulk as usize;
        let (bytes, rest) = message.split_at(message.len().min(length - done));
        if let Some(part) = place.as_ref().and_then(|place| place.part(done, bytes.len())) {
            part.fill(bytes);
        }
        let done = done + bytes.len();
        if done < length {
            self.partial = Some(Partial::Piece { header, access, place, done });
            return Ok(rest);
        }
        self.frames += 1;
        if place.is_some() {
            sink.placed(&header, &access)?;
        }
        Ok(rest)
    }

    fn copied(&mut self, body: &[u8]) -> Bytes {
        if body.is_empty() {
            return Bytes::new();
        }
        if body.len() > SMALL_BYTES_MAX {
            return Bytes::copy_from_slice(body);
        }
        if self.small.capacity() - self.small.len() < body.len() {
            self.small.reserve(BLOCK_BYTES);
        }
        self.small.extend_from_slice(body);
        self.small.split().freeze()
    }

    /// Writes no more into this region of this end.
    pub fn forsake(&mut self, region: u64) {
        if let Some(Partial::Piece { header, access, place, .. }) = &mut self.partial
            && header.kind == Kind::Write
            && access.region == region
        {
            *place = None;
        }
    }
}

#[cfg(test)]
mod tests;
