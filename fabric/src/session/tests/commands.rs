//! Both ends by lists of commands: what goes over the wire, drawn, after each.

use super::ends::{A, B, C, Ends, drawn};
use crate::frame::{CHUNK_BYTES, Header, Kind, Verdict, WireError};
use crate::session::{Callee, Caller, Completed, Grants, Lane, Outgoing, Ticket};
use crate::{Message, Priority, ServiceId};
use Priority::{Control, Data, Meta};
use bytes::Bytes;

#[test]
fn a_call_goes_there_and_back() {
    let mut ends = Ends::new(4, 64);
    ends.submit(7, Meta, 64);
    assert!(ends.caller.has_next(Lane::Bulk) && !ends.caller.has_next(Lane::Urgent));
    assert_eq!(ends.ask(A), ["request meta 0/1 64"]);
    assert_eq!((ends.started[0].deadline_ms, ends.started[0].message.bulk.len()), (9, 64));
    ends.serve(3);
    assert_eq!(ends.answer(A), ["reply meta 0/1 3"]);
    let reply = Message { bulk: vec![5; 3].into(), ..Message::default() };
    assert_eq!(ends.completed, [Completed { ticket: Ticket(7), verdict: Verdict::Answered, message: reply }]);
    assert_eq!((ends.caller.in_flight(), ends.caller.credit_left(Meta)), (0, 64));
    assert!(!ends.callee.has_next(Lane::Bulk));
}

#[test]
fn nothing_is_sent_before_the_grant_and_no_more_waits_than_may() {
    let mut caller = Caller::new(2);
    let request = |ticket| Outgoing {
        ticket: Ticket(ticket),
        service: ServiceId(1),
        channel: Data,
        message: Message::default(),
        deadline_ms: 1,
        one_way: false,
    };
    assert!(caller.submit(request(1)).is_ok() && caller.submit(request(2)).is_ok());
    assert_eq!(caller.submit(request(3)), Err(request(3)));
    assert!(!caller.has_next(Lane::Bulk) && caller.next(Lane::Bulk, A).is_none());
    caller.grant(&Grants { slots: [1; 4], window_kib: [1; 4] });
    assert!(caller.next(Lane::Bulk, A).is_some() && caller.next(Lane::Bulk, A).is_none());
    assert_eq!(caller.drain(), [(Ticket(1), true), (Ticket(2), false)]);
    assert!(!caller.is_granted());
}

#[test]
fn what_is_urgent_goes_between_the_chunks_of_what_is_long() {
    let mut ends = Ends::new(4, 1 << 20);
    ends.submit(1, Data, 2 * CHUNK_BYTES + 1);
    let mut lines = vec![drawn(&ends.caller.next(Lane::Bulk, A).unwrap())];
    ends.submit(2, Meta, 1);
    ends.submit(3, Data, 1);
    lines.extend(ends.asks(A).iter().map(drawn));
    let chunk = |more| format!("chunk data 0/1 {more}");
    let expected = [
        "request data 0/1 262144 more".to_owned(),
        "request meta 0/1 1".to_owned(),
        chunk("262144 more"),
        chunk("1"),
        "request data 1/2 1".to_owned(),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_channel_waits_for_slots_and_for_credit_and_another_does_not() {
    let mut ends = Ends::new(2, 4);
    (1..=3).for_each(|ticket| ends.submit(ticket, Data, 0));
    assert_eq!(ends.ask(A), ["request data 0/1 0", "request data 1/2 0"]);
    ends.submit(4, Meta, 2048);
    ends.submit(5, Meta, 1024);
    assert_eq!(ends.ask(A), ["request meta 0/1 2048"]);
    ends.serve(0);
    assert_eq!(ends.answer(A), ["reply data 0/1 0"]);
    assert_eq!(ends.ask(A), ["request data 0/3 0"]);
    assert_eq!((ends.caller.credit_left(Meta), ends.caller.waiting()), (1, 1));
    (0..3).for_each(|_| ends.serve(0));
    ends.answer(A);
    assert_eq!(ends.ask(A), ["request meta 0/2 1024"]);
}

#[test]
fn what_is_longer_than_its_window_goes_alone() {
    let mut ends = Ends::new(4, 2);
    ends.submit(1, Data, 1);
    ends.submit(2, Data, 100 << 10);
    ends.submit(3, Data, 1);
    for bytes in [1, 100 << 10, 1] {
        assert_eq!(ends.ask(A).len(), 1);
        assert_eq!(ends.started[0].message.bulk.len(), bytes);
        ends.serve(0);
        ends.answer(A);
    }
    assert_eq!(ends.tickets(), [1, 2, 3]);
}

#[test]
fn what_a_lost_link_carried_goes_again_in_order_before_anything_new() {
    let mut ends = Ends::new(4, 64);
    (1..=3).for_each(|ticket| ends.submit(ticket, Data, 10));
    let frames = ends.asks(A);
    // The first two arrive; the reply to the first is lost, the second is in service.
    ends.reach_callee(A, &frames[..2]);
    ends.serve(4);
    assert_eq!(ends.answers(A).iter().map(drawn).collect::<Vec<_>>(), ["reply data 0/1 4"]);
    ends.submit(4, Data, 1);
    ends.caller.link_lost(A);
    let lines = ends.ask(B);
    let again = ["request data 0/1 10 again", "request data 1/2 10 again", "request data 2/3 10 again"];
    assert_eq!((&lines[..3], &lines[3][..]), (&again.map(str::to_owned)[..], "request data 3/4 1"));
    // The stored reply comes again; 2 was not started again, 3 and 4 are new.
    assert_eq!(ends.answer(B), ["reply data 0/1 4"]);
    assert_eq!(ends.started.iter().map(|start| start.turn.sequence()).collect::<Vec<_>>(), [2, 3, 4]);
    (0..3).for_each(|_| ends.serve(1));
    ends.callee.link_lost(A);
    ends.answer(B);
    assert_eq!(ends.tickets(), [1, 2, 3, 4]);
}

#[test]
fn the_order_of_sequences_counts_and_not_the_order_of_slots() {
    let mut ends = Ends::new(3, 64);
    (1..=3).for_each(|ticket| ends.submit(ticket, Data, 0));
    ends.ask(A);
    ends.serve(0);
    ends.answer(A);
    ends.submit(4, Data, 0);
    ends.asks(A);
    ends.caller.link_lost(A);
    let again = ["request data 1/2 0 again", "request data 2/3 0 again", "request data 0/4 0 again"];
    assert_eq!(ends.ask(B), again);
    assert_eq!(ends.started.iter().map(|start| start.turn.sequence()).collect::<Vec<_>>(), [2, 3, 4]);
}

#[test]
fn a_reply_keeps_to_the_link_of_its_request_while_that_lives() {
    let mut ends = Ends::new(4, 64);
    ends.submit(1, Data, 0);
    ends.ask(A);
    ends.serve(0);
    assert!(ends.callee.next(Lane::Bulk, B).is_none_or(|frame| frame.header.kind == Kind::Credit));
    ends.callee.link_lost(A);
    let lines = ends.answer(B);
    assert_eq!(lines[0], "reply data 0/1 0");
    assert_eq!(ends.tickets(), [1]);
}

/// The caller has lost B and asks again on C; what it sent on B comes only then, so that the reply goes by B. The caller will not learn that
/// it is lost: the callee must see to it.
#[test]
fn a_reply_that_a_late_copy_drew_to_a_dead_link_goes_again() {
    for (bytes, lines) in [(4, 1), (2 * CHUNK_BYTES, 2)] {
        let mut ends = Ends::new(4, 64);
        ends.submit(1, Data, 0);
        ends.asks(A);
        ends.caller.link_lost(A);
        let on_b = ends.asks(B);
        ends.caller.link_lost(B);
        ends.ask(C);
        ends.reach_callee(B, &on_b);
        ends.serve(bytes);
        assert_eq!(ends.callee.next(Lane::Bulk, B).map(|frame| frame.header.kind), Some(Kind::Reply));
        assert!(ends.callee.next(Lane::Bulk, C).is_none());
        ends.callee.link_lost(B);
        assert_eq!(ends.answer(C).len(), lines);
        assert_eq!(ends.tickets(), [1]);
    }
}

#[test]
fn a_late_original_does_not_draw_the_reply_to_its_dead_link() {
    let mut ends = Ends::new(4, 64);
    ends.submit(1, Data, 0);
    let on_a = ends.asks(A);
    ends.caller.link_lost(A);
    ends.ask(B);
    ends.reach_callee(A, &on_a);
    ends.serve(0);
    assert_eq!(ends.answer(B), ["reply data 0/1 0"]);
}

#[test]
fn what_came_half_by_a_lost_link_is_forgotten() {
    let mut ends = Ends::new(4, 1 << 20);
    ends.submit(1, Data, 2 * CHUNK_BYTES);
    let frames = ends.asks(A);
    ends.reach_callee(A, &frames[..1]);
    assert_eq!(ends.callee.stored_bytes(), CHUNK_BYTES);
    ends.callee.link_lost(A);
    assert_eq!(ends.callee.stored_bytes(), 0);
    ends.caller.link_lost(A);
    assert_eq!((ends.ask(B).len(), ends.started.len()), (2, 1));
}

#[test]
fn an_early_request_waits_for_its_turn() {
    let mut ends = Ends::new(4, 64);
    (1..=3).for_each(|ticket| ends.submit(ticket, Data, 10));
    let frames = ends.asks(A);
    ends.reach_callee(B, &frames[2..]);
    ends.reach_callee(B, &frames[1..2]);
    assert_eq!((ends.started.len(), ends.callee.stored_bytes()), (0, 20));
    ends.reach_callee(A, &frames[..1]);
    assert_eq!(ends.started.iter().map(|start| start.turn.sequence()).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((ends.callee.in_service(), ends.callee.stored_bytes()), (3, 0));
}

#[test]
fn the_first_whole_copy_of_a_long_request_counts_and_late_chunks_of_another_do_not() {
    let mut ends = Ends::new(4, 1 << 20);
    ends.submit(1, Data, 3 * CHUNK_BYTES);
    let on_a = ends.asks(A);
    ends.reach_callee(A, &on_a[..1]);
    ends.caller.link_lost(A);
    let on_b = ends.asks(B);
    assert!(!ends.caller.has_next(Lane::Bulk));
    ends.reach_callee(B, &on_b[..2]);
    // Still in the socket of the link that the caller has given up.
    ends.reach_callee(A, &on_a[1..2]);
    ends.reach_callee(B, &on_b[2..]);
    ends.reach_callee(A, &on_a[2..]);
    assert_eq!(ends.started.len(), 1);
    assert_eq!(ends.started[0].message.bulk, Bytes::from(vec![1; 3 * CHUNK_BYTES]));
    ends.serve(0);
    assert_eq!(ends.callee.stored_bytes(), 0);
}

#[test]
fn a_call_that_is_cancelled_before_it_is_sent_never_was() {
    let mut ends = Ends::new(1, 64);
    (1..=3).for_each(|ticket| ends.submit(ticket, Data, 0));
    ends.caller.cancel(Ticket(2));
    assert_eq!((ends.ask(A).len(), ends.caller.waiting()), (1, 1));
    ends.serve(0);
    ends.answer(A);
    assert_eq!(ends.ask(A), ["request data 0/2 0"]);
    assert_eq!(ends.started[0].message, Message::default());
}

#[test]
fn a_cancelled_call_gives_its_slot_back_at_once_and_its_credit_when_it_is_served() {
    let mut ends = Ends::new(1, 10);
    ends.submit(1, Data, 5000);
    ends.ask(A);
    ends.caller.cancel(Ticket(1));
    assert!(ends.caller.next(Lane::Bulk, B).is_none(), "a cancel must not overtake its request");
    assert_eq!(ends.ask(A), ["cancel data 0/1 0"]);
    assert_eq!(ends.answer(A), ["reply data 0/1 0"]);
    assert_eq!((ends.caller.slots_left(Data), ends.caller.credit_left(Data)), (1, 5));
    ends.serve(9000);
    assert_eq!(ends.answer(A), ["credit data 0/0 0"]);
    assert_eq!((ends.caller.credit_left(Data), ends.callee.stored_bytes()), (10, 0));
    assert!(ends.completed.is_empty());
}

#[test]
fn a_half_sent_request_that_is_cancelled_is_never_started_and_the_next_one_is() {
    let mut ends = Ends::new(2, 1 << 20);
    ends.submit(1, Data, 3 * CHUNK_BYTES);
    let first = [ends.caller.next(Lane::Bulk, A).unwrap()];
    ends.reach_callee(A, &first);
    ends.caller.cancel(Ticket(1));
    ends.submit(2, Data, 1);
    assert_eq!(ends.ask(A), ["cancel data 0/1 0", "request data 1/2 1"]);
    assert_eq!((ends.started.len(), ends.callee.stored_bytes()), (1, 0));
    ends.answer(A);
    assert_eq!((ends.caller.in_flight(), ends.caller.credit_left(Data)), (1, (1 << 20) - 1));
}

#[test]
fn a_cancelled_call_of_a_lost_link_is_shown_again_and_cancelled_at_once() {
    let mut ends = Ends::new(2, 1 << 20);
    ends.submit(1, Data, 2 * CHUNK_BYTES);
    assert_eq!(ends.asks(A).len(), 2);
    ends.caller.cancel(Ticket(1));
    ends.caller.link_lost(A);
    assert_eq!(ends.ask(B), ["request data 0/1 262144 more again", "cancel data 0/1 0"]);
    assert_eq!(ends.answer(B), ["reply data 0/1 0"]);
    assert_eq!((ends.started.len(), ends.completed.len(), ends.caller.in_flight()), (0, 0, 0));
}

#[test]
fn what_is_one_way_completes_when_it_is_started() {
    let mut ends = Ends::new(1, 2);
    (1..=3).for_each(|ticket| ends.submit_as(ticket, Data, 0, true));
    assert_eq!(ends.ask(A), ["request data 0/1 0 one-way"]);
    assert_eq!(ends.answer(A), ["reply data 0/1 0"]);
    assert_eq!(ends.completed[0].verdict, Verdict::Unheard);
    ends.ask(A);
    ends.answer(A);
    assert_eq!((ends.ask(A).len(), ends.callee.in_service()), (0, 2));
    ends.serve(100);
    assert_eq!(ends.answer(A), ["credit data 0/0 0"]);
    assert_eq!(ends.ask(A).len(), 1);
}

#[test]
fn credit_that_is_lost_with_its_link_is_told_again() {
    let mut ends = Ends::new(1, 1);
    ends.submit_as(1, Data, 0, true);
    ends.ask(A);
    ends.answer(A);
    ends.serve(0);
    assert_eq!(ends.answers(A).len(), 1);
    ends.callee.link_lost(A);
    ends.caller.link_lost(A);
    ends.submit(2, Data, 0);
    assert_eq!(ends.ask(B).len(), 0);
    ends.answer(B);
    assert_eq!(ends.ask(B), ["request data 0/2 0"]);
}

#[test]
fn a_long_reply_is_kept_until_it_is_taken_and_a_lost_confirmation_is_repeated() {
    let mut ends = Ends::new(2, 64);
    ends.submit(1, Control, 0);
    ends.ask(A);
    ends.serve(1025);
    ends.answer(A);
    assert_eq!(ends.callee.stored_bytes(), 1025);
    assert_eq!(ends.asks(A).iter().map(drawn).collect::<Vec<_>>(), ["taken control 0/1 0"]);
    ends.caller.link_lost(A);
    assert_eq!(ends.ask(B), ["taken control 0/1 0"]);
    assert_eq!(ends.callee.stored_bytes(), 0);
    ends.callee.link_lost(A);
    assert_eq!(ends.answer(B), ["credit control 0/0 0"]);
}

#[test]
fn who_breaks_the_protocol_is_told_how() {
    let request = |slot, sequence, bulk| Header { slot, sequence, bulk, ..Header::new(Kind::Request, Data) };
    let frames: [(Header, &str); 9] = [
        (request(2, 3, 0), "a request in a slot that was not granted"),
        (request(1, 0, 0), "a request in a slot that was not granted"),
        (request(0, 2, 0), "a slot that is used before it was answered"),
        (request(1, 4, 0), "a sequence whose turn it cannot be"),
        (request(1, 1, 0), "a sequence whose turn it cannot be"),
        (request(1, 2, 9000), "a request beyond the credit"),
        (request(0, 1, 9000), "a request that is not as long as it was"),
        (
            Header { sequence: 1, ..Header::new(Kind::Taken, Data) },
            "a reply that was taken before it was given",
        ),
        (Header::new(Kind::Reply, Data), "a frame that no caller sends"),
    ];
    for (header, complaint) in frames {
        let mut ends = Ends::new(2, 9);
        ends.submit(1, Data, 0);
        ends.ask(A);
        let body = vec![0; header.carried()].into();
        assert_eq!(ends.callee.received(A, &header, body, &mut ends.started), Err(WireError(complaint)));
    }
    let reply = |slot, sequence, credit| Header { slot, sequence, credit, ..Header::new(Kind::Reply, Data) };
    let frames: [(Header, &str); 4] = [
        (reply(1, 1, 0), "a reply in a slot that was never used"),
        (reply(0, 2, 0), "a reply to what was never asked"),
        (reply(0, 1, 11), "credit for more than was sent"),
        (Header::new(Kind::Cancel, Data), "a frame that no callee sends"),
    ];
    for (header, complaint) in frames {
        let mut ends = Ends::new(2, 9);
        ends.submit(1, Data, 0);
        ends.ask(A);
        let outcome = ends.caller.received(A, &header, Bytes::new(), &mut ends.completed);
        assert_eq!(outcome, Err(WireError(complaint)));
    }
}

#[test]
fn an_idle_session_is_small() {
    assert!(size_of::<Caller>() + size_of::<Callee>() <= 4096);
}
