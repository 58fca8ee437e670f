//! The caller's end of a session: the calls of this end to one peer.
//!
//! Owns each call from its submission until its reply is there. Invariant: a call completes once or is given back by [`Caller::drain`] once; what
//! was cancelled neither; and what waits is bounded by `waiting_max` a channel.

mod call;
mod channel;

use super::{CHANNELS, Grants, Lane, LinkId, Ticket};
use crate::frame::{Header, Verdict, WireError};
use crate::provider::Frame;
use crate::{Message, Priority, ServiceId};
use bytes::Bytes;
use channel::Channel;

/// The first version whose callees know `Taken`.
const CONFIRMED_FROM: u16 = 3;

/// A request on its way to the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The engine's name for it.
    pub ticket: Ticket,
    /// Who answers it.
    pub service: ServiceId,
    /// Its channel.
    pub channel: Priority,
    /// What is asked, within the limits of a message.
    pub message: Message,
    /// What the callee is told, also when it is sent late or again: milliseconds that somebody waits.
    pub deadline_ms: u32,
    /// True if nobody wants to know the answer: the call completes, without a body, when the service has started.
    pub one_way: bool,
}

/// A call that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    /// The engine's name for it.
    pub ticket: Ticket,
    /// How it went; `Unheard` for what was one-way.
    pub verdict: Verdict,
    /// The reply.
    pub message: Message,
}

/// The calls of this end to one peer.
///
/// Commands: `grant`, `submit`, `cancel`, `drain`. What happened: `received`, `link_lost`. What is to be sent: `next`, as long as
/// a link of the lane has room. Each link on which anything was sent must be asked for more until it is lost: the rest of a long message, and its
/// cancel, go where its beginning went.
pub struct Caller {
    channels: [Channel; 4],
    waiting_max: usize,
    granted: bool,
}

impl Caller {
    /// No calls. Nothing is sent before [`Caller::grant`]. On each channel at most `waiting_max` requests wait to be sent.
    pub fn new(waiting_max: usize) -> Caller {
        Caller { channels: CHANNELS.map(Channel::new), waiting_max, granted: false }
    }

    /// The callee has the session and grants this much; said once in a session's life, later calls change nothing.
    pub fn grant(&mut self, grants: &Grants) {
        if !std::mem::replace(&mut self.granted, true) {
            let granted = grants.slots.iter().zip(grants.window_kib);
            self.channels.iter_mut().zip(granted).for_each(|(channel, (slots, kib))| {
                channel.grant(*slots, kib);
            });
        }
    }

    /// The version that the callee speaks; said before each [`Caller::grant`].
    pub fn speak(&mut self, version: u16) {
        self.channels.iter_mut().for_each(|channel| channel.confirm(version >= CONFIRMED_FROM));
    }

    /// True once the callee knows the session.
    pub fn is_granted(&self) -> bool {
        self.granted
    }

    /// Takes a request, which is sent after those of its channel that were submitted before.
    ///
    /// # Errors
    /// As many as may wait on its channel do: the request comes back.
    #[inline]
    pub fn submit(&mut self, request: Outgoing) -> Result<(), Outgoing> {
        let channel = &mut self.channels[request.channel as usize];
        if channel.waiting() >= self.waiting_max {
            return Err(request);
        }
        channel.submit(request);
        Ok(())
    }

    /// The most urgent frame of this lane, which must now be sent on this link.
    #[inline]
    pub fn next(&mut self, lane: Lane, link: LinkId) -> Option<Frame> {
        let [urgent, other] = lane.channels().map(|channel| channel as usize);
        if let Some(notice) = self.channels[urgent].next_notice(link) {
            return Some(notice);
        }
        if let Some(notice) = self.channels[other].next_notice(link) {
            return Some(notice);
        }
        self.channels[urgent].next_request(link).or_else(|| self.channels[other].next_request(link))
    }

    /// As [`Caller::next`], but only what must go on this link because its beginning did; nothing new, and nothing again. For a
    /// link that is not the lane's home any more.
    pub fn next_rest(&mut self, lane: Lane, link: LinkId) -> Option<Frame> {
        let [urgent, other] = lane.channels().map(|channel| channel as usize);
        for channel in [urgent, other] {
            if let Some(notice) = self.channels[channel].next_notice(link) {
                return Some(notice);
            }
        }
        self.channels[urgent].next_rest(link).or_else(|| self.channels[other].next_rest(link))
    }

    /// Takes out the requests of which no byte was sent, in their order.
    pub fn take_unsent(&mut self) -> Vec<Outgoing> {
        self.channels.iter_mut().flat_map(Channel::take_unsent).collect()
    }

    /// True if `next` has a frame of this lane, for one link at least.
    #[inline]
    pub fn has_next(&self, lane: Lane) -> bool {
        lane.channels().iter().any(|channel| self.channels[*channel as usize].has_next())
    }

    /// A frame of the callee came by this link: a reply, a chunk of one, or credit. Adds the call that is complete now, if one is.
    ///
    /// # Errors
    /// The callee broke the protocol; its links must end.
    #[inline]
    pub fn received(
        &mut self,
        link: LinkId,
        header: &Header,
        body: Bytes,
        out: &mut Vec<Completed>,
    ) -> Result<(), WireError> {
        self.channels[header.channel as usize].received(link, header, body, out)
    }

    /// The link is gone. What was sent on it without being answered is sent again, before anything new.
    pub fn link_lost(&mut self, link: LinkId) {
        self.channels.iter_mut().for_each(|channel| channel.link_lost(link));
    }

    /// Nobody waits for this call any more: it will not complete. Nothing happens if there is no such call.
    pub fn cancel(&mut self, ticket: Ticket) {
        // One channel has it; the others do not know it.
        let _ = self.channels.iter_mut().any(|channel| channel.cancel(ticket));
    }

    /// True if any byte of this call was handed to a link.
    pub fn sent(&self, ticket: Ticket) -> bool {
        self.channels.iter().any(|channel| channel.sent(ticket))
    }

    /// Gives up the session: all calls that have neither completed nor been cancelled, each with whether any byte of it was handed to a
    /// link. This end is then as new, and the session's links must carry nothing more to it.
    pub fn drain(&mut self) -> Vec<(Ticket, bool)> {
        let old = std::mem::replace(self, Caller::new(self.waiting_max));
        old.channels.into_iter().flat_map(Channel::drain).collect()
    }

    /// Calls that hold a slot.
    pub fn in_flight(&self) -> usize {
        self.channels.iter().map(Channel::in_flight).sum()
    }

    /// Calls that wait for a slot, for credit, or for the session.
    pub fn waiting(&self) -> usize {
        self.channels.iter().map(Channel::waiting).sum()
    }

    /// What is left of a channel's window, in KiB.
    pub fn credit_left(&self, channel: Priority) -> u32 {
        self.channels[channel as usize].credit_left()
    }

    /// What is left of a channel's slots.
    pub fn slots_left(&self, channel: Priority) -> u16 {
        self.channels[channel as usize].slots_left()
    }
}
