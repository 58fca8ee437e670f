//! The decoder against everything that there is and much that there is not.

use super::*;
use crate::event::{Actor, LockId, Lockspace, Owner, Refusal, Transaction};
use crate::flags::Flags;
use crate::key::{Branch, Key};
use crate::message::{Ask, Copy, Drop, Handed, Placed, Report, Scoped, ScopedCopy, Search};
use crate::mode::Mode;
use crate::name::Name;
use crate::policy::{Scope, Span};
use crate::resource::Value;
use crate::table::{Edge, Held};
use base::NodeId;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn keys() -> impl Strategy<Value = Key> {
    let branches = prop_oneof![Just(Branch::ROOT), any::<[u8; 32]>().prop_map(Branch)];
    (any::<u32>(), vec(any::<u8>(), 1..=64), branches).prop_map(|(space, name, branch)| Key {
        lockspace: Lockspace(space),
        name: Name::new(&name).unwrap(),
        branch,
    })
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

fn scopes() -> impl Strategy<Value = Scope> {
    let span = |one: u64, other: u64| Span { first: one.min(other), last: one.max(other) };
    prop_oneof![
        Just(Scope::Plain),
        (1..=u64::MAX).prop_map(Scope::Bits),
        any::<[u64; 4]>().prop_map(move |[a, b, c, d]| {
            let (span, more) = (span(a, b), span(c, d));
            Scope::Extent { span, desired: span.hull(more) }
        }),
    ]
}

fn scoped() -> impl Strategy<Value = Scoped> {
    (locks(), any::<u64>(), any::<u64>(), any::<u32>(), scopes()).prop_map(
        |(lock, holder, transaction, flags, scope)| {
            let (transaction, flags) = (Transaction(transaction), Flags(flags));
            Scoped { lock, holder, transaction, flags, scope }
        },
    )
}

fn scoped_copies() -> impl Strategy<Value = ScopedCopy> {
    (keys(), locks(), any::<[u64; 2]>(), modes(), scopes(), option::of(modes()), values()).prop_map(
        |(key, lock, [holder, transaction], mode, scope, wanted, value)| {
            let transaction = Transaction(transaction);
            ScopedCopy { key, lock, holder, transaction, mode, scope, wanted, value }
        },
    )
}

fn copies() -> impl Strategy<Value = Copy> {
    (keys(), modes(), values()).prop_map(|(key, mode, value)| Copy { key, mode, value })
}

fn placed() -> impl Strategy<Value = Placed> {
    (keys(), locks(), locks(), modes()).prop_map(|(key, lock, at_master, mode)| Placed {
        key,
        lock,
        at_master,
        mode,
    })
}

fn nodes() -> impl Strategy<Value = NodeId> {
    any::<u32>().prop_map(NodeId)
}

fn asks() -> impl Strategy<Value = Ask> {
    (any::<u64>(), keys(), modes(), option::of(locks()), any::<[bool; 2]>(), option::of(scoped())).prop_map(
        |(tag, key, mode, holds, [tries, reads], scoped)| Ask { tag, key, mode, holds, tries, reads, scoped },
    )
}

fn refusals() -> impl Strategy<Value = Refusal> {
    prop_oneof![Just(Refusal::Again), Just(Refusal::Deadlock), Just(Refusal::Cancelled), Just(Refusal::Busy)]
}

fn drops() -> impl Strategy<Value = Drop> {
    let value = option::of((any::<[u8; 32]>(), any::<bool>()));
    (keys(), locks(), option::of(modes()), option::of(scopes()), value, any::<u64>())
        .prop_map(|(key, lock, mode, scope, value, floor)| Drop { key, lock, mode, scope, value, floor })
}

fn reports() -> impl Strategy<Value = Report> {
    let ended = option::of((1_u64..).prop_map(Epoch));
    let handed = (keys(), nodes(), ended).prop_map(|(key, to, ended)| Handed { key, to, ended });
    let trees = (vec(keys(), 0..5), vec(handed, 0..5));
    (trees, vec(copies(), 0..5), vec(scoped_copies(), 0..5), any::<u64>(), any::<bool>()).prop_map(
        |((masters, handed), orphans, scoped, floor, more)| Report {
            masters,
            handed,
            orphans,
            scoped,
            floor,
            more,
        },
    )
}

/// What is said when a tree goes to another master.
fn moves() -> impl Strategy<Value = Message> {
    let lists = (
        vec((nodes(), copies()), 0..4),
        vec((nodes(), scoped_copies()), 0..4),
        vec((keys(), locks()), 0..4),
        vec(placed(), 0..4),
        vec(nodes(), 0..4),
    );
    (0..7, keys(), any::<u64>(), nodes(), any::<bool>(), lists).prop_map(
        |(kind, key, number, to, more, (copies, scoped, tokens, placed, nodes))| match kind {
            0 => Message::Moving { key, to, number },
            1 => Message::Noted { key, number },
            2 => Message::Tree { key, tokens: copies, scoped, nodes, floor: number, more },
            3 => Message::Took { key },
            4 => Message::Confirmed { key },
            5 => Message::Taken { key },
            _ => Message::Moved { key, tokens, scoped: placed, more },
        },
    )
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
    let granted = (any::<[u64; 2]>(), keys(), locks(), modes(), scopes(), values()).prop_map(
        |([tag, token], key, lock, mode, scope, value)| Message::Granted {
            tag,
            key,
            lock,
            mode,
            scope,
            token,
            value,
        },
    );
    let written = option::of((any::<[u8; 32]>(), any::<bool>()));
    let fetched = (keys(), any::<u64>(), written).prop_map(|(key, number, value)| Message::Fetched {
        key,
        number,
        value,
    });
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
        (keys(), locks(), modes(), scopes(), any::<bool>()).prop_map(|(key, lock, mode, scope, tries)| {
            Message::Callback { key, lock, mode, scope, tries }
        }),
        (vec((keys(), locks()), 0..5), vec(placed(), 0..5), any::<bool>())
            .prop_map(|(trees, scoped, done)| Message::Recovered { trees, scoped, done }),
        (keys(), locks(), any::<u64>()).prop_map(|(key, lock, number)| Message::Fetch { key, lock, number }),
        option::of(any::<u64>()).prop_map(|holder| Message::Purge { holder }),
        fetched,
        moves(),
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
    let key = Key::new(Lockspace(1), Name::new(b"resource").unwrap());
    let size = |message: Message| {
        let mut out = Vec::new();
        put(&message, &mut out);
        out.len()
    };
    let ask = Ask { tag: 1, key, mode: Mode::EX, holds: None, tries: false, reads: false, scoped: None };
    assert_eq!(size(Message::Ask(ask)), 24);
    let (lock, mode, scope, value) = (LockId(1), Mode::EX, Scope::Plain, Value::NEW);
    assert_eq!(size(Message::Granted { tag: 1, key, lock, mode, scope, token: 1, value }), 40);
    assert_eq!(size(Message::Callback { key, lock, mode, scope, tries: false }), 24);
    assert_eq!(size(Message::Drop(Drop { key, lock, mode: None, scope: None, value: None, floor: 1 })), 32);
}

#[test]
fn a_name_of_no_length_and_one_of_65_are_refused() {
    let key = Key::new(Lockspace(1), Name::new(&[7; 64]).unwrap());
    let mut bytes = batch(&[Message::Released { key }]).to_vec();
    bytes.push(7);
    for length in [0, 65, 255] {
        bytes[HEADER_BYTES + 3] = length;
        assert!(messages(&bytes.clone().into()).is_err(), "{length}");
    }
}

#[test]
fn counts_that_no_bytes_stand_behind_cost_no_memory() {
    let mut bytes =
        batch(&[Message::Recovered { trees: Vec::new(), scoped: Vec::new(), done: true }]).to_vec();
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(messages(&bytes.into()).is_err());
}
