//! Cutting long messages into frames: what of a message goes next, and which messages are half-sent on which link.
//!
//! Invariant: on one link at most one message of a channel is half-sent, so that the other end puts together at most one.

use super::LinkId;
use crate::Message;
use crate::frame::{CHUNK_BYTES, Flags, Header, Kind};
use crate::provider::{Body, Frame};

/// Bytes of a message.
#[inline]
pub(super) fn length(message: &Message) -> usize {
    message.head.len() + message.bulk.len()
}

/// The first frame of a message under this header, whose lengths and flag it fills in; and how much is sent with it if more follows.
#[inline]
pub(super) fn first(mut header: Header, message: &Message) -> (Frame, Option<usize>) {
    header.head = message.head.len() as u32;
    header.bulk = message.bulk.len() as u32;
    let (head, bulk) = (message.head.clone(), message.bulk.clone());
    if length(message) <= CHUNK_BYTES {
        return (Frame { header, body: Body::Message(head, bulk) }, None);
    }
    header.flags = header.flags.with(Flags::MORE, true);
    (Frame { header, body: part(message, 0, CHUNK_BYTES) }, Some(CHUNK_BYTES))
}

fn part(message: &Message, from: usize, to: usize) -> Body {
    let head = message.head.len();
    let of_head = message.head.slice(from.min(head)..to.min(head));
    let of_bulk = message.bulk.slice(from.saturating_sub(head)..to.saturating_sub(head));
    Body::Message(of_head, of_bulk)
}

struct Sending {
    link: LinkId,
    slot: u16,
    sent: usize,
}

/// The half-sent messages of a channel.
#[derive(Default)]
pub(super) struct Sendings {
    under_way: Vec<Sending>,
}

impl Sendings {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// The slot whose message is half-sent on this link.
    #[inline]
    pub(super) fn on(&self, link: LinkId) -> Option<u16> {
        self.under_way.iter().find(|sending| sending.link == link).map(|sending| sending.slot)
    }

    /// The first `sent` bytes of this slot's message went on this link.
    pub(super) fn begin(&mut self, link: LinkId, slot: u16, sent: usize) {
        debug_assert!(self.on(link).is_none(), "one message at a time");
        self.under_way.push(Sending { link, slot, sent });
    }

    /// The next chunk of the message that is half-sent on this link. The header names its channel, slot and sequence.
    /// True if it is the last one.
    pub(super) fn chunk(
        &mut self,
        link: LinkId,
        mut header: Header,
        message: &Message,
    ) -> Option<(Frame, bool)> {
        let at = self.under_way.iter().position(|sending| sending.link == link)?;
        let (from, whole) = (self.under_way[at].sent, length(message));
        let to = whole.min(from + CHUNK_BYTES);
        header.kind = Kind::Chunk;
        header.bulk = (to - from) as u32;
        header.flags = Flags::default().with(Flags::MORE, to < whole);
        if to < whole {
            self.under_way[at].sent = to;
        } else {
            self.under_way.swap_remove(at);
        }
        Some((Frame { header, body: part(message, from, to) }, to == whole))
    }

    /// The rest of this slot's message is not sent.
    #[inline]
    pub(super) fn give_up(&mut self, slot: u16) {
        if !self.under_way.is_empty() {
            self.under_way.retain(|sending| sending.slot != slot);
        }
    }

    /// The link is gone, and what was half-sent on it.
    pub(super) fn link_lost(&mut self, link: LinkId) {
        self.under_way.retain(|sending| sending.link != link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Priority;

    fn bytes(body: &Body) -> Vec<u8> {
        match body {
            Body::Message(head, bulk) => [&head[..], &bulk[..]].concat(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn the_frames_of_a_message_are_the_message() {
        let header = Header { slot: 3, sequence: 9, ..Header::new(Kind::Reply, Priority::Data) };
        for (head, bulk) in [
            (0, 0),
            (10, CHUNK_BYTES - 10),
            (10, CHUNK_BYTES - 9),
            (CHUNK_BYTES + 5, CHUNK_BYTES),
            (0, 2 * CHUNK_BYTES),
            (3 * CHUNK_BYTES, 0),
        ] {
            let whole: Vec<u8> = (0..head + bulk).map(|at| (at % 251) as u8).collect();
            let message =
                Message { head: whole[..head].to_vec().into(), bulk: whole[head..].to_vec().into() };
            let mut sendings = Sendings::default();
            let (frame, sent) = first(header, &message);
            let mut frames = vec![frame];
            if let Some(sent) = sent {
                sendings.begin(LinkId(1), 3, sent);
            }
            while let Some((frame, _)) = sendings.chunk(LinkId(1), header, &message) {
                frames.push(frame);
            }
            let came: Vec<u8> = frames.iter().flat_map(|frame| bytes(&frame.body)).collect();
            assert!(came == whole, "{head} + {bulk}");
            for frame in &frames {
                assert_eq!(Header::decode(&frame.header.encode()), Ok(frame.header));
                assert_eq!(frame.header.carried(), bytes(&frame.body).len());
            }
            let more = frames.iter().filter(|frame| frame.header.flags.has(Flags::MORE)).count();
            assert_eq!(more, frames.len() - 1);
        }
    }
}
