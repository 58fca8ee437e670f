//! One direction of the talk between two lives: what one end has to say, and what of it the other end has not confirmed.
//!
//! ```text
//!  push --> open batch --(full, or another era)--> sealed --next, at most WINDOW at once--> flying --acked--> gone
//!                                                                                            |  not acked in time: sent again
//! ```
//!
//! Invariant: batches are numbered from 1 in the order of their messages; what flies is at most [`WINDOW`] batches. While so many fly, messages
//! gather: a busy line sends few long batches.

use crate::message::Message;
use crate::wire::{self, BATCH_BYTES, HEADER_BYTES, Header, RECORDS_MAX};
use base::{Epoch, Incarnation, Time};
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::Duration;

/// Batches under way at most.
pub const WINDOW: usize = 4;
/// A batch that was not confirmed for so long is sent again: the fabric loses nothing while both ends have a way to each other.
pub const RESEND_AFTER: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct Sealed {
    era: Epoch,
    count: u32,
    /// With room for the header in front.
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Flying {
    number: u64,
    bytes: Bytes,
    sent: Time,
}

/// What one life says to another.
#[derive(Debug)]
pub struct Line {
    life: Incarnation,
    to: Incarnation,
    open: Option<Sealed>,
    sealed: VecDeque<Sealed>,
    flying: VecDeque<Flying>,
    last_number: u64,
}

impl Line {
    /// A line on which nothing was said.
    pub fn new(life: Incarnation, to: Incarnation) -> Line {
        Line { life, to, open: None, sealed: VecDeque::new(), flying: VecDeque::new(), last_number: 0 }
    }

    /// To which life it goes.
    pub fn to(&self) -> Incarnation {
        self.to
    }

    /// Says something.
    pub fn push(&mut self, era: Epoch, message: &Message) {
        let is_full =
            |open: &Sealed| open.era != era || open.bytes.len() >= BATCH_BYTES || open.count >= RECORDS_MAX;
        if let Some(open) = self.open.take_if(|open| is_full(open)) {
            self.sealed.push_back(open);
        }
        let open = self.open.get_or_insert_with(|| {
            let mut bytes = Vec::with_capacity(128);
            bytes.resize(HEADER_BYTES, 0);
            Sealed { era, count: 0, bytes }
        });
        wire::put(message, &mut open.bytes);
        open.count += 1;
    }

    /// True if [`Line::next`] has something.
    pub fn is_ready(&self) -> bool {
        self.flying.len() < WINDOW && (self.open.is_some() || !self.sealed.is_empty())
    }

    /// The next batch to send; `ack`: what has come the other way.
    pub fn next(&mut self, now: Time, ack: u64) -> Option<Bytes> {
        if self.flying.len() >= WINDOW {
            return None;
        }
        let Sealed { era, count, mut bytes } = self.sealed.pop_front().or_else(|| self.open.take())?;
        self.last_number += 1;
        let (number, is_urgent) = (self.last_number, self.flying.len() + 1 == WINDOW);
        let header = Header { life: self.life, to: self.to, era, number, ack, is_urgent };
        header.write(count, &mut bytes);
        let bytes = Bytes::from(bytes);
        self.flying.push_back(Flying { number, bytes: bytes.clone(), sent: now });
        Some(bytes)
    }

    /// All up to this number have come.
    pub fn acked(&mut self, number: u64) {
        while self.flying.front().is_some_and(|flying| flying.number <= number) {
            self.flying.pop_front();
        }
    }

    /// True while something is not confirmed.
    pub fn waits(&self) -> bool {
        !self.flying.is_empty()
    }

    /// What was not confirmed in time, once more.
    pub fn late(&mut self, now: Time) -> Vec<Bytes> {
        let late = self.flying.iter_mut().filter(|flying| flying.sent + RESEND_AFTER <= now);
        late.map(|flying| {
            flying.sent = now;
            flying.bytes.clone()
        })
        .collect()
    }
}
