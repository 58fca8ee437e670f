//! Single trips, step by step.

use super::super::*;
use crate::frame::{Access, Flags, Header, Kind};
use crate::provider::{Body, DeviceAddress, Frame, Place};
use crate::region::{DeviceKey, Memory, RegionId, Regions, Rights};
use crate::{Peer, Role};
use base::NodeId;
use std::sync::Arc;

const OWNER: Peer = Peer { node: NodeId(1), role: Role::Data };
const ASKER: Peer = Peer { node: NodeId(2), role: Role::Data };
const A: LinkId = LinkId(1);
const B: LinkId = LinkId(2);

struct Ends {
    initiator: Initiator,
    target: Target,
    regions: Regions,
    region: RegionId,
    key: RemoteKey,
    theirs: Arc<Memory>,
    ours: Arc<Memory>,
}

fn ends() -> Ends {
    let (theirs, ours) = (Memory::new(4096).unwrap(), Memory::new(4096).unwrap());
    let mut regions = Regions::new(OWNER);
    let region = regions.register(theirs.clone(), 4096).unwrap();
    let key = regions.grant(region, ASKER, Rights::ALL, 99).unwrap();
    let (initiator, target) = (Initiator::with_pieces(100), Target::with_pieces(ASKER, 100));
    Ends { initiator, target, regions, region, key, theirs, ours }
}

fn access(frame: &Frame) -> Access {
    match &frame.body {
        Body::Piece(access, _) | Body::Access(access) => *access,
        body => panic!("no access in {body:?}"),
    }
}

impl Ends {
    fn submit(&mut self, ticket: u64, write: bool, length: usize) {
        let pieces = vec![Span::of(&self.ours, 0, length).unwrap()];
        let notify = write;
        let op = TransferOp { write, key: self.key, offset: 8, pieces, notify };
        self.initiator.submit(Ticket(ticket), op).unwrap();
    }

    fn sent(&mut self, link: LinkId) -> Vec<Frame> {
        std::iter::from_fn(|| self.initiator.next(link)).collect()
    }

    fn answered(&mut self, link: LinkId) -> Vec<Frame> {
        std::iter::from_fn(|| self.target.next(link)).collect()
    }

    fn place(&mut self, link: LinkId, frame: &Frame) -> Place {
        self.target.place(link, &frame.header, &access(frame), &self.regions).unwrap()
    }

    /// A frame arrives whole at the target; true if it was placed.
    fn arrive(&mut self, link: LinkId, frame: &Frame) -> bool {
        let Body::Piece(access, from) = &frame.body else {
            self.target.received(&frame.header, &access(frame), &mut self.regions).unwrap();
            return true;
        };
        let Place::Span(span) = self.place(link, frame) else { return false };
        span.copy_from(from);
        self.target.placed(link, &frame.header, access, &mut self.regions);
        true
    }

    /// A frame arrives whole at the initiator; true if it was placed.
    fn come(&mut self, link: LinkId, frame: &Frame) -> bool {
        let Body::Piece(access, from) = &frame.body else {
            self.initiator.received(&frame.header).unwrap();
            return true;
        };
        let Place::Span(span) = self.initiator.place(link, &frame.header, access).unwrap() else {
            return false;
        };
        span.copy_from(from);
        self.initiator.placed(link, &frame.header, access);
        true
    }

    fn finished(&mut self) -> Vec<(u64, Verdict)> {
        std::iter::from_fn(|| self.initiator.finished()).map(|over| (over.ticket.0, over.verdict)).collect()
    }

    fn fill(memory: &Arc<Memory>, byte: u8) {
        Span::of(memory, 0, 4096).unwrap().fill(&[byte; 4096]);
    }

    fn is_filled(memory: &Arc<Memory>, at: usize, length: usize, byte: u8) -> bool {
        let mut bytes = vec![0; length];
        Span::of(memory, at, length).unwrap().copy_to(&mut bytes);
        bytes.iter().all(|one| *one == byte)
    }
}

#[test]
fn a_write_over_two_links_is_there_when_it_is_done_and_counts_once() {
    let mut ends = ends();
    Ends::fill(&ends.ours, 7);
    ends.submit(1, true, 250);
    let first = ends.initiator.next(A).unwrap();
    let rest = ends.sent(B);
    assert_eq!((first.header.bulk, rest.len(), rest[1].header.bulk), (100, 2, 50));
    for frame in &rest {
        assert!(ends.arrive(B, frame));
    }
    assert!(!ends.target.has_next() && ends.arrive(A, &first));
    let done = ends.answered(B);
    assert_eq!(
        (done.len(), done[0].header.kind, ends.regions.arrivals(ends.region)),
        (1, Kind::Done, Some(1))
    );
    assert!(!ends.arrive(A, &first), "it is done: nothing is placed any more");
    ends.come(B, &done[0]);
    assert_eq!(ends.finished(), [(1, Verdict::Answered)]);
    assert!(Ends::is_filled(&ends.theirs, 8, 250, 7) && Ends::is_filled(&ends.theirs, 258, 100, 0));
    assert!(ends.initiator.is_idle() && ends.target.is_idle());
}

#[test]
fn a_link_that_breaks_between_two_pieces_loses_none_and_no_arrival_is_counted_twice() {
    let mut ends = ends();
    ends.submit(1, true, 150);
    let lost = ends.sent(A);
    assert!(ends.arrive(A, &lost[0]));
    ends.initiator.link_lost(A);
    let again = ends.sent(B);
    assert!(again.len() == 2 && again.iter().all(|frame| frame.header.flags.has(Flags::AGAIN)));
    assert!(!ends.arrive(B, &again[0]), "it is there already");
    assert!(ends.arrive(B, &again[1]));
    let done = ends.answered(B);
    // The done is lost as well: the target says it again on the next link.
    ends.target.link_lost(B, &mut ends.regions);
    ends.initiator.link_lost(B);
    let third = ends.sent(A);
    assert!(third.iter().all(|frame| !ends.arrive(A, frame)));
    let repeated = ends.answered(A);
    assert_eq!((repeated.len(), repeated[0].header), (1, done[0].header));
    ends.come(A, &repeated[0]);
    assert_eq!(
        (ends.finished(), ends.regions.arrivals(ends.region)),
        (vec![(1, Verdict::Answered)], Some(1))
    );
}

#[test]
fn a_write_does_not_end_while_a_dead_link_may_still_place_a_piece_of_it() {
    let mut ends = ends();
    ends.submit(1, true, 100);
    let piece = ends.sent(A).remove(0);
    let Place::Span(_half) = ends.place(A, &piece) else { panic!("it has a place") };
    ends.initiator.link_lost(A);
    let again = ends.sent(B).remove(0);
    assert!(ends.arrive(B, &again));
    assert!(ends.answered(B).is_empty(), "the other link may still write there");
    assert_eq!(ends.target.given_up(), Some(A));
    ends.target.link_lost(A, &mut ends.regions);
    assert_eq!(ends.answered(B).len(), 1);
    assert_eq!(ends.regions.arrivals(ends.region), Some(1));
}

#[test]
fn a_late_copy_on_a_dead_link_does_not_come_between() {
    let mut ends = ends();
    ends.submit(1, true, 100);
    let late = ends.sent(A).remove(0);
    ends.initiator.link_lost(A);
    let again = ends.sent(B).remove(0);
    let Place::Span(_) = ends.place(B, &again) else { panic!("it has a place") };
    assert!(!ends.arrive(A, &late) && ends.target.given_up().is_none());
    ends.target.placed(B, &again.header, &access(&again), &mut ends.regions);
    assert_eq!(ends.answered(B).len(), 1);
}

#[test]
fn a_read_is_over_when_all_is_here_and_a_lost_part_is_asked_for_again() {
    let mut ends = ends();
    Ends::fill(&ends.theirs, 9);
    ends.submit(1, false, 250);
    let ask = ends.sent(A).remove(0);
    ends.arrive(A, &ask);
    let on_a = ends.target.next(A).unwrap();
    let on_b = ends.answered(B);
    assert_eq!(on_b.len(), 3);
    on_b.iter().for_each(|frame| assert!(ends.come(B, frame)));
    assert!(ends.finished().is_empty(), "a piece is missing");
    // Only the target has noticed that A broke; on_a is lost.
    ends.target.link_lost(A, &mut ends.regions);
    let hint = ends.answered(B).remove(0);
    assert!(hint.header.kind == Kind::Done && hint.header.flags.has(Flags::AGAIN));
    ends.come(B, &hint);
    let again = ends.sent(B).remove(0);
    ends.arrive(B, &again);
    let data = ends.answered(B);
    assert_eq!(access(&data[0]).at, access(&on_a).at);
    let placed: Vec<bool> = data.iter().map(|frame| ends.come(B, frame)).collect();
    assert_eq!(placed, [true, false, false, true]);
    assert_eq!(ends.finished(), [(1, Verdict::Answered)]);
    assert!(Ends::is_filled(&ends.ours, 0, 250, 9));
}

#[test]
fn small_reads_take_turns_with_a_huge_one() {
    let mut ends = ends();
    for (ticket, length) in [(1, 4000), (2, 50)] {
        ends.submit(ticket, false, length);
    }
    for frame in ends.sent(A) {
        ends.arrive(A, &frame);
    }
    let order: Vec<u16> = ends.answered(A).iter().take(3).map(|frame| frame.header.slot).collect();
    assert_eq!(order, [0, 1, 1], "data, data and done of the small one");
}

#[test]
fn nothing_is_placed_after_a_region_was_revoked() {
    let mut ends = ends();
    ends.submit(1, true, 200);
    let frames = ends.sent(A);
    let Place::Span(_) = ends.place(A, &frames[0]) else { panic!("it has a place") };
    ends.regions.revoke(ends.region);
    ends.target.forsake(ends.region);
    let done = ends.answered(A).remove(0);
    assert!(!ends.arrive(A, &frames[1]) && ends.answered(A).is_empty(), "one Done is enough");
    ends.come(A, &done);
    assert_eq!(ends.finished(), [(1, Verdict::Revoked)]);
    assert_eq!(ends.regions.arrivals(ends.region), Some(0));
}

#[test]
fn a_cancelled_read_is_placed_no_more_and_its_slot_comes_back() {
    let mut ends = ends();
    ends.submit(1, false, 250);
    let ask = ends.sent(A).remove(0);
    ends.arrive(A, &ask);
    let data = ends.answered(A);
    let Body::Piece(piece, _) = &data[0].body else { panic!("it is data") };
    let Place::Span(_) = ends.initiator.place(A, &data[0].header, piece).unwrap() else { panic!("wanted") };
    ends.initiator.cancel(Ticket(1));
    assert!(ends.finished().is_empty(), "a link is just placing");
    assert_eq!(ends.initiator.placing(Ticket(1)), [A]);
    ends.initiator.placed(A, &data[0].header, piece);
    assert_eq!(ends.finished(), [(1, Verdict::Unheard)]);
    assert!(!ends.come(A, &data[1]));
    let cancel = ends.sent(A).remove(0);
    assert!(cancel.header.flags.has(Flags::ONE_WAY) && !ends.initiator.is_idle());
    ends.arrive(A, &cancel);
    let done = ends.answered(A).remove(0);
    ends.come(A, &done);
    assert!(ends.initiator.is_idle());
}

#[test]
fn where_a_cancelled_write_may_be_at_work_the_next_one_waits() {
    let mut ends = ends();
    ends.submit(1, true, 250);
    let late = ends.initiator.next(A).unwrap();
    ends.initiator.cancel(Ticket(1));
    assert_eq!(ends.finished(), [(1, Verdict::Unheard)]);
    ends.submit(2, true, 10);
    let cancel = ends.sent(B);
    assert_eq!((cancel.len(), cancel[0].header.bulk), (1, 0), "the second waits");
    ends.arrive(B, &cancel[0]);
    assert!(!ends.arrive(A, &late), "it came after the cancel");
    let done = ends.answered(B).remove(0);
    assert_eq!(done.header.verdict, Verdict::Unheard);
    ends.come(B, &done);
    let second = ends.sent(B);
    assert!(second.len() == 1 && ends.arrive(B, &second[0]));
    assert_eq!(ends.regions.arrivals(ends.region), Some(1));
}

#[test]
fn a_device_carries_a_transfer_and_frames_take_over_when_it_fails() {
    let mut ends = ends();
    assert!(ends.key.add_device(DeviceKey { rail: 3, at: DeviceAddress { address: 1000, rkey: 5 } }));
    ends.submit(1, true, 200);
    assert!(ends.initiator.take_native(A, 4).is_none(), "no device on that rail");
    let piece = ends.initiator.take_native(A, 3).unwrap();
    assert_eq!((piece.write, piece.span.length(), piece.remote.address), (true, 200, 1008));
    assert!(!ends.initiator.has_next() && ends.initiator.next(A).is_none());
    ends.initiator.posted(A, piece.work, true);
    // All is there; the arrival is a frame of its own, for it must not be counted twice.
    let frames = ends.sent(B);
    assert_eq!((frames.len(), access(&frames[0]).length), (1, 0));
    ends.arrive(B, &frames[0]);
    let done = ends.answered(B).remove(0);
    ends.come(B, &done);
    assert_eq!(
        (ends.finished(), ends.regions.arrivals(ends.region)),
        (vec![(1, Verdict::Answered)], Some(1))
    );

    ends.submit(2, true, 200);
    let failed = ends.initiator.take_native(A, 3).unwrap();
    ends.initiator.posted(A, failed.work, false);
    assert!(ends.initiator.take_native(B, 3).is_none());
    assert_eq!(ends.sent(B).len(), 2);
}

#[test]
fn what_is_full_is_refused_and_what_the_key_forbids_is_not_even_sent() {
    let mut ends = ends();
    for ticket in 0..(usize::from(SLOTS_MAX) + WAITING_MAX) as u64 {
        ends.submit(ticket, false, 1);
    }
    let op = TransferOp { write: true, key: ends.key, offset: 0, pieces: Vec::new(), notify: false };
    let mut refused = |op: TransferOp| ends.initiator.submit(Ticket(0), op).unwrap_err();
    assert_eq!(refused(op.clone()), NotTaken::Full);
    assert_eq!(ends.initiator.drain().len(), 1088);
    assert!(ends.initiator.is_idle());
    let mut refused = |op: TransferOp| ends.initiator.submit(Ticket(0), op).unwrap_err();
    assert_eq!(refused(TransferOp { offset: 4097, ..op.clone() }), NotTaken::Refused(Verdict::OutOfBounds));
    let key = RemoteKey { rights: Rights { read: true, write: false }, ..ends.key };
    assert_eq!(refused(TransferOp { key, ..op.clone() }), NotTaken::Refused(Verdict::Denied));
    let pieces = vec![Span::of(&ends.ours, 0, 0).unwrap(); PIECES_MAX + 1];
    assert_eq!(refused(TransferOp { pieces, ..op }), NotTaken::TooManyPieces);
}

#[test]
fn a_header_that_no_transfer_can_have_ends_the_link() {
    let mut ends = ends();
    ends.submit(1, true, 50);
    let mut frame = ends.sent(A).remove(0);
    let of = |header: Header, access: Access, ends: &mut Ends| {
        ends.target.place(A, &header, &access, &ends.regions).is_err()
    };
    let (good, claim) = (frame.header, access(&frame));
    assert!(of(Header { slot: SLOTS_MAX, ..good }, claim, &mut ends));
    assert!(of(Header { sequence: 0, ..good }, claim, &mut ends));
    assert!(of(Header { bulk: 51, ..good }, claim, &mut ends));
    assert!(ends.arrive(A, &frame));
    assert!(of(good, Access { offset: 0, ..claim }, &mut ends), "it becomes another transfer");
    frame.header.kind = Kind::Done;
    assert!(ends.initiator.received(&Header { sequence: 2, ..frame.header }).is_err());
    assert!(ends.initiator.received(&Header { slot: 1, ..frame.header }).is_err());
    assert!(ends.initiator.received(&Header { verdict: Verdict::Crashed, ..frame.header }).is_err());
}
