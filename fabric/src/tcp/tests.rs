//! Proofs about links over sockets: pairs of them, and links whose other end is a test that holds the bytes.

mod broken;
mod figures;
mod flow;
mod shared;
mod whole;

use super::{Protection, TcpLink};
use crate::frame::{Access, Flags, HEADER_BYTES, Header, Kind, WireError};
use crate::provider::{Body, Frame, Link, LinkError, Place, Sink};
use crate::reactor::{Io, Reactor, Token};
use crate::region::{Memory, Span};
use crate::{Priority, ServiceId};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

const A: [u8; 32] = [1; 32];
const B: [u8; 32] = [2; 32];

/// What one end uses; `first` says which end.
fn protection(sealed: bool, first: bool) -> Protection {
    let (send, receive) = if first { (A, B) } else { (B, A) };
    if sealed { Protection::Sealed { send, receive } } else { Protection::Plain }
}

/// What a link handed over.
#[derive(Clone, Debug, PartialEq)]
enum Heard {
    Frame(Header, Vec<u8>),
    Placed(Header, Access),
}

/// A sink that remembers, and places pieces into its regions.
#[derive(Default)]
struct Ear {
    heard: Vec<Heard>,
    regions: BTreeMap<u64, Span>,
    skipped: usize,
}

impl Ear {
    fn with_region(number: u64, length: usize) -> Ear {
        let memory = Memory::new(length).unwrap();
        let regions = BTreeMap::from([(number, Span::of(&memory, 0, length).unwrap())]);
        Ear { regions, ..Ear::default() }
    }

    fn bytes(&self, region: u64) -> Vec<u8> {
        let span = &self.regions[&region];
        let mut bytes = vec![0; span.length()];
        span.copy_to(&mut bytes);
        bytes
    }
}

impl Sink for Ear {
    fn frame(&mut self, header: Header, body: Bytes) -> Result<(), WireError> {
        self.heard.push(Heard::Frame(header, body.to_vec()));
        Ok(())
    }

    fn place(&mut self, header: &Header, access: &Access) -> Result<Place, WireError> {
        let region = self.regions.get(&access.region);
        let at = usize::try_from(access.offset.saturating_add(access.at)).unwrap_or(usize::MAX);
        Ok(match region.and_then(|span| span.part(at, header.bulk as usize)) {
            Some(span) => Place::Span(span),
            None => {
                self.skipped += 1;
                Place::Skip
            }
        })
    }

    fn placed(&mut self, header: &Header, access: &Access) -> Result<(), WireError> {
        self.heard.push(Heard::Placed(*header, *access));
        Ok(())
    }

    fn posted(&mut self, _work: u64, _outcome: Result<(), LinkError>) {
        panic!("nothing is posted to a device");
    }

    fn notified(&mut self, _region: u64) {
        panic!("no device notifies");
    }
}

/// A link, and the socket that is its other end.
struct End {
    link: TcpLink,
    reactor: Reactor,
    ear: Ear,
}

/// A reactor that moves streams so. Where io_uring is forbidden, what was meant to prove something of it proves it of epoll again.
fn reactor(io: Io) -> Reactor {
    let reactor = Reactor::with(io).unwrap();
    if reactor.io() != io {
        println!("skipped: there is no io_uring here");
    }
    reactor
}

/// The ways in which bytes move, each of them sealed and not.
const WAYS: [(Io, bool); 4] = [(Io::Epoll, false), (Io::Epoll, true), (Io::Uring, false), (Io::Uring, true)];

impl End {
    fn new(io: Io, socket: UnixStream, protection: Protection, early: Vec<u8>) -> End {
        let mut reactor = reactor(io);
        let link = TcpLink::new(socket.into(), Token(1), &mut reactor, protection, early).unwrap();
        End { link, reactor, ear: Ear::default() }
    }

    /// A link, and the test as its other end.
    fn alone(io: Io, sealed: bool, first: bool) -> (End, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        (End::new(io, ours, protection(sealed, first), Vec::new()), theirs)
    }

    /// Two links that are each other's end.
    fn pair(io: Io, sealed: bool) -> (End, End) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let first = End::new(io, ours, protection(sealed, true), Vec::new());
        (first, End::new(io, theirs, protection(sealed, false), Vec::new()))
    }

    fn flush(&mut self) {
        self.link.flush(&mut self.reactor).unwrap();
    }

    /// Receives until there is nothing more now.
    fn receive(&mut self) -> Result<(), LinkError> {
        while self.link.receive(&mut self.reactor, &mut self.ear, usize::MAX)? {}
        Ok(())
    }
}

/// The bytes of these frames on the wire.
fn wire(frames: &[Frame], sealed: bool) -> Vec<u8> {
    let (mut end, mut wire) = End::alone(Io::Epoll, sealed, true);
    let mut bytes = Vec::new();
    for frame in frames {
        end.link.push(frame.clone());
    }
    loop {
        end.flush();
        let before = bytes.len();
        match wire.read_to_end(&mut bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            other => panic!("the link lives: {other:?}"),
        }
        if bytes.len() == before {
            return bytes;
        }
    }
}

/// A wire cut into its records.
fn records(wire: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    let mut rest = wire;
    while let Some(prefix) = rest.first_chunk::<4>() {
        let length = (u32::from_le_bytes(*prefix) & 0x00ff_ffff) as usize;
        let (record, after) = rest.split_at(4 + length);
        records.push(record.to_vec());
        rest = after;
    }
    records
}

/// A request whose head and bulk are these bytes.
fn request(slot: u16, head: &[u8], bulk: &[u8]) -> Frame {
    let mut header = Header::new(Kind::Request, Priority::Meta);
    (header.slot, header.sequence, header.service) = (slot, 1, ServiceId(3));
    (header.head, header.bulk) = (head.len() as u32, bulk.len() as u32);
    header.flags = Flags(0);
    Frame { header, body: Body::Message(Bytes::copy_from_slice(head), Bytes::copy_from_slice(bulk)) }
}

/// A piece of a write into region `region` at `at`, of so many bytes that are all `fill`.
fn piece(region: u64, at: u64, length: usize, fill: u8) -> Frame {
    let memory = Memory::new(length.max(1)).unwrap();
    let span = Span::of(&memory, 0, length).unwrap();
    span.fill(&vec![fill; length]);
    let mut header = Header::new(Kind::Write, Priority::Data);
    (header.head, header.bulk) = (48, length as u32);
    let access =
        Access { region, token: 5, epoch: 1, notify: false, offset: at, length: length as u64, at: 0 };
    Frame { header, body: Body::Piece(access, span) }
}

/// What the other end hears of a frame that is not skipped.
fn heard_of(frame: &Frame) -> Heard {
    match &frame.body {
        Body::Message(head, bulk) => Heard::Frame(frame.header, [&head[..], &bulk[..]].concat()),
        Body::Piece(access, span) if span.length() > 0 => Heard::Placed(frame.header, *access),
        Body::Piece(access, _) | Body::Access(access) => Heard::Frame(frame.header, access.encode().to_vec()),
        Body::Empty => Heard::Frame(frame.header, Vec::new()),
    }
}

/// Writes to a link's end whatever it takes.
fn give(wire: &mut UnixStream, bytes: &[u8]) -> usize {
    match wire.write(bytes) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
        Err(error) => panic!("{error}"),
    }
}

/// The bytes of a frame that only counts.
fn empty(kind: Kind) -> Frame {
    Frame { header: Header::new(kind, Priority::Control), body: Body::Empty }
}

#[test]
fn the_wire_is_drawn_as_it_is_written() {
    let bytes = wire(&[request(0, b"head", b""), empty(Kind::Credit), piece(7, 0, 5000, 9)], false);
    let cut: Vec<usize> = records(&bytes).iter().map(Vec::len).collect();
    assert_eq!(cut, [4 + HEADER_BYTES + 4 + HEADER_BYTES + HEADER_BYTES + 48, 4 + 5000]);
    assert_eq!(&bytes[..4], [36 + 32 + 80, 0, 0, 0]);
    let sealed: Vec<usize> = records(&wire(&[piece(7, 0, 70_000, 9)], true)).iter().map(Vec::len).collect();
    assert_eq!(sealed, [4 + 80 + 16, 4 + 65536 + 16, 4 + 70_000 - 65536 + 16]);
}
