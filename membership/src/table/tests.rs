//! The table: numbers without holes, steps that can be taken back, feeds that lead to the same view.

use super::*;
use crate::command::{Drain, Enter, Fenced, Life, Lives, Rename};
use crate::token::{Ticket, TicketId};
use crate::wire::Node;
use proptest::prelude::*;

fn machine(n: u16) -> Node {
    Node {
        name: format!("n{n}"),
        control_address: format!("127.0.0.1:{}", 1000 + n),
        data_address: format!("127.0.0.1:{}", 3000 + n),
        cpus: 1,
        ..Node::default()
    }
}

fn command(act: Act) -> Command {
    Command { at_ms: 7, act: Some(act) }
}

fn ticket(id: u8, expires: u64, uses: u32) -> Ticket {
    Ticket::new(TicketId([id; 16]), expires, uses)
}

/// Machine `n` joins with ticket `id`; its proof was checked before.
fn entering(id: u8, n: u8) -> Act {
    let row = machine(n.into()).encode_to_vec();
    Act::Enter(Enter { row, ticket: vec![id; 16], machine: vec![n; 16], proof: Vec::new() })
}

fn at(seconds: u64, act: Act) -> Command {
    Command { at_ms: seconds * 1_000, act: Some(act) }
}

#[test]
fn a_ticket_is_spent_by_the_transition_that_adds_the_row_and_once() {
    let mut table = founded_table();
    let outcome = table.apply(&at(100, Act::Ticket(ticket(1, 200, 1))));
    assert_eq!((outcome.number, outcome.node, outcome.refused.as_str()), (2, 0, ""));
    assert_eq!(table.transition(2).unwrap().changes[0].kind(), ChangeKind::Invited);
    let joined = table.apply(&at(110, entering(1, 2)));
    assert_eq!((joined.number, joined.node), (3, 2));
    let step = table.transition(3).unwrap();
    assert_eq!((step.changes.len(), step.tickets.len()), (1, 1));
    assert_eq!((step.changes[0].kind(), step.changes[0].node), (ChangeKind::Joined, 2));
    // Its answer was lost: it asks again and is the same node. Another machine is none.
    assert_eq!(table.apply(&at(120, entering(1, 2))), joined);
    let second = table.apply(&at(120, entering(1, 3)));
    assert!(second.refused.contains("used already") && second.number == 3, "{second:?}");
    assert_eq!(table.view().nodes.len(), 2);
    table.apply(&at(130, Act::Remove(2)));
    let again = table.apply(&at(140, entering(1, 2)));
    assert!(again.refused.contains("removed since"), "{again:?}");
}

#[test]
fn a_ticket_that_has_expired_lets_nobody_in_and_is_forgotten() {
    let mut table = founded_table();
    table.apply(&at(100, Act::Ticket(ticket(1, 200, 1))));
    table.apply(&at(100, Act::Ticket(ticket(2, 900, 2))));
    assert!(table.apply(&at(200, entering(1, 2))).refused.contains("expired"));
    assert!(table.apply(&at(200, entering(7, 2))).refused.contains("not known"));
    assert!(table.apply(&at(200, Act::Ticket(ticket(3, 100, 1)))).refused.contains("expired"));
    assert_eq!(table.view().tickets.tickets.len(), 2);
    assert_eq!(table.apply(&at(200, entering(2, 2))).node, 2);
    assert_eq!(table.view().tickets.tickets.len(), 1, "the expired one is gone");
    // A row that is refused costs no use.
    let mut taken = machine(1);
    taken.control_address = "nowhere".into();
    let row = taken.encode_to_vec();
    let enter = Enter { row, ticket: vec![2; 16], machine: vec![9; 16], proof: Vec::new() };
    assert!(table.apply(&at(210, Act::Enter(enter))).refused.contains("no ip:port"));
    assert_eq!(table.apply(&at(220, entering(2, 3))).node, 3);
}

fn founded_table() -> Table {
    let mut table = Table::default();
    let view = founded("blue", &machine(1), 16_384);
    assert_eq!(table.apply(&command(Act::Found(view.clone()))).refused, "");
    assert_eq!(table.view(), &view);
    table
}

fn any_act() -> impl Strategy<Value = Act> {
    let life = (1..6u32, 1..4u64).prop_map(|(node, life)| Life { node, life });
    let lives =
        prop::collection::vec(life.clone(), 0..4).prop_map(|lives| Lives { lives, why: "silent".into() });
    prop_oneof![
        (1..6u16).prop_map(|n| Act::Join(machine(n))),
        (1..6u32, 1..5u64).prop_map(|(id, incarnation)| Act::Rise(Node {
            id,
            incarnation,
            ..machine(id as u16)
        })),
        lives.clone().prop_map(Act::Stall),
        lives.clone().prop_map(Act::Recover),
        lives.prop_map(Act::Down),
        (life.clone(), any::<bool>()).prop_map(|(life, done)| Act::Fenced(Fenced {
            life: Some(life),
            done,
            said: "off".into()
        })),
        life.prop_map(Act::Leave),
        (1..6u32).prop_map(Act::Remove),
        (1..6u32, 1..9u32).prop_map(|(node, n)| Act::Rename(Rename { node, name: format!("n{n}") })),
        (1..6u32, any::<bool>()).prop_map(|(node, drained)| Act::Drain(Drain { node, drained })),
        (0..9u32).prop_map(Act::WantVoters),
        (1..6u32).prop_map(Act::Reign),
        (0..4u8, 1..20u64, 0..3u32).prop_map(|(id, expires, uses)| Act::Ticket(ticket(id, expires, uses))),
        (0..4u8, 0..6u8).prop_map(|(id, machine)| entering(id, machine)),
    ]
}

#[test]
fn a_refused_command_and_one_that_changes_nothing_make_no_transition() {
    let mut table = founded_table();
    let outcome = table.apply(&command(Act::Remove(9)));
    assert!(outcome.refused.contains("no node 9") && outcome.number == 1, "{outcome:?}");
    assert_eq!(table.apply(&command(Act::Reign(1))).number, 1);
    assert_eq!(table.apply(&command(Act::Reign(2))).number, 2);
    assert_eq!(table.transition(2).unwrap().changes[0].kind(), ChangeKind::Master);
}

#[test]
fn several_lives_that_end_together_are_one_transition() {
    let mut table = founded_table();
    for n in 2..=4 {
        table.apply(&command(Act::Join(machine(n))));
        let row = Node { id: n.into(), incarnation: 5, ..machine(n) };
        table.apply(&command(Act::Rise(row)));
    }
    let lives = (2..=4).map(|node| Life { node, life: 5 }).collect();
    let before = table.view().epoch;
    let outcome = table.apply(&command(Act::Down(Lives { lives, why: "silent".into() })));
    assert_eq!(outcome.number, before + 1);
    let step = table.transition(before + 1).unwrap();
    assert_eq!(step.changes.len(), 3);
    assert!(step.changes.iter().all(|change| change.from() == Some(NodeState::Up)
        && change.to() == Some(NodeState::Down)
        && change.kind() == ChangeKind::Down));
    // The dead stay dead, and only the dead are fenced.
    table.apply(&command(Act::Recover(Lives { lives: vec![Life { node: 2, life: 5 }], why: String::new() })));
    table.apply(&command(Act::Rise(Node { id: 2, incarnation: 5, ..machine(2) })));
    assert_eq!(table.view().nodes[1].state(), NodeState::Down);
    let fenced = Fenced { life: Some(Life { node: 2, life: 5 }), done: true, said: "off".into() };
    table.apply(&command(Act::Fenced(fenced)));
    assert_eq!(table.view().nodes[1].state(), NodeState::Fenced);
}

proptest! {
    #[test]
    fn numbers_have_no_holes_and_every_step_can_be_taken_back(acts in prop::collection::vec(any_act(), 0..60)) {
        let mut table = founded_table();
        let mut views = vec![View::default(), table.view().clone()];
        for act in acts {
            let before = table.view().clone();
            let outcome = table.apply(&command(act));
            if table.view().epoch == before.epoch {
                prop_assert_eq!(table.view(), &before);
            } else {
                prop_assert_eq!(table.view().epoch, before.epoch + 1);
                prop_assert!(outcome.refused.is_empty());
                views.push(table.view().clone());
            }
        }
        for (epoch, view) in views.iter().enumerate() {
            prop_assert_eq!(table.view_at(epoch as u64), Some(view.clone()));
            let mut other = Table::from_view(view.clone());
            other.catch_up(&table);
            prop_assert_eq!(other.view(), table.view());
        }
        prop_assert_eq!(Table::decode(&table.encode(HISTORY_MAX)).unwrap(), table.clone());
        let short = Table::decode(&table.encode(2)).unwrap();
        prop_assert_eq!(short.view(), table.view());
        prop_assert_eq!(short.oldest(), table.oldest().max((table.view().epoch + 1).saturating_sub(2)));
    }

    #[test]
    fn garbage_is_an_error_or_a_table(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(table) = Table::decode(&bytes) {
            prop_assert_eq!(Table::decode(&table.encode(HISTORY_MAX)).unwrap(), table);
        }
    }
}
