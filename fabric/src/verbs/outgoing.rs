//! The sending half of a link: frames into messages, and one-sided operations, both through one queue pair.
//!
//! ```text
//!  push: queue of frames --fill--> inline, if all that waits is short
//!                           \----> slots of registered memory, up to 16 messages with one posting
//! ```
//!
//! Invariant: there are never more messages on their way than the other end has buffers for; a slot, or the memory of an operation, is
//! kept until the device has told that it is done with it.

use super::attached::Attached;
use super::memory::{MemoryRegion, RemotePlace};
use super::queue_pair::QueuePair;
use super::request::{Operation, Request, Source};
use super::{Error, SLOT_BYTES};
use crate::frame::{ACCESS_BYTES, HEADER_BYTES};
use crate::provider::{Body, Frame};
use crate::region::Span;
use std::collections::VecDeque;
use std::io::IoSlice;

/// The most bytes that wait in a link, but for what the last frame went over it.
const ROOM_BYTES: usize = 128 << 10;
/// Messages that are posted at once.
const BATCH: usize = 16;
/// One-sided operations under way.
pub const WORKS_MAX: usize = 32;
/// Bytes of them, but for what the last went over it: enough for any wire, and few enough that rails share what is long.
const WORK_BYTES_MAX: usize = 2 << 20;

/// What is under way and keeps memory.
enum Kept {
    /// A message, in this slot.
    Slot(u16),
    /// An operation of this name, on this memory of this end.
    Work { work: u64, write: bool, span: Span },
}

/// An operation that is done.
pub struct Done {
    /// Its name.
    pub work: u64,
    /// Bytes that came into memory of this end.
    pub read: usize,
}

/// The sending half of a link.
pub struct Outgoing {
    pair: QueuePair,
    slots: MemoryRegion,
    free: Vec<u16>,
    queue: VecDeque<Frame>,
    /// Of the first frame: bytes of its body that are on their way; `None` if it has not begun.
    begun: Option<usize>,
    /// Bytes of all frames that are not on their way.
    waiting: usize,
    short: Vec<u8>,
    /// By the order of their requests.
    kept: VecDeque<(u64, Kept)>,
    works: usize,
    work_bytes: usize,
    /// Messages that the other end has buffers for.
    allowed: u32,
    sent: u32,
    /// Of these the other end has taken so many.
    taken: u32,
    frames: u64,
    bytes: u64,
}

impl Outgoing {
    /// Through this pair, from these slots, to an end with so many buffers.
    pub fn new(pair: QueuePair, slots: MemoryRegion, allowed: u32) -> Outgoing {
        let count = u16::try_from(slots.length() / SLOT_BYTES).unwrap_or(u16::MAX);
        Outgoing {
            pair,
            slots,
            free: (0..count).collect(),
            queue: VecDeque::new(),
            begun: None,
            waiting: 0,
            short: Vec::with_capacity(256),
            kept: VecDeque::new(),
            works: 0,
            work_bytes: 0,
            allowed,
            sent: 0,
            taken: 0,
            frames: 0,
            bytes: 0,
        }
    }

    /// Frames and bytes that went.
    pub fn traffic(&self) -> (u64, u64) {
        (self.frames, self.bytes)
    }

    /// Its queue pair.
    pub fn pair(&self) -> &QueuePair {
        &self.pair
    }

    /// Bytes that may still be pushed.
    pub fn room(&self) -> usize {
        ROOM_BYTES.saturating_sub(self.waiting)
    }

    /// Operations that may still be posted.
    pub fn work_room(&self) -> usize {
        if self.work_bytes >= WORK_BYTES_MAX {
            return 0;
        }
        (WORKS_MAX - self.works).min(self.pair.room() as usize)
    }

    /// True if operations are under way.
    pub fn has_works(&self) -> bool {
        self.works > 0
    }

    /// Takes a frame.
    pub fn push(&mut self, frame: Frame) {
        self.frames += 1;
        self.waiting += HEADER_BYTES + frame.header.carried();
        self.queue.push_back(frame);
    }

    /// The other end has taken so many messages.
    pub fn taken(&mut self, taken: u32) {
        // A number from the past, or from the future, would be a promise that nobody gave.
        if taken.wrapping_sub(self.taken) <= self.sent.wrapping_sub(self.taken) {
            self.taken = taken;
        }
    }

    /// True if something waits and could go.
    pub fn can_go(&self) -> bool {
        !self.queue.is_empty() && self.may_send() > 0
    }

    fn may_send(&self) -> u32 {
        let under_way = self.sent.wrapping_sub(self.taken);
        // Operations and words about buffers have places of their own in the queue.
        self.allowed.saturating_sub(under_way).min(self.pair.room().saturating_sub(WORKS_MAX as u32 + 4))
    }

    /// Sends what can go; with each message the other end is told `told`. True if there was something.
    ///
    /// # Errors
    /// The device does not take it.
    pub fn pump(&mut self, told: u32) -> Result<bool, Error> {
        let mut some = false;
        while self.can_go() {
            if self.waiting <= self.pair.inline_max() {
                self.send_short(told)?;
            } else if !self.send_slots(told)? {
                break;
            }
            some = true;
        }
        Ok(some)
    }

    /// Tells the other end, and nothing else.
    ///
    /// # Errors
    /// The device does not take it.
    pub fn say(&mut self, told: u32) -> Result<(), Error> {
        let send = Operation::Send { from: Source::Regions(&[]), immediate: Some(told) };
        self.pair.post(&[Request::quiet(send)]).map(drop)
    }

    fn send_short(&mut self, told: u32) -> Result<(), Error> {
        let mut short = std::mem::take(&mut self.short);
        short.clear();
        self.fill(&mut Message::Short(&mut short, SLOT_BYTES));
        let parts = [IoSlice::new(&short)];
        let send = Operation::Send { from: Source::Inline(&parts), immediate: Some(told) };
        let posted = self.pair.post(&[Request::quiet(send)]);
        self.sent = self.sent.wrapping_add(1);
        self.bytes += short.len() as u64;
        self.short = short;
        posted.map(drop)
    }

    /// False if there is no free slot.
    fn send_slots(&mut self, told: u32) -> Result<bool, Error> {
        let most = (self.may_send() as usize).min(BATCH);
        let mut filled = [(0, 0); BATCH];
        let mut count = 0;
        while count < most && !self.queue.is_empty() {
            let Some(slot) = self.free.pop() else { break };
            let start = usize::from(slot) * SLOT_BYTES;
            let Some(span) = Span::of(self.slots.memory(), start, SLOT_BYTES) else { break };
            let mut message = Message::Slot(&span, 0);
            self.fill(&mut message);
            filled[count] = (slot, SLOT_BYTES - message.left());
            count += 1;
        }
        if count == 0 {
            return Ok(false);
        }
        let mut segments = [[self.slots.segment(0, 0)?]; BATCH];
        for (segment, (slot, length)) in segments.iter_mut().zip(&filled[..count]) {
            *segment = [self.slots.segment(usize::from(*slot) * SLOT_BYTES, *length)?];
        }
        let requests: [Request<'_>; BATCH] = std::array::from_fn(|at| {
            let from = Source::Regions(&segments[at]);
            Request::quiet(Operation::Send { from, immediate: Some(told) })
        });
        let first = self.pair.post(&requests[..count])?;
        for ((slot, length), sequence) in filled[..count].iter().zip(first..) {
            self.kept.push_back((sequence, Kept::Slot(*slot)));
            self.bytes += *length as u64;
        }
        self.sent = self.sent.wrapping_add(count as u32);
        Ok(true)
    }

    /// Puts the next bytes of the frames into a message.
    fn fill(&mut self, message: &mut Message<'_>) {
        while let Some(frame) = self.queue.front() {
            let mut done = match self.begun {
                Some(done) => done,
                None => {
                    let access = match &frame.body {
                        Body::Piece(access, _) | Body::Access(access) => Some(access),
                        Body::Message(..) | Body::Empty => None,
                    };
                    let fixed = HEADER_BYTES + access.map_or(0, |_| ACCESS_BYTES);
                    if message.left() < fixed {
                        return;
                    }
                    message.put(&frame.header.encode());
                    if let Some(access) = access {
                        message.put(&access.encode());
                    }
                    self.waiting -= fixed;
                    0
                }
            };
            let before = done;
            let whole = put_body(&frame.body, &mut done, message);
            self.waiting -= done - before;
            if !whole {
                self.begun = Some(done);
                return;
            }
            self.begun = None;
            self.queue.pop_front();
        }
    }

    /// Posts an operation of this name: a write of memory of this end to `place`, or a read from there. The device knows the memory.
    ///
    /// # Errors
    /// The device does not take it.
    pub fn post(
        &mut self,
        work: u64,
        write: bool,
        span: &Span,
        known: &Attached,
        place: RemotePlace,
    ) -> Result<(), Error> {
        let segments = [known.segment(span)?];
        let operation = match write {
            true => Operation::Write { from: Source::Regions(&segments), to: place, immediate: None },
            false => Operation::Read { into: &segments, from: place },
        };
        let sequence = self.pair.post(&[Request::signalled(operation)])?;
        self.kept.push_back((sequence, Kept::Work { work, write, span: span.clone() }));
        self.works += 1;
        self.work_bytes += span.length();
        Ok(())
    }

    /// A request and all before it are done. Yields the operations among them.
    pub fn completed(&mut self, sequence: u64, mut tell: impl FnMut(Done)) {
        self.pair.completed(sequence);
        while self.kept.front().is_some_and(|(number, _)| *number <= sequence) {
            match self.kept.pop_front() {
                Some((_, Kept::Slot(slot))) => self.free.push(slot),
                Some((_, Kept::Work { work, write, span })) => {
                    self.works -= 1;
                    self.work_bytes -= span.length();
                    tell(Done { work, read: if write { 0 } else { span.length() } });
                }
                None => return,
            }
        }
    }
}

/// Where the bytes of a message go.
enum Message<'a> {
    /// Behind each other, up to so many.
    Short(&'a mut Vec<u8>, usize),
    /// Into this slot; so many are there.
    Slot(&'a Span, usize),
}

impl Message<'_> {
    fn left(&self) -> usize {
        match self {
            Message::Short(bytes, most) => most.saturating_sub(bytes.len()),
            Message::Slot(span, done) => span.length() - done,
        }
    }

    /// Puts bytes in, for which there is room.
    fn put(&mut self, bytes: &[u8]) {
        match self {
            Message::Short(short, _) => short.extend_from_slice(bytes),
            Message::Slot(span, done) => {
                if let Some(part) = span.part(*done, bytes.len()) {
                    part.fill(bytes);
                }
                *done += bytes.len();
            }
        }
    }

    fn put_span(&mut self, from: &Span) {
        match self {
            Message::Short(short, _) => {
                let begin = short.len();
                short.resize(begin + from.length(), 0);
                from.copy_to(&mut short[begin..]);
            }
            Message::Slot(span, done) => {
                if let Some(part) = span.part(*done, from.length()) {
                    part.copy_from(from);
                }
                *done += from.length();
            }
        }
    }
}

/// Puts the bytes of a body behind the first `done` into a message, as many as it takes. True if these were the last.
fn put_body(body: &Body, done: &mut usize, message: &mut Message<'_>) -> bool {
    match body {
        Body::Message(head, bulk) => {
            for (part, begin) in [(head, 0), (bulk, head.len())] {
                let from = done.saturating_sub(begin).min(part.len());
                let length = (part.len() - from).min(message.left());
                message.put(&part[from..from + length]);
                *done += length;
                if from + length < part.len() {
                    return false;
                }
            }
            true
        }
        Body::Piece(_, span) => {
            let length = (span.length() - *done).min(message.left());
            if let Some(part) = span.part(*done, length).filter(|part| part.length() > 0) {
                message.put_span(&part);
            }
            *done += length;
            *done == span.length()
        }
        Body::Access(_) | Body::Empty => true,
    }
}
