//! Atomic words, where the device has them and they are right.

use crate::world::{connected, rails};
use fabric::verbs::{Atomics, Operation, Request, probe};
use std::sync::atomic::Ordering::SeqCst;

/// True if the near rail's device can do it by trial; else a word about it.
fn are_right() -> bool {
    let Some((near, _)) = rails() else { return false };
    let capabilities = probe(&near.device, near.address).unwrap();
    if !capabilities.atomics {
        println!("skipped: the device's atomics are not right: {:?}", near.device.limits().atomics);
    }
    capabilities.atomics
}

#[test]
fn a_trial_tells_what_a_device_can() {
    let Some((near, _)) = rails() else { return };
    let capabilities = probe(&near.device, near.address).unwrap();
    println!("{}: {capabilities:?}, limits {:?}", near.device.name(), near.device.limits());
    assert!(capabilities.write_immediate);
    assert!(!capabilities.atomics || near.device.limits().atomics != Atomics::None);
}

#[test]
fn adding_gives_each_adder_another_old_word() {
    if !are_right() {
        return;
    }
    let (mut near, far) = connected().unwrap();
    far.region.word(64).unwrap().store(1000, SeqCst);
    let at = far.region.place().further(64);
    let olds: Vec<_> = (0..20).map(|place| near.region.segment(place * 8, 8).unwrap()).collect();
    let add = |old: &_| Request::signalled(Operation::FetchAdd { old: *old, at, add: 3 });
    let requests: Vec<Request> = olds.iter().map(add).collect();
    let first = near.pair.post(&requests).unwrap();
    near.wait_sent(first + 19);
    let old: Vec<_> = (0..20).map(|place| near.region.word(place * 8).unwrap().load(SeqCst)).collect();
    assert_eq!(old, (0..20).map(|turn| 1000 + 3 * turn).collect::<Vec<_>>());
    assert_eq!(far.region.word(64).unwrap().load(SeqCst), 1060);
}

#[test]
fn a_swap_changes_the_word_only_if_it_is_the_expected_one() {
    if !are_right() {
        return;
    }
    let (mut near, far) = connected().unwrap();
    far.region.word(8).unwrap().store(u64::MAX, SeqCst);
    let at = far.region.place().further(8);
    for (expected, desired, before, after) in
        [(5, 6, u64::MAX, u64::MAX), (u64::MAX, 6, u64::MAX, 6), (6, 1 << 63, 6, 1 << 63)]
    {
        let old = near.region.segment(0, 8).unwrap();
        let swap = Operation::CompareSwap { old, at, expected, desired };
        let sequence = near.pair.post(&[Request::signalled(swap)]).unwrap();
        near.wait_sent(sequence);
        let words = (near.region.word(0).unwrap(), far.region.word(8).unwrap());
        assert_eq!((words.0.load(SeqCst), words.1.load(SeqCst)), (before, after));
    }
}

#[test]
fn words_that_are_not_aligned_are_refused_here() {
    let Some((near, _far)) = connected() else { return };
    assert!(near.region.word(4).is_err() && near.region.word(8).is_ok());
    assert!(near.region.word(crate::world::REGION - 4).is_err());
}
