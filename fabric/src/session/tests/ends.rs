//! Both ends of a session, side by side, and what has come out of them.

use crate::frame::{Flags, Header, Verdict};
use crate::provider::{Body, Frame};
use crate::session::{Callee, Caller, Completed, Grants, Lane, LinkId, Outgoing, Start, Ticket};
use crate::{Message, Priority, ServiceId};
use bytes::Bytes;

pub const A: LinkId = LinkId(1);
pub const B: LinkId = LinkId(2);
pub const C: LinkId = LinkId(3);

/// `request 0/1 64 more` is a request in slot 0, sequence 1, whose frame carries 64 bytes, and more follows.
pub fn drawn(frame: &Frame) -> String {
    let Header { kind, slot, sequence, flags, channel, .. } = frame.header;
    let mut line = format!("{kind:?} {channel:?} {slot}/{sequence} {}", body(frame).len()).to_lowercase();
    for (bit, word) in [(Flags::MORE, " more"), (Flags::ONE_WAY, " one-way"), (Flags::AGAIN, " again")] {
        line += if flags.has(bit) { word } else { "" };
    }
    line
}

pub fn body(frame: &Frame) -> Bytes {
    match &frame.body {
        Body::Message(head, bulk) => [&head[..], &bulk[..]].concat().into(),
        _ => Bytes::new(),
    }
}

/// Both ends, and what has come out of them.
pub struct Ends {
    pub caller: Caller,
    pub callee: Callee,
    pub completed: Vec<Completed>,
    pub started: Vec<Start>,
}

impl Ends {
    pub fn new(slots: u16, window_kib: u32) -> Ends {
        let grants = Grants { slots: [slots; 4], window_kib: [window_kib; 4] };
        let mut caller = Caller::new(8);
        caller.grant(&grants);
        Ends { caller, callee: Callee::new(&grants), completed: Vec::new(), started: Vec::new() }
    }

    pub fn submit(&mut self, ticket: u64, channel: Priority, bytes: usize) {
        self.submit_as(ticket, channel, bytes, false);
    }

    pub fn submit_as(&mut self, ticket: u64, channel: Priority, bytes: usize, one_way: bool) {
        let message = Message { bulk: vec![ticket as u8; bytes].into(), ..Message::default() };
        let (ticket, service) = (Ticket(ticket), ServiceId(1));
        let request = Outgoing { ticket, service, channel, message, deadline_ms: 9, one_way };
        self.caller.submit(request).unwrap();
    }

    /// All that the caller has to send on this link.
    pub fn asks(&mut self, link: LinkId) -> Vec<Frame> {
        let lanes = [Lane::Urgent, Lane::Bulk];
        lanes
            .iter()
            .flat_map(|lane| std::iter::from_fn(|| self.caller.next(*lane, link)).collect::<Vec<_>>())
            .collect()
    }

    pub fn answers(&mut self, link: LinkId) -> Vec<Frame> {
        let lanes = [Lane::Urgent, Lane::Bulk];
        lanes
            .iter()
            .flat_map(|lane| std::iter::from_fn(|| self.callee.next(*lane, link)).collect::<Vec<_>>())
            .collect()
    }

    pub fn reach_callee(&mut self, link: LinkId, frames: &[Frame]) {
        for frame in frames {
            self.callee.received(link, &frame.header, body(frame), &mut self.started).unwrap();
        }
    }

    pub fn reach_caller(&mut self, link: LinkId, frames: &[Frame]) {
        for frame in frames {
            self.caller.received(link, &frame.header, body(frame), &mut self.completed).unwrap();
        }
    }

    /// What goes to the callee and is there.
    pub fn ask(&mut self, link: LinkId) -> Vec<String> {
        let frames = self.asks(link);
        self.reach_callee(link, &frames);
        frames.iter().map(drawn).collect()
    }

    pub fn answer(&mut self, link: LinkId) -> Vec<String> {
        let frames = self.answers(link);
        self.reach_caller(link, &frames);
        frames.iter().map(drawn).collect()
    }

    /// The service answers the oldest start.
    pub fn serve(&mut self, bytes: usize) {
        let start = self.started.remove(0);
        let reply = Message { head: start.message.bulk.slice(..0), bulk: vec![5; bytes].into() };
        self.callee.answered(start.turn, Verdict::Answered, reply);
    }

    pub fn tickets(&self) -> Vec<u64> {
        self.completed.iter().map(|done| done.ticket.0).collect()
    }
}
