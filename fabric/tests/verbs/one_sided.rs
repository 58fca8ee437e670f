//! One-sided operations: writes, writes that tell a number, reads; scattered, gathered, long.

use crate::world::{End, News, REGION, connected, pattern};
use fabric::verbs::{MemoryRegion, Operation, Request, Segment, Source};
use std::io::IoSlice;

fn segment(region: &MemoryRegion, offset: usize, length: usize) -> Segment<'_> {
    region.segment(offset, length).unwrap()
}

#[test]
fn a_write_puts_bytes_where_they_belong_and_nowhere_else() {
    let Some((mut near, far)) = connected() else { return };
    let bytes = pattern(1, 100_003);
    near.fill(17, &bytes);
    far.fill(0, &vec![0xee; REGION]);
    let (parts, to) = ([segment(&near.region, 17, bytes.len())], far.region.place().further(4099));
    let write = Operation::Write { from: Source::Regions(&parts), to, immediate: None };
    let sequence = near.pair.post(&[Request::signalled(write)]).unwrap();
    near.wait_sent(sequence);
    assert_eq!(far.bytes(4099, bytes.len()), bytes);
    assert!(far.bytes(0, 4099).iter().all(|byte| *byte == 0xee));
    let behind = 4099 + bytes.len();
    assert!(far.bytes(behind, REGION - behind).iter().all(|byte| *byte == 0xee));
}

#[test]
fn a_whole_region_goes_in_one_write_and_comes_back_in_one_read() {
    let Some((mut near, far)) = connected() else { return };
    let bytes = pattern(2, REGION);
    near.fill(0, &bytes);
    let parts = [segment(&near.region, 0, REGION)];
    let write = Operation::Write { from: Source::Regions(&parts), to: far.region.place(), immediate: None };
    near.pair.post(&[Request::quiet(write)]).unwrap();
    // Behind the write on the same connection: it reads what was written.
    let back = near.region_beside();
    let into = [back.segment(0, REGION).unwrap()];
    let read = Operation::Read { into: &into, from: far.region.place() };
    let sequence = near.pair.post(&[Request::signalled(read)]).unwrap();
    near.wait_sent(sequence);
    assert!(far.bytes(0, REGION) == bytes);
    let mut read = vec![0; REGION];
    fabric::region::Span::of(back.memory(), 0, REGION).unwrap().copy_to(&mut read);
    assert!(read == bytes);
}

#[test]
fn a_write_with_a_number_tells_the_other_end_when_its_bytes_are_there() {
    let Some((mut near, mut far)) = connected() else { return };
    let bytes = pattern(3, 10_000);
    near.fill(0, &bytes);
    let parts = [segment(&near.region, 0, bytes.len())];
    let write =
        Operation::Write { from: Source::Regions(&parts), to: far.region.place(), immediate: Some(42) };
    let sequence = near.pair.post(&[Request::signalled(write)]).unwrap();
    let received = far.wait_received(1).remove(0);
    assert_eq!((received.immediate(), received.written()), (Some(42), Some(10_000)));
    assert!(received.is_empty(), "the bytes are in the region, not in the buffer");
    assert_eq!(far.bytes(0, bytes.len()), bytes);
    near.wait_sent(sequence);
}

#[test]
fn a_write_is_gathered_and_a_read_is_scattered() {
    let Some((mut near, far)) = connected() else { return };
    let bytes = pattern(4, 6000);
    near.fill(0, &bytes[..4096]);
    near.fill(8000, &bytes[4096..4099]);
    near.fill(9001, &bytes[4099..]);
    let parts =
        [segment(&near.region, 0, 4096), segment(&near.region, 8000, 3), segment(&near.region, 9001, 1901)];
    let to = far.region.place().further(1);
    let write = Operation::Write { from: Source::Regions(&parts), to, immediate: None };
    let into = [
        segment(&near.region, 100_000, 1),
        segment(&near.region, 200_001, 5000),
        segment(&near.region, 300_000, 999),
    ];
    let read = Operation::Read { into: &into, from: to };
    let first = near.pair.post(&[Request::quiet(write), Request::signalled(read)]).unwrap();
    near.wait_sent(first + 1);
    assert_eq!(far.bytes(1, 6000), bytes);
    let back = [near.bytes(100_000, 1), near.bytes(200_001, 5000), near.bytes(300_000, 999)].concat();
    assert_eq!(back, bytes);
}

#[test]
fn an_inline_write_leaves_its_memory_free_at_once() {
    let Some((mut near, far)) = connected() else { return };
    let bytes = pattern(5, near.pair.inline_max());
    let mut copy = bytes.clone();
    let parts = [IoSlice::new(&copy[..10]), IoSlice::new(&copy[10..])];
    let to = far.region.place().further(3);
    let write = Operation::Write { from: Source::Inline(&parts), to, immediate: None };
    let sequence = near.pair.post(&[Request::signalled(write)]).unwrap();
    copy.fill(0);
    near.wait_sent(sequence);
    assert_eq!(far.bytes(3, bytes.len()), bytes);
}

#[test]
fn one_completion_in_many_tells_of_all_before_it() {
    let Some((mut near, far)) = connected() else { return };
    for at in 0..100_usize {
        near.fill(at * 8, &(at as u64 + 1).to_le_bytes());
    }
    let parts: Vec<[Segment; 1]> = (0..100).map(|at| [segment(&near.region, at * 8, 8)]).collect();
    let requests: Vec<Request> = parts
        .iter()
        .zip(0..)
        .map(|(part, at)| {
            let to = far.region.place().further(at * 8);
            Request::quiet(Operation::Write { from: Source::Regions(part), to, immediate: None })
        })
        .collect();
    near.pair.post(&requests).unwrap();
    // Every 16th tells: 15, 31, ... 95.
    let mut told = Vec::new();
    while told.last() != Some(&95) {
        for news in near.wait() {
            match news {
                News::Sent(sequence) => told.push(sequence),
                _ => panic!("only sends are told here"),
            }
        }
    }
    assert_eq!(told, [15, 31, 47, 63, 79, 95]);
    assert_eq!(near.pair.room(), 128 - 4);
    for at in 0..=95_usize {
        assert_eq!(far.bytes(at * 8, 8), (at as u64 + 1).to_le_bytes(), "write {at}");
    }
}

#[test]
fn connections_of_one_device_share_its_buffers_and_its_completions() {
    let Some((near_rail, far_rail)) = crate::world::rails() else { return };
    let config = fabric::verbs::QueuePairConfig::default();
    let mut far = End::new(&far_rail, config);
    let second = fabric::verbs::QueuePair::create(
        &far.domain,
        &far.completions,
        &far.receives,
        far_rail.address,
        config,
    )
    .unwrap();
    let mut senders = [End::new(&near_rail, config), End::new(&near_rail, config)];
    for (sender, pair) in senders.iter().zip([&far.pair, &second]) {
        sender.pair.connect(&pair.coordinates()).unwrap();
        pair.connect(&sender.pair.coordinates()).unwrap();
    }
    for (sender, number) in senders.iter_mut().zip(1..) {
        let send = Operation::Send { from: Source::Regions(&[]), immediate: Some(number) };
        let sequence = sender.post(&[Request::signalled(send)]);
        sender.wait_sent(sequence);
    }
    far.completions.poll(&mut far.news).unwrap();
    let all: Vec<_> = far.news.drain().map(|completion| far.receives.take(completion).unwrap()).collect();
    let told: Vec<_> = all.iter().map(|received| (received.queue_pair(), received.immediate())).collect();
    assert_eq!(told, [(far.pair.number(), Some(1)), (second.number(), Some(2))]);
}
