//! Two ends, up to three links, and everything that can go wrong between them, from one seed.

use super::book::{BAD, Book, GUARD_BYTES, REGION_BYTES};
use super::wire::{Piece, SimLink, Wire};
use crate::frame::{Kind, Verdict};
use crate::provider::Place;
use crate::region::{Memory, RegionId, Regions, Span};
use crate::session::{LinkId, Ticket};
use crate::transfer::{Initiator, NativePiece, Target};
use crate::{Peer, Role};
use base::NodeId;
use base::prng::Prng;
use std::sync::Arc;

pub(super) const OWNER: Peer = Peer { node: NodeId(1), role: Role::Data };
pub(super) const ASKER: Peer = Peer { node: NodeId(2), role: Role::Data };
const LINKS_MAX: usize = 3;
pub(super) const TICKETS_MAX: usize = 24;
pub(super) const DEVICE_START: u64 = 1 << 20;
pub(super) const LOCAL_BYTES: usize = 1024;

/// Canaries: worlds that are broken, so that the checkers must find it.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    /// A link does not stop placing when its region is forsaken.
    pub deaf_link: bool,
    /// Frames vanish without their link breaking.
    pub lost_frames: bool,
    /// The target is not told which links broke.
    pub untold_target: bool,
}

/// What came to pass, over all seeds.
#[derive(Debug, Default)]
pub struct Tally {
    pub answered: u64,
    pub cancelled: u64,
    pub revoked: u64,
    pub denied: u64,
    pub out_of_bounds: u64,
    pub native: u64,
    pub given_up: u64,
    pub cut: u64,
    pub skipped: u64,
    pub arrivals: u64,
}

pub struct World {
    pub(super) prng: Prng,
    faults: Faults,
    pub(super) initiator: Initiator,
    target: Target,
    pub(super) regions: Regions,
    pub(super) region: RegionId,
    theirs: Arc<Memory>,
    pub(super) ours: Arc<Memory>,
    links: Vec<SimLink>,
    links_made: u32,
    pub(super) book: Book,
    pub tally: Tally,
}

type Outcome = Result<(), String>;

impl World {
    pub fn new(seed: u64, faults: Faults) -> World {
        let mut prng = Prng::new(seed);
        let theirs = Memory::new(REGION_BYTES + GUARD_BYTES).unwrap();
        let mut regions = Regions::new(OWNER);
        let region = regions.register(theirs.clone(), REGION_BYTES).unwrap();
        let piece_bytes = if prng.one_in(20) { 1 + prng.below(20) } else { 20 + prng.below(200) };
        let mut world = World {
            prng,
            faults,
            initiator: Initiator::with_pieces(piece_bytes),
            target: Target::with_pieces(ASKER, piece_bytes),
            regions,
            region,
            book: Book::new(theirs.clone()),
            theirs,
            ours: Memory::new(TICKETS_MAX * LOCAL_BYTES).unwrap(),
            links: Vec::new(),
            links_made: 0,
            tally: Tally::default(),
        };
        world.add_link();
        world
    }

    /// Runs to the end of the world.
    pub fn run(&mut self) -> Outcome {
        for _ in 0..400 {
            self.step()?;
            self.gather()?;
        }
        self.heal()?;
        if !self.initiator.is_idle() || !self.target.is_idle() {
            return Err("a slot is in use for ever".into());
        }
        self.tally.arrivals = self.regions.arrivals(self.region).unwrap();
        self.book.check_end(self.tally.arrivals)
    }

    fn step(&mut self) -> Outcome {
        match self.prng.below(100) {
            0..12 => self.submit(),
            12..40 => self.pull(),
            40..80 => self.deliver()?,
            80..84 => self.add_link(),
            84..93 => self.work()?,
            93..95 => self.cut(),
            95 => self.notice(),
            96 => self.cancel(),
            97 => self.lose_one_end(),
            98 if self.prng.one_in(4) => self.revoke(),
            99 if self.prng.one_in(4) => self.book.check_memory()?,
            _ => {}
        }
        Ok(())
    }

    fn any_link(&mut self) -> Option<usize> {
        let count = self.links.len() as u64;
        (count > 0).then(|| self.prng.below(count) as usize)
    }

    fn add_link(&mut self) {
        if self.links.len() < LINKS_MAX {
            self.links_made += 1;
            let has_device = self.prng.one_in(3);
            self.links.push(SimLink::new(LinkId(self.links_made), has_device));
        }
    }

    fn pull(&mut self) {
        let Some(at) = self.any_link() else { return };
        let loses = self.faults.lost_frames && self.prng.one_in(40);
        let link = &mut self.links[at];
        if self.prng.one_in(2) {
            let frame =
                (!link.asker.is_lost && link.owner.coming.len() < 5).then(|| self.initiator.next(link.id));
            let wire =
                frame.flatten().map(|frame| Wire::of(&frame)).filter(|_| !loses && !link.owner.is_lost);
            link.owner.coming.extend(wire);
        } else if !link.owner.is_lost && link.asker.coming.len() < 5 {
            let Some(frame) = self.target.next(link.id) else { return };
            if frame.header.kind == Kind::Done {
                self.book.done.insert((frame.header.slot, frame.header.sequence));
            }
            let arrives = !loses && !link.asker.is_lost;
            link.asker.coming.extend(arrives.then(|| Wire::of(&frame)));
        }
    }

    fn deliver(&mut self) -> Outcome {
        let Some(at) = self.any_link() else { return Ok(()) };
        if self.prng.one_in(2) {
            return self.deliver_to_owner(at);
        }
        self.deliver_to_asker(at);
        Ok(())
    }

    fn deliver_to_owner(&mut self, at: usize) -> Outcome {
        let link = &mut self.links[at];
        if let Some(mut piece) = link.owner.placing.take() {
            let name = (piece.header.slot, piece.header.sequence);
            if self.book.done.contains(&name) {
                return Err("placed after it was done".into());
            }
            if piece.advance() {
                self.target.placed(link.id, &piece.header, &piece.access, &mut self.regions);
            } else {
                link.owner.placing = Some(piece);
            }
            return Ok(());
        }
        let Some(wire) = link.owner.coming.pop_front() else { return Ok(()) };
        let (header, access) = (wire.header(), wire.access().expect("all that goes there has one"));
        if wire.bytes.is_empty() {
            return self
                .target
                .received(&header, &access, &mut self.regions)
                .map_err(|error| error.to_string());
        }
        match self.target.place(link.id, &header, &access, &self.regions).expect("a good piece") {
            Place::Skip => self.tally.skipped += 1,
            Place::Span(span) => {
                link.owner.placing =
                    Some(Piece { header, access, span, bytes: wire.bytes, is_half_done: false });
            }
        }
        Ok(())
    }

    fn deliver_to_asker(&mut self, at: usize) {
        let link = &mut self.links[at];
        if let Some(mut piece) = link.asker.placing.take() {
            if piece.advance() {
                self.initiator.placed(link.id, &piece.header, &piece.access);
            } else {
                link.asker.placing = Some(piece);
            }
            return;
        }
        let Some(wire) = link.asker.coming.pop_front() else { return };
        let header = wire.header();
        let Some(access) = wire.access() else {
            return self.initiator.received(&header).expect("a good frame");
        };
        match self.initiator.place(link.id, &header, &access).expect("a good piece") {
            Place::Skip => self.tally.skipped += 1,
            Place::Span(span) => {
                link.asker.placing =
                    Some(Piece { header, access, span, bytes: wire.bytes, is_half_done: false });
            }
        }
    }

    /// A device takes a piece, or is done with one.
    fn work(&mut self) -> Outcome {
        let Some(at) = self.any_link() else { return Ok(()) };
        let link = &mut self.links[at];
        if link.asker.is_lost || !link.has_device {
            return Ok(());
        }
        if self.prng.one_in(2) {
            link.works.extend(self.initiator.take_native(link.id, 0));
            return Ok(());
        }
        self.finish_work(at)
    }

    fn finish_work(&mut self, at: usize) -> Outcome {
        let Some(piece) = self.links[at].works.pop_front() else { return Ok(()) };
        let good = self.carry_out(&piece)? && !self.prng.one_in(10);
        self.tally.native += u64::from(good);
        self.initiator.posted(self.links[at].id, piece.work, good);
        Ok(())
    }

    /// True if the owner's device knows the key.
    fn carry_out(&mut self, piece: &NativePiece) -> Result<bool, String> {
        let offset = (piece.remote.address - DEVICE_START) as usize;
        let theirs = Span::of(&self.theirs, offset, piece.span.length()).ok_or("a device went too far")?;
        let known = self.book.revocations + 1 == piece.remote.rkey;
        match (known, piece.write) {
            (false, _) => {}
            (true, true) => theirs.copy_from(&piece.span),
            (true, false) => piece.span.copy_from(&theirs),
        }
        Ok(known)
    }

    /// One end of a link notices that it is broken.
    fn cut(&mut self) {
        let Some(at) = self.any_link() else { return };
        self.tally.cut += 1;
        if self.prng.one_in(2) {
            self.lose_asker(at)
        } else {
            self.lose_owner(at)
        }
        self.bury();
    }

    /// As a cable that is pulled: the end that asks notices while a piece is being placed, the other one waits for the rest.
    fn lose_one_end(&mut self) {
        let halfway = |link: &SimLink| link.owner.placing.is_some() && !link.asker.is_lost;
        if let Some(at) = self.links.iter().position(halfway) {
            self.links[at].owner.coming.clear();
            self.lose_asker(at);
        }
    }

    /// The other end of a broken link notices too.
    fn notice(&mut self) {
        for at in 0..self.links.len() {
            if self.links[at].asker.is_lost {
                self.lose_owner(at);
            } else if self.links[at].owner.is_lost {
                self.lose_asker(at);
            }
        }
        self.bury();
    }

    fn lose_asker(&mut self, at: usize) {
        if self.links[at].asker.is_lost {
            return;
        }
        for piece in std::mem::take(&mut self.links[at].works) {
            if self.prng.one_in(2) {
                self.carry_out(&piece).expect("within the region");
            }
        }
        self.links[at].asker.lose();
        self.initiator.link_lost(self.links[at].id);
    }

    fn lose_owner(&mut self, at: usize) {
        if !self.links[at].owner.is_lost {
            self.links[at].owner.lose();
            if !self.faults.untold_target {
                self.target.link_lost(self.links[at].id, &mut self.regions);
            }
        }
    }

    fn bury(&mut self) {
        self.links.retain(|link| !(link.asker.is_lost && link.owner.is_lost));
    }

    fn cancel(&mut self) {
        let running = self.book.entries.iter().enumerate().filter(|(_, entry)| entry.verdict.is_none());
        let running: Vec<usize> = running.map(|(ticket, _)| ticket).collect();
        if running.is_empty() {
            return;
        }
        let ticket = running[self.prng.below(running.len() as u64) as usize];
        let entry = &mut self.book.entries[ticket];
        entry.is_cancelled = true;
        let is_quiet = self.initiator.placing(Ticket(ticket as u64)).is_empty();
        self.initiator.cancel(Ticket(ticket as u64));
        if entry.write && is_quiet {
            // The memory serves another use: nothing of that may go out as a part of this write.
            entry.local.fill(&[BAD; LOCAL_BYTES]);
        }
    }

    fn revoke(&mut self) {
        self.regions.revoke(self.region);
        for link in &mut self.links {
            let region = self.region.0;
            if !self.faults.deaf_link {
                link.owner.placing.take_if(|piece| piece.access.region == region);
            }
        }
        self.target.forsake(self.region);
        self.book.revoke();
    }

    /// Takes in what the cores have to say.
    fn gather(&mut self) -> Outcome {
        while let Some(link) = self.target.given_up() {
            self.tally.given_up += 1;
            if let Some(at) = self.links.iter().position(|known| known.id == link) {
                self.lose_owner(at);
            }
            self.bury();
        }
        while let Some(over) = self.initiator.finished() {
            match over.verdict {
                Verdict::Answered => self.tally.answered += 1,
                Verdict::Unheard => self.tally.cancelled += 1,
                Verdict::Revoked => self.tally.revoked += 1,
                Verdict::Denied => self.tally.denied += 1,
                _ => self.tally.out_of_bounds += 1,
            }
            self.book.finish(over.ticket.0, over.verdict)?;
        }
        Ok(())
    }

    /// No more faults: everything comes to its end.
    fn heal(&mut self) -> Outcome {
        for _ in 0..20_000 {
            self.notice();
            self.add_link();
            let busy = self.initiator.has_next() || self.target.has_next();
            if !busy && self.links.iter().all(SimLink::is_quiet) && self.initiator.is_idle() {
                return Ok(());
            }
            for at in 0..self.links.len() {
                self.pull();
                self.deliver_to_owner(at)?;
                self.deliver_to_asker(at);
                if self.links[at].has_device {
                    let link = &mut self.links[at];
                    link.works.extend(self.initiator.take_native(link.id, 0));
                    self.finish_work(at)?;
                }
            }
            self.gather()?;
        }
        Err(format!("{} tickets never end", self.initiator.count()))
    }
}
