//! Links of shared memory between two ends of one process: what both have to see.

mod hostile;
mod processes;

use super::{End, Setup, ShmLink, Step, URGENT_RING_BYTES};
use crate::frame::{ACCESS_BYTES, Access, CHUNK_BYTES, Flags, Header, Kind, WireError};
use crate::provider::{Body, Frame, Link, LinkError, Place, Sink};
use crate::reactor::{Reactor, Token};
use crate::region::{Memory, Span};
use crate::{Priority, ServiceId};
use base::prng::Prng;
use bytes::Bytes;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

const RING_BYTES: usize = 32 << 10;
/// Longer than any wait of a test that works.
const LONG: Duration = Duration::from_secs(20);

/// One end of a link, and what it has seen.
struct Side {
    reactor: Reactor,
    link: Box<ShmLink>,
    seen: Seen,
}

/// Keeps what came. Pieces go to `memory` at the place that they name.
struct Seen {
    frames: VecDeque<(Header, Bytes)>,
    memory: Option<Arc<Memory>>,
    skip: bool,
}

impl Seen {
    fn span(&self, header: &Header, access: &Access) -> Option<Span> {
        let at = usize::try_from(access.offset.checked_add(access.at)?).ok()?;
        Span::of(self.memory.as_ref()?, at, header.bulk as usize)
    }
}

impl Sink for Seen {
    fn frame(&mut self, header: Header, body: Bytes) -> Result<(), WireError> {
        assert_eq!(body.len(), header.carried());
        self.frames.push_back((header, body));
        Ok(())
    }

    fn place(&mut self, header: &Header, access: &Access) -> Result<Place, WireError> {
        if self.skip {
            self.frames.push_back((*header, Bytes::new()));
            return Ok(Place::Skip);
        }
        self.span(header, access).map(Place::Span).ok_or(WireError("a piece out of bounds"))
    }

    fn placed(&mut self, header: &Header, access: &Access) -> Result<(), WireError> {
        let mut bytes = vec![0; header.bulk as usize];
        self.span(header, access).unwrap().copy_to(&mut bytes);
        self.frames.push_back((*header, [&access.encode()[..], &bytes].concat().into()));
        Ok(())
    }

    fn posted(&mut self, _: u64, _: Result<(), LinkError>) {
        unreachable!("no device");
    }

    fn notified(&mut self, _: u64) {
        unreachable!("no device");
    }
}

impl Side {
    fn set_up(socket: OwnedFd, end: End) -> Side {
        let mut reactor = Reactor::new().unwrap();
        let setup = Setup::start(socket, end, Token(1), &mut reactor).unwrap();
        let link = finish(setup, &mut reactor);
        Side { reactor, link, seen: Seen { frames: VecDeque::new(), memory: None, skip: false } }
    }

    fn push(&mut self, frame: Frame) {
        self.link.push(frame);
        self.link.flush(&mut self.reactor).unwrap();
    }

    /// Takes in all that is there.
    fn receive(&mut self) -> Result<(), LinkError> {
        while self.link.receive(&mut self.reactor, &mut self.seen, usize::MAX)? {}
        Ok(())
    }

    /// Sleeps until something comes; false when nothing does.
    fn sleep(&mut self) -> bool {
        if self.link.arm(&mut self.reactor).unwrap() {
            return true;
        }
        let mut ready = Vec::new();
        self.reactor.wait(Some(LONG), &mut ready).unwrap();
        !ready.is_empty()
    }

    fn next(&mut self) -> Result<(Header, Bytes), LinkError> {
        loop {
            if let Some(frame) = self.seen.frames.pop_front() {
                return Ok(frame);
            }
            self.receive()?;
            if self.seen.frames.is_empty() {
                assert!(self.sleep(), "nothing came");
            }
        }
    }

    fn close(mut self) {
        self.link.close(&mut self.reactor);
    }
}

fn finish(mut setup: Setup, reactor: &mut Reactor) -> Box<ShmLink> {
    loop {
        match setup.advance(reactor).unwrap() {
            Step::Linked(link) => return link,
            Step::Waiting(waiting) => setup = waiting,
        }
        let mut ready = Vec::new();
        reactor.wait(Some(LONG), &mut ready).unwrap();
        assert!(!ready.is_empty(), "the other end did nothing");
    }
}

fn sockets() -> (OwnedFd, OwnedFd) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (ours.into(), theirs.into())
}

fn pair(ring_bytes: usize) -> (Side, Side) {
    let (ours, theirs) = sockets();
    let other = std::thread::spawn(move || Side::set_up(theirs, End::Accepted));
    let dialled = Side::set_up(ours, End::Dialled { ring_bytes });
    (dialled, other.join().unwrap())
}

fn request(sequence: u64, length: usize) -> Frame {
    let mut header = Header::new(Kind::Request, Priority::Lock);
    (header.sequence, header.service, header.deadline_ms) = (sequence, ServiceId(7), 9);
    (header.head, header.bulk) = ((length / 3) as u32, (length - length / 3) as u32);
    header.flags = header.flags.with(Flags::MORE, length > CHUNK_BYTES);
    let bytes: Bytes = (0..length.min(CHUNK_BYTES)).map(|at| (at as u64 + sequence) as u8).collect();
    let cut = (length / 3).min(bytes.len());
    Frame { header, body: Body::Message(bytes.slice(..cut), bytes.slice(cut..)) }
}

fn piece(kind: Kind, sequence: u64, span: Span) -> Frame {
    let mut header = Header::new(kind, Priority::Data);
    (header.sequence, header.head, header.bulk) = (sequence, ACCESS_BYTES as u32, span.length() as u32);
    let access = Access {
        region: 1,
        token: sequence,
        epoch: 3,
        notify: sequence.is_multiple_of(2),
        offset: 11,
        length: 1 << 20,
        at: sequence % 999,
    };
    Frame { header, body: Body::Piece(access, span) }
}

/// The bytes that follow the header.
fn body(frame: &Frame) -> Vec<u8> {
    match &frame.body {
        Body::Message(head, bulk) => [&head[..], bulk].concat(),
        Body::Access(access) => access.encode().to_vec(),
        Body::Piece(access, span) => {
            let mut bytes = vec![0; span.length()];
            span.copy_to(&mut bytes);
            [&access.encode()[..], &bytes].concat()
        }
        Body::Empty => Vec::new(),
    }
}

/// A frame of any kind and, mostly, of a length that matters.
fn any_frame(rng: &mut Prng, sequence: u64, memories: &[Arc<Memory>]) -> Frame {
    let lengths = [0, 1, 15, 16, 17, 24, 80, 100, 4000, 4096, 5000, 70_000, CHUNK_BYTES - ACCESS_BYTES];
    let length = match rng.below(20) {
        0 => rng.below(CHUNK_BYTES as u64 + 9) as usize,
        1 => lengths[rng.below(lengths.len() as u64) as usize],
        _ => lengths[rng.below(8) as usize],
    };
    let plain = |kind| Frame { header: Header::new(kind, Priority::Control), body: Body::Empty };
    match rng.below(8) {
        0 => plain([Kind::Cancel, Kind::Taken, Kind::Credit, Kind::Done][rng.below(4) as usize]),
        1 => {
            let mut frame = piece(Kind::Read, sequence, Span::of(&memories[0], 0, 0).unwrap());
            if let Body::Piece(access, _) = frame.body {
                frame.body = Body::Access(access);
            }
            frame
        }
        2 | 3 => {
            let kind = if rng.below(2) == 0 { Kind::Write } else { Kind::ReadData };
            let memory = &memories[rng.below(memories.len() as u64) as usize];
            let length = length.min(CHUNK_BYTES - ACCESS_BYTES);
            let at = rng.below((memory.length() - length) as u64 + 1) as usize;
            piece(kind, sequence, Span::of(memory, at, length).unwrap())
        }
        _ => request(sequence, length),
    }
}

fn memory(length: usize, seed: u8) -> Arc<Memory> {
    let memory = Memory::new(length).unwrap();
    let bytes: Vec<u8> = (0..length).map(|at| (at.wrapping_mul(31) >> 3) as u8 ^ seed).collect();
    Span::of(&memory, 0, length).unwrap().fill(&bytes);
    memory
}

fn assert_same(came: (Header, Bytes), expected: &Frame) {
    assert_eq!(came.0, expected.header);
    assert!(came.1 == body(expected), "the body of {:?}", expected.header);
}

#[test]
fn frames_of_every_kind_come_whole_and_in_order_however_the_ring_wraps() {
    // More memories than can be lent at a time, so old ones make room.
    let memories: Vec<_> = (0..80).map(|seed| memory(CHUNK_BYTES + 4096, seed)).collect();
    for (seed, ring_bytes) in [(1, RING_BYTES), (2, RING_BYTES), (3, URGENT_RING_BYTES)] {
        let mut rng = Prng::new(seed);
        let (mut dialled, mut accepted) = pair(ring_bytes);
        accepted.seen.memory = Some(Memory::new(CHUNK_BYTES + 4096).unwrap());
        let mut sent = VecDeque::new();
        for sequence in 1..1500 {
            while dialled.link.room() == 0 {
                accepted.receive().unwrap();
                dialled.receive().unwrap();
            }
            let frame = any_frame(&mut rng, sequence, &memories);
            sent.push_back(frame.clone());
            dialled.push(frame);
            if rng.below(9) == 0 {
                accepted.receive().unwrap();
            }
            while let Some(came) = accepted.seen.frames.pop_front() {
                assert_same(came, &sent.pop_front().unwrap());
            }
        }
        while let Some(frame) = sent.pop_front() {
            dialled.receive().unwrap();
            assert_same(accepted.next().unwrap(), &frame);
        }
        let (sent, received) = (dialled.link.traffic(), accepted.link.traffic());
        assert_eq!((sent.frames_sent, sent.bytes_sent), (received.frames_received, received.bytes_received));
        assert_eq!(sent.frames_sent, 1499);
    }
}

#[test]
fn what_is_skipped_is_followed_by_the_next_frame() {
    let (mut dialled, mut accepted) = pair(RING_BYTES);
    accepted.seen.skip = true;
    let source = memory(CHUNK_BYTES, 1);
    for (sequence, length) in [(1, 10), (2, 4095), (3, 8000)] {
        dialled.push(piece(Kind::Write, sequence, Span::of(&source, 5, length).unwrap()));
    }
    dialled.push(request(4, 10));
    let came: Vec<u64> = (0..4).map(|_| accepted.next().unwrap().0.sequence).collect();
    assert_eq!(came, [1, 2, 3, 4]);
}

#[test]
fn a_full_ring_takes_no_more_and_rings_when_it_has_been_read() {
    for large in [false, true] {
        let (mut dialled, mut accepted) = pair(RING_BYTES);
        accepted.seen.memory = Some(Memory::new(CHUNK_BYTES).unwrap());
        let source = memory(CHUNK_BYTES, 1);
        let mut pushed = 0;
        while dialled.link.room() > 0 {
            pushed += 1;
            let span = Span::of(&source, 0, CHUNK_BYTES / 2).unwrap();
            dialled.push(if large { piece(Kind::Write, pushed, span) } else { request(pushed, 100) });
        }
        // 100 bytes are three lines; lent pieces are held back after two MiB.
        assert_eq!(pushed, if large { 17 } else { RING_BYTES as u64 / 192 + 1 });
        assert!(!dialled.link.arm(&mut dialled.reactor).unwrap());
        let waiter = std::thread::spawn(move || {
            while dialled.link.room() == 0 {
                assert!(dialled.sleep(), "the other end has read and did not ring");
                dialled.receive().unwrap();
            }
            dialled
        });
        let came: Vec<u64> = (0..pushed).map(|_| accepted.next().unwrap().0.sequence).collect();
        assert_eq!(came, (1..=pushed).collect::<Vec<_>>());
        assert!(waiter.join().unwrap().link.room() > 0);
    }
}

#[test]
fn two_sleepers_always_wake_each_other() {
    let (mut dialled, mut accepted) = pair(RING_BYTES);
    const ROUNDS: u64 = 20_000;
    let echo = std::thread::spawn(move || {
        for _ in 0..ROUNDS {
            let (header, _) = accepted.next().unwrap();
            accepted.push(request(header.sequence, 64));
        }
    });
    let mut rng = Prng::new(5);
    for sequence in 1..=ROUNDS {
        dialled.push(request(sequence, 64));
        // Now and then it polls a while, so that the other end's answer meets every moment of falling asleep.
        for _ in 0..rng.below(4) * 40 {
            dialled.receive().unwrap();
        }
        assert_eq!(dialled.next().unwrap().0.sequence, sequence);
    }
    echo.join().unwrap();
}

#[test]
fn a_sleeping_sender_and_a_sleeping_receiver_get_a_stream_through_a_small_ring() {
    let (mut dialled, mut accepted) = pair(RING_BYTES);
    accepted.seen.memory = Some(Memory::new(CHUNK_BYTES).unwrap());
    const FRAMES: u64 = 4000;
    let sender = std::thread::spawn(move || {
        let (source, mut rng) = (memory(CHUNK_BYTES, 1), Prng::new(6));
        for sequence in 1..=FRAMES {
            while dialled.link.room() == 0 {
                assert!(dialled.sleep(), "no room came");
                dialled.receive().unwrap();
            }
            let length = [0, 3, 100, 3000, 9000, 100_000][rng.below(6) as usize];
            dialled.push(match rng.below(2) {
                0 => piece(Kind::Write, sequence, Span::of(&source, 0, length).unwrap()),
                _ => request(sequence, length),
            });
        }
        while dialled.link.room() == 0 {
            assert!(dialled.sleep(), "no room came");
            dialled.receive().unwrap();
        }
        dialled
    });
    for sequence in 1..=FRAMES {
        assert_eq!(accepted.next().unwrap().0.sequence, sequence);
    }
    sender.join().unwrap();
}

#[test]
fn the_end_of_the_other_end_is_seen_after_all_that_it_had_sent() {
    let (mut dialled, mut accepted) = pair(RING_BYTES);
    for sequence in 1..=20 {
        dialled.push(request(sequence, 1000));
    }
    dialled.push(Frame { header: Header::new(Kind::Goodbye, Priority::Control), body: Body::Empty });
    dialled.close();
    for sequence in 1..=20 {
        assert_eq!(accepted.next().unwrap().0.sequence, sequence);
    }
    assert_eq!(accepted.next().unwrap().0.kind, Kind::Goodbye);
    assert!(matches!(accepted.next(), Err(LinkError::Lost(_))));
}
