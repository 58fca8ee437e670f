//! Messages: sends into shared receive buffers, inline and not, in batches, and being woken by them.

use crate::world::{self, SLOTS, connected, connected_with, pattern};
use fabric::verbs::{Error, Operation, QueuePairConfig, REPOST_BATCH, Request, Source, State};
use std::io::IoSlice;

fn send<'a>(from: Source<'a>, immediate: Option<u32>) -> Operation<'a> {
    Operation::Send { from, immediate }
}

#[test]
fn messages_arrive_whole_and_in_order_in_more_numbers_than_there_are_buffers() {
    let Some((mut near, mut far)) = connected() else { return };
    let messages: Vec<Vec<u8>> = (0..400).map(|seed| pattern(seed, 1 + seed as usize * 7 % 100)).collect();
    let (mut next, mut arrived) = (0, Vec::new());
    while arrived.len() < messages.len() {
        // As a credit scheme would: never more under way than the other end has buffers for.
        let credit = arrived.len() + SLOTS as usize - REPOST_BATCH;
        let end = messages.len().min(credit).min(next + near.pair.room() as usize);
        let parts: Vec<[IoSlice; 1]> = messages[next..end].iter().map(|m| [IoSlice::new(m)]).collect();
        let requests: Vec<Request> = parts
            .iter()
            .zip(next..)
            .map(|(part, at)| Request::quiet(send(Source::Inline(part), Some(at as u32))))
            .collect();
        if !requests.is_empty() {
            near.post(&requests);
        }
        next = end;
        for received in far.wait_received(1) {
            assert_eq!(received.queue_pair(), far.pair.number());
            arrived.push((received.immediate(), received.to_vec()));
        }
        near.completions.poll(&mut near.news).unwrap();
        let done: Vec<_> = near.news.drain().map(|completion| completion.work()).collect();
        for work in done {
            if let fabric::verbs::Work::Send { sequence } = work {
                near.pair.completed(sequence);
            }
        }
    }
    for (at, (message, (immediate, bytes))) in messages.iter().zip(&arrived).enumerate() {
        assert_eq!((immediate, bytes), (&Some(at as u32), message), "message {at}");
    }
}

#[test]
fn a_message_is_gathered_from_several_places_of_a_region() {
    let Some((mut near, mut far)) = connected() else { return };
    let bytes = pattern(1, 3000);
    near.fill(5, &bytes[..1000]);
    near.fill(70_001, &bytes[1000..1001]);
    near.fill(9000, &bytes[1001..]);
    let segment = |offset, length| near.region.segment(offset, length).unwrap();
    let parts = [segment(5, 1000), segment(70_001, 1), segment(9000, 1999)];
    let request = Request::signalled(send(Source::Regions(&parts), None));
    let sequence = near.pair.post(&[request]).unwrap();
    let received = far.wait_received(1).remove(0);
    assert_eq!((&received[..], received.immediate(), received.written()), (&bytes[..], None, None));
    near.wait_sent(sequence);
}

#[test]
fn an_empty_message_is_a_message() {
    let Some((mut near, mut far)) = connected() else { return };
    near.post(&[Request::signalled(send(Source::Regions(&[]), Some(9)))]);
    let received = far.wait_received(1).remove(0);
    assert_eq!((received.len(), received.immediate()), (0, Some(9)));
}

#[test]
fn a_message_that_is_kept_stays_as_it_is_while_others_come() {
    let Some((mut near, mut far)) = connected() else { return };
    let first = pattern(7, 100);
    near.post(&[Request::quiet(send(Source::Inline(&[IoSlice::new(&first)]), None))]);
    let kept = far.wait_received(1).remove(0);
    for seed in 0..2 * u64::from(SLOTS) {
        let other = pattern(100 + seed, 100);
        let sequence = near.post(&[Request::signalled(send(Source::Inline(&[IoSlice::new(&other)]), None))]);
        assert_eq!(&far.wait_received(1)[0][..], &other[..]);
        near.wait_sent(sequence);
    }
    assert_eq!(&kept[..], &first[..]);
}

#[test]
fn a_sender_waits_for_a_receiver_without_buffers_and_goes_on_when_there_are_some() {
    let slots = REPOST_BATCH as u32;
    let Some((mut near, mut far)) = connected_with(QueuePairConfig::default(), slots) else { return };
    let number = |at: u32| Request::quiet(send(Source::Regions(&[]), Some(at)));
    let requests: Vec<Request> = (0..slots + 4).map(number).collect();
    near.post(&requests);
    let held = far.wait_received(slots as usize);
    assert!(!world::is_ready(&far.completions), "no buffer, so no more messages");
    drop(held);
    let late: Vec<_> = far.wait_received(4).iter().map(|received| received.immediate()).collect();
    assert_eq!(late, (slots..slots + 4).map(Some).collect::<Vec<_>>());
}

#[test]
fn an_armed_queue_wakes_its_sleeper_once_and_a_queue_that_is_not_armed_does_not() {
    let Some((mut near, mut far)) = connected() else { return };
    let mut message = || {
        let sequence = near.post(&[Request::signalled(send(Source::Regions(&[]), None))]);
        near.wait_sent(sequence);
    };
    message();
    assert!(!world::is_ready(&far.completions), "not armed");
    assert_eq!(far.completions.poll(&mut far.news).unwrap(), 1);
    far.completions.arm().unwrap();
    assert_eq!(far.completions.acknowledge().unwrap(), 0);
    message();
    assert!(world::sleep(&far.completions));
    assert_eq!(far.completions.acknowledge().unwrap(), 1);
    message();
    assert!(!world::is_ready(&far.completions), "armed for one wake-up only");
    assert_eq!(far.completions.poll(&mut far.news).unwrap(), 2);
    assert_eq!(far.news.drain().count(), 3);
}

#[test]
fn a_full_send_queue_takes_nothing_and_has_room_again_after_a_completion() {
    let config = QueuePairConfig { depth: 8, signal_every: 4, ..QueuePairConfig::default() };
    let Some((mut near, mut far)) = connected_with(config, SLOTS) else { return };
    let request = Request::quiet(send(Source::Regions(&[]), None));
    near.post(&[request; 6]);
    assert!(matches!(near.pair.post(&[request; 3]), Err(Error::Full { capacity: 8 })));
    let last = near.post(&[request; 2]);
    assert_eq!((last, near.pair.room()), (7, 0));
    near.wait_sent(7);
    assert_eq!(near.pair.room(), 8);
    assert_eq!(far.wait_received(8).len(), 8, "what was refused was not sent");
}

#[test]
fn what_a_queue_pair_cannot_take_is_refused_before_anything_is_posted() {
    let Some((mut near, far)) = connected() else { return };
    let long = vec![0; near.pair.inline_max() + 1];
    let good = Request::quiet(send(Source::Regions(&[]), None));
    let parts = [IoSlice::new(&long)];
    let inline = Request::quiet(send(Source::Inline(&parts), None));
    assert!(matches!(near.pair.post(&[good, inline]), Err(Error::TooMuch { .. })));
    let many = [near.region.segment(0, 1).unwrap(); 5];
    let gathered = Request::quiet(send(Source::Regions(&many), None));
    assert!(matches!(near.pair.post(&[good, gathered]), Err(Error::TooMuch { limit: 4, .. })));
    assert!(matches!(near.region.segment(world::REGION - 1, 2), Err(Error::Outside { .. })));
    assert_eq!(near.pair.next_sequence(), 0);
    assert_eq!((near.pair.state().unwrap(), far.pair.state().unwrap()), (State::Connected, State::Connected));
}
