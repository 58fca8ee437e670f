//! The end whose memory it is: all transfers of one session of its peer.
//!
//! Owns what it knows of each slot: the last transfer, and how it ended, for as long as the slot has no newer one. Invariant: a piece is
//! placed only while its transfer runs and its key is good; `Done` is said only when no link is placing a piece of it.

use super::job::Job;
use super::{PIECE_BYTES, Placing, SLOTS_MAX};
use crate::frame::{ACCESS_BYTES, Access, Flags, Header, Kind, Verdict, WireError};
use crate::provider::{Body, Frame, Place};
use crate::region::{RegionId, Regions};
use crate::session::LinkId;
use crate::{Peer, Priority};
use std::cmp::Ordering;
use std::collections::VecDeque;

#[derive(Debug, Default)]
struct Slot {
    sequence: u64,
    job: Option<Job>,
    /// It stands in `owing`.
    is_owing: bool,
    /// It stands in `reading`.
    is_reading: bool,
}

/// The transfers of one session, at the end whose memory they reach.
#[derive(Debug)]
pub struct Target {
    peer: Peer,
    /// As many as were ever used.
    slots: Vec<Slot>,
    /// Slots whose `Done` is to be said.
    owing: VecDeque<u16>,
    /// Slots whose read is served, in turn.
    reading: VecDeque<u16>,
    given_up: Vec<LinkId>,
    piece_bytes: u64,
}

impl Target {
    /// Nothing under way. `peer` is whose session it is, as its links have proved.
    pub fn new(peer: Peer) -> Target {
        Target::with_pieces(peer, PIECE_BYTES)
    }

    /// The same, but what is read is cut in shorter pieces: 1 to [`PIECE_BYTES`].
    pub fn with_pieces(peer: Peer, piece_bytes: u64) -> Target {
        Target {
            peer,
            piece_bytes: piece_bytes.clamp(1, PIECE_BYTES),
            slots: Vec::new(),
            owing: VecDeque::new(),
            reading: VecDeque::new(),
            given_up: Vec::new(),
        }
    }

    /// Where the bytes of a `Write` frame go.
    ///
    /// # Errors
    /// The peer broke the protocol: the link ends.
    pub fn place(
        &mut self,
        link: LinkId,
        header: &Header,
        access: &Access,
        regions: &Regions,
    ) -> Result<Place, WireError> {
        if header.kind != Kind::Write || header.bulk == 0 || header.flags.has(Flags::ONE_WAY) {
            return Err(WireError("bytes that a target cannot get"));
        }
        let (at, length) = (access.at, u64::from(header.bulk));
        if at.checked_add(length).is_none_or(|end| end > access.length) {
            return Err(WireError("a piece beyond the end of its write"));
        }
        let again = header.flags.has(Flags::AGAIN);
        if self.turn(header, access, true)? == Turn::Past {
            return Ok(Place::Skip);
        }
        let index = usize::from(header.slot);
        let Some(job) = &mut self.slots[index].job else { return Ok(Place::Skip) };
        if !job.is_running() {
            job.is_owed |= again && job.is_ended();
            self.settle(header.slot);
            return Ok(Place::Skip);
        }
        // For each piece: an epoch that has ended ends the transfer, whoever forgot to tell us.
        let span = match regions.check(self.peer, access, true) {
            Ok(span) => span,
            Err(verdict) => {
                job.end(verdict);
                job.settle();
                self.settle(header.slot);
                return Ok(Place::Skip);
            }
        };
        let wanted = job.take(Placing { link, at, length }, again, &mut self.given_up)?;
        // Both below the length of the span.
        let part = span.part(at as usize, length as usize).filter(|_| wanted);
        Ok(part.map_or(Place::Skip, Place::Span))
    }

    /// They are there. With the last of them the write is complete.
    pub fn placed(&mut self, link: LinkId, header: &Header, access: &Access, regions: &mut Regions) {
        let slot = self.slots.get_mut(usize::from(header.slot));
        let Some(slot) = slot.filter(|slot| slot.sequence == header.sequence) else { return };
        let Some(job) = &mut slot.job else { return };
        job.placed(link, access.at, u64::from(header.bulk));
        if job.settle() {
            complete(job, regions);
        }
        self.settle(header.slot);
    }

    /// A `Read` came, or a `Write` without bytes: one of length 0, or one that is given up.
    ///
    /// # Errors
    /// The peer broke the protocol: the link ends.
    pub fn received(
        &mut self,
        header: &Header,
        access: &Access,
        regions: &mut Regions,
    ) -> Result<(), WireError> {
        let write = match header.kind {
            Kind::Write if header.bulk == 0 => true,
            Kind::Read => false,
            _ => return Err(WireError("a frame that a target cannot get")),
        };
        let cancel = header.flags.has(Flags::ONE_WAY);
        if write && !cancel && access.length > 0 {
            return Err(WireError("a piece of a write without bytes"));
        }
        let turn = self.turn(header, access, write)?;
        let Some(job) = self.slots[usize::from(header.slot)].job.as_mut().filter(|_| turn != Turn::Past)
        else {
            return Ok(());
        };
        let again = header.flags.has(Flags::AGAIN);
        if cancel {
            job.is_owed |= job.is_ended();
            job.end(Verdict::Unheard);
            job.settle();
        } else if write {
            wrote_nothing(job, self.peer, again, regions);
        } else if turn == Turn::New || again {
            asked(job, self.peer, access, regions);
        }
        self.settle(header.slot);
        Ok(())
    }

    /// From here on what is read is cut in pieces no longer than this: 1 to [`PIECE_BYTES`].
    pub fn cut_at(&mut self, piece_bytes: u64) {
        self.piece_bytes = piece_bytes.clamp(1, PIECE_BYTES);
    }

    /// The next frame for a link of the bulk lane; any of them may have it. Reads take turns, piece by piece.
    pub fn next(&mut self, link: LinkId) -> Option<Frame> {
        while let Some(at) = self.owing.pop_front() {
            let slot = &mut self.slots[usize::from(at)];
            slot.is_owing = false;
            let Some(job) = slot.job.as_mut().filter(|job| job.is_owed) else { continue };
            let mut header = header(Kind::Done, at, slot.sequence);
            header.verdict = job.verdict();
            header.flags = header.flags.with(Flags::AGAIN, job.is_lossy);
            job.said(link);
            return Some(Frame { header, body: Body::Empty });
        }
        while let Some(at) = self.reading.pop_front() {
            let slot = &mut self.slots[usize::from(at)];
            slot.is_reading = false;
            let sequence = slot.sequence;
            let Some(job) = slot.job.as_mut().filter(|job| job.is_serving()) else { continue };
            let access = job.access;
            let piece = job.served(link, self.piece_bytes);
            self.settle(at);
            let Some((at_byte, span)) = piece else { continue };
            let mut header = header(Kind::ReadData, at, sequence);
            header.head = ACCESS_BYTES as u32;
            header.bulk = span.length() as u32;
            return Some(Frame { header, body: Body::Piece(Access { at: at_byte, ..access }, span) });
        }
        None
    }

    /// True while [`Target::next`] has a frame.
    pub fn has_next(&self) -> bool {
        let job = |at: &u16| self.slots[usize::from(*at)].job.as_ref();
        self.owing.iter().any(|at| job(at).is_some_and(|job| job.is_owed))
            || self.reading.iter().any(|at| job(at).is_some_and(Job::is_serving))
    }

    /// A link is over, and touches no memory any more. What was lost with it is made good.
    pub fn link_lost(&mut self, link: LinkId, regions: &mut Regions) {
        self.given_up.retain(|known| *known != link);
        for at in 0..self.slots.len() as u16 {
            let Some(job) = &mut self.slots[usize::from(at)].job else { continue };
            if job.link_lost(link) {
                complete(job, regions);
            }
            self.settle(at);
        }
    }

    /// A link that the peer has given up: it sends again what this link was placing. Close it and tell [`Target::link_lost`]: the
    /// write cannot end before.
    pub fn given_up(&mut self) -> Option<LinkId> {
        self.given_up.pop()
    }

    /// After [`Regions::revoke`] or [`Regions::unregister`], and after every link has been told [`crate::provider::Link::forsake`]:
    /// transfers into and out of the region end with `Revoked`, and nothing of them is placed any more.
    pub fn forsake(&mut self, region: RegionId) {
        for at in 0..self.slots.len() as u16 {
            let job = self.slots[usize::from(at)].job.as_mut();
            if let Some(job) = job.filter(|job| job.access.region == region.0) {
                job.forsake();
                self.settle(at);
            }
        }
    }

    /// True if nothing is under way.
    pub fn is_idle(&self) -> bool {
        let ended = |slot: &Slot| slot.job.as_ref().is_none_or(Job::is_ended);
        !self.has_next() && self.slots.iter().all(ended)
    }

    /// Brings a slot to the transfer that a frame names.
    fn turn(&mut self, header: &Header, access: &Access, write: bool) -> Result<Turn, WireError> {
        if header.slot >= SLOTS_MAX || header.sequence == 0 {
            return Err(WireError("a transfer in a slot that does not exist"));
        }
        let index = usize::from(header.slot);
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, Slot::default);
        }
        let slot = &mut self.slots[index];
        match header.sequence.cmp(&slot.sequence) {
            Ordering::Less => Ok(Turn::Past),
            Ordering::Equal if slot.job.as_ref().is_some_and(|job| job.is_named(write, access)) => {
                Ok(Turn::Same)
            }
            Ordering::Equal => Err(WireError("a transfer that becomes another")),
            // A read may be over for the initiator while data is sent that it has already.
            Ordering::Greater if slot.job.as_ref().is_none_or(|job| job.is_ended() || !job.write) => {
                slot.sequence = header.sequence;
                slot.job = Some(Job::new(write, access));
                Ok(Turn::New)
            }
            Ordering::Greater => Err(WireError("a transfer in a slot that is in use")),
        }
    }

    /// Queues a slot where it belongs.
    fn settle(&mut self, at: u16) {
        let slot = &mut self.slots[usize::from(at)];
        let Some(job) = &slot.job else { return };
        if job.is_owed && !slot.is_owing {
            slot.is_owing = true;
            self.owing.push_back(at);
        }
        if job.is_serving() && !slot.is_reading {
            slot.is_reading = true;
            self.reading.push_back(at);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The slot has a newer transfer.
    Past,
    Same,
    New,
}

fn header(kind: Kind, slot: u16, sequence: u64) -> Header {
    Header { slot, sequence, ..Header::new(kind, Priority::Data) }
}

/// A write has become complete.
fn complete(job: &Job, regions: &mut Regions) {
    if job.access.notify {
        // The region may be gone by now; then nobody counts.
        regions.notify(RegionId(job.access.region));
    }
}

/// A write of no bytes.
fn wrote_nothing(job: &mut Job, peer: Peer, again: bool, regions: &mut Regions) {
    if !job.is_running() {
        job.is_owed |= again && job.is_ended();
        return;
    }
    if let Err(verdict) = regions.check(peer, &job.access, true) {
        job.end(verdict);
    }
    if job.settle() {
        complete(job, regions);
    }
}

/// A read is asked for, or again from `access.at` on.
fn asked(job: &mut Job, peer: Peer, access: &Access, regions: &Regions) {
    if !job.is_running() && job.verdict() != Verdict::Answered {
        job.is_owed = true;
        return;
    }
    match regions.check(peer, &job.access, false) {
        Ok(span) => job.serve(span, access.at),
        Err(verdict) => {
            job.restart();
            job.end(verdict);
            job.settle();
        }
    }
}
