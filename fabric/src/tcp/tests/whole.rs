//! Frames come whole and in order, however the stream is cut.

use super::*;
use proptest::prelude::*;

const REGION: u64 = 7;
const REGION_BYTES: usize = 200_000;

fn message() -> impl Strategy<Value = Frame> {
    let length = prop_oneof![4 => 0usize..200, 1 => 0usize..40_000];
    (any::<u16>(), length.clone(), length, any::<u8>()).prop_map(|(slot, head, bulk, fill)| {
        let bytes = |length: usize| (0..length).map(|at| (at as u8).wrapping_mul(fill)).collect::<Vec<u8>>();
        request(slot, &bytes(head), &bytes(bulk))
    })
}

fn one_sided() -> impl Strategy<Value = Frame> {
    let length = prop_oneof![2 => 0usize..100, 1 => 4000usize..4200, 2 => 0usize..150_000];
    (length, 0u64..50_000, any::<u8>(), 0u8..8).prop_map(|(length, at, fill, other)| {
        piece(if other == 0 { REGION + 1 } else { REGION }, at, length, fill)
    })
}

fn bare() -> impl Strategy<Value = Frame> {
    let kinds = vec![Kind::Cancel, Kind::Taken, Kind::Credit, Kind::Done, Kind::Goodbye];
    let read = piece(1, 0, 0, 0).body;
    prop_oneof![
        4 => prop::sample::select(kinds).prop_map(empty),
        1 => Just(()).prop_map(move |()| {
            let Body::Piece(access, _) = read.clone() else { unreachable!("a piece has an access") };
            let mut header = Header::new(Kind::Read, Priority::Data);
            header.head = 48;
            Frame { header, body: Body::Access(access) }
        }),
    ]
}

fn frames() -> impl Strategy<Value = Vec<Frame>> {
    prop::collection::vec(prop_oneof![3 => message(), 2 => one_sided(), 2 => bare()], 1..20)
}

/// Delivers the bytes in parts of these sizes, in turn, and says what was heard.
fn deliver(end: &mut End, wire: &mut UnixStream, mut bytes: &[u8], cuts: &[usize]) {
    let mut cuts = cuts.iter().cycle();
    while !bytes.is_empty() {
        let cut = bytes.len().min(*cuts.next().unwrap());
        let gave = give(wire, &bytes[..cut]);
        bytes = &bytes[gave..];
        end.receive().unwrap();
    }
}

fn expected(frames: &[Frame], region: &Span) -> Vec<Heard> {
    let mut expected = Vec::new();
    for frame in frames {
        if let Body::Piece(access, span) = &frame.body
            && span.length() > 0
        {
            let place = region.part(access.offset as usize, span.length());
            match place.filter(|_| access.region == REGION) {
                Some(place) => place.copy_from(span),
                None => continue,
            }
        }
        expected.push(heard_of(frame));
    }
    expected
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn frames_of_all_kinds_come_whole_and_in_order_for_every_cut(
        frames in frames(),
        cuts in prop_oneof![
            prop::collection::vec(1usize..200, 1..20),
            prop::collection::vec(1usize..5000, 1..20),
            prop::collection::vec(1usize..100_000, 1..20),
        ],
        way in prop::sample::select(WAYS.to_vec()),
    ) {
        let (io, sealed) = way;
        let bytes = wire(&frames, sealed);
        let (mut end, mut socket) = End::alone(io, sealed, false);
        end.ear = Ear::with_region(REGION, REGION_BYTES);
        deliver(&mut end, &mut socket, &bytes, &cuts);

        let memory = Memory::new(REGION_BYTES).unwrap();
        let region = Span::of(&memory, 0, REGION_BYTES).unwrap();
        let expected = expected(&frames, &region);
        prop_assert_eq!(&end.ear.heard, &expected);
        let mut placed = vec![0; REGION_BYTES];
        region.copy_to(&mut placed);
        prop_assert!(end.ear.bytes(REGION) == placed, "the region holds what was written");
        prop_assert_eq!(end.link.traffic().bytes_received, bytes.len() as u64);
        prop_assert_eq!(end.link.traffic().frames_received, frames.len() as u64);
    }
}

#[test]
fn single_bytes_make_frames() {
    for (io, sealed) in WAYS {
        let frames = [request(1, b"one", b"two"), piece(REGION, 3, 4096, 8), piece(REGION, 0, 3, 5)];
        let (mut end, mut socket) = End::alone(io, sealed, false);
        end.ear = Ear::with_region(REGION, 5000);
        deliver(&mut end, &mut socket, &wire(&frames, sealed), &[1]);
        assert_eq!(end.ear.heard, frames.iter().map(heard_of).collect::<Vec<_>>());
        assert_eq!(end.ear.bytes(REGION)[..8], [5, 5, 5, 8, 8, 8, 8, 8]);
    }
}

#[test]
fn bytes_that_the_handshake_read_too_far_come_first() {
    let frames = [request(1, b"early", b""), request(2, b"late", &[3; 30_000])];
    let bytes = wire(&frames, true);
    for (at, cut) in [1, 20, 57, 58, 59, 2000, bytes.len()].into_iter().enumerate() {
        let io = if at % 2 == 0 { Io::Uring } else { Io::Epoll };
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut end = End::new(io, ours, protection(true, false), bytes[..cut].to_vec());
        assert!(end.link.arm(&mut end.reactor).unwrap(), "nobody sleeps over them");
        end.receive().unwrap();
        assert!(!end.link.arm(&mut end.reactor).unwrap());
        theirs.write_all(&bytes[cut..]).unwrap();
        end.receive().unwrap();
        assert_eq!(end.ear.heard, frames.iter().map(heard_of).collect::<Vec<_>>());
    }
}

#[test]
fn a_piece_that_was_forsaken_touches_nothing_and_what_follows_comes() {
    for (io, sealed) in WAYS {
        let frames = [piece(REGION, 0, 20_000, 8), request(1, b"after", b"")];
        let bytes = wire(&frames, sealed);
        for cut in [84, 104, 110, 5000, 12_000, bytes.len() - 60] {
            let (mut end, mut socket) = End::alone(io, sealed, false);
            end.ear = Ear::with_region(REGION, 20_000);
            assert_eq!(give(&mut socket, &bytes[..cut]), cut);
            end.receive().unwrap();
            end.link.forsake(REGION + 1);
            end.link.forsake(REGION);
            end.ear.regions[&REGION].fill(&[1; 20_000]);
            assert_eq!(give(&mut socket, &bytes[cut..]), bytes.len() - cut);
            end.receive().unwrap();
            // Before its frame has come there is no piece to forsake: the sink is asked where it goes when it comes.
            let asked = cut < if sealed { 100 } else { 84 };
            let meant = if asked { 8 } else { 1 };
            assert!(
                end.ear.bytes(REGION).iter().all(|byte| *byte == meant),
                "cut at {cut}, sealed {sealed}, {io:?}"
            );
            assert_eq!(end.ear.heard.last(), Some(&heard_of(&frames[1])));
            assert_eq!(end.ear.heard.len(), if asked { 2 } else { 1 });
        }
    }
}

#[test]
fn memory_can_be_forsaken_too() {
    let (mut end, mut socket) = End::alone(Io::Epoll, false, false);
    end.ear = Ear::with_region(REGION, 20_000);
    let bytes = wire(&[piece(REGION, 0, 20_000, 8)], false);
    give(&mut socket, &bytes[..9000]);
    end.receive().unwrap();
    let memory = end.ear.regions[&REGION].memory().0.clone();
    end.link.forsake_memory(&memory);
    end.ear.regions[&REGION].fill(&[1; 20_000]);
    give(&mut socket, &bytes[9000..]);
    end.receive().unwrap();
    assert!(end.ear.bytes(REGION).iter().all(|byte| *byte == 1) && end.ear.heard.is_empty());
}
