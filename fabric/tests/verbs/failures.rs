//! What fails: memory that is taken away, keys that are wrong, peers that are gone, connections that are ended.

use crate::world::{End, News, REGION, connected, connected_with, pattern};
use fabric::verbs::{
    Access, Error, Failure, MemoryRegion, Operation, QueuePairConfig, RemotePlace, Request, Source, State,
    Work,
};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

fn write_of<'a>(from: Source<'a>, to: RemotePlace) -> Request<'a> {
    Request::signalled(Operation::Write { from, to, immediate: None })
}

/// Writes 1000 bytes of the near region; tells the outcome.
fn write(near: &mut End, to: RemotePlace) -> Result<(), Failure> {
    let parts = [near.region.segment(0, 1000).unwrap()];
    near.pair.post(&[write_of(Source::Regions(&parts), to)]).unwrap();
    match near.wait().remove(0) {
        News::Failed(_, failure) => Err(failure),
        _ => Ok(()),
    }
}

#[test]
fn a_write_to_a_revoked_region_fails_and_changes_nothing() {
    let Some((mut near, far)) = connected() else { return };
    near.fill(0, &pattern(1, 1000));
    let to = far.region.place();
    assert_eq!(write(&mut near, to), Ok(()));
    far.region.revoke().unwrap();
    near.fill(0, &pattern(2, 1000));
    assert_eq!(write(&mut near, to), Err(Failure::RemoteAccess));
    assert_eq!(far.bytes(0, 1000), pattern(1, 1000));
    assert_eq!(near.pair.state().unwrap(), State::Failed);
    far.region.revoke().unwrap();
    assert!(matches!(far.region.segment(0, 1), Err(Error::Revoked)));
}

#[test]
fn memory_that_is_registered_again_does_not_know_its_old_key() {
    let Some((mut near, far)) = connected() else { return };
    let old = far.region.place();
    far.region.revoke().unwrap();
    let again = MemoryRegion::register(&far.domain, far.region.memory(), Access::READ_WRITE).unwrap();
    assert_eq!(again.place().address, old.address);
    assert_ne!(again.place().key, old.key);
    assert_eq!(write(&mut near, old), Err(Failure::RemoteAccess));
}

#[test]
fn a_region_is_reached_only_within_its_bounds_and_in_the_ways_that_were_allowed() {
    let cases: [(&str, Access, u64, i64); 4] = [
        ("read only", Access { read: true, ..Access::LOCAL }, 0, 0),
        ("for nobody", Access::LOCAL, 0, 0),
        ("beyond the end", Access::READ_WRITE, REGION as u64 - 999, 0),
        ("another key", Access::READ_WRITE, 0, 0x100),
    ];
    for (name, access, offset, key) in cases {
        let Some((mut near, far)) = connected() else { return };
        let region = MemoryRegion::allocate(&far.domain, REGION, access).unwrap();
        let place = region.place().further(offset);
        let to = RemotePlace { key: place.key.wrapping_add(key as u32), ..place };
        assert_eq!(write(&mut near, to), Err(Failure::RemoteAccess), "{name}");
    }
}

#[test]
fn a_read_of_a_revoked_region_fails_and_gives_nothing() {
    let Some((mut near, far)) = connected() else { return };
    far.fill(0, &pattern(1, 1000));
    let from = far.region.place();
    far.region.revoke().unwrap();
    let into = [near.region.segment(0, 1000).unwrap()];
    near.pair.post(&[Request::signalled(Operation::Read { into: &into, from })]).unwrap();
    assert_eq!(near.wait_failed(1), [(0, Failure::RemoteAccess)]);
    assert_eq!(near.bytes(0, 1000), [0; 1000]);
}

#[test]
fn a_region_that_is_dropped_under_its_requests_ends_them_and_frees_nothing_too_early() {
    // Soft-RoCE calls a local key that it does not know a failed operation.
    let known = [Failure::LocalProtection, Failure::LocalOperation, Failure::RemoteAccess, Failure::Flushed];
    for turn in 0..8 {
        let Some((mut near, far)) = connected() else { return };
        let region = near.region_beside();
        let parts = [region.segment(0, REGION).unwrap()];
        let request = write_of(Source::Regions(&parts), far.region.place());
        near.pair.post(&[request; 4]).unwrap();
        // Sometimes the device has not begun, sometimes it is in the midst, on either side.
        match turn % 2 {
            0 => drop(region),
            _ => far.region.revoke().unwrap(),
        }
        let mut ended = 0;
        while ended < 4 {
            for news in near.wait_for_answer_or_end() {
                ended += 1;
                match news {
                    News::Sent(_) => {}
                    News::Failed(Work::Send { .. }, failure) => {
                        assert!(known.contains(&failure), "{failure:?}");
                    }
                    _ => panic!("nothing is received here"),
                }
            }
        }
    }
}

#[test]
fn no_byte_changes_after_a_region_is_revoked_in_the_midst_of_a_write() {
    let mut caught = 0;
    for turn in 0..16 {
        let Some((mut near, far)) = connected() else { return };
        near.fill(0, &vec![0xff; REGION]);
        let parts = [near.region.segment(0, REGION).unwrap()];
        near.pair.post(&[write_of(Source::Regions(&parts), far.region.place())]).unwrap();
        // Not before some of it is there, another part with each turn.
        let until = far.region.word(turn * (REGION / 64)).unwrap();
        while until.load(SeqCst) == 0 {
            std::hint::spin_loop();
        }
        far.region.revoke().unwrap();
        let then = far.bytes(0, REGION);
        caught += usize::from(then.contains(&0));
        let whole = near.wait_for_answer_or_end().iter().all(|news| matches!(news, News::Sent(_)));
        assert!(!whole || !then.contains(&0), "a write that was cut off was told as done");
        assert!(far.bytes(0, REGION) == then);
    }
    println!("caught in the midst {caught} times of 16");
}

#[test]
fn a_connection_that_is_ended_flushes_every_request_also_the_quiet_ones() {
    let config = QueuePairConfig { timeout_power: 17, ..QueuePairConfig::default() };
    let Some((mut near, far)) = connected_with(config, 64) else { return };
    far.pair.fail().unwrap();
    assert_eq!(far.pair.state().unwrap(), State::Failed);
    near.pair.fail().unwrap();
    let quiet = Request::quiet(Operation::Send { from: Source::Regions(&[]), immediate: None });
    near.post(&[quiet; 20]);
    let failed = near.wait_failed(20);
    assert_eq!(failed, (0..20).map(|number| (number, Failure::Flushed)).collect::<Vec<_>>());
    assert_eq!(near.pair.room(), 128);
}

#[test]
fn a_peer_whose_queue_pair_is_gone_is_known_by_its_silence() {
    let config = QueuePairConfig { timeout_power: 12, retries: 2, ..QueuePairConfig::default() };
    let Some((mut near, far)) = connected_with(config, 64) else { return };
    drop(far.pair);
    let send = Request::signalled(Operation::Send { from: Source::Regions(&[]), immediate: None });
    near.post(&[send; 2]);
    assert_eq!(near.wait_failed(2), [(0, Failure::NoAnswer), (1, Failure::Flushed)]);
}

#[test]
fn a_message_that_is_too_long_for_a_buffer_ends_the_connection_at_both_ends() {
    let Some((mut near, mut far)) = connected() else { return };
    let parts = [near.region.segment(0, 5000).unwrap()];
    let send = Operation::Send { from: Source::Regions(&parts), immediate: None };
    near.pair.post(&[Request::signalled(send)]).unwrap();
    let failed = near.wait_failed(1);
    assert!(matches!(failed[..], [(0, Failure::RemoteRequest | Failure::RemoteOperation)]), "{failed:?}");
    let news = far.wait();
    // Soft-RoCE calls it a failed operation.
    let [News::Failed(Work::Receive { .. }, failure)] = news[..] else { panic!("{news:?}") };
    assert!([Failure::LocalLength, Failure::LocalOperation].contains(&failure), "{failure:?}");
}

#[test]
fn whatever_is_dropped_first_devices_are_closed_and_memory_is_freed() {
    for turn in 0..9 {
        let Some((mut near, far)) = connected() else { return };
        let devices = [&near, &far].map(|end| Arc::downgrade(end.domain.device()));
        let memories = [&near, &far].map(|end| Arc::downgrade(end.region.memory()));
        let parts = [near.region.segment(0, 5000).unwrap()];
        near.pair.post(&[write_of(Source::Regions(&parts), far.region.place())]).unwrap();
        let End { pair, region, receives, completions, domain, news: _ } = far;
        match turn % 3 {
            0 => drop((domain, completions, receives, region, pair, near)),
            1 => drop((region, near, pair, completions, receives, domain)),
            _ => drop((
                near.completions,
                near.domain,
                pair,
                receives,
                near.region,
                completions,
                region,
                domain,
            )),
        }
        // In the last case the near queue pair is still there, and holds its device.
        assert!(memories.iter().all(|memory| memory.upgrade().is_none()), "turn {turn}");
        assert!(turn % 3 == 2 || devices.iter().all(|device| device.upgrade().is_none()), "turn {turn}");
    }
}

#[test]
fn completions_of_one_queue_are_refused_by_another() {
    let Some((mut near, mut far)) = connected() else { return };
    let send = Operation::Send { from: Source::Regions(&[]), immediate: None };
    let sequence = near.post(&[Request::signalled(send)]);
    near.wait_sent(sequence);
    far.completions.poll(&mut far.news).unwrap();
    let completion = far.news.drain().next().unwrap();
    assert_eq!(near.receives.take(completion).err(), Some(Failure::Foreign));
}
