//! One slot of the callee: a request, from its first byte until the next request in the slot.
//!
//! ```text
//!   Vacant -> Arriving -> Early -> Serving -> Ready <-> Sending(link) -> Sent(link) -> Taken
//!     whole:     '-----------------^           ^ link lost: ready again '
//!     one-way, cancelled: ready as soon as it is started (or passed over)
//!   any of Ready.. that was sent -> Arriving: a higher sequence says that the reply has come
//! ```

use crate::Message;
use crate::Priority;
use crate::frame::{Header, Kind, Verdict};
use crate::session::LinkId;
use crate::session::cutting::length;

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The slot was never used.
    Vacant,
    /// Not all of it is here.
    Arriving,
    /// It is here; an earlier one is not.
    Early,
    /// The service has it.
    Serving,
    /// Its reply waits for a link.
    Ready,
    /// Its reply is half-sent on this link.
    Sending(LinkId),
    /// Its reply was sent on this link.
    Sent(LinkId),
    /// The caller has said that the reply is there.
    Taken,
}

/// The last request that used a slot, and its reply.
pub(super) struct Slot {
    pub(super) sequence: u64,
    /// KiB.
    pub(super) price: u32,
    pub(super) state: State,
    /// The link by which it came last, if that lives.
    pub(super) link: Option<LinkId>,
    /// A first frame of its reply was handed to some link, so the caller may know how it went.
    pub(super) replied: bool,
    verdict: Verdict,
    reply: Message,
}

impl Slot {
    pub(super) fn vacant() -> Slot {
        Slot {
            sequence: 0,
            price: 0,
            state: State::Vacant,
            link: None,
            replied: false,
            verdict: Verdict::Answered,
            reply: Message::default(),
        }
    }

    /// A new request uses the slot.
    #[inline]
    pub(super) fn begin(&mut self, sequence: u64, price: u32, link: LinkId) {
        self.drop_reply(Verdict::Answered);
        (self.sequence, self.price, self.link) = (sequence, price, Some(link));
        (self.state, self.replied) = (State::Arriving, false);
    }

    /// True if the caller may use it for something new.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.replied || self.state == State::Vacant
    }

    #[inline]
    pub(super) fn answer(&mut self, verdict: Verdict, reply: Message) {
        (self.verdict, self.reply) = (verdict, reply);
        self.state = State::Ready;
    }

    /// Nobody needs the body of its reply.
    #[inline]
    pub(super) fn drop_reply(&mut self, verdict: Verdict) {
        (self.verdict, self.reply) = (verdict, Message::default());
    }

    pub(super) fn reply(&self) -> &Message {
        &self.reply
    }

    pub(super) fn bytes(&self) -> usize {
        length(&self.reply)
    }

    /// The header of its reply.
    #[inline]
    pub(super) fn header(&self, channel: Priority, slot: u16, credit: u32) -> Header {
        Header {
            verdict: self.verdict,
            slot,
            sequence: self.sequence,
            credit,
            ..Header::new(Kind::Reply, channel)
        }
    }
}
