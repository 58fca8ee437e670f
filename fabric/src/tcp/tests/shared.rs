//! Several links of one reactor: by the ring they share its buffers and its completions.

use super::*;
use rustix::event::{PollFd, PollFlags, poll};
use std::time::Duration;

/// Links of one reactor, and the tests' ends of them. The token of each is its place.
struct Many {
    reactor: Reactor,
    links: Vec<TcpLink>,
    ears: Vec<Ear>,
    wires: Vec<UnixStream>,
}

impl Many {
    fn new(io: Io, count: u64) -> Many {
        let mut many = Many { reactor: reactor(io), links: Vec::new(), ears: Vec::new(), wires: Vec::new() };
        for token in 0..count {
            let (ours, theirs) = UnixStream::pair().unwrap();
            theirs.set_nonblocking(true).unwrap();
            let link =
                TcpLink::new(ours.into(), Token(token), &mut many.reactor, Protection::Plain, Vec::new());
            many.links.push(link.unwrap());
            many.ears.push(Ear::default());
            many.wires.push(theirs);
        }
        many
    }

    /// Waits, and lets every link that was reported receive.
    fn turn(&mut self, longest: Option<Duration>) {
        let mut ready = Vec::new();
        self.reactor.wait(longest, &mut ready).unwrap();
        for ready in ready {
            let at = ready.token.0 as usize;
            while self.links[at].receive(&mut self.reactor, &mut self.ears[at], usize::MAX).unwrap() {}
        }
    }
}

#[test]
fn news_of_one_link_that_come_while_another_is_asked_are_not_lost() {
    for io in [Io::Epoll, Io::Uring] {
        let mut many = Many::new(io, 2);
        many.turn(None);
        give(&mut many.wires[1], &wire(&[request(1, b"for the second", b"")], false));
        assert!(!many.links[0].receive(&mut many.reactor, &mut many.ears[0], usize::MAX).unwrap());
        // Whoever sleeps on the reactor's own descriptor is woken.
        let mut watched = [PollFd::new(&many.reactor, PollFlags::IN)];
        assert_eq!(poll(&mut watched, None).unwrap(), 1);
        many.turn(None);
        assert_eq!(many.ears[1].heard.len(), 1, "{io:?}");
    }
}

#[test]
fn a_link_that_nobody_looks_at_does_not_starve_another() {
    for io in [Io::Epoll, Io::Uring] {
        let mut many = Many::new(io, 2);
        many.turn(None);
        let long = wire(&[request(0, &[1; 200_000], b"")], false);
        let mut given = 0;
        for _ in 0..6 {
            let mut rest = &long[..];
            while !rest.is_empty() {
                let gave = give(&mut many.wires[0], rest);
                if gave == 0 {
                    break;
                }
                rest = &rest[gave..];
            }
            given += long.len() - rest.len();
        }
        // By the ring, all buffers hold bytes of the first link now, and the second has none to receive into.
        give(&mut many.wires[1], &wire(&[request(1, b"for the second", b"")], false));
        assert!(given > 150_000, "the first link's socket is full");
        while many.ears[1].heard.is_empty() {
            many.turn(None);
        }
    }
}

#[test]
fn a_link_outlives_the_thread_that_began_to_receive_for_it() {
    for io in [Io::Epoll, Io::Uring] {
        let mut many = std::thread::spawn(move || {
            let mut many = Many::new(io, 1);
            many.turn(None);
            many
        })
        .join()
        .unwrap();
        for slot in 0..3 {
            give(&mut many.wires[0], &wire(&[request(slot, b"after", b"")], false));
            while many.ears[0].heard.len() <= slot.into() {
                many.turn(None);
            }
            many = std::thread::spawn(move || {
                many.turn(Some(Duration::ZERO));
                many.links[0].push(request(0, b"reply", b""));
                many.links[0].flush(&mut many.reactor).unwrap();
                many
            })
            .join()
            .unwrap();
        }
        let mut bytes = [0; 500];
        assert_eq!(many.wires[0].read(&mut bytes).unwrap(), 3 * (4 + 32 + 5));
    }
}

#[test]
fn closing_a_link_ends_it_for_the_other_end_whatever_is_under_way() {
    for (io, drops) in [(Io::Epoll, false), (Io::Uring, false), (Io::Uring, true)] {
        let mut many = Many::new(io, 2);
        many.turn(None);
        while many.links[0].room() > 0 {
            many.links[0].push(piece(1, 0, 100_000, 7));
            many.links[0].flush(&mut many.reactor).unwrap();
        }
        let mut link = many.links.remove(0);
        if !drops {
            link.close(&mut many.reactor);
            link.close(&mut many.reactor);
            assert!(link.flush(&mut many.reactor).is_err());
        }
        drop(link);
        many.wires[0].set_nonblocking(false).unwrap();
        let mut all = Vec::new();
        let ended = many.wires[0].read_to_end(&mut all);
        assert!(ended.is_ok() && !all.is_empty(), "what was sent comes, then the end: {ended:?}");
        // A number that is used again means the new link only.
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let again = TcpLink::new(ours.into(), Token(0), &mut many.reactor, Protection::Plain, Vec::new());
        many.links.insert(0, again.unwrap());
        give(&mut theirs, &wire(&[request(1, b"hello", b"")], false));
        while many.ears[0].heard.is_empty() {
            many.turn(None);
        }
    }
}
