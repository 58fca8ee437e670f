//! Whatever the other end says: an error at most.

use crate::frame::{Access, Flags, Header, Kind, Verdict};
use crate::provider::Place;
use crate::region::{Memory, Regions, Rights, Span};
use crate::session::{LinkId, Ticket};
use crate::transfer::{Initiator, Target, TransferOp};
use crate::{Peer, Priority, Role};
use base::NodeId;
use proptest::prelude::*;

const PEER: Peer = Peer { node: NodeId(2), role: Role::Control };

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..40, Just(u64::MAX), any::<u64>()]
}

prop_compose! {
    fn header()(
        kind in prop::sample::select(vec![Kind::Write, Kind::Read, Kind::ReadData, Kind::Done]),
        verdict in prop::sample::select(vec![Verdict::Answered, Verdict::Denied, Verdict::Unheard, Verdict::Crashed]),
        flags in 0u8..8, slot in prop_oneof![0u16..3, any::<u16>()], sequence in prop_oneof![0u64..4, any::<u64>()],
        bulk in prop_oneof![0u32..40, any::<u32>()],
    ) -> Header {
        Header { verdict, flags: Flags(flags), slot, sequence, bulk, ..Header::new(kind, Priority::Data) }
    }
}

prop_compose! {
    fn access()(
        region in 0u64..2, token in 6u64..8, epoch in 0u32..3, notify in any::<bool>(),
        offset in number(), length in number(), at in number(),
    ) -> Access {
        Access { region, token, epoch, notify, offset, length, at }
    }
}

proptest! {
    #[test]
    fn no_frame_makes_a_target_panic(frames in prop::collection::vec((header(), access(), 0u32..3, any::<bool>()), 1..60)) {
        let memory = Memory::new(64).unwrap();
        let mut regions = Regions::new(PEER);
        let region = regions.register(memory.clone(), 32).unwrap();
        regions.grant(region, PEER, Rights::ALL, 7).unwrap();
        let mut target = Target::with_pieces(PEER, 9);
        for (header, access, link, lost) in frames {
            let link = LinkId(link);
            if let Ok(Place::Span(span)) = target.place(link, &header, &access, &regions) {
                prop_assert_eq!(span.length(), header.bulk as usize);
                span.fill(&vec![1; span.length()]);
                if lost {
                    target.link_lost(link, &mut regions);
                } else {
                    target.placed(link, &header, &access, &mut regions);
                }
            }
            let _ = target.received(&header, &access, &mut regions);
            while target.given_up().is_some() {}
            prop_assert!(std::iter::from_fn(|| target.next(link)).count() < 20);
            prop_assert!(!target.has_next());
        }
        let mut behind = [0; 32];
        Span::of(&memory, 32, 32).unwrap().copy_to(&mut behind);
        prop_assert_eq!(behind, [0; 32]);
    }

    #[test]
    fn no_frame_makes_an_initiator_panic(frames in prop::collection::vec((header(), access(), any::<bool>()), 1..60)) {
        let memory = Memory::new(64).unwrap();
        let mut regions = Regions::new(PEER);
        let region = regions.register(memory.clone(), 32).unwrap();
        let key = regions.grant(region, PEER, Rights::ALL, 7).unwrap();
        let mut initiator = Initiator::with_pieces(9);
        for ticket in 0..4 {
            let pieces = vec![Span::of(&memory, 0, 20).unwrap()];
            let op = TransferOp { write: ticket % 2 == 0, key, offset: 3, pieces, notify: false };
            initiator.submit(Ticket(ticket), op).unwrap();
        }
        let link = LinkId(1);
        for (mut header, mut access, tame) in frames {
            if tame {
                (header.slot, header.sequence, header.bulk) = (header.slot % 4, 1, header.bulk % 21);
                access = Access { region: region.0, token: 7, epoch: 1, notify: false, offset: 3, length: 20, at: access.at % 21 };
            }
            if let Ok(Place::Span(span)) = initiator.place(link, &header, &access) {
                prop_assert_eq!(span.length(), header.bulk as usize);
                initiator.placed(link, &header, &access);
            }
            let _ = initiator.received(&header);
            prop_assert!(std::iter::from_fn(|| initiator.next(link)).count() < 20);
        }
        let over = std::iter::from_fn(|| initiator.finished()).count();
        prop_assert_eq!(over + initiator.drain().len(), 4);
    }
}
