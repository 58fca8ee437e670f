//! What was told to be safe is there after a crash, wherever it strikes; damage is told from a torn end.

use super::*;
use crate::entry::{Entry, Payload, Recovered};
use crate::ids::{Member, Term, Ticket};
use crate::sim::disk::SimDisk;
use base::{NodeId, Prng};
use proptest::prelude::*;

const ID: DiskId = DiskId(0xd15c);

fn voters() -> Voters {
    Voters::of([Member { node: NodeId(1), disk: ID }])
}

fn entry(index: u64, term: u64) -> Entry {
    let stamp = Stamp { term: Term(term), index: Index(index) };
    Entry { stamp, payload: Payload::Command { origin: None, bytes: vec![index as u8; 20].into() } }
}

fn write(from: u64, to: u64, term: u64) -> Write {
    let hard = Some(HardState { term: Term(term), vote: None, commit: Index(from - 1) });
    Write {
        ticket: Ticket(0),
        hard,
        truncate: None,
        entries: (from..=to).map(|index| entry(index, term)).collect(),
    }
}

fn fresh() -> Store<SimDisk> {
    let mut disk = SimDisk::default();
    Store::create(&mut disk, ID, Some(voters())).unwrap();
    Store::open(disk).unwrap().0
}

fn again(store: Store<SimDisk>) -> (Store<SimDisk>, Recovered) {
    Store::open(store.into_disk()).unwrap()
}

fn indices(recovered: &Recovered) -> Vec<u64> {
    recovered.entries.iter().map(|entry| entry.stamp.index.0).collect()
}

#[test]
fn what_was_committed_is_read_again() {
    let mut store = fresh();
    store.write(&write(1, 3, 1));
    store.write(&Write { truncate: Some(Index(3)), ..write(3, 5, 2) });
    store.commit().unwrap();
    let (store, recovered) = again(store);
    assert_eq!(store.id(), ID);
    assert_eq!(recovered.hard, HardState { term: Term(2), vote: None, commit: Index(2) });
    assert_eq!(recovered.snapshot.voters, voters());
    assert_eq!(recovered.entries, [entry(1, 1), entry(2, 1), entry(3, 2), entry(4, 2), entry(5, 2)]);
}

#[test]
fn many_writes_cost_one_sync() {
    let mut store = fresh();
    let before = store.disk.syncs;
    (1..=64).for_each(|index| store.write(&write(index, index, 1)));
    store.commit().unwrap();
    store.commit().unwrap();
    assert_eq!(store.disk.syncs - before, 1);
}

#[test]
fn a_store_is_neither_overwritten_nor_made_by_opening() {
    let mut disk = SimDisk::default();
    assert!(matches!(Store::open(disk.clone()), Err(Error::NoStore)));
    Store::create(&mut disk, ID, None).unwrap();
    assert!(matches!(Store::create(&mut disk, ID, None), Err(Error::StoreExists)));
}

#[test]
fn after_a_full_disk_nothing_more_is_written_and_nothing_is_lost() {
    let mut store = fresh();
    store.write(&write(1, 3, 1));
    store.commit().unwrap();
    store.disk.full.set(true);
    store.write(&write(4, 9, 1));
    let error = store.commit().unwrap_err().to_string();
    assert!(
        error.contains("cannot write to log-0000000000000001") && error.contains("no space left"),
        "{error}"
    );
    store.disk.full.set(false);
    assert!(store.commit().is_err(), "what is in the file nobody knows");
    assert_eq!(indices(&again(store).1), [1, 2, 3]);
}

#[test]
fn a_broken_end_is_cut_off_and_a_broken_middle_is_told() {
    let mut store = fresh();
    store.write(&write(1, 3, 1));
    store.commit().unwrap();
    let middle = store.disk.length("log-0000000000000001") - 1;
    store.write(&write(4, 5, 1));
    store.commit().unwrap();
    let end = store.disk.length("log-0000000000000001") - 1;
    let disk = store.into_disk();
    let mut torn = disk.clone();
    torn.rot("log-0000000000000001", end, 1);
    let (mut store, recovered) = Store::open(torn).unwrap();
    assert_eq!(indices(&recovered), [1, 2, 3]);
    // The broken end is gone for good: what is written now is read again.
    store.write(&write(4, 4, 2));
    store.commit().unwrap();
    assert_eq!(indices(&again(store).1), [1, 2, 3, 4]);
    let mut rotten = disk;
    rotten.rot("log-0000000000000001", middle, 1);
    let error = Store::open(rotten).unwrap_err();
    assert!(matches!(&error, Error::Damaged { why, .. } if why.contains("a whole frame follows")), "{error}");
}

#[test]
fn every_rotten_byte_before_the_last_frame_is_noticed() {
    let mut store = fresh();
    store.write(&write(1, 2, 1));
    store.commit().unwrap();
    let last = store.disk.length("log-0000000000000001");
    store.write(&write(3, 3, 1));
    store.commit().unwrap();
    let disk = store.into_disk();
    let others = ["identity", "snapshot-0000000000000000"].map(|name| (name, disk.length(name)));
    for (name, length) in others.into_iter().chain([("log-0000000000000001", last)]) {
        for at in 0..length {
            let mut rotten = disk.clone();
            rotten.rot(name, at, 0x10);
            assert!(Store::open(rotten).is_err(), "byte {at} of {name}");
        }
    }
}

#[test]
fn segments_behind_a_snapshot_go_and_the_promises_stay() {
    let mut store = fresh();
    let heavy = |index: u64| Entry {
        payload: Payload::Command { origin: None, bytes: vec![1; 1 << 20].into() },
        ..entry(index, 1)
    };
    let hard =
        HardState { term: Term(7), vote: Some(Member { node: NodeId(3), disk: ID }), commit: Index(0) };
    store.write(&Write { hard: Some(hard), ..Write::default() });
    for index in 1..=30 {
        store.write(&Write { entries: vec![heavy(index)], ..Write::default() });
        store.commit().unwrap();
    }
    let logs =
        |store: &Store<SimDisk>| store.disk.list().unwrap().iter().filter(|n| n.starts_with("log-")).count();
    assert!(logs(&store) >= 4);
    let meta = SnapshotMeta { stamp: entry(28, 1).stamp, voters: voters() };
    store.save_snapshot(&meta, b"the state").unwrap();
    store.trim(Index(28)).unwrap();
    assert_eq!(logs(&store), 1);
    let (store, recovered) = again(store);
    assert_eq!((indices(&recovered), recovered.hard), (vec![29, 30], hard));
    assert_eq!(recovered.snapshot, meta);
    assert_eq!(&store.read_snapshot().unwrap()[..], b"the state");
    assert!(!store.disk.list().unwrap().contains(&"snapshot-0000000000000000".to_owned()));
}

#[test]
fn a_snapshot_comes_in_by_pieces_and_takes_the_place_of_the_log() {
    let mut store = fresh();
    store.write(&write(1, 3, 1));
    let meta = SnapshotMeta { stamp: entry(100, 4).stamp, voters: voters() };
    assert!(store.install(&meta).is_err(), "nothing came in");
    store.take_chunk(&meta, 0, b"the ", 9).unwrap();
    store.take_chunk(&meta, 4, b"sta", 9).unwrap();
    store.take_chunk(&meta, 4, b"sta", 9).unwrap();
    store.take_chunk(&meta, 7, b"te", 9).unwrap();
    store.install(&meta).unwrap();
    store.write(&write(101, 102, 4));
    store.commit().unwrap();
    let (store, recovered) = again(store);
    assert_eq!((indices(&recovered), recovered.snapshot), (vec![101, 102], meta.clone()));
    assert_eq!(store.read_chunk(meta.stamp, 4, 3).unwrap(), Some(("sta".into(), 9)));
    assert_eq!(store.read_chunk(Stamp::default(), 0, 3).unwrap(), None);
}

#[test]
fn a_log_that_the_snapshot_does_not_fit_to_is_left_behind() {
    // The snapshot was named, and the crash came before the log was emptied.
    let mut store = fresh();
    store.write(&write(1, 9, 1));
    store.commit().unwrap();
    let meta = SnapshotMeta { stamp: entry(5, 3).stamp, voters: voters() };
    store.save_snapshot(&meta, b"").unwrap();
    let (mut store, recovered) = again(store);
    assert_eq!(indices(&recovered), [0; 0]);
    store.write(&write(6, 7, 3));
    store.commit().unwrap();
    assert_eq!(indices(&again(store).1), [6, 7]);
}

/// One life of a store: what it was told to be safe, by the number of the last entry.
fn live(
    store: &mut Store<SimDisk>,
    prng: &mut Prng,
    last: &mut u64,
    snapshot: &mut u64,
) -> Result<u64, Error> {
    let mut safe = *last;
    for _ in 0..prng.below(12) {
        match prng.below(8) {
            0 => store.commit().map(|()| safe = *last)?,
            1 if safe > *snapshot => {
                *snapshot = safe;
                let meta = SnapshotMeta { stamp: entry(safe, 1).stamp, voters: voters() };
                store.save_snapshot(&meta, &[safe as u8; 30])?;
            }
            2 => store.trim(Index(*snapshot))?,
            3 => store.flush()?,
            _ => {
                let more = 1 + prng.below(5);
                store.write(&write(*last + 1, *last + more, 1));
                *last += more;
            }
        }
    }
    Ok(safe)
}

#[test]
fn a_crash_at_any_time_keeps_what_was_safe() {
    for seed in 0..400 {
        let mut prng = Prng::new(seed);
        let (mut store, mut last, mut snapshot) = (fresh(), 0, 0);
        for _ in 0..6 {
            let safe = live(&mut store, &mut prng, &mut last, &mut snapshot).unwrap();
            let mut disk = store.into_disk();
            disk.crash(&mut prng);
            let (opened, recovered) =
                Store::open(disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            store = opened;
            let kept = recovered
                .entries
                .last()
                .map_or(recovered.snapshot.stamp.index.0, |entry| entry.stamp.index.0);
            assert!(kept >= safe, "seed {seed}: {safe} was safe, {kept} is there");
            assert!(
                recovered.entries.iter().all(|found| *found == entry(found.stamp.index.0, 1)),
                "seed {seed}"
            );
            last = kept;
        }
    }
}

#[test]
fn a_disk_that_lies_is_noticed() {
    let lost = (0..50).any(|seed| {
        let mut prng = Prng::new(seed);
        let (mut store, mut last, mut snapshot) = (fresh(), 0, 0);
        store.disk.lies = true;
        let safe = live(&mut store, &mut prng, &mut last, &mut snapshot).unwrap();
        let mut disk = store.into_disk();
        disk.crash(&mut prng);
        let kept = Store::open(disk).map(|(_, recovered)| recovered.entries.len() as u64);
        kept.map_or(true, |kept| kept + snapshot < safe)
    });
    assert!(lost, "the crashes of these tests take something from those who do not sync");
}

#[test]
fn a_crash_while_it_is_made_leaves_a_store_or_none() {
    for seed in 0..200 {
        let mut prng = Prng::new(seed);
        let mut disk = SimDisk::default();
        Store::create(&mut disk, ID, Some(voters())).unwrap();
        disk.crash(&mut prng);
        assert_eq!(Store::open(disk).unwrap().1.snapshot.voters, voters(), "seed {seed}");
    }
}

#[test]
fn a_directory_keeps_a_store_and_one_process_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Directory::at(dir.path()).unwrap();
    assert!(Directory::at(dir.path()).is_err(), "it is taken");
    Store::create(&mut disk, ID, Some(voters())).unwrap();
    let (mut store, _) = Store::open(disk).unwrap();
    store.write(&write(1, 5, 1));
    store.commit().unwrap();
    let meta = SnapshotMeta { stamp: entry(3, 1).stamp, voters: voters() };
    store.save_snapshot(&meta, b"the state").unwrap();
    assert_eq!(store.read_chunk(meta.stamp, 4, 100).unwrap(), Some(("state".into(), 9)));
    drop(store);
    let (_, recovered) = Store::open(Directory::at(dir.path()).unwrap()).unwrap();
    assert_eq!((indices(&recovered), recovered.snapshot), (vec![4, 5], meta));
}

proptest! {
    #[test]
    fn garbage_in_a_segment_is_an_error_or_cut_off(garbage in prop::collection::vec(any::<u8>(), 1..300)) {
        let mut store = fresh();
        store.write(&write(1, 3, 1));
        store.commit().unwrap();
        let mut disk = store.into_disk();
        disk.append("log-0000000000000001", &garbage).unwrap();
        prop_assert_eq!(indices(&Store::open(disk).unwrap().1), [1, 2, 3]);
    }

    #[test]
    fn garbage_as_records_or_snapshot_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        if let Ok(records) = super::frame::records(bytes.clone()) {
            let mut body = Vec::new();
            records.iter().for_each(|record| put_record(record, &mut body));
            prop_assert_eq!(super::frame::records(body.into()).unwrap(), records);
        }
        prop_assert!(super::snapshot::check(&bytes).is_err());
    }
}
