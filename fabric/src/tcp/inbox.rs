//! What a link received and nobody has taken yet.
//!
//! ```text
//!  socket -> buffer ------------------> records <= SHARED: opened where they lie, frames are slices of the buffer
//!         -> memory of its own -------> a longer record: one message, received into its memory
//!         -> the region, in place ----> a direct record: bytes of the piece whose frame came before; a sealed one when it has opened
//! ```
//!
//! One call receives the rest of what goes elsewhere and a little more: the beginning of the next record, not so much that bytes of a
//! piece would have to be copied out of the buffer.
//!
//! Invariant: while `apart` is there, every byte in `buffer` comes after its body; a region's memory is written only while `piece`
//! names it.

use super::record::{DIRECT_BYTES_MIN, PREFIX_BYTES, Record, SHARED_BYTES_MAX};
use super::seal::{Opener, TAG_BYTES};
use super::sys::{self, Area};
use crate::frame::{ACCESS_BYTES, Access, HEADER_BYTES, Header, Kind, WireError};
use crate::provider::{Place, Sink};
use crate::reactor::{Buffers, RECEIVE_BYTES, SPARE_BYTES_MIN};
use crate::region::{Memory, Span};
use bytes::{Buf, Bytes, BytesMut};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Bytes that are received behind what goes elsewhere: the end of its record, and the frame of the next piece with the prefix of its bytes.
const BEHIND_BYTES: usize = TAG_BYTES + PREFIX_BYTES + HEADER_BYTES + ACCESS_BYTES + TAG_BYTES + PREFIX_BYTES;

/// A record whose body goes elsewhere than into the buffer.
struct Apart {
    prefix: [u8; PREFIX_BYTES],
    record: Record,
    filled: usize,
    into: Into,
}

enum Into {
    Span(Span),
    Fresh(BytesMut),
}

/// A one-sided piece whose bytes are on their way.
struct Piece {
    header: Header,
    access: Access,
    /// Where they go; `None`: nowhere.
    place: Option<Span>,
    done: usize,
}

/// What a link receives.
pub struct Inbox {
    buffer: BytesMut,
    apart: Option<Apart>,
    piece: Option<Piece>,
    opener: Option<Opener>,
    frames: u64,
    /// The last record went elsewhere, and so may the next.
    bulk: bool,
}

/// What one system call brought.
pub struct Filled {
    /// Bytes.
    pub bytes: usize,
    /// There was room for more: the socket had nothing more then.
    pub drained: bool,
}

impl Inbox {
    /// Begins with bytes that were received already.
    pub fn new(opener: Option<Opener>, early: &[u8], buffers: &Buffers) -> Inbox {
        let mut buffer = BytesMut::new();
        if !early.is_empty() {
            buffer = buffers.borrow_receive();
            buffer.extend_from_slice(early);
        }
        Inbox { buffer, apart: None, piece: None, opener, frames: 0, bulk: false }
    }

    /// Bytes of memory that it holds.
    #[cfg(test)]
    pub fn held_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Frames that came whole.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Receives once.
    ///
    /// # Errors
    /// recv(2).
    pub fn fill(&mut self, socket: BorrowedFd<'_>, buffers: &Buffers) -> io::Result<Filled> {
        self.make_room(buffers);
        let spare = self.buffer.capacity() - self.buffer.len();
        let more = if self.bulk || self.piece.is_some() { BEHIND_BYTES } else { spare };
        let Some(apart) = &mut self.apart else {
            let (_, bytes) = sys::receive(socket, Area::None, &mut self.buffer, more)?;
            return Ok(Filled { bytes, drained: bytes < more });
        };
        let missing = apart.record.length - apart.filled;
        let (there, behind) = match &mut apart.into {
            Into::Fresh(fresh) => sys::receive(socket, Area::Fresh(fresh, missing), &mut self.buffer, more)?,
            Into::Span(span) => match span.part(apart.filled, missing) {
                Some(rest) if missing > 0 => sys::receive(socket, Area::Span(&rest), &mut self.buffer, more)?,
                _ => sys::receive(socket, Area::None, &mut self.buffer, more)?,
            },
        };
        apart.filled += there;
        Ok(Filled { bytes: there + behind, drained: there + behind < missing + more })
    }

    /// Takes received bytes, as many as go to where the next ones go; at least one. Gives back how many.
    pub fn feed(&mut self, bytes: &[u8], buffers: &Buffers) -> usize {
        if let Some(apart) = &mut self.apart
            && self.buffer.is_empty()
        {
            let took = apart.put(bytes);
            if took > 0 {
                return took;
            }
        }
        self.make_room(buffers);
        let spare = self.buffer.capacity() - self.buffer.len();
        let most = if self.bulk || self.piece.is_some() { BEHIND_BYTES } else { spare };
        let took = bytes.len().min(most).min(spare);
        self.buffer.extend_from_slice(&bytes[..took]);
        took
    }

    fn make_room(&mut self, buffers: &Buffers) {
        if self.buffer.capacity() == 0 {
            self.buffer = buffers.borrow_receive();
        }
        let (length, spare) = (self.buffer.len(), self.buffer.capacity() - self.buffer.len());
        let whole = RECEIVE_BYTES.saturating_sub(length).max(SPARE_BYTES_MIN);
        if !self.buffer.try_reclaim(whole) && spare < SPARE_BYTES_MIN {
            let mut fresh = buffers.borrow_receive();
            fresh.reserve(length + SPARE_BYTES_MIN);
            fresh.extend_from_slice(&self.buffer);
            buffers.give_receive(std::mem::replace(&mut self.buffer, fresh));
        }
    }

    /// Gives the buffer back if nothing is in it.
    pub fn rest(&mut self, buffers: &Buffers) {
        if self.buffer.is_empty() && self.buffer.capacity() > 0 {
            buffers.give_receive(std::mem::take(&mut self.buffer));
        }
    }

    /// Hands on all that is whole.
    ///
    /// # Errors
    /// The other end broke the protocol.
    pub fn digest(&mut self, sink: &mut dyn Sink) -> Result<(), WireError> {
        let tag = if self.opener.is_some() { TAG_BYTES } else { 0 };
        loop {
            if let Some(mut apart) = self.apart.take() {
                apart.take_from(&mut self.buffer);
                if apart.filled < apart.record.length || self.buffer.len() < tag {
                    self.apart = Some(apart);
                    return Ok(());
                }
                self.finish(apart, sink)?;
                continue;
            }
            let Some(prefix) = self.buffer.first_chunk::<PREFIX_BYTES>().copied() else { return Ok(()) };
            let record = Record::decode(prefix, tag)?;
            if record.direct || record.length > SHARED_BYTES_MAX {
                self.begin_apart(prefix, record)?;
                continue;
            }
            self.bulk = false;
            if self.buffer.len() < PREFIX_BYTES + record.length + tag {
                return Ok(());
            }
            self.shared(prefix, record, tag, sink)?;
        }
    }

    /// A record that lies in the buffer whole.
    fn shared(
        &mut self,
        prefix: [u8; PREFIX_BYTES],
        record: Record,
        tag: usize,
        sink: &mut dyn Sink,
    ) -> Result<(), WireError> {
        let mut body = self.buffer.split_to(PREFIX_BYTES + record.length + tag);
        body.advance(PREFIX_BYTES);
        if let Some(opener) = &mut self.opener {
            let (body, tag) = body.split_at_mut(record.length);
            opener.open(prefix, body, tag.first_chunk().copied().unwrap_or_default())?;
        }
        body.truncate(record.length);
        self.unpack(body.freeze(), sink)
    }

    fn begin_apart(&mut self, prefix: [u8; PREFIX_BYTES], record: Record) -> Result<(), WireError> {
        let into = match (&self.piece, record.direct) {
            (Some(piece), true) => {
                if record.length > piece.header.bulk as usize - piece.done {
                    return Err(WireError("more bytes than the piece has"));
                }
                match &piece.place {
                    Some(span) if self.opener.is_none() => {
                        span.part(piece.done, record.length).map(Into::Span)
                    }
                    // What is sealed comes into the region when it has been opened: another link may have brought the same bytes by then.
                    _ => None,
                }
            }
            (None, false) => None,
            _ => return Err(WireError("bytes of a piece where none belong, or none where they do")),
        };
        let into = into.unwrap_or_else(|| Into::Fresh(BytesMut::with_capacity(record.length)));
        self.bulk = true;
        self.buffer.advance(PREFIX_BYTES);
        self.apart = Some(Apart { prefix, record, filled: 0, into });
        Ok(())
    }

    /// A record that came whole elsewhere; its tag is in the buffer.
    fn finish(&mut self, mut apart: Apart, sink: &mut dyn Sink) -> Result<(), WireError> {
        if let Some(opener) = &mut self.opener {
            let tag = self.buffer.first_chunk().copied().unwrap_or_default();
            self.buffer.advance(TAG_BYTES);
            if let Into::Fresh(fresh) = &mut apart.into {
                opener.open(apart.prefix, fresh, tag)?;
            }
        }
        match apart.into {
            Into::Fresh(fresh) if !apart.record.direct => return self.unpack(fresh.freeze(), sink),
            Into::Fresh(fresh) => self.fill_piece(&fresh),
            Into::Span(_) => {}
        }
        self.piece_grown(apart.record.length, sink)
    }

    /// Copies the next bytes of the piece to where they belong, unless they belong nowhere any more.
    fn fill_piece(&self, bytes: &[u8]) {
        let part = self.piece.as_ref().and_then(|piece| piece.place.as_ref()?.part(piece.done, bytes.len()));
        if let Some(part) = part {
            part.fill(bytes);
        }
    }

    fn piece_grown(&mut self, bytes: usize, sink: &mut dyn Sink) -> Result<(), WireError> {
        let Some(piece) = &mut self.piece else { return Ok(()) };
        piece.done += bytes;
        if piece.done < piece.header.bulk as usize {
            return Ok(());
        }
        self.frames += 1;
        match self.piece.take() {
            Some(Piece { header, access, place: Some(_), .. }) => sink.placed(&header, &access),
            _ => Ok(()),
        }
    }

    /// The frames of a record.
    fn unpack(&mut self, mut body: Bytes, sink: &mut dyn Sink) -> Result<(), WireError> {
        if self.piece.is_some() {
            return Err(WireError("a frame where bytes of a piece belong"));
        }
        while !body.is_empty() {
            let header = body.first_chunk().ok_or(WireError("a record that ends in a header"))?;
            let header = Header::decode(header)?;
            body.advance(HEADER_BYTES);
            if matches!(header.kind, Kind::Write | Kind::ReadData) && header.bulk > 0 {
                self.unpack_piece(header, &mut body, sink)?;
                continue;
            }
            if body.len() < header.carried() {
                return Err(WireError("a record that ends in a frame"));
            }
            self.frames += 1;
            sink.frame(header, body.split_to(header.carried()))?;
        }
        Ok(())
    }

    fn unpack_piece(
        &mut self,
        header: Header,
        body: &mut Bytes,
        sink: &mut dyn Sink,
    ) -> Result<(), WireError> {
        let access = body.first_chunk().ok_or(WireError("a record that ends in an access"))?;
        let access = Access::decode(access)?;
        body.advance(ACCESS_BYTES);
        let length = header.bulk as usize;
        let direct = length >= DIRECT_BYTES_MIN;
        let fits = if direct { body.is_empty() } else { body.len() >= length };
        if !fits {
            return Err(WireError("a piece that is neither in its frame nor behind it"));
        }
        let place = match sink.place(&header, &access)? {
            Place::Span(span) if span.length() == length => Some(span),
            Place::Span(_) => return Err(WireError("a piece of another length than its place")),
            Place::Skip => None,
        };
        if direct {
            self.piece = Some(Piece { header, access, place, done: 0 });
            return Ok(());
        }
        self.frames += 1;
        let bytes = body.split_to(length);
        match place {
            Some(span) => {
                span.fill(&bytes);
                sink.placed(&header, &access)
            }
            None => Ok(()),
        }
    }

    /// Writes no more where `is_meant` says so of the piece that is on its way; the rest of it is received and forgotten.
    pub fn forsake(&mut self, is_meant: impl Fn(&Access, &Arc<Memory>) -> bool) {
        let Some(piece) = &mut self.piece else { return };
        if !piece.place.as_ref().is_some_and(|span| is_meant(&piece.access, span.memory().0)) {
            return;
        }
        piece.place = None;
        let Some(apart) = &mut self.apart else { return };
        if let Into::Span(span) = &apart.into {
            // The record still has to open, so what came of it moves to where the rest will go.
            let mut fresh = BytesMut::with_capacity(apart.record.length);
            fresh.resize(apart.filled, 0);
            if let Some(came) = span.part(0, apart.filled) {
                came.copy_to(&mut fresh);
            }
            apart.into = Into::Fresh(fresh);
        }
    }
}

impl Apart {
    /// Takes what of its body lies in the buffer.
    fn take_from(&mut self, buffer: &mut BytesMut) {
        let took = self.put(buffer);
        buffer.advance(took);
    }

    /// Takes the next bytes of its body, and gives back how many.
    fn put(&mut self, bytes: &[u8]) -> usize {
        let took = bytes.len().min(self.record.length - self.filled);
        if took == 0 {
            return 0;
        }
        match &mut self.into {
            Into::Fresh(fresh) => fresh.extend_from_slice(&bytes[..took]),
            Into::Span(span) => {
                if let Some(part) = span.part(self.filled, took) {
                    part.fill(&bytes[..took]);
                }
            }
        }
        self.filled += took;
        took
    }
}
