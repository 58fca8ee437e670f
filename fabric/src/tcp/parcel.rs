//! Bytes on their way into a socket: copied ones, and memory that is lent.
//!
//! Invariant: `parts` names every byte of `copied` that was not sent, in order, and no part is empty.

use super::sys::{GATHER_MAX, Gather, Stretch};
use crate::region::Span;
use bytes::{Buf, Bytes};
use std::collections::VecDeque;

/// Bytes that go out one after the other.
pub enum Part {
    /// The next so many of `copied`.
    Copied(usize),
    /// These.
    Held(Bytes),
    /// These of a region.
    Piece(Span),
}

/// What is to be sent, and the memory that it lies in.
#[derive(Default)]
pub struct Parcel {
    /// Bytes that were copied, and are sent from here.
    pub copied: Vec<u8>,
    /// Bytes at the beginning of `copied` that were sent.
    sent: usize,
    /// What goes out, in order.
    pub parts: VecDeque<Part>,
}

impl Parcel {
    /// True if all is sent.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Bytes of memory that is lent.
    pub fn lent_bytes(&self) -> usize {
        let lent = self.parts.iter().map(|part| match part {
            Part::Copied(_) => 0,
            Part::Held(bytes) => bytes.len(),
            Part::Piece(span) => span.length(),
        });
        lent.sum()
    }

    /// Says that so many bytes were appended to `copied`.
    pub fn copied_more(&mut self, bytes: usize) {
        match self.parts.back_mut() {
            // A part of no bytes would never be sent, and so never be done.
            _ if bytes == 0 => {}
            Some(Part::Copied(length)) => *length += bytes,
            _ => self.parts.push_back(Part::Copied(bytes)),
        }
    }

    /// What is to be sent, from where it lies.
    pub fn places(&self) -> impl Iterator<Item = Stretch<'_>> {
        let mut copied = &self.copied[self.sent..];
        self.parts.iter().map(move |part| match part {
            Part::Copied(length) => {
                let (bytes, rest) = copied.split_at(*length);
                copied = rest;
                Stretch::Bytes(bytes)
            }
            Part::Held(bytes) => Stretch::Bytes(bytes),
            Part::Piece(span) => Stretch::Span(span),
        })
    }

    /// What goes next in one call; nothing if all is sent.
    pub fn gather(&self) -> Gather<'_> {
        let mut gather = Gather::new();
        for stretch in self.places().take(GATHER_MAX) {
            gather.add(stretch);
        }
        gather
    }

    /// Says that so many bytes more were sent.
    pub fn advance(&mut self, bytes: usize) {
        let mut left = bytes;
        while left > 0 {
            let Some(part) = self.parts.front_mut() else { break };
            let length = match part {
                Part::Copied(length) => *length,
                Part::Held(bytes) => bytes.len(),
                Part::Piece(span) => span.length(),
            };
            let took = left.min(length);
            left -= took;
            match part {
                Part::Copied(length) => {
                    self.sent += took;
                    *length -= took;
                }
                Part::Held(bytes) => bytes.advance(took),
                Part::Piece(span) => *span = span.part(took, length - took).unwrap_or_else(|| span.clone()),
            }
            if took == length {
                self.parts.pop_front();
            }
        }
    }

    /// Forgets what it holds, and gives back the memory of what was copied.
    pub fn empty(&mut self) -> Vec<u8> {
        self.parts.clear();
        self.sent = 0;
        std::mem::take(&mut self.copied)
    }
}
