//! One channel of the caller.
//!
//! Invariant: a slot is in `free`, or in `again`, or was sent on a link that is not lost. Sequences are given when the first byte is sent, so
//! that what is cancelled before leaves no gap.

use super::call::{Call, State};
use super::{Completed, Outgoing};
use crate::frame::{Flags, Header, Kind, WireError};
use crate::provider::{Body, Frame};
use crate::session::assembly::{Assemblies, whole};
use crate::session::credit::Purse;
use crate::session::cutting::{self, Sendings};
use crate::session::{LinkId, Ticket};
use crate::{Message, Priority};
use bytes::Bytes;
use std::collections::VecDeque;

/// A reply with more bytes than this is confirmed by `Taken`, so that the callee need not keep it until its slot is used again.
pub(in crate::session) const KEPT_BYTES_MAX: usize = 1024;
/// Room for so many waiting requests is kept when there are none.
const WAITING_KEPT: usize = 64;

/// A frame without a body about a call.
struct Notice {
    kind: Kind,
    slot: u16,
    sequence: u64,
    /// The link on which it must go: a cancel must not overtake its request.
    link: Option<LinkId>,
}

pub(super) struct Channel {
    name: Priority,
    slots: u16,
    purse: Purse,
    sequence: u64,
    calls: Vec<Call>,
    free: Vec<u16>,
    waiting: VecDeque<Outgoing>,
    /// Slots, in the order of their sequences.
    again: VecDeque<u16>,
    notices: VecDeque<Notice>,
    sendings: Sendings,
    assemblies: Assemblies,
    /// The callee is told that a long reply has come.
    confirms: bool,
}

impl Channel {
    pub(super) fn new(name: Priority) -> Channel {
        Channel {
            name,
            slots: 0,
            purse: Purse::new(0),
            sequence: 0,
            calls: Vec::new(),
            free: Vec::new(),
            waiting: VecDeque::new(),
            again: VecDeque::new(),
            notices: VecDeque::new(),
            sendings: Sendings::default(),
            assemblies: Assemblies::default(),
            confirms: true,
        }
    }

    pub(super) fn confirm(&mut self, confirms: bool) {
        self.confirms = confirms;
    }

    pub(super) fn grant(&mut self, slots: u16, window_kib: u32) {
        self.slots = slots;
        self.purse = Purse::new(window_kib);
    }

    #[inline]
    pub(super) fn submit(&mut self, request: Outgoing) {
        self.waiting.push_back(request);
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.calls.len() - self.free.len()
    }

    pub(super) fn slots_left(&self) -> u16 {
        self.slots - self.in_flight() as u16
    }

    pub(super) fn credit_left(&self) -> u32 {
        if self.slots == 0 { 0 } else { self.purse.left() }
    }

    #[inline]
    pub(super) fn has_next(&self) -> bool {
        !self.notices.is_empty()
            || !self.sendings.is_empty()
            || !self.again.is_empty()
            || self.price_of_next().is_some()
    }

    /// What the next request that was never sent costs, if it can be sent.
    #[inline]
    fn price_of_next(&self) -> Option<u32> {
        let request = self.waiting.front()?;
        let price = self.purse.price(&request.message);
        let slot = !self.free.is_empty() || self.calls.len() < usize::from(self.slots);
        (slot && price <= self.purse.left()).then_some(price)
    }

    /// The next frame about a call that may go on this link.
    #[inline]
    pub(super) fn next_notice(&mut self, link: LinkId) -> Option<Frame> {
        if self.notices.is_empty() {
            return None;
        }
        let at = self.notices.iter().position(|notice| notice.link.is_none_or(|only| only == link))?;
        let notice = self.notices.remove(at)?;
        let call = &mut self.calls[usize::from(notice.slot)];
        if notice.kind == Kind::Taken && call.sequence == notice.sequence {
            call.state = State::Free(Some(link));
        }
        let header =
            Header { slot: notice.slot, sequence: notice.sequence, ..Header::new(notice.kind, self.name) };
        Some(Frame { header, body: Body::Empty })
    }

    /// The rest of what is half-sent on this link.
    #[inline]
    pub(super) fn next_rest(&mut self, link: LinkId) -> Option<Frame> {
        let slot = self.sendings.on(link)?;
        let call = &self.calls[usize::from(slot)];
        let header = Header { slot, sequence: call.sequence, ..Header::new(Kind::Chunk, self.name) };
        self.sendings.chunk(link, header, &call.request.message).map(|(frame, _)| frame)
    }

    /// The next frame of a request: the rest of what is half-sent here, what goes again, what is new.
    #[inline]
    pub(super) fn next_request(&mut self, link: LinkId) -> Option<Frame> {
        if let Some(rest) = self.next_rest(link) {
            return Some(rest);
        }
        if let Some(slot) = self.again.pop_front() {
            return Some(self.first(slot, link, true));
        }
        let price = self.price_of_next()?;
        let request = self.take_waiting()?;
        self.purse.pay(price);
        let slot = self.occupy(request);
        Some(self.first(slot, link, false))
    }

    fn take_waiting(&mut self) -> Option<Outgoing> {
        let request = self.waiting.pop_front();
        if self.waiting.is_empty() && self.waiting.capacity() > WAITING_KEPT {
            self.waiting.shrink_to(WAITING_KEPT);
        }
        request
    }

    /// Gives the request a sequence and a slot, the one that was free for the shortest time: few slots are ever touched.
    fn occupy(&mut self, request: Outgoing) -> u16 {
        self.sequence += 1;
        let call = Call { sequence: self.sequence, state: State::Again, cancelled: false, request };
        if let Some(slot) = self.free.pop() {
            self.calls[usize::from(slot)] = call;
            return slot;
        }
        self.calls.push(call);
        (self.calls.len() - 1) as u16
    }

    /// The first frame of this slot's request.
    fn first(&mut self, slot: u16, link: LinkId, again: bool) -> Frame {
        let call = &mut self.calls[usize::from(slot)];
        call.state = State::Sent(link);
        let (frame, sent) = cutting::first(call.header(slot, again), &call.request.message);
        if call.cancelled {
            // The callee must see the sequence. Of a long request this is enough.
            let sequence = call.sequence;
            self.notices.push_back(Notice { kind: Kind::Cancel, slot, sequence, link: Some(link) });
        } else if let Some(sent) = sent {
            self.sendings.begin(link, slot, sent);
        }
        frame
    }

    #[inline]
    pub(super) fn received(
        &mut self,
        link: LinkId,
        header: &Header,
        body: Bytes,
        out: &mut Vec<Completed>,
    ) -> Result<(), WireError> {
        match header.kind {
            Kind::Reply => self.reply(link, header, body, out)?,
            Kind::Chunk => {
                if let Some((header, message)) = self.assemblies.chunk(link, header, &body)? {
                    self.complete(&header, message, out);
                }
            }
            Kind::Credit => {}
            _ => return Err(WireError("a frame that no callee sends")),
        }
        self.purse.told(header.credit)
    }

    #[inline]
    fn reply(
        &mut self,
        link: LinkId,
        header: &Header,
        body: Bytes,
        out: &mut Vec<Completed>,
    ) -> Result<(), WireError> {
        let call = self.calls.get(usize::from(header.slot));
        let call = call.ok_or(WireError("a reply in a slot that was never used"))?;
        if header.sequence > call.sequence {
            return Err(WireError("a reply to what was never asked"));
        }
        let awaited = header.sequence == call.sequence && !call.is_free();
        if !header.flags.has(Flags::MORE) {
            let message = whole(header, body)?;
            if awaited {
                self.complete(header, message, out);
            }
        } else if awaited && call.cancelled {
            // Nobody wants the rest.
            self.complete(header, Message::default(), out);
        } else if awaited {
            self.assemblies.begin(link, header, &body)?;
        }
        Ok(())
    }

    /// The awaited reply is here.
    fn complete(&mut self, header: &Header, message: Message, out: &mut Vec<Completed>) {
        let (slot, sequence) = (header.slot, header.sequence);
        let call = &mut self.calls[usize::from(slot)];
        if call.state == State::Again {
            self.again.retain(|other| *other != slot);
        }
        if call.cancelled {
            self.notices.retain(|notice| (notice.slot, notice.sequence) != (slot, sequence));
        } else {
            out.push(Completed { ticket: call.request.ticket, verdict: header.verdict, message });
        }
        call.end();
        self.free.push(slot);
        self.sendings.give_up(slot);
        self.assemblies.forget(slot, sequence);
        if self.confirms && header.head as usize + header.bulk as usize > KEPT_BYTES_MAX {
            self.notices.push_back(Notice { kind: Kind::Taken, slot, sequence, link: None });
        }
    }

    pub(super) fn link_lost(&mut self, link: LinkId) {
        self.sendings.link_lost(link);
        self.assemblies.link_lost(link);
        self.notices.retain(|notice| notice.link != Some(link));
        for (slot, call) in (0..).zip(&mut self.calls) {
            if call.state == State::Sent(link) {
                call.state = State::Again;
                self.again.push_back(slot);
            } else if call.state == State::Free(Some(link)) {
                call.state = State::Free(None);
                let sequence = call.sequence;
                self.notices.push_back(Notice { kind: Kind::Taken, slot, sequence, link: None });
            }
        }
        let calls = &self.calls;
        self.again.make_contiguous().sort_unstable_by_key(|slot| calls[usize::from(*slot)].sequence);
    }

    /// True if the call was here.
    pub(super) fn cancel(&mut self, ticket: Ticket) -> bool {
        if let Some(at) = self.waiting.iter().position(|request| request.ticket == ticket) {
            self.waiting.remove(at);
            return true;
        }
        let Some(at) = self.calls.iter().position(|call| call.is(ticket)) else {
            return false;
        };
        let (slot, call) = (at as u16, &mut self.calls[at]);
        call.cancelled = true;
        if let State::Sent(link) = call.state {
            let sequence = call.sequence;
            self.notices.push_back(Notice { kind: Kind::Cancel, slot, sequence, link: Some(link) });
            self.sendings.give_up(slot);
        }
        true
    }

    pub(super) fn sent(&self, ticket: Ticket) -> bool {
        self.calls.iter().any(|call| call.is(ticket))
    }

    /// Takes out what was not sent.
    pub(super) fn take_unsent(&mut self) -> std::collections::VecDeque<Outgoing> {
        std::mem::take(&mut self.waiting)
    }

    pub(super) fn drain(self) -> impl Iterator<Item = (Ticket, bool)> {
        let sent = self.calls.into_iter().filter(|call| !call.is_free() && !call.cancelled);
        let sent = sent.map(|call| (call.request.ticket, true));
        sent.chain(self.waiting.into_iter().map(|request| (request.ticket, false)))
    }
}
