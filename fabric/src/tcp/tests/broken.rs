//! Whatever comes: an error ends the link, and nothing panics.

use super::*;
use proptest::prelude::*;

/// What a link says to these bytes, in order.
fn outcome(sealed: bool, bytes: &[u8]) -> (End, Result<(), LinkError>) {
    outcome_by(Io::Epoll, sealed, bytes)
}

fn outcome_by(io: Io, sealed: bool, bytes: &[u8]) -> (End, Result<(), LinkError>) {
    let (mut end, mut socket) = End::alone(io, sealed, false);
    end.ear = Ear::with_region(7, 100_000);
    let mut rest = bytes;
    let mut result = Ok(());
    while !rest.is_empty() && result.is_ok() {
        let gave = give(&mut socket, rest);
        rest = &rest[gave..];
        result = end.receive();
    }
    (end, result)
}

fn is_wire_error(result: &Result<(), LinkError>) -> bool {
    matches!(result, Err(LinkError::Wire(_)))
}

#[test]
fn a_record_that_was_changed_swapped_replayed_or_left_out_ends_the_link() {
    let long = request(3, &[5; 20_000], b"");
    let mut bytes = Vec::new();
    let frames = [request(1, b"pay 100", b""), long, piece(7, 0, 9000, 1), request(2, b"pay 200", b"")];
    let (mut end, mut socket) = End::alone(Io::Epoll, true, true);
    for frame in frames {
        end.link.push(frame);
        end.flush();
    }
    let _ = socket.read_to_end(&mut bytes);
    let whole = records(&bytes);
    assert_eq!(whole.len(), 5);
    assert!(outcome(true, &bytes).1.is_ok());
    for at in 0..whole.len() {
        let heard_before = at.min(2) + usize::from(at > 3);
        for offset in [0, 2, 4, 10, whole[at].len() - 1] {
            let mut changed = whole.clone();
            changed[at][offset] ^= 1;
            let (end, result) = outcome(true, &changed.concat());
            // A length that grew waits for more bytes than come: nothing of it is believed.
            assert!(is_wire_error(&result) || result.is_ok() && offset < 4, "record {at}, byte {offset}");
            assert_eq!(end.ear.heard.len(), heard_before, "record {at}, byte {offset}");
        }
        let mut left_out = whole.clone();
        left_out.remove(at);
        let last = at + 1 == whole.len();
        assert_eq!(is_wire_error(&outcome(true, &left_out.concat()).1), !last, "left out {at}");
        let mut replayed = whole.clone();
        replayed.insert(at, whole[at].clone());
        assert!(is_wire_error(&outcome(true, &replayed.concat()).1), "replayed {at}");
        if !last {
            let mut swapped = whole.clone();
            swapped.swap(at, at + 1);
            assert!(is_wire_error(&outcome(true, &swapped.concat()).1), "swapped {at}");
        }
    }
}

#[test]
fn a_link_that_is_over_stays_so() {
    let (mut end, result) = outcome(false, &[0xff; 8]);
    assert!(is_wire_error(&result));
    assert!(is_wire_error(&end.receive()));
    assert!(end.link.flush(&mut end.reactor).is_err());
    assert!(end.link.arm(&mut end.reactor).is_err());
    end.link.push(request(0, b"", b""));
    end.link.close(&mut end.reactor);
}

#[test]
fn a_record_longer_than_any_is_refused_before_it_comes() {
    for (io, sealed) in WAYS {
        let (end, result) = outcome_by(io, sealed, &(0x0004_1000u32).to_le_bytes());
        assert!(is_wire_error(&result) && end.ear.heard.is_empty());
    }
}

#[test]
fn bytes_of_a_piece_that_nobody_announced_are_refused() {
    let mut bytes = wire(&[request(0, &[0; 40], b"")], false);
    bytes[3] = 1;
    assert!(is_wire_error(&outcome(false, &bytes).1));
    let announced = wire(&[piece(7, 0, 5000, 1), request(0, b"", b"")], false);
    let cut = records(&announced);
    assert!(is_wire_error(&outcome(false, &[cut[0].clone(), cut[2].clone()].concat()).1));
    let long = wire(&[piece(7, 0, 6000, 1)], false);
    assert!(is_wire_error(&outcome(false, &[cut[0].clone(), records(&long)[1].clone()].concat()).1));
}

#[test]
fn an_end_that_closes_is_lost_and_what_came_before_is_heard() {
    for (cut, io) in [0, 1, 60, 5000].into_iter().flat_map(|cut| [(cut, Io::Epoll), (cut, Io::Uring)]) {
        let bytes = wire(&[request(1, b"one", b""), piece(7, 0, 9000, 1)], false);
        let (mut end, mut socket) = End::alone(io, false, false);
        give(&mut socket, &bytes[..cut]);
        drop(socket);
        let mut ready = Vec::new();
        end.reactor.wait(None, &mut ready).unwrap();
        assert!(ready[0].readable);
        // One report for the bytes and the end together: both must be found.
        assert!(matches!(end.receive(), Err(LinkError::Lost(_))), "cut at {cut}");
        assert_eq!(end.ear.heard.len(), usize::from(cut == 5000), "cut at {cut}");
        assert!(matches!(end.receive(), Err(LinkError::Lost(_))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn any_bytes_end_in_frames_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..3000), lengths in prop::collection::vec(0u8..120, 0..8), sealed in any::<bool>(),
    ) {
        // Records of a legal length, so that what is in them is looked at.
        let mut wire = Vec::new();
        let mut rest = &bytes[..];
        for length in lengths {
            let (body, after) = rest.split_at(rest.len().min(32 + usize::from(length)));
            rest = after;
            wire.extend((body.len() as u32).to_le_bytes());
            let mut body = body.to_vec();
            for (at, limit) in [(0, 11), (1, 4), (4, 7), (5, 8), (16, 64), (17, 1), (18, 1), (19, 1), (20, 64), (21, 1), (22, 1), (23, 1)] {
                if let Some(byte) = body.get_mut(at) {
                    *byte %= limit;
                }
            }
            wire.extend(body);
        }
        wire.extend(rest);
        let _ = outcome(sealed, &wire);
    }

    #[test]
    fn a_wire_with_a_wrong_byte_ends_in_frames_or_an_error(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let frames = [request(1, b"one", &[2; 50]), piece(7, 9, 300, 3), piece(7, 0, 5000, 1), request(2, &[7; 20_000], b"")];
        let mut bytes = wire(&frames, false);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = outcome(false, &bytes);
    }
}
