//! One channel of the callee.
//!
//! Invariant: `turn` is the sequence that is started next; `early` holds whole requests above it, in order; a slot is in `ready` if and only if
//! its state says so; a reply that is not in `ready` was sent on a link that is not lost.

use super::slot::{Slot, State};
use super::{Start, Turn};
use crate::frame::{Flags, Header, Kind, Verdict, WireError};
use crate::provider::{Body, Frame};
use crate::session::LinkId;
use crate::session::assembly::{Assemblies, whole};
use crate::session::credit::Till;
use crate::session::cutting::{self, Sendings, length};
use crate::{Message, Priority, ServiceId};
use bytes::Bytes;
use std::collections::VecDeque;

/// A request that is whole.
struct Request {
    slot: u16,
    sequence: u64,
    service: ServiceId,
    message: Message,
    deadline_ms: u32,
    one_way: bool,
    /// It was cancelled before its turn: it is passed over.
    void: bool,
}

impl Request {
    #[inline]
    fn new(header: &Header, message: Message) -> Request {
        Request {
            slot: header.slot,
            sequence: header.sequence,
            service: header.service,
            message,
            deadline_ms: header.deadline_ms,
            one_way: header.flags.has(Flags::ONE_WAY),
            void: header.kind == Kind::Cancel,
        }
    }
}

pub(super) struct Channel {
    name: Priority,
    slots_max: u16,
    till: Till,
    turn: u64,
    slots: Vec<Slot>,
    early: VecDeque<Request>,
    ready: VecDeque<u16>,
    sendings: Sendings,
    assemblies: Assemblies,
}

impl Channel {
    pub(super) fn new(name: Priority, slots_max: u16, window_kib: u32) -> Channel {
        Channel {
            name,
            slots_max,
            till: Till::new(window_kib),
            turn: 1,
            slots: Vec::new(),
            early: VecDeque::new(),
            ready: VecDeque::new(),
            sendings: Sendings::default(),
            assemblies: Assemblies::default(),
        }
    }

    pub(super) fn stored_bytes(&self) -> usize {
        let early: usize = self.early.iter().map(|request| length(&request.message)).sum();
        let replies: usize = self.slots.iter().map(Slot::bytes).sum();
        early + replies + self.assemblies.bytes()
    }

    #[inline]
    pub(super) fn has_next(&self) -> bool {
        !self.ready.is_empty() || !self.sendings.is_empty() || self.till.is_due()
    }

    #[inline]
    pub(super) fn received(
        &mut self,
        link: LinkId,
        header: &Header,
        body: Bytes,
        out: &mut Vec<Start>,
    ) -> Result<(), WireError> {
        match header.kind {
            Kind::Request => self.request(link, header, body, out),
            Kind::Chunk => match self.assemblies.chunk(link, header, &body)? {
                Some((first, message)) => self.whole(Request::new(&first, message), out),
                None => Ok(()),
            },
            Kind::Cancel => self.cancel(header, out),
            Kind::Taken => self.taken(header),
            _ => Err(WireError("a frame that no caller sends")),
        }
    }

    #[inline]
    fn request(
        &mut self,
        link: LinkId,
        header: &Header,
        body: Bytes,
        out: &mut Vec<Start>,
    ) -> Result<(), WireError> {
        if header.slot >= self.slots_max || header.sequence == 0 {
            return Err(WireError("a request in a slot that was not granted"));
        }
        let at = usize::from(header.slot);
        while self.slots.len() <= at {
            self.slots.push(Slot::vacant());
        }
        if header.sequence > self.slots[at].sequence {
            self.admit(link, header)?;
        } else if !self.repeat(link, header)? {
            return Ok(());
        }
        if header.flags.has(Flags::MORE) {
            return self.assemblies.begin(link, header, &body);
        }
        let message = whole(header, body)?;
        self.whole(Request::new(header, message), out)
    }

    /// A request that was never seen.
    #[inline]
    fn admit(&mut self, link: LinkId, header: &Header) -> Result<(), WireError> {
        let slot = &mut self.slots[usize::from(header.slot)];
        if !slot.is_over() {
            return Err(WireError("a slot that is used before it was answered"));
        }
        if header.sequence < self.turn || header.sequence - self.turn >= u64::from(self.slots_max) {
            return Err(WireError("a sequence whose turn it cannot be"));
        }
        let price = self.till.price(header);
        self.till.charge(price)?;
        if !matches!(slot.state, State::Vacant | State::Sent(_) | State::Taken) {
            withdraw(&mut self.ready, &mut self.sendings, header.slot);
        }
        slot.begin(header.sequence, price, link);
        Ok(())
    }

    /// A copy of a request that was seen before. True if it may be needed.
    fn repeat(&mut self, link: LinkId, header: &Header) -> Result<bool, WireError> {
        let slot = &mut self.slots[usize::from(header.slot)];
        if header.sequence < slot.sequence {
            return Ok(false);
        }
        if self.till.price(header) != slot.price {
            return Err(WireError("a request that is not as long as it was"));
        }
        if header.flags.has(Flags::AGAIN) {
            slot.link = Some(link);
        }
        match slot.state {
            State::Arriving => return Ok(true),
            // The caller lost that link, or did not have it when it sent this copy.
            State::Sending(on) | State::Sent(on) if on != link && header.flags.has(Flags::AGAIN) => {
                self.sendings.give_up(header.slot);
                slot.state = State::Ready;
                self.ready.push_back(header.slot);
            }
            _ => {}
        }
        Ok(false)
    }

    /// All of a request is here.
    #[inline]
    fn whole(&mut self, request: Request, out: &mut Vec<Start>) -> Result<(), WireError> {
        self.assemblies.forget(request.slot, request.sequence);
        if request.sequence != self.turn {
            return self.keep(request);
        }
        self.start(request, out);
        while self.early.front().is_some_and(|early| early.sequence == self.turn) {
            let next = self.early.pop_front();
            next.into_iter().for_each(|request| self.start(request, out));
        }
        Ok(())
    }

    /// It came before its turn.
    fn keep(&mut self, request: Request) -> Result<(), WireError> {
        let at = self.early.partition_point(|early| early.sequence < request.sequence);
        let twice = self.early.get(at).is_some_and(|early| early.sequence == request.sequence);
        if twice || request.sequence < self.turn {
            return Err(WireError("a sequence in two slots"));
        }
        self.slots[usize::from(request.slot)].state = State::Early;
        self.early.insert(at, request);
        Ok(())
    }

    /// It is its turn.
    #[inline]
    fn start(&mut self, request: Request, out: &mut Vec<Start>) {
        let Request { slot: at, sequence, service, message, deadline_ms, one_way, void } = request;
        self.turn = sequence + 1;
        let slot = &mut self.slots[usize::from(at)];
        slot.state = State::Serving;
        let price = slot.price;
        if void || one_way {
            slot.answer(Verdict::Unheard, Message::default());
            self.ready.push_back(at);
        }
        if void {
            self.till.refund(price);
            return;
        }
        let turn = Turn { channel: self.name, slot: at, price, sequence };
        out.push(Start { turn, service, message, deadline_ms, one_way });
    }

    /// Nobody waits for the reply.
    fn cancel(&mut self, header: &Header, out: &mut Vec<Start>) -> Result<(), WireError> {
        let Some(slot) = self.seen(header)? else {
            return Ok(());
        };
        match slot.state {
            State::Arriving => return self.whole(Request::new(header, Message::default()), out),
            State::Early => {
                let at = self.early.iter_mut().find(|early| early.sequence == header.sequence);
                if let Some(request) = at {
                    (request.void, request.message) = (true, Message::default());
                }
            }
            State::Serving | State::Sending(_) => {
                slot.answer(Verdict::Unheard, Message::default());
                self.sendings.give_up(header.slot);
                self.ready.push_back(header.slot);
            }
            State::Ready | State::Sent(_) => slot.drop_reply(Verdict::Unheard),
            State::Taken | State::Vacant => {}
        }
        Ok(())
    }

    /// The reply has come; it need not be kept.
    fn taken(&mut self, header: &Header) -> Result<(), WireError> {
        let Some(slot) = self.seen(header)? else {
            return Ok(());
        };
        if !slot.replied {
            return Err(WireError("a reply that was taken before it was given"));
        }
        slot.drop_reply(Verdict::Answered);
        let waits = !matches!(slot.state, State::Sent(_));
        slot.state = State::Taken;
        if waits {
            withdraw(&mut self.ready, &mut self.sendings, header.slot);
        }
        Ok(())
    }

    /// The slot of a request that this frame is about; none if the slot has gone on.
    fn seen(&mut self, header: &Header) -> Result<Option<&mut Slot>, WireError> {
        match self.slots.get_mut(usize::from(header.slot)) {
            Some(slot) if header.sequence == slot.sequence => Ok(Some(slot)),
            Some(slot) if header.sequence < slot.sequence => Ok(None),
            _ => Err(WireError("a frame about a request that was never made")),
        }
    }

    #[inline]
    pub(super) fn answered(&mut self, turn: Turn, verdict: Verdict, message: Message) {
        self.till.refund(turn.price);
        let slot = &mut self.slots[usize::from(turn.slot)];
        if slot.sequence == turn.sequence && slot.state == State::Serving {
            slot.answer(verdict, message);
            self.ready.push_back(turn.slot);
        }
    }

    #[inline]
    pub(super) fn next(&mut self, link: LinkId) -> Option<Frame> {
        if !self.sendings.is_empty()
            && let Some(at) = self.sendings.on(link)
        {
            return self.chunk(at, link);
        }
        if let Some(at) = self.pick(link) {
            return Some(self.first(at, link));
        }
        // A reply that waits for another link will tell it.
        if !self.till.is_due() || !self.ready.is_empty() {
            return None;
        }
        let header = Header { credit: self.till.tell(), ..Header::new(Kind::Credit, self.name) };
        Some(Frame { header, body: Body::Empty })
    }

    /// The reply that has waited longest among those that may go on this link.
    #[inline]
    fn pick(&mut self, link: LinkId) -> Option<u16> {
        let may = |at: &u16| self.slots[usize::from(*at)].link.is_none_or(|only| only == link);
        let at = self.ready.iter().position(may)?;
        self.ready.remove(at)
    }

    #[inline]
    fn first(&mut self, at: u16, link: LinkId) -> Frame {
        let slot = &mut self.slots[usize::from(at)];
        slot.replied = true;
        let header = slot.header(self.name, at, self.till.tell());
        let (frame, sent) = cutting::first(header, slot.reply());
        slot.state = if let Some(sent) = sent {
            self.sendings.begin(link, at, sent);
            State::Sending(link)
        } else {
            State::Sent(link)
        };
        frame
    }

    fn chunk(&mut self, at: u16, link: LinkId) -> Option<Frame> {
        let slot = &mut self.slots[usize::from(at)];
        let credit = self.till.tell();
        let header = Header { verdict: Verdict::Answered, ..slot.header(self.name, at, credit) };
        let (frame, last) = self.sendings.chunk(link, header, slot.reply())?;
        if last {
            slot.state = State::Sent(link);
        }
        Some(frame)
    }

    pub(super) fn link_lost(&mut self, link: LinkId) {
        self.assemblies.link_lost(link);
        self.sendings.link_lost(link);
        self.till.tell_again();
        for (at, slot) in (0..).zip(&mut self.slots) {
            slot.link = slot.link.filter(|only| *only != link);
            if slot.state == State::Sent(link) || slot.state == State::Sending(link) {
                slot.state = State::Ready;
                self.ready.push_back(at);
            }
        }
    }
}

/// The reply of this slot is not sent, or not to its end.
fn withdraw(ready: &mut VecDeque<u16>, sendings: &mut Sendings, at: u16) {
    ready.retain(|other| *other != at);
    sendings.give_up(at);
}
