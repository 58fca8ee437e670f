//! The callee's end of a session: the calls of one peer to this end.
//!
//! Owns requests until it is their turn, and replies until the caller has them. Invariant: each sequence of a channel is started once, in order; what
//! is held for the peer is within what it was granted.

mod channel;
mod slot;

use super::{CHANNELS, Grants, Lane, LinkId};
use crate::frame::{Header, Verdict, WireError};
use crate::provider::Frame;
use crate::{Message, Priority, ServiceId};
use bytes::Bytes;
use channel::Channel;

/// Which request of a session was started; goes back with its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    channel: Priority,
    slot: u16,
    /// KiB that the peer gets back when it is served.
    price: u32,
    sequence: u64,
}

impl Turn {
    /// The channel of the request.
    pub fn channel(&self) -> Priority {
        self.channel
    }

    /// The request's number in its channel, from 1: requests are started in this order.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// A request whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// What [`Callee::answered`] must be told.
    pub turn: Turn,
    /// Who is asked.
    pub service: ServiceId,
    /// What is asked.
    pub message: Message,
    /// Milliseconds that the caller waits, counted from when it submitted the request.
    pub deadline_ms: u32,
    /// True if nobody wants to know the answer.
    pub one_way: bool,
}

/// The calls of one peer to this end.
///
/// Commands: `answered`, once for each [`Start`]. What happened: `received`, `link_lost`. What is to be sent: `next`, as long as a link of
/// the lane has room. Each link by which anything came must be asked until it is lost: a reply goes back by the link by which its request
/// came last, and by any other only once that is lost.
pub struct Callee {
    channels: [Channel; 4],
    in_service: usize,
}

impl Callee {
    /// A session in which nothing was asked yet.
    pub fn new(grants: &Grants) -> Callee {
        let channel = |name: Priority| {
            Channel::new(name, grants.slots[name as usize], grants.window_kib[name as usize])
        };
        Callee { channels: CHANNELS.map(channel), in_service: 0 }
    }

    /// A frame of the caller came by this link: a request, a chunk of one, a cancel or a confirmation. Adds the requests whose turn it is now,
    /// in their order.
    ///
    /// # Errors
    /// The caller broke the protocol; its links must end.
    #[inline]
    pub fn received(
        &mut self,
        link: LinkId,
        header: &Header,
        body: Bytes,
        out: &mut Vec<Start>,
    ) -> Result<(), WireError> {
        let before = out.len();
        let outcome = self.channels[header.channel as usize].received(link, header, body, out);
        self.in_service += out.len() - before;
        outcome
    }

    /// A request that was started is served; called once for each. The message is dropped if nobody waits for it.
    #[inline]
    pub fn answered(&mut self, turn: Turn, verdict: Verdict, message: Message) {
        self.in_service -= 1;
        self.channels[turn.channel as usize].answered(turn, verdict, message);
    }

    /// The most urgent frame of this lane, which must now be sent on this link.
    #[inline]
    pub fn next(&mut self, lane: Lane, link: LinkId) -> Option<Frame> {
        let [urgent, other] = lane.channels().map(|channel| channel as usize);
        self.channels[urgent].next(link).or_else(|| self.channels[other].next(link))
    }

    /// True if `next` has a frame of this lane, for one link at least.
    #[inline]
    pub fn has_next(&self, lane: Lane) -> bool {
        lane.channels().iter().any(|channel| self.channels[*channel as usize].has_next())
    }

    /// The link is gone. Replies that went on it go again, by any link; requests that came half by it are forgotten, for the caller sends them
    /// again.
    pub fn link_lost(&mut self, link: LinkId) {
        self.channels.iter_mut().for_each(|channel| channel.link_lost(link));
    }

    /// Requests that were started and not answered yet.
    pub fn in_service(&self) -> usize {
        self.in_service
    }

    /// Bytes of messages held here: requests before their turn, replies that the caller may not have.
    pub fn stored_bytes(&self) -> usize {
        self.channels.iter().map(Channel::stored_bytes).sum()
    }
}
