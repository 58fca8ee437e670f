//! What a call costs in the cores. Prints; judges only that nothing grows.

use crate::frame::Verdict;
use crate::provider::Body;
use crate::session::{Callee, Caller, Grants, Lane, LinkId, Outgoing, Ticket};
use crate::{Message, Priority, ServiceId};
use bytes::Bytes;
use std::time::Instant;

const LINK: LinkId = LinkId(0);

/// One batch of calls of 64 bytes through both ends.
fn round(caller: &mut Caller, callee: &mut Callee, message: &Message, batch: u64) -> u64 {
    let (mut starts, mut completed) = (Vec::with_capacity(64), Vec::with_capacity(64));
    for ticket in 0..batch {
        let (ticket, service, channel) = (Ticket(ticket), ServiceId(1), Priority::Meta);
        let message = message.clone();
        let request = Outgoing { ticket, service, channel, message, deadline_ms: 1000, one_way: false };
        assert!(caller.submit(request).is_ok());
    }
    while let Some(frame) = caller.next(Lane::Bulk, LINK) {
        let Body::Message(head, _) = frame.body else { continue };
        callee.received(LINK, &frame.header, head, &mut starts).unwrap();
    }
    for start in starts.drain(..) {
        callee.answered(start.turn, Verdict::Answered, start.message);
    }
    while let Some(frame) = callee.next(Lane::Bulk, LINK) {
        let Body::Message(head, _) = frame.body else { continue };
        caller.received(LINK, &frame.header, head, &mut completed).unwrap();
    }
    completed.len() as u64
}

#[test]
fn a_call_of_64_bytes_costs_so_much() {
    let grants = Grants { slots: [64; 4], window_kib: [16 << 10; 4] };
    let (mut caller, mut callee) = (Caller::new(64), Callee::new(&grants));
    caller.grant(&grants);
    let message = Message { head: Bytes::from(vec![1; 64]), bulk: Bytes::new() };
    for batch in [1, 64] {
        let best = (0..20)
            .map(|_| {
                let began = Instant::now();
                let calls: u64 =
                    (0..2_000 / batch).map(|_| round(&mut caller, &mut callee, &message, batch)).sum();
                began.elapsed().as_nanos() as u64 / calls
            })
            .min();
        println!("a 64 B call, {batch} at once: {} ns in both ends together", best.unwrap_or_default());
    }
    let (caller, callee) = (size_of::<Caller>(), size_of::<Callee>());
    println!("an idle session: {caller} B at the caller, {callee} B at the callee, without its slots");
}
