//! The decoder against everything that there is and much that there is not.

use super::*;
use crate::event::{Actor, LockId, Lockspace, Owner, Refusal, Transaction};
use crate::message::{Ask, Copy, Drop, Key, Report, Search};
use crate::mode::Mode;
use crate::name::Name;
use crate::resource::Value;
use crate::table::{Edge, Held};
use base::NodeId;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn keys() -> impl Strategy<Value = Key> {
    (any::<u32>(), vec(any::<u8>(), 1..=64))
        .prop_map(|(space, name)| Key { lockspace: Lockspace(space), name: Name::new(&name).unwrap() })
}

fn modes() -> impl Strategy<Value = Mode> {
    (0u32..6).prop_map(|number| Mode::from_number(number).unwrap())
}

fn locks() -> impl Strategy<Value = LockId> {
    any::<u64>().prop_map(LockId)
}

fn values() -> impl Strategy<Value = Value> {
    let written = (any::<[u8; 32]>(), any::<u64>(), any::<bool>())
        .prop_map(|(bytes, serial, is_valid)| Value { bytes, serial, is_valid });
    prop_oneof![Just(Value::NEW), written]
}

fn asks() -> impl Strategy<Value = Ask> {
    (any::<u64>(), keys(), modes(), option::of(locks()), any::<bool>())
        .prop_map(|(tag, key, mode, holds, tries)| Ask { tag, key, mode, holds, tries })
}

fn refusals() -> impl Strategy<Value = Refusal> {
    prop_oneof![Just(Refusal::Again), Just(Refusal::Deadlock), Just(Refusal::Cancelled), Just(Refusal::Busy)]
}

fn drops() -> impl Strategy<Value = Drop> {
    let value = option::of((any::<[u8; 32]>(), any::<bool>()));
    (keys(), locks(), option::of(modes()), value, any::<u64>())
        .prop_map(|(key, lock, mode, value, floor)| Drop { key, lock, mode, value, floor })
}

fn reports() -> impl Strategy<Value = Report> {
    let copies = (keys(), modes(), values()).prop_map(|(key, mode, value)| Copy { key, mode, value });
    (vec(keys(), 0..5), vec(copies, 0..5), any::<u64>(), any::<bool>())
        .prop_map(|(masters, orphans, floor, more)| Report { masters, orphans, floor, more })
}

fn actors() -> impl Strategy<Value = Actor> {
    prop_oneof![
        (any::<u32>(), keys()).prop_map(|(node, key)| Actor::Asker(NodeId(node), key)),
        (any::<u32>(), keys()).prop_map(|(node, key)| Actor::Holder(NodeId(node), key)),
        (any::<u32>(), any::<u64>())
            .prop_map(|(node, holder)| Actor::Owner(Owner { node: NodeId(node), holder })),
        any::<u64>().prop_map(|number| Actor::Transaction(Transaction(number))),
    ]
}

fn edges() -> impl Strategy<Value = Edge> {
    let held = prop_oneof![
        (locks(), any::<u64>()).prop_map(|(lock, token)| Held::Grant { lock, token }),
        any::<u64>().prop_map(Held::Wait),
    ];
    (actors(), locks(), any::<u64>(), actors(), held).prop_map(|(waiter, lock, wait, blocker, held)| Edge {
        waiter,
        lock,
        wait,
        blocker,
        held,
    })
}

fn searches() -> impl Strategy<Value = Search> {
    (0..6, any::<u64>(), locks(), vec(edges(), 0..4)).prop_map(|(kind, round, lock, edges)| match kind {
        0 => Search::Wanted,
        1 => Search::Gather { round },
        2 => Search::Waits { round, edges },
        3 => Search::Confirm { round, edges },
        4 => Search::StillWaits { round, edges },
        _ => Search::Victim { lock, wait: round },
    })
}

fn any_message() -> impl Strategy<Value = Message> {
    let tagged = (any::<u64>(), keys(), 0..3).prop_map(|(tag, key, kind)| match kind {
        0 => Message::Queued { tag, key },
        1 => Message::Cancel { tag, key },
        _ => Message::NotMaster { tag, key },
    });
    let granted = (any::<u64>(), keys(), locks(), modes(), any::<u64>(), values()).prop_map(
        |(tag, key, lock, mode, token, value)| Message::Granted { tag, key, lock, mode, token, value },
    );
    prop_oneof![
        asks().prop_map(Message::Lookup),
        asks().prop_map(Message::Ask),
        (any::<u32>(), any::<u64>(), asks()).prop_map(|(from, life, ask)| Message::Forward {
            from: NodeId(from),
            life: Incarnation(life),
            ask
        }),
        (keys(), any::<u64>()).prop_map(|(key, floor)| Message::Yours { key, floor }),
        (keys(), any::<u64>()).prop_map(|(key, floor)| Message::Release { key, floor }),
        keys().prop_map(|key| Message::Released { key }),
        (keys(), modes()).prop_map(|(key, mode)| Message::InUse { key, mode }),
        (any::<u64>(), keys(), refusals()).prop_map(|(tag, key, why)| Message::Denied { tag, key, why }),
        (keys(), locks(), modes(), any::<bool>()).prop_map(|(key, lock, mode, tries)| Message::Callback {
            key,
            lock,
            mode,
            tries
        }),
        (vec((keys(), locks()), 0..5), any::<bool>())
            .prop_map(|(trees, done)| Message::Recovered { trees, done }),
        tagged,
        granted,
        drops().prop_map(Message::Drop),
        reports().prop_map(Message::Report),
        searches().prop_map(Message::Search),
    ]
}

fn batch(messages: &[Message]) -> Bytes {
    let mut out = vec![0; HEADER_BYTES];
    let number = u64::from(!messages.is_empty());
    let header = Header {
        life: Incarnation(7),
        to: Incarnation(9),
        era: Epoch(3),
        number,
        ack: 2,
        is_urgent: messages.len() > 1,
    };
    header.write(messages.len() as u32, &mut out);
    messages.iter().for_each(|message| put(message, &mut out));
    assert_eq!(super::header(&out).unwrap(), (header, messages.len() as u32));
    out.into()
}

proptest! {
    #[test]
    fn what_is_written_is_read(all in vec(any_message(), 0..20)) {
        prop_assert_eq!(messages(&batch(&all)).unwrap(), all);
    }

    #[test]
    fn no_bytes_are_a_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = messages(&bytes.into());
    }

    #[test]
    fn no_damage_is_a_panic(all in vec(any_message(), 1..6), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = batch(&all).to_vec();
        let place = at.index(bytes.len());
        bytes[place] = byte;
        if let Ok(read) = messages(&bytes.clone().into()) {
            // Whatever was read can be written.
            read.iter().for_each(|message| put(message, &mut Vec::new()));
        }
        bytes.truncate(cut.index(bytes.len()));
        prop_assert!(messages(&bytes.into()).is_err());
    }
}

#[test]
fn what_is_said_most_often_is_short() {
    let key = Key { lockspace: Lockspace(1), name: Name::new(b"resource").unwrap() };
    let size = |message: Message| {
        let mut out = Vec::new();
        put(&message, &mut out);
        out.len()
    };
    let ask = Ask { tag: 1, key, mode: Mode::EX, holds: None, tries: false };
    assert_eq!(size(Message::Ask(ask)), 24);
    let (lock, mode, value) = (LockId(1), Mode::EX, Value::NEW);
    assert_eq!(size(Message::Granted { tag: 1, key, lock, mode, token: 1, value }), 40);
    assert_eq!(size(Message::Callback { key, lock, mode, tries: false }), 24);
    assert_eq!(size(Message::Drop(Drop { key, lock, mode: None, value: None, floor: 1 })), 32);
}

#[test]
fn a_name_of_no_length_and_one_of_65_are_refused() {
    let key = Key { lockspace: Lockspace(1), name: Name::new(&[7; 64]).unwrap() };
    let mut bytes = batch(&[Message::Released { key }]).to_vec();
    bytes.push(7);
    for length in [0, 65, 255] {
        bytes[HEADER_BYTES + 3] = length;
        assert!(messages(&bytes.clone().into()).is_err(), "{length}");
    }
}

#[test]
fn counts_that_no_bytes_stand_behind_cost_no_memory() {
    let mut bytes = batch(&[Message::Recovered { trees: Vec::new(), done: true }]).to_vec();
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(messages(&bytes.into()).is_err());
}
