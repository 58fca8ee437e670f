//! Putting messages together from the frames they came in.
//!
//! Owns the half-received messages of a channel, one a link at most. Invariant: a message holds exactly the bytes that its first frame announced,
//! or it is not handed out.

use super::LinkId;
use crate::Message;
use crate::frame::{CHUNK_BYTES, Flags, Header, WireError};
use bytes::Bytes;

/// The message of a frame that carries all of it.
#[inline]
pub(super) fn whole(header: &Header, mut body: Bytes) -> Result<Message, WireError> {
    let head = header.head as usize;
    if body.len() != head + header.bulk as usize {
        return Err(WireError("a frame that is not as long as it says"));
    }
    let bulk = body.split_off(head);
    Ok(Message { head: body, bulk })
}

struct Assembly {
    link: LinkId,
    /// Of the first frame.
    header: Header,
    head: Vec<u8>,
    bulk: Vec<u8>,
}

impl Assembly {
    fn new(link: LinkId, header: Header) -> Assembly {
        let (head, bulk) = (header.head as usize, header.bulk as usize);
        // What never comes is never touched, so the kernel gives no page for it.
        Assembly { link, header, head: Vec::with_capacity(head), bulk: Vec::with_capacity(bulk) }
    }

    fn missing(&self) -> usize {
        self.header.head as usize + self.header.bulk as usize - self.head.len() - self.bulk.len()
    }

    fn push(&mut self, bytes: &[u8]) {
        let (of_head, of_bulk) = bytes.split_at(bytes.len().min(self.header.head as usize - self.head.len()));
        self.head.extend_from_slice(of_head);
        self.bulk.extend_from_slice(of_bulk);
    }

    fn is(&self, slot: u16, sequence: u64) -> bool {
        (self.header.slot, self.header.sequence) == (slot, sequence)
    }
}

/// The half-received messages of a channel.
#[derive(Default)]
pub(super) struct Assemblies {
    under_way: Vec<Assembly>,
}

impl Assemblies {
    /// The first frame of a long message. What was begun on this link before has been given up by the other end.
    pub(super) fn begin(&mut self, link: LinkId, header: &Header, body: &Bytes) -> Result<(), WireError> {
        let announced = header.head as usize + header.bulk as usize;
        if body.len() != CHUNK_BYTES || announced <= CHUNK_BYTES {
            return Err(WireError("a first frame that is not as long as it says"));
        }
        self.under_way.retain(|assembly| assembly.link != link);
        let mut assembly = Assembly::new(link, *header);
        assembly.push(body);
        self.under_way.push(assembly);
        Ok(())
    }

    /// The next bytes. Gives the message, under the header of its first frame, if these are the last. A chunk of what nobody puts together (any
    /// more) is passed over: another copy was whole before.
    pub(super) fn chunk(
        &mut self,
        link: LinkId,
        header: &Header,
        body: &Bytes,
    ) -> Result<Option<(Header, Message)>, WireError> {
        if body.len() != header.carried() || header.head != 0 {
            return Err(WireError("a chunk that is not as long as it says"));
        }
        let mine = |assembly: &Assembly| assembly.link == link && assembly.is(header.slot, header.sequence);
        let Some(at) = self.under_way.iter().position(mine) else {
            return Ok(None);
        };
        let assembly = &mut self.under_way[at];
        let missing = assembly.missing();
        let more = header.flags.has(Flags::MORE);
        if body.len() > missing || more != (body.len() < missing) {
            return Err(WireError("a chunk beyond what was announced"));
        }
        assembly.push(body);
        if more {
            return Ok(None);
        }
        let Assembly { header, head, bulk, .. } = self.under_way.swap_remove(at);
        Ok(Some((header, Message { head: head.into(), bulk: bulk.into() })))
    }

    /// Nobody needs this message any more.
    #[inline]
    pub(super) fn forget(&mut self, slot: u16, sequence: u64) {
        if !self.under_way.is_empty() {
            self.under_way.retain(|assembly| !assembly.is(slot, sequence));
        }
    }

    /// The rest of what came by this link will not come.
    pub(super) fn link_lost(&mut self, link: LinkId) {
        self.under_way.retain(|assembly| assembly.link != link);
    }

    /// Bytes that have come.
    pub(super) fn bytes(&self) -> usize {
        self.under_way.iter().map(|assembly| assembly.head.len() + assembly.bulk.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Priority;
    use crate::frame::Kind;

    const A: LinkId = LinkId(1);

    fn first(sequence: u64, bytes: usize) -> Header {
        let flags = Flags(Flags::MORE);
        Header { sequence, bulk: bytes as u32, flags, ..Header::new(Kind::Request, Priority::Data) }
    }

    fn chunk(sequence: u64, bytes: usize, more: bool) -> (Header, Bytes) {
        let flags = Flags::default().with(Flags::MORE, more);
        let header = Header { flags, ..first(sequence, bytes) };
        (Header { kind: Kind::Chunk, ..header }, vec![0; bytes].into())
    }

    fn begun(bytes: usize) -> Assemblies {
        let mut assemblies = Assemblies::default();
        assemblies.begin(A, &first(1, bytes), &vec![0; CHUNK_BYTES].into()).unwrap();
        assemblies
    }

    #[test]
    fn a_link_brings_one_message_at_a_time_and_takes_it_along() {
        let mut assemblies = begun(2 * CHUNK_BYTES);
        assemblies.begin(A, &first(2, 2 * CHUNK_BYTES), &vec![0; CHUNK_BYTES].into()).unwrap();
        assert_eq!(assemblies.bytes(), CHUNK_BYTES);
        let (header, body) = chunk(1, CHUNK_BYTES, false);
        assert_eq!(assemblies.chunk(A, &header, &body), Ok(None), "the first one was given up");
        assemblies.link_lost(A);
        assert_eq!(assemblies.bytes(), 0);
    }

    #[test]
    fn a_message_is_as_long_as_it_was_announced() {
        let whole = CHUNK_BYTES + 10;
        for (bytes, more) in [(11, false), (9, false), (CHUNK_BYTES, true)] {
            let (header, body) = chunk(1, bytes, more);
            assert!(begun(whole).chunk(A, &header, &body).is_err(), "{bytes} more={more}");
        }
        let (header, body) = chunk(1, 10, false);
        let (first, message) = begun(whole).chunk(A, &header, &body).unwrap().unwrap();
        assert_eq!((first.kind, message.bulk.len()), (Kind::Request, whole));
        let short = first.bulk as usize - 11;
        assert!(Assemblies::default().begin(A, &first, &vec![0; short].into()).is_err());
    }
}
