//! An other end that does not keep to anything: the link ends, and nothing else happens.

use super::super::bell::Bell;
use super::super::passing;
use super::super::sys::Shared;
use super::super::track::Track;
use super::*;
use proptest::prelude::*;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering::SeqCst;

/// Where the ring to the accepting end, and the one back, begin in the memory.
const RINGS: [usize; 2] = [4096, 4096 + RING_BYTES];

fn memory_file(length: usize, seals: SealFlags) -> OwnedFd {
    let file = memfd_create("ssi-hostile", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&file, length as u64).unwrap();
    fcntl_add_seals(&file, seals).unwrap();
    file
}

fn offer(length: usize) -> [u8; 16] {
    let mut message = *b"SSISHM\x01\x00........";
    message[8..].copy_from_slice(&(length as u64).to_le_bytes());
    message
}

/// Has an accepting end take this offer.
fn accept(message: &[u8], descriptors: &[BorrowedFd<'_>]) -> (OwnedFd, std::io::Result<Side>) {
    let (ours, theirs) = sockets();
    passing::send(&ours, message, descriptors).unwrap();
    let mut reactor = Reactor::new().unwrap();
    let setup = Setup::start(theirs, End::Accepted, Token(1), &mut reactor).unwrap();
    let step = setup.advance(&mut reactor).map(|step| match step {
        Step::Linked(link) => link,
        Step::Waiting(_) => panic!("all is there"),
    });
    let seen = Seen { frames: VecDeque::new(), memory: Memory::new(CHUNK_BYTES).ok(), skip: false };
    (ours, step.map(|link| Side { reactor, link, seen }))
}

/// A link whose other end is nobody but this mapping.
fn prey() -> (OwnedFd, Shared, Side) {
    let length = Track::memory_bytes(RING_BYTES);
    let file = memory_file(length, SealFlags::SHRINK | SealFlags::GROW);
    let bells = (Bell::new().unwrap(), Bell::new().unwrap());
    let (socket, side) = accept(&offer(RING_BYTES), &[file.as_fd(), bells.0.as_fd(), bells.1.as_fd()]);
    (socket, Shared::map(&file, length).unwrap(), side.unwrap())
}

#[test]
fn an_offer_that_cannot_be_used_is_refused() {
    let length = Track::memory_bytes(RING_BYTES);
    let sealed = SealFlags::SHRINK | SealFlags::GROW;
    let (good, bell) = (memory_file(length, sealed), Bell::new().unwrap());
    let (short, loose) = (memory_file(length - 1, sealed), memory_file(length, SealFlags::GROW));
    let blocking = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    let socket = sockets().0;
    let refused = |message: &[u8], descriptors: &[&dyn AsFd]| {
        let descriptors: Vec<_> = descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
        accept(message, &descriptors).1.is_err()
    };
    assert!(!refused(&offer(RING_BYTES), &[&good, &bell, &bell]));
    assert!(refused(&offer(RING_BYTES), &[&short, &bell, &bell]));
    assert!(refused(&offer(RING_BYTES), &[&loose, &bell, &bell]));
    assert!(refused(&offer(RING_BYTES), &[&socket, &bell, &bell]));
    assert!(refused(&offer(RING_BYTES), &[&good, &bell, &blocking]));
    assert!(refused(&offer(RING_BYTES), &[&good, &bell]));
    assert!(refused(&offer(RING_BYTES), &[]));
    assert!(refused(&offer(usize::MAX), &[&good, &bell, &bell]));
    assert!(refused(&offer(RING_BYTES + 64), &[&good, &bell, &bell]));
    assert!(refused(b"SSISHM\x01\x01........", &[&good, &bell, &bell]));
    assert!(refused(b"short", &[&good, &bell, &bell]));
}

/// Lends `file` as number 0 and names a part of it.
fn lend(length: u64, seals: SealFlags, offset: u64) -> Result<(Header, Bytes), LinkError> {
    let (socket, shared, mut side) = prey();
    let file = memory_file(8192, seals);
    let message = [&0u64.to_le_bytes()[..], &length.to_le_bytes()].concat();
    passing::send(&socket, &message, &[file.as_fd()]).unwrap();
    let Frame { header, body: Body::Piece(access, _) } =
        piece(Kind::Write, 1, Span::of(&Memory::new(8192).unwrap(), 0, 4096).unwrap())
    else {
        unreachable!("a piece is one")
    };
    let record =
        [&header.encode()[..], &access.encode(), &0u64.to_le_bytes(), &offset.to_le_bytes()].concat();
    shared.write(RINGS[0] + 8, &record[..56]);
    shared.write(RINGS[0] + 72, &record[56..]);
    shared.word(RINGS[0]).store(1 << 19 | 3 << 16 | record.len() as u64, SeqCst);
    side.next()
}

#[test]
fn lent_memory_must_be_sealed_and_long_enough() {
    let sealed = SealFlags::SHRINK;
    assert!(lend(8192, sealed, 4096).is_ok());
    assert!(matches!(lend(8192, sealed, 4097), Err(LinkError::Wire(_))));
    assert!(matches!(lend(8192, sealed, u64::MAX), Err(LinkError::Wire(_))));
    assert!(matches!(lend(4096, sealed, 4096), Err(LinkError::Wire(_))));
    assert!(matches!(lend(8193, sealed, 0), Err(LinkError::Lost(_))));
    assert!(matches!(lend(u64::MAX, sealed, 0), Err(LinkError::Lost(_))));
    assert!(matches!(lend(0, sealed, 0), Err(LinkError::Lost(_))));
    assert!(matches!(lend(8192, SealFlags::GROW, 0), Err(LinkError::Lost(_))));
}

/// A word of the memory: most of them such as records have, but for the number of the line.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => (0u64..7, 0u64..200).prop_map(|(form, length)| form << 16 | length),
        1 => (0u64..8, 0u64..65536).prop_map(|(form, length)| form << 16 | length),
        1 => (0u64..300).prop_map(|line| line * 64),
        1 => any::<u64>(),
    ]
}

/// A header that means something, for a record's content.
fn header_bytes() -> impl Strategy<Value = [u8; 32]> {
    (0u8..11, 0u32..300, any::<bool>()).prop_map(|(kind, bulk, access)| {
        let mut bytes = Header::new(Kind::Done, Priority::Data).encode();
        bytes[0] = kind;
        bytes[16..20].copy_from_slice(&(if access { ACCESS_BYTES as u32 } else { 0 }).to_le_bytes());
        bytes[20..24].copy_from_slice(&bulk.to_le_bytes());
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn scribbles_in_the_memory_end_the_link_at_most(
        scribbles in proptest::collection::vec((0usize..40, word(), header_bytes(), 0u8..8), 1..60),
    ) {
        let (_socket, shared, mut side) = prey();
        let mut over = false;
        for (sequence, (line, word, header, what)) in scribbles.into_iter().enumerate() {
            match what {
                // The control lines of both directions.
                0 => shared.word(line % 8 / 4 * 2048 + line % 4 * 128).store(word, SeqCst),
                1 => shared.word(RINGS[1] + line * 64).store(word, SeqCst),
                _ => {
                    shared.write(RINGS[0] + line * 64 + 8, &header);
                    shared.word(RINGS[0] + line * 64).store(word | (line as u64 + 1) << 19, SeqCst);
                }
            }
            if side.link.room() > 0 {
                side.link.push(request(sequence as u64, line * 100));
            }
            let flushed = side.link.flush(&mut side.reactor);
            // However it is tricked, it comes back.
            let received = (0..4).try_for_each(|_| side.link.receive(&mut side.reactor, &mut side.seen, usize::MAX).map(drop));
            let armed = side.link.arm(&mut side.reactor);
            over |= flushed.is_err() || received.is_err() || armed.is_err();
            if over {
                break;
            }
        }
    }

    #[test]
    fn an_other_process_that_scribbles_all_the_time_does_no_harm(seed in any::<u64>()) {
        let (_socket, shared, mut side) = prey();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut rng = Prng::new(seed);
                while !stop.load(SeqCst) {
                    let line = rng.below(6) as usize;
                    let form = (line as u64 + 1) << 19 | rng.below(6) << 16;
                    shared.word(RINGS[0] + line * 64 + 8).store(rng.below(11) | rng.below(4) << 8, SeqCst);
                    shared.word(RINGS[0] + line * 64 + 24).store((rng.below(2) * 48) | (rng.below(60) << 32), SeqCst);
                    shared.word(RINGS[0] + line * 64).store(form | rng.below(200), SeqCst);
                }
            });
            let mut rounds = 0;
            while rounds < 50 && side.link.receive(&mut side.reactor, &mut side.seen, usize::MAX).is_ok() {
                rounds += 1;
            }
            stop.store(true, SeqCst);
        });
    }
}
