//! The end that asks: all transfers of one session to its peer.
//!
//! Owns their tickets, slots and sequences. Invariant: a slot that was in use for a write, or for a read that was given up, is used again
//! only when the target has said `Done` for it; every ticket that was taken is given back exactly once, by `finished` or `drain`.

use super::op::Op;
use super::outgoing::Outgoing;
use super::{Finished, NativePiece, NotTaken, PIECE_BYTES, PIECES_MAX, SLOTS_MAX, TransferOp, WAITING_MAX};
use crate::frame::{Access, Header, Kind, Verdict, WireError};
use crate::provider::{Frame, Place};
use crate::session::{LinkId, Ticket};
use std::cmp::Ordering;
use std::collections::VecDeque;

#[derive(Debug, Default)]
struct Slot {
    sequence: u64,
    transfer: Option<Outgoing>,
    is_ready: bool,
}

impl Default for Initiator {
    fn default() -> Initiator {
        Initiator::new()
    }
}

/// The transfers of one session, at the end that asked for them.
#[derive(Debug)]
pub struct Initiator {
    slots: Vec<Slot>,
    idle: Vec<u16>,
    ops: Vec<Option<Op>>,
    free_ops: Vec<usize>,
    /// Tickets with parts that have no slot yet.
    waiting: VecDeque<usize>,
    /// Slots that may have something to send, in turn.
    ready: VecDeque<u16>,
    finished: VecDeque<Finished>,
    works: u64,
    /// Given up writes that the target has not confirmed.
    closing: usize,
    piece_bytes: u64,
}

impl Initiator {
    /// Nothing under way.
    pub fn new() -> Initiator {
        Initiator::with_pieces(PIECE_BYTES)
    }

    /// The same, but what is written is cut in shorter pieces: 1 to [`PIECE_BYTES`].
    pub fn with_pieces(piece_bytes: u64) -> Initiator {
        Initiator {
            slots: Vec::new(),
            idle: Vec::new(),
            ops: Vec::new(),
            free_ops: Vec::new(),
            waiting: VecDeque::new(),
            ready: VecDeque::new(),
            finished: VecDeque::new(),
            works: 0,
            closing: 0,
            piece_bytes: piece_bytes.clamp(1, PIECE_BYTES),
        }
    }

    /// Takes a transfer. It comes back through [`Initiator::finished`].
    ///
    /// # Errors
    /// See [`NotTaken`]; the ticket does not come back then.
    pub fn submit(&mut self, ticket: Ticket, mut what: TransferOp) -> Result<(), NotTaken> {
        if self.waiting.len() >= WAITING_MAX {
            return Err(NotTaken::Full);
        }
        if what.pieces.len() > PIECES_MAX {
            return Err(NotTaken::TooManyPieces);
        }
        if !what.key.rights.allow(what.write) {
            return Err(NotTaken::Refused(Verdict::Denied));
        }
        let offset = what.offset;
        let end = offset.checked_add(what.length()).filter(|end| *end <= what.key.length);
        let end = end.ok_or(NotTaken::Refused(Verdict::OutOfBounds))?;
        what.pieces.retain(|span| span.length() > 0);
        let op = Op { ticket, what, started: 0, running: 0, offset, end, verdict: Verdict::Answered };
        let at = match self.free_ops.pop() {
            Some(at) => at,
            None => {
                self.ops.push(None);
                self.ops.len() - 1
            }
        };
        self.ops[at] = Some(op);
        self.waiting.push_back(at);
        self.start();
        Ok(())
    }

    /// From here on what is written is cut in pieces no longer than this: 1 to [`PIECE_BYTES`].
    pub fn cut_at(&mut self, piece_bytes: u64) {
        self.piece_bytes = piece_bytes.clamp(1, PIECE_BYTES);
    }

    /// The next frame for a link of the bulk lane; any of them may have it.
    pub fn next(&mut self, link: LinkId) -> Option<Frame> {
        self.next_beside(link, None)
    }

    /// The next frame for a link of the bulk lane, of what the link's device does not take: what has not begun and can go over this rail
    /// waits for it.
    pub fn next_beside(&mut self, link: LinkId, rail: Option<u8>) -> Option<Frame> {
        for _ in 0..self.ready.len() {
            let at = self.ready.pop_front()?;
            let slot = &mut self.slots[usize::from(at)];
            let transfer = slot.transfer.as_mut().filter(|transfer| !transfer.waits_for_device(rail));
            let frame = transfer.and_then(|transfer| transfer.frame(link, self.piece_bytes));
            self.put_back(at);
            if let Some(mut frame) = frame {
                (frame.header.slot, frame.header.sequence) = (at, self.slots[usize::from(at)].sequence);
                return Some(frame);
            }
        }
        None
    }

    /// True while [`Initiator::next`] has a frame.
    pub fn has_next(&self) -> bool {
        let wants = |at: &u16| self.transfer(*at).is_some_and(Outgoing::wants_frame);
        self.ready.iter().any(wants)
    }

    /// The next piece for a device: of a transfer whose key knows this rail and of which nothing went by frames. Ask for these before
    /// frames: whatever takes a transfer's first piece settles how the rest goes. When a device fails, the transfer goes by frames, so that
    /// the target says why.
    pub fn take_native(&mut self, link: LinkId, rail: u8) -> Option<NativePiece> {
        for _ in 0..self.ready.len() {
            let at = self.ready.pop_front()?;
            let work = self.works << 16 | u64::from(at);
            let transfer = self.slots[usize::from(at)].transfer.as_mut();
            let piece = transfer.and_then(|transfer| {
                let write = transfer.write;
                transfer.native(link, rail, work).map(|(span, remote)| NativePiece {
                    work,
                    write,
                    span,
                    remote,
                })
            });
            self.put_back(at);
            if piece.is_some() {
                self.works += 1;
                return piece;
            }
        }
        None
    }

    /// A device's piece is over: all of it is there, or (false) it failed and the device touches its memory no more.
    pub fn posted(&mut self, link: LinkId, work: u64, good: bool) {
        let at = (work & 0xffff) as u16;
        let transfer = self.slots.get_mut(usize::from(at)).and_then(|slot| slot.transfer.as_mut());
        if transfer.is_some_and(|transfer| transfer.posted(link, work, good)) {
            self.settle(at);
        }
    }

    /// Where the bytes of a `ReadData` frame go.
    ///
    /// # Errors
    /// Nobody asked for them: the link ends.
    pub fn place(&mut self, link: LinkId, header: &Header, access: &Access) -> Result<Place, WireError> {
        if header.kind != Kind::ReadData {
            return Err(WireError("bytes that an initiator cannot get"));
        }
        match self.named(header)? {
            Some(transfer) => transfer.place(link, header, access),
            None => Ok(Place::Skip),
        }
    }

    /// They are there.
    pub fn placed(&mut self, link: LinkId, header: &Header, access: &Access) {
        if let Ok(Some(transfer)) = self.named(header) {
            transfer.placed(link, access.at, u64::from(header.bulk));
            self.settle(header.slot);
        }
    }

    /// A `Done` came.
    ///
    /// # Errors
    /// The peer broke the protocol: the link ends.
    pub fn received(&mut self, header: &Header) -> Result<(), WireError> {
        if header.kind != Kind::Done {
            return Err(WireError("a frame that an initiator cannot get"));
        }
        if let Some(transfer) = self.named(header)? {
            transfer.done(header.verdict, header.flags.has(crate::frame::Flags::AGAIN))?;
            self.settle(header.slot);
        }
        Ok(())
    }

    /// A link is over, and touches no memory any more. What was lost with it goes again.
    pub fn link_lost(&mut self, link: LinkId) {
        for at in 0..self.slots.len() as u16 {
            if let Some(transfer) = &mut self.slots[usize::from(at)].transfer {
                transfer.link_lost(link);
                self.settle(at);
            }
        }
    }

    /// Gives a transfer up. It finishes as `Unheard`: at once, or when the links of [`Initiator::placing`] have placed
    /// what they are about to place or are lost. Nothing, if it is over already. Links that hold pieces of a write may still send them.
    pub fn cancel(&mut self, ticket: Ticket) {
        let Some(op) = self.ops.iter().position(|op| op.as_ref().is_some_and(|op| op.ticket == ticket))
        else {
            return;
        };
        self.waiting.retain(|waiting| *waiting != op);
        if let Some(op) = &mut self.ops[op] {
            op.verdict = Verdict::Unheard;
            op.started = op.parts();
        }
        for at in 0..self.slots.len() as u16 {
            let slot = &mut self.slots[usize::from(at)];
            let Some(transfer) = slot.transfer.as_mut().filter(|transfer| transfer.op == Some(op)) else {
                continue;
            };
            transfer.cancel();
            self.closing += usize::from(transfer.write);
            self.settle(at);
        }
        self.settle_op(op);
        self.start();
    }

    /// The links that are placing bytes into this end's memory, or reading them, for a ticket. Whoever cannot wait for a given up ticket
    /// cuts them.
    pub fn placing(&self, ticket: Ticket) -> Vec<LinkId> {
        let mut links = Vec::new();
        for slot in &self.slots {
            let Some(transfer) = &slot.transfer else { continue };
            let op = transfer.op.and_then(|op| self.ops.get(op)?.as_ref());
            if op.is_some_and(|op| op.ticket == ticket) {
                links.extend(transfer.placing_links());
            }
        }
        links.sort_unstable_by_key(|link| link.0);
        links.dedup();
        links
    }

    /// The next ticket that is over. Ask after every call that takes `&mut self`.
    pub fn finished(&mut self) -> Option<Finished> {
        self.finished.pop_front()
    }

    /// The session is over (all its links are): the tickets that never finish.
    pub fn drain(&mut self) -> Vec<Ticket> {
        let tickets = self.ops.iter().flatten().map(|op| op.ticket).collect();
        let finished = std::mem::take(&mut self.finished);
        *self = Initiator { finished, works: self.works, ..Initiator::with_pieces(self.piece_bytes) };
        tickets
    }

    /// Tickets that are not over.
    pub fn count(&self) -> usize {
        self.ops.len() - self.free_ops.len()
    }

    /// True if nothing is under way, at neither end.
    pub fn is_idle(&self) -> bool {
        self.count() == 0 && self.idle.len() == self.slots.len()
    }

    fn transfer(&self, at: u16) -> Option<&Outgoing> {
        self.slots.get(usize::from(at))?.transfer.as_ref()
    }

    /// The transfer that a frame of the target names; `None` if it is over.
    fn named(&mut self, header: &Header) -> Result<Option<&mut Outgoing>, WireError> {
        let slot = self.slots.get_mut(usize::from(header.slot));
        let slot = slot.ok_or(WireError("a transfer in a slot that was never used"))?;
        match header.sequence.cmp(&slot.sequence) {
            Ordering::Less => Ok(None),
            Ordering::Equal => Ok(slot.transfer.as_mut()),
            Ordering::Greater => Err(WireError("a transfer that was never begun")),
        }
    }

    /// Puts a slot that was taken out of the queue back at its end, if it has more to send.
    fn put_back(&mut self, at: u16) {
        let slot = &mut self.slots[usize::from(at)];
        let wants = |transfer: &Outgoing| transfer.wants_frame() || transfer.wants_device();
        slot.is_ready = slot.transfer.as_ref().is_some_and(wants);
        if slot.is_ready {
            self.ready.push_back(at);
        }
    }

    /// Draws the conclusions after something happened to a transfer.
    fn settle(&mut self, at: u16) {
        let slot = &mut self.slots[usize::from(at)];
        let Some(transfer) = &mut slot.transfer else { return };
        let ended = transfer.verdict().and_then(|verdict| Some((transfer.op.take()?, verdict)));
        let over = transfer.is_over();
        if over {
            self.closing -= usize::from(transfer.is_closing());
            slot.transfer = None;
            self.idle.push(at);
        } else if !slot.is_ready {
            self.put_back(at);
        }
        if let Some((op, verdict)) = ended {
            self.part_ended(op, verdict);
        }
        if over {
            self.start();
        }
    }

    fn part_ended(&mut self, at: usize, verdict: Verdict) {
        let Some(op) = &mut self.ops[at] else { return };
        op.running -= 1;
        if verdict != Verdict::Answered && op.verdict == Verdict::Answered {
            // The rest of it is not worth starting.
            op.verdict = verdict;
            op.started = op.parts();
            self.waiting.retain(|waiting| *waiting != at);
        }
        self.settle_op(at);
    }

    fn settle_op(&mut self, at: usize) {
        let Some(op) = self.ops[at].take_if(|op| op.running == 0 && op.started == op.parts()) else { return };
        self.free_ops.push(at);
        self.finished.push_back(Finished { ticket: op.ticket, verdict: op.verdict });
    }

    /// Gives slots to what waits.
    fn start(&mut self) {
        let mut from = 0;
        while from < self.waiting.len() {
            let at = self.waiting[from];
            let Some(op) = &self.ops[at] else { break };
            if self.idle.is_empty() && self.slots.len() >= usize::from(SLOTS_MAX) {
                break;
            }
            let (region, offset, end) = (op.what.key.region, op.offset, op.end);
            let in_the_way = |slot: &Slot| {
                slot.transfer.as_ref().is_some_and(|transfer| transfer.is_in_the_way(region, offset, end))
            };
            if self.closing > 0 && self.slots.iter().any(in_the_way) {
                from += 1;
            } else {
                self.start_part(at, from);
            }
        }
    }

    fn start_part(&mut self, at: usize, from: usize) {
        let Some(op) = &mut self.ops[at] else { return };
        let (access, pieces) = op.next_part();
        op.started += 1;
        op.running += 1;
        op.offset += access.length;
        let transfer = Outgoing::new(at, op.what.write, op.what.key, access, pieces);
        if op.started == op.parts() {
            self.waiting.remove(from);
        }
        let slot = self.idle.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u16 - 1
        });
        let place = &mut self.slots[usize::from(slot)];
        place.sequence += 1;
        place.transfer = Some(transfer);
        if !place.is_ready {
            self.put_back(slot);
        }
    }
}
