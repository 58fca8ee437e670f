//! How bytes flow: few system calls, full sockets, and no memory while nothing flows.

use super::super::ROOM_BYTES;
use super::*;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};

#[test]
fn what_is_pushed_before_a_flush_is_one_record_and_one_call() {
    for (io, sealed) in WAYS {
        // Of this kind of socket each send is one packet.
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK, None).unwrap();
        let mut reactor = reactor(io);
        let mut link =
            TcpLink::new(ours, Token(1), &mut reactor, protection(sealed, true), Vec::new()).unwrap();
        for slot in 0..64 {
            link.push(request(slot, &[1; 64], b""));
        }
        link.flush(&mut reactor).unwrap();
        link.flush(&mut reactor).unwrap();
        let mut packet = vec![0; 100_000];
        let (length, _) = recv(&theirs, &mut packet[..], RecvFlags::empty()).unwrap();
        assert_eq!(records(&packet[..length]).len(), 1);
        assert_eq!(length, 4 + 64 * 96 + if sealed { 16 } else { 0 });
        assert!(recv(&theirs, &mut packet[..], RecvFlags::empty()).is_err(), "nothing more was sent");
        assert_eq!(link.traffic().frames_sent, 64);
        assert_eq!(link.traffic().bytes_sent, length as u64);
    }
}

#[test]
fn a_full_socket_stops_its_sender_and_loses_nothing() {
    for (io, sealed) in WAYS {
        let (mut ours, mut theirs) = End::pair(io, sealed);
        theirs.ear = Ear::with_region(7, 200_000);
        let frames: Vec<Frame> = (0..40u8)
            .map(|at| match at % 3 {
                0 => piece(7, 0, 200_000, at),
                1 => request(at.into(), &[at; 30], &vec![at; 50_000]),
                _ => request(at.into(), &[at; 30], b""),
            })
            .collect();
        let (mut next, mut blocked) = (0, 0);
        while theirs.ear.heard.len() < frames.len() {
            while next < frames.len() && ours.link.room() > 0 {
                ours.link.push(frames[next].clone());
                next += 1;
            }
            ours.flush();
            blocked += usize::from(ours.link.room() == 0);
            theirs.receive().unwrap();
        }
        assert_eq!(theirs.ear.heard, frames.iter().map(heard_of).collect::<Vec<_>>());
        // By the ring the kernel sends and receives on its own meanwhile, so how often it was full is nobody's to say.
        assert!(io == Io::Uring || blocked > 3, "the socket was full {blocked} times");
        assert_eq!(ours.link.room(), ROOM_BYTES);
    }
}

#[test]
fn a_link_is_told_when_its_socket_takes_more() {
    for io in [Io::Epoll, Io::Uring] {
        let (mut ours, mut theirs) = End::pair(io, false);
        let mut ready = Vec::new();
        ours.reactor.wait(None, &mut ready).unwrap();
        assert!(ready[0].writable, "a new link is reported");
        while ours.link.room() > 0 {
            ours.link.push(request(0, &[1; 100_000], b""));
            ours.flush();
        }
        ready.clear();
        ours.reactor.wait(Some(std::time::Duration::ZERO), &mut ready).unwrap();
        // By the ring the other end goes on receiving on its own, until its buffers are full too.
        assert!(io == Io::Uring || ready.is_empty(), "it is full and stays so");
        ours.flush();
        while ours.link.room() == 0 {
            theirs.receive().unwrap();
            ready.clear();
            ours.reactor.wait(None, &mut ready).unwrap();
            assert!(ready[0].writable);
            ours.flush();
        }
        assert_eq!(ours.link.room(), ROOM_BYTES);
    }
}

#[test]
fn room_shrinks_by_what_is_pushed() {
    let (mut ours, _theirs) = End::pair(Io::Epoll, false);
    assert_eq!(ours.link.room(), ROOM_BYTES);
    ours.link.push(request(0, &[1; 64], b""));
    assert_eq!(ours.link.room(), ROOM_BYTES - 4 - 96);
    for _ in 0..3 {
        ours.link.push(piece(7, 0, 250_000, 1));
    }
    assert_eq!(ours.link.room(), 0);
}

#[test]
fn a_link_that_rests_holds_no_buffer() {
    for (io, sealed) in WAYS {
        let (mut ours, mut theirs) = End::pair(io, sealed);
        for frame in [request(0, &[1; 64], b""), piece(9, 0, 50_000, 1), request(0, b"", &[1; 40_000])] {
            ours.link.push(frame);
        }
        ours.flush();
        theirs.receive().unwrap();
        assert_eq!((theirs.ear.heard.len(), theirs.ear.skipped), (2, 1));
        assert_eq!((ours.link.outbox.held_bytes(), theirs.link.inbox.held_bytes()), (0, 0));
    }
}

#[test]
fn small_bodies_are_slices_of_one_buffer() {
    #[derive(Default)]
    struct Keeper(Vec<Bytes>);
    impl Sink for Keeper {
        fn frame(&mut self, _header: Header, body: Bytes) -> Result<(), WireError> {
            self.0.push(body);
            Ok(())
        }
        fn place(&mut self, _header: &Header, _access: &Access) -> Result<Place, WireError> {
            Ok(Place::Skip)
        }
        fn placed(&mut self, _header: &Header, _access: &Access) -> Result<(), WireError> {
            Ok(())
        }
        fn posted(&mut self, _work: u64, _outcome: Result<(), LinkError>) {}
        fn notified(&mut self, _region: u64) {}
    }
    for io in [Io::Epoll, Io::Uring] {
        let (mut ours, mut theirs) = End::pair(io, true);
        let mut keeper = Keeper::default();
        let mut places = std::collections::BTreeSet::new();
        for _ in 0..1000 {
            ours.link.push(request(0, &[1; 64], b""));
            ours.link.push(request(1, &[2; 64], b""));
            ours.flush();
            theirs.link.receive(&mut theirs.reactor, &mut keeper, usize::MAX).unwrap();
            let distance = keeper.0[1].as_ptr() as usize - keeper.0[0].as_ptr() as usize;
            assert_eq!(distance, 96);
            places.insert(keeper.0[0].as_ptr());
            keeper.0.clear();
        }
        assert_eq!(places.len(), 1, "the same memory is used again when nobody holds it any more");
    }
}
