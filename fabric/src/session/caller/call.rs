//! One slot of the caller: a call, from its first frame until its reply.
//!
//! ```text
//!          first frame              link lost
//!   Free ------------> Sent(link) <-----------> Again
//!    ^                   |       first frame      |
//!    +------ reply ------+---------- reply -------+
//! ```

use super::Outgoing;
use crate::Message;
use crate::frame::{Flags, Header, Kind};
use crate::session::{LinkId, Ticket};

/// Where a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Over. The link is the one on which its `Taken` went, if that was sent.
    Free(Option<LinkId>),
    /// It went, at least in part, on this link.
    Sent(LinkId),
    /// It goes again.
    Again,
}

/// The last call that used a slot.
pub(super) struct Call {
    pub(super) sequence: u64,
    pub(super) state: State,
    pub(super) cancelled: bool,
    /// Without its message once it is over.
    pub(super) request: Outgoing,
}

impl Call {
    #[inline]
    pub(super) fn is_free(&self) -> bool {
        matches!(self.state, State::Free(_))
    }

    /// True if it is this call that is under way.
    pub(super) fn is(&self, ticket: Ticket) -> bool {
        !self.is_free() && !self.cancelled && self.request.ticket == ticket
    }

    /// It is over.
    #[inline]
    pub(super) fn end(&mut self) {
        self.state = State::Free(None);
        self.request.message = Message::default();
    }

    /// The header of its request.
    #[inline]
    pub(super) fn header(&self, slot: u16, again: bool) -> Header {
        Header {
            service: self.request.service,
            flags: Flags::default().with(Flags::ONE_WAY, self.request.one_way).with(Flags::AGAIN, again),
            slot,
            sequence: self.sequence,
            deadline_ms: self.request.deadline_ms,
            ..Header::new(Kind::Request, self.request.channel)
        }
    }
}
