//! One transfer at the end that asked for it.
//!
//! Owns what is still to be sent, what was sent where, and what has come. Invariant: everything that was sent on a link and is not
//! known to have arrived is sent again when that link is lost; a piece comes into memory only while the transfer's part of its ticket runs.

use super::pieces::Pieces;
use super::ranges::Ranges;
use super::{NATIVE_BYTES, Placing, RANGES_MAX, take_placing};
use crate::Priority;
use crate::frame::{ACCESS_BYTES, Access, Flags, Header, Kind, Verdict, WireError};
use crate::provider::{Body, DeviceAddress, Frame, Place};
use crate::region::{RemoteKey, Span};
use crate::session::LinkId;

/// How its bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// Not settled: by whatever takes the first piece.
    Open,
    /// By frames.
    Framed,
    /// By devices.
    Native,
    /// By frames, as soon as the devices have let go of it.
    Falling,
}

#[derive(Debug)]
struct Work {
    work: u64,
    link: LinkId,
    at: u64,
    length: u64,
}

/// One transfer in its slot.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Whose it is, until its part of that is over.
    pub(super) op: Option<usize>,
    pub(super) write: bool,
    access: Access,
    key: RemoteKey,
    pieces: Pieces,
    route: Route,
    /// It is given up.
    cancelled: bool,
    /// A frame without bytes is to be sent: an asking, a write of nothing, a giving up.
    to_say: bool,
    /// The link on which such a frame went last.
    said_on: Option<LinkId>,
    said_before: bool,
    /// Bytes from here on were not sent yet.
    cursor: u64,
    again: Ranges,
    sent: Vec<(LinkId, Ranges)>,
    placed: Ranges,
    placing: Vec<Placing>,
    works: Vec<Work>,
    native_links: Vec<LinkId>,
    done: Option<Verdict>,
}

impl Outgoing {
    pub(super) fn new(op: usize, write: bool, key: RemoteKey, access: Access, pieces: Pieces) -> Outgoing {
        Outgoing {
            op: Some(op),
            write,
            key,
            pieces,
            route: if access.length == 0 { Route::Framed } else { Route::Open },
            cancelled: false,
            to_say: !write || access.length == 0,
            access,
            said_on: None,
            said_before: false,
            cursor: 0,
            again: Ranges::default(),
            sent: Vec::new(),
            placed: Ranges::default(),
            placing: Vec::new(),
            works: Vec::new(),
            native_links: Vec::new(),
            done: None,
        }
    }

    /// True while a frame could be sent.
    pub(super) fn wants_frame(&self) -> bool {
        let by_frames = matches!(self.route, Route::Open | Route::Framed);
        let bytes = self.write && (self.cursor < self.access.length || self.again.count() > 0);
        // A `Done` that was on its way already takes back no asking again: what it speaks of may be lost.
        by_frames && (self.to_say || bytes && !self.cancelled && self.done.is_none())
    }

    /// True while a device could take a piece.
    pub(super) fn wants_device(&self) -> bool {
        let by_device = matches!(self.route, Route::Open | Route::Native);
        by_device
            && !self.cancelled
            && self.cursor < self.access.length
            && self.key.devices.iter().any(Option::is_some)
    }

    /// True if it has not begun and a device on this rail can carry it out.
    pub(super) fn waits_for_device(&self, rail: Option<u8>) -> bool {
        let known = rail.is_some_and(|rail| self.key.device(rail).is_some());
        known && self.route == Route::Open && self.wants_device()
    }

    /// The next frame for this link, with at most so many bytes of memory.
    pub(super) fn frame(&mut self, link: LinkId, longest: u64) -> Option<Frame> {
        if !self.wants_frame() {
            return None;
        }
        self.route = Route::Framed;
        if self.to_say {
            return Some(self.say(link));
        }
        let (at, end, again) = match self.again.first() {
            Some((at, end)) => (at, end, true),
            None => (self.cursor, self.access.length, false),
        };
        let span = self.pieces.at(at, longest.min(end - at))?;
        let length = span.length() as u64;
        if again {
            self.again.take_front(length);
        } else {
            self.cursor += length;
        }
        self.sent_on(link).insert(at, at + length);
        let mut header = self.header(Kind::Write, again);
        header.bulk = length as u32;
        Some(Frame { header, body: Body::Piece(Access { at, ..self.access }, span) })
    }

    fn say(&mut self, link: LinkId) -> Frame {
        let again = std::mem::replace(&mut self.said_before, true);
        (self.to_say, self.said_on) = (false, Some(link));
        let mut header = self.header(if self.write { Kind::Write } else { Kind::Read }, again);
        header.flags = header.flags.with(Flags::ONE_WAY, self.cancelled);
        let at = if self.write || self.cancelled { 0 } else { self.placed.first_missing() };
        Frame { header, body: Body::Access(Access { at, ..self.access }) }
    }

    fn header(&self, kind: Kind, again: bool) -> Header {
        let mut header = Header::new(kind, Priority::Data);
        header.flags = header.flags.with(Flags::AGAIN, again);
        header.head = ACCESS_BYTES as u32;
        header
    }

    fn sent_on(&mut self, link: LinkId) -> &mut Ranges {
        let at = match self.sent.iter().position(|(known, _)| *known == link) {
            Some(at) => at,
            None => {
                self.sent.push((link, Ranges::default()));
                self.sent.len() - 1
            }
        };
        &mut self.sent[at].1
    }

    /// The next piece for a device on this link and rail, to be called `work`.
    pub(super) fn native(&mut self, link: LinkId, rail: u8, work: u64) -> Option<(Span, DeviceAddress)> {
        let base = self.key.device(rail).filter(|_| self.wants_device())?;
        let at = self.cursor;
        let span = self.pieces.at(at, NATIVE_BYTES)?;
        let length = span.length() as u64;
        self.route = Route::Native;
        self.cursor += length;
        self.works.push(Work { work, link, at, length });
        if !self.native_links.contains(&link) {
            self.native_links.push(link);
        }
        let address = base.address.wrapping_add(self.access.offset).wrapping_add(at);
        Some((span, DeviceAddress { address, ..base }))
    }

    /// A device is done with a piece, or has failed. False if it is none of ours (any more).
    pub(super) fn posted(&mut self, link: LinkId, work: u64, good: bool) -> bool {
        let known = self.works.iter().position(|one| one.work == work && one.link == link);
        let Some(known) = known else { return false };
        let Work { at, length, .. } = self.works.swap_remove(known);
        if good {
            self.placed.insert(at, at + length);
        } else if self.route == Route::Native {
            self.route = Route::Falling;
        }
        self.settle_route();
        true
    }

    /// Goes over to frames when the devices have let go; says that all is there when it is, and is to be counted.
    fn settle_route(&mut self) {
        if !self.works.is_empty() || self.cancelled {
            return;
        }
        if self.route == Route::Falling {
            self.route = Route::Framed;
            if self.write {
                // The target counts framed bytes only: they all go once more.
                self.cursor = 0;
                self.placed.clear();
            }
        } else if self.route == Route::Native && self.access.notify && self.is_all_placed() {
            // A device would count again what it carries out again. So the arrival is a write of nothing of its own, which has a
            // sequence that the target knows.
            self.route = Route::Framed;
            self.access.length = 0;
            self.to_say = true;
        }
    }

    fn is_all_placed(&self) -> bool {
        self.placed.covers(0, self.access.length)
    }

    fn is_mine(&self, access: &Access) -> bool {
        let Access { region, token, epoch, offset, length, .. } = self.access;
        (access.region, access.token, access.epoch) == (region, token, epoch)
            && (access.offset, access.length) == (offset, length)
    }

    /// Where data that was read goes.
    pub(super) fn place(
        &mut self,
        link: LinkId,
        header: &Header,
        access: &Access,
    ) -> Result<Place, WireError> {
        if self.write || !self.is_mine(access) || !self.said_before {
            return Err(WireError("data of a read that nobody asked for"));
        }
        let (at, length) = (access.at, u64::from(header.bulk));
        let end = at.checked_add(length).filter(|end| *end <= self.access.length && length > 0);
        let end = end.ok_or(WireError("data beyond the end of a read"))?;
        let over = self.cancelled || self.done.is_some_and(|verdict| verdict != Verdict::Answered);
        if over || self.placed.covers(at, end) {
            return Ok(Place::Skip);
        }
        if self.placed.count() + self.placing.len() >= RANGES_MAX {
            return Err(WireError("a read answered in too many pieces"));
        }
        let span = self.pieces.at(at, length).filter(|span| span.length() as u64 == length);
        let span = span.ok_or(WireError("data beyond the end of a read"))?;
        self.placing.push(Placing { link, at, length });
        Ok(Place::Span(span))
    }

    pub(super) fn placed(&mut self, link: LinkId, at: u64, length: u64) {
        if take_placing(&mut self.placing, link, at, length) {
            self.placed.insert(at, at + length);
        }
    }

    /// `Done` came.
    pub(super) fn done(&mut self, verdict: Verdict, again: bool) -> Result<(), WireError> {
        use Verdict::{Answered, Denied, OutOfBounds, Revoked, Unheard};
        let known = matches!(verdict, Answered | Denied | OutOfBounds | Revoked);
        if !(known || self.cancelled && verdict == Unheard) || !self.is_known_there() {
            return Err(WireError("a verdict that no transfer can have"));
        }
        let early = self.write && self.cursor < self.access.length && verdict == Answered;
        if early && !self.cancelled {
            return Err(WireError("a write done before it was sent"));
        }
        if again && !self.write && !self.cancelled && verdict == Answered && !self.is_all_placed() {
            (self.done, self.to_say) = (None, true);
            return Ok(());
        }
        self.done = Some(verdict);
        Ok(())
    }

    /// What this link was carrying is lost, and it touches our memory no more.
    pub(super) fn link_lost(&mut self, link: LinkId) {
        self.placing.retain(|one| one.link != link);
        self.works.retain(|one| one.link != link);
        if let Some(at) = self.sent.iter().position(|(known, _)| *known == link) {
            let (_, lost) = self.sent.swap_remove(at);
            self.again.merge(&lost);
        }
        if self.route == Route::Native && self.native_links.contains(&link) {
            self.route = Route::Falling;
        }
        self.native_links.retain(|known| *known != link);
        let asked = !self.write && !self.cancelled && self.said_before;
        let lacking = asked && !(self.is_all_placed() && self.done.is_some());
        let refused = self.done.is_some_and(|verdict| verdict != Verdict::Answered);
        if lacking && !refused {
            // What the target sent there is lost, and only we know what came.
            (self.done, self.to_say) = (None, true);
        }
        if self.said_on == Some(link) && self.done.is_none() {
            self.to_say = true;
        }
        self.settle_route();
    }

    /// Gives it up.
    pub(super) fn cancel(&mut self) {
        self.cancelled = true;
        // A new frame, not the one that may have been said before.
        self.to_say = self.done.is_none() && self.is_known_there();
    }

    /// True if the target may have heard of it.
    fn is_known_there(&self) -> bool {
        self.said_before || !self.sent.is_empty() || self.again.count() > 0
    }

    /// True for a write that was given up and that the target may still carry out.
    pub(super) fn is_closing(&self) -> bool {
        self.cancelled && self.write
    }

    /// True if it is so, and in these bytes of that region.
    pub(super) fn is_in_the_way(&self, region: u64, start: u64, end: u64) -> bool {
        let mine = &self.access;
        let apart = mine.offset + mine.length <= start || end <= mine.offset;
        self.is_closing() && mine.region == region && !apart
    }

    /// Links and devices that may touch our memory for it right now.
    pub(super) fn placing_links(&self) -> impl Iterator<Item = LinkId> {
        self.placing.iter().map(|one| one.link).chain(self.works.iter().map(|work| work.link))
    }

    /// How it ended for its ticket, once nothing touches our memory for it any more.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        let untouched = self.placing.is_empty() && self.works.is_empty();
        if !self.write && !untouched {
            return None;
        }
        if self.cancelled {
            return Some(Verdict::Unheard);
        }
        match self.route {
            Route::Framed => self
                .done
                .filter(|verdict| self.write || *verdict != Verdict::Answered || self.is_all_placed()),
            Route::Native => {
                let all = self.works.is_empty() && self.is_all_placed() && !self.access.notify;
                all.then_some(Verdict::Answered)
            }
            Route::Open | Route::Falling => None,
        }
    }

    /// True when nobody, here or at the target, works for it any more: the slot may be used again.
    pub(super) fn is_over(&self) -> bool {
        let quiet = self.works.is_empty() && self.placing.is_empty();
        let closed = self.cancelled && (self.done.is_some() || !self.is_known_there());
        quiet && (closed || !self.cancelled && self.verdict().is_some())
    }
}
