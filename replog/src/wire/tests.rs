//! What is encoded decodes to the same; what is not encoded by us is an error, never a panic.

use super::rows::{MemberRow, VotersRow};
use super::*;
use crate::{DiskId, HardState, Member, Origin, Payload, SnapshotMeta, Voters};
use base::NodeId;
use proptest::prelude::*;

fn arb_member() -> impl Strategy<Value = Member> {
    (any::<u32>(), any::<u128>()).prop_map(|(node, disk)| Member { node: NodeId(node), disk: DiskId(disk) })
}

fn arb_stamp() -> impl Strategy<Value = Stamp> {
    (any::<u64>(), 1..u64::MAX).prop_map(|(term, index)| stamp(term, index))
}

fn arb_voters() -> impl Strategy<Value = Voters> {
    let set = |most| prop::collection::btree_set(arb_member(), 0..most);
    (set(7usize), set(7), set(16)).prop_map(|(voters, outgoing, learners)| Voters {
        voters,
        outgoing,
        learners,
    })
}

fn arb_bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..60).prop_map(Bytes::from)
}

fn arb_entry() -> impl Strategy<Value = Entry> {
    let origin = prop::option::of(any::<(u64, u32, u64)>())
        .prop_map(|origin| origin.map(|(session, slot, sequence)| Origin { session, slot, sequence }));
    let payload = prop_oneof![
        Just(Payload::Blank),
        (origin, arb_bytes()).prop_map(|(origin, bytes)| Payload::Command { origin, bytes }),
        arb_voters().prop_map(Payload::Voters),
    ];
    (arb_stamp(), payload).prop_map(|(stamp, payload)| Entry { stamp, payload })
}

fn arb_message() -> impl Strategy<Value = Message> {
    let mark = || any::<(u64, u64)>().prop_map(|(sent, round)| Mark { sent: Time(sent), round });
    let meta = (arb_stamp(), arb_voters()).prop_map(|(stamp, voters)| SnapshotMeta { stamp, voters });
    let index = || any::<u64>().prop_map(Index);
    prop_oneof![
        (any::<bool>(), arb_stamp(), any::<bool>(), any::<bool>())
            .prop_map(|(trial, last, handover, early)| Message::Canvass { trial, last, handover, early }),
        any::<(bool, bool)>().prop_map(|(trial, granted)| Message::Vote { trial, granted }),
        (arb_stamp(), prop::collection::vec(arb_entry(), 0..4), index(), mark())
            .prop_map(|(prev, entries, commit, mark)| Message::Append { prev, entries, commit, mark }),
        (index(), mark()).prop_map(|(matched, mark)| Message::Appended { matched, mark }),
        (index(), arb_stamp(), mark()).prop_map(|(prev, hint, mark)| Message::Mismatch { prev, hint, mark }),
        (meta, any::<u64>(), arb_bytes(), any::<u64>(), mark())
            .prop_map(|(meta, offset, bytes, size, mark)| Message::Chunk { meta, offset, bytes, size, mark }),
        (arb_stamp(), any::<u64>(), mark()).prop_map(|(stamp, offset, mark)| Message::ChunkTaken {
            stamp,
            offset,
            mark
        }),
        Just(Message::TakeOver),
    ]
}

fn arb_envelope() -> impl Strategy<Value = Envelope> {
    (arb_member(), arb_member(), any::<u64>(), arb_message()).prop_map(|(from, to, term, body)| Envelope {
        from,
        to,
        term: Term(term),
        body,
    })
}

proptest! {
    #[test]
    fn a_message_survives_the_wire(log in any::<u64>(), envelope in arb_envelope()) {
        prop_assert_eq!(decode(encode(log, &envelope).into()).unwrap(), (log, envelope));
    }

    #[test]
    fn an_entry_and_the_promises_survive_the_disk(entry in arb_entry(), vote in prop::option::of(arb_member()), term in any::<u64>()) {
        let mut bytes = Vec::new();
        encode_entry(&entry, &mut bytes);
        prop_assert_eq!(decode_entry(bytes.into()).unwrap(), entry);
        let hard = HardState { term: Term(term), vote, commit: Index(term / 2) };
        prop_assert_eq!(decode_hard(encode_hard(&hard).into()).unwrap(), hard);
    }

    #[test]
    fn garbage_is_an_error_or_a_message(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        let _ = (decode_entry(bytes.clone()), decode_hard(bytes.clone()), decode_meta(bytes.clone()));
        if let Ok((log, envelope)) = decode(bytes) {
            prop_assert_eq!(decode(encode(log, &envelope).into()).unwrap(), (log, envelope));
        }
    }

    #[test]
    fn a_damaged_message_is_an_error_or_another(envelope in arb_envelope(), at in any::<prop::sample::Index>(), bit in 0..8) {
        let mut bytes = encode(1, &envelope);
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        let _ = decode(bytes.into());
    }
}

#[test]
fn more_voters_than_may_be_are_an_error() {
    let voters: Vec<MemberRow> = (0..8).map(|node| MemberRow { node, disk_low: 1, disk_high: 0 }).collect();
    let row = EntryRow {
        index: 1,
        voters: Some(VotersRow { voters, ..VotersRow::default() }),
        ..EntryRow::default()
    };
    let error = decode_entry(row.encode_to_vec().into()).unwrap_err();
    assert!(error.to_string().contains("8 members in a setting; the maximum is 7"), "{error}");
}
