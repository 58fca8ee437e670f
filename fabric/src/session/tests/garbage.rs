//! Frames of a peer that follows no rules: nothing panics, and no more is held than was granted.

use crate::frame::{CHUNK_BYTES, Flags, Header, Kind, Verdict};
use crate::session::{CHANNELS, Callee, Caller, Grants, Lane, LinkId, Outgoing, Ticket};
use crate::{Message, ServiceId};
use bytes::Bytes;
use proptest::prelude::*;

const GRANTS: Grants = Grants { slots: [1, 2, 3, 4], window_kib: [1, 100, 300, 1000] };
const KINDS: [Kind; 6] = [Kind::Request, Kind::Reply, Kind::Chunk, Kind::Cancel, Kind::Taken, Kind::Credit];

/// A frame that a provider would hand over, with likely numbers.
fn frame() -> impl Strategy<Value = (LinkId, Header, bool)> {
    let numbers = (0..3u32, 0..6usize, 0..4usize, 0..5u16, 0..7u64, 0..8u8);
    let lengths = prop_oneof![Just(0u32), 1..2000u32, (1u32 << 17)..(1 << 20)];
    let rest = (lengths.clone(), lengths, 0..1200u32, prop::bool::weighted(0.02));
    (numbers, rest).prop_map(|((link, kind, channel, slot, sequence, flags), (head, bulk, credit, cut))| {
        let mut header = Header::new(KINDS[kind], CHANNELS[channel]);
        (header.slot, header.sequence, header.credit) = (slot, sequence, credit);
        match header.kind {
            Kind::Request | Kind::Reply => {
                (header.head, header.bulk) = (head, bulk);
                let more = head as usize + bulk as usize > CHUNK_BYTES;
                header.flags = Flags(flags).with(Flags::MORE, more);
            }
            Kind::Chunk => {
                let more = flags & 1 == 1;
                header.bulk = if more { CHUNK_BYTES as u32 } else { bulk.clamp(1, CHUNK_BYTES as u32) };
                header.flags = header.flags.with(Flags::MORE, more);
            }
            _ => {}
        }
        (LinkId(link), header, cut)
    })
}

fn zeroes(length: usize) -> Bytes {
    static ZEROES: [u8; CHUNK_BYTES] = [0; CHUNK_BYTES];
    Bytes::from_static(&ZEROES[..length])
}

/// What a callee may hold: the windows; in each, one request longer than it; on each link and channel a copy of a request; replies of `reply` bytes.
fn bound(links: usize, reply: usize) -> usize {
    let longest = 2 << 20;
    let windows: usize = GRANTS.window_kib.iter().map(|kib| *kib as usize * 1024).sum();
    let slots: usize = GRANTS.slots.iter().map(|slots| usize::from(*slots)).sum();
    windows + 4 * longest * (1 + links) + slots * reply
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_callee_takes_any_frames(frames in prop::collection::vec((frame(), any::<bool>()), 0..200)) {
        let (mut callee, mut starts) = (Callee::new(&GRANTS), Vec::new());
        let mut started = [0; 4];
        for ((link, header, cut), serve) in frames {
            prop_assert!(Header::decode(&header.encode()).is_ok());
            // The engine would end the link at an error; going on must do no harm either.
            let _ = callee.received(link, &header, zeroes(header.carried()), &mut starts);
            if cut {
                callee.link_lost(link);
            }
            while callee.next(Lane::of(header.channel), link).is_some() {}
            if serve && let Some(start) = starts.pop() {
                let at = start.turn.channel() as usize;
                started[at] = started[at].max(start.turn.sequence());
                callee.answered(start.turn, Verdict::Answered, Message { bulk: zeroes(100), ..Message::default() });
            }
            prop_assert!(callee.stored_bytes() <= bound(3, 100));
            prop_assert_eq!(callee.in_service(), starts.len());
            prop_assert!(starts.len() <= 1401);
        }
    }

    #[test]
    fn a_caller_takes_any_frames(frames in prop::collection::vec((frame(), 0..6u64), 0..200)) {
        let (mut caller, mut completed) = (Caller::new(4), Vec::new());
        caller.grant(&GRANTS);
        for (ticket, ((link, header, cut), what)) in (0..).zip(frames) {
            if what < 3 {
                let message = Message { bulk: zeroes(header.carried()), ..Message::default() };
                let (ticket, service) = (Ticket(ticket), ServiceId(1));
                let one_way = what == 1;
                let _ = caller.submit(Outgoing { ticket, service, channel: header.channel, message, deadline_ms: 1, one_way });
            } else if what == 3 {
                caller.cancel(Ticket(ticket / 2));
            }
            let _ = caller.received(link, &header, zeroes(header.carried()), &mut completed);
            if cut {
                caller.link_lost(link);
            }
            while caller.next(Lane::of(header.channel), link).is_some() {}
            prop_assert!(caller.in_flight() <= 10 && caller.waiting() <= 16);
        }
        completed.sort_by_key(|done| done.ticket.0);
        prop_assert!(completed.windows(2).all(|two| two[0].ticket != two[1].ticket));
    }

    #[test]
    fn bodies_that_are_not_as_long_as_they_say_are_refused((link, header, _) in frame(), short in 1..100usize) {
        let carried = header.carried();
        prop_assume!(carried >= short);
        let (mut callee, mut caller) = (Callee::new(&GRANTS), Caller::new(1));
        prop_assert!(callee.received(link, &header, zeroes(carried - short), &mut Vec::new()).is_err());
        prop_assert!(caller.received(link, &header, zeroes(carried - short), &mut Vec::new()).is_err());
    }
}
