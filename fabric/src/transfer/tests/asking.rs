//! What is asked for: transfers to random places, with good keys and false ones.

use super::book::{BAD, BLANK, CELL_BYTES, Entry, Expected, REGION_BYTES};
use super::world::{ASKER, DEVICE_START, LOCAL_BYTES, TICKETS_MAX, World};
use crate::frame::Verdict;
use crate::provider::DeviceAddress;
use crate::region::{DeviceKey, RemoteKey, Rights, Span};
use crate::session::Ticket;
use crate::transfer::TransferOp;
use crate::{Peer, Role};
use base::NodeId;
use base::prng::Prng;

const OTHER: Peer = Peer { node: NodeId(3), role: Role::Data };

impl World {
    pub(super) fn submit(&mut self) {
        let cell = self.prng.below((REGION_BYTES / CELL_BYTES) as u64) as usize;
        if self.book.entries.len() >= TICKETS_MAX || !self.book.is_cell_free(cell) {
            return;
        }
        let start = self.prng.below(CELL_BYTES as u64 / 2) as usize;
        let length = self.prng.below((CELL_BYTES - start) as u64) as usize;
        let offset = cell * CELL_BYTES + start;
        let write = !self.prng.one_in(3);
        let (key, expected) = self.key(offset, length);
        let (local, spans) = self.local(length);
        let byte =
            |prng: &mut Prng| if expected == Expected::Good { 1 + prng.below(0xe0) as u8 } else { BAD };
        let content: Vec<u8> = (0..length).map(|_| byte(&mut self.prng)).collect();
        let mut rest = &content[..];
        for span in spans.iter().filter(|_| write) {
            let (now, later) = rest.split_at(span.length());
            span.fill(now);
            rest = later;
        }
        let notify = self.prng.one_in(2);
        let mut entry = Entry::new(write, offset, content, local, spans.clone());
        (entry.notify, entry.expected) = (notify, expected);
        let ticket = Ticket(self.book.begin(entry));
        let reach = if expected == Expected::Refused(Verdict::OutOfBounds) { REGION_BYTES } else { 0 };
        let offset = (offset + reach) as u64;
        let op = TransferOp { write, key, offset, pieces: spans, notify };
        self.initiator.submit(ticket, op).expect("there is room for it");
    }

    /// A key: good, or false in one way.
    fn key(&mut self, offset: usize, length: usize) -> (RemoteKey, Expected) {
        let (denied, beyond) = (Expected::Refused(Verdict::Denied), Expected::Refused(Verdict::OutOfBounds));
        let [mine, read_only, other] =
            [(ASKER, true, 1), (ASKER, false, 2), (OTHER, true, 3)].map(|(peer, write, token)| {
                self.regions.grant(self.region, peer, Rights { read: write, write }, token).unwrap()
            });
        let mut key = mine;
        let expected = match self.prng.below(16) {
            0 => {
                key.token = 77;
                denied
            }
            1 => {
                key = RemoteKey { rights: Rights::ALL, ..read_only };
                denied
            }
            2 => {
                key = other;
                denied
            }
            3 if offset + length > 0 => {
                key.length = u64::MAX;
                beyond
            }
            _ => Expected::Good,
        };
        if expected == Expected::Good && self.prng.one_in(2) {
            let at = DeviceAddress { address: DEVICE_START, rkey: key.epoch };
            key.add_device(DeviceKey { rail: 0, at });
        }
        (key, expected)
    }

    /// Memory of this end, and `length` bytes of it in up to four parts with gaps between.
    fn local(&mut self, length: usize) -> (Span, Vec<Span>) {
        let start = self.book.entries.len() * LOCAL_BYTES;
        let local = Span::of(&self.ours, start, LOCAL_BYTES).unwrap();
        local.fill(&[BLANK; LOCAL_BYTES]);
        let (mut at, mut left, mut spans) = (0, length, Vec::new());
        while left > 0 {
            let part = if spans.len() == 3 { left } else { 1 + self.prng.below(left as u64) as usize };
            at += self.prng.below(100) as usize;
            spans.push(local.part(at, part).unwrap());
            (at, left) = (at + part, left - part);
        }
        (local, spans)
    }
}
