//! Opening a store: what was written is read again, from the oldest segment to the newest.
//!
//! Invariant: nothing that was told to be safe is left out: it is read, or opening fails and says where the damage is.

use super::disk::Disk;
use super::frame::{Record, frame_at, later_frame, records};
use super::snapshot::{self, SnapshotFile};
use super::{IDENTITY, Segment, Store, failed};
use crate::entry::{Entry, HardState, Recovered, SnapshotMeta};
use crate::error::Error;
use crate::ids::{DiskId, Index, Stamp};
use bytes::{Buf, Bytes};
use std::collections::VecDeque;

/// Bytes before the first frame of a segment.
const SEGMENT_HEADER_BYTES: usize = 36;
const SEGMENT_MAGIC: [u8; 8] = *b"SSIRLOG1";
const IDENTITY_MAGIC: [u8; 8] = *b"SSIRLID1";

/// The file that says which disk this is.
pub(super) fn identity_file(disk: DiskId) -> Vec<u8> {
    let mut bytes = Vec::from(IDENTITY_MAGIC);
    bytes.extend_from_slice(&disk.0.to_le_bytes());
    let sum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

fn identity_of(bytes: &[u8]) -> Option<DiskId> {
    let (content, mut sum) = bytes.split_at_checked(24)?;
    let whole =
        bytes.len() == 28 && content[..8] == IDENTITY_MAGIC && crc32c::crc32c(content) == sum.get_u32_le();
    whole.then(|| DiskId((&content[8..]).get_u128_le()))
}

/// What stands before the first frame.
pub(super) fn segment_header(disk: DiskId, number: u64) -> Vec<u8> {
    let mut bytes = Vec::from(SEGMENT_MAGIC);
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&disk.0.to_le_bytes());
    let sum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

/// What the frames have said so far.
#[derive(Default)]
struct Replay {
    hard: HardState,
    entries: Vec<Entry>,
    next: Option<Index>,
    frame: Option<u64>,
}

impl Replay {
    fn take(&mut self, record: Record) -> Result<Index, String> {
        match record {
            Record::Hard(hard) => self.hard = hard,
            Record::Truncate(from) => {
                let kept = self.entries.partition_point(|entry| entry.stamp.index < from);
                self.entries.truncate(kept);
                self.next = Some(from);
            }
            Record::Reset(stamp) => {
                self.entries.clear();
                self.next = Some(stamp.index.next());
            }
            Record::Entry(entry) => {
                let index = entry.stamp.index;
                if self.next.is_some_and(|next| next != index) {
                    return Err(format!(
                        "entry {index} follows entry {}",
                        self.next.unwrap_or_default().before()
                    ));
                }
                self.next = Some(index.next());
                self.entries.push(entry);
                return Ok(index);
            }
        }
        Ok(Index(0))
    }
}

impl<D: Disk> Store<D> {
    /// Opens what [`Store::create`] has made. A broken end that a crash has left is cut off.
    ///
    /// # Errors
    /// [`Error::NoStore`]; [`Error::Damaged`]: something that was safe is there no more; [`Error::Disk`].
    pub fn open(mut disk: D) -> Result<(Store<D>, Recovered), Error> {
        let mut names = disk.list().map_err(|source| failed("list", "the directory", source))?;
        names.sort_unstable();
        if !names.iter().any(|name| name == IDENTITY) {
            return Err(Error::NoStore);
        }
        let bytes = disk.read(IDENTITY).map_err(|source| failed("read", IDENTITY, source))?;
        let id = identity_of(&bytes).ok_or_else(|| damaged(IDENTITY, 0, "no identity"))?;
        let snapshot = newest_snapshot(&mut disk, &names)?;
        let mut replay = Replay::default();
        let (segments, length) = read_segments(&mut disk, &names, id, &mut replay)?;
        let frame = replay.frame.map_or(1, |last| last + 1);
        let (entries, fits) = behind(&snapshot.meta, replay.entries, segments.front())?;
        let hard = replay.hard;
        let recovered = Recovered { hard, snapshot: snapshot.meta.clone(), entries };
        let mut store = Store {
            disk,
            id,
            segments,
            length,
            frame,
            body: Vec::new(),
            body_last: Index(0),
            unsynced: false,
            hard,
            snapshot,
            incoming: None,
            broken: None,
        };
        if !fits {
            store.put(&Record::Reset(recovered.snapshot.stamp));
            store.commit()?;
        }
        Ok((store, recovered))
    }
}

fn damaged(file: &str, at: u64, why: impl Into<String>) -> Error {
    Error::Damaged { file: file.to_owned(), at, why: why.into() }
}

/// Finds the newest snapshot and removes older ones, and what is half made.
fn newest_snapshot<D: Disk>(disk: &mut D, names: &[String]) -> Result<SnapshotFile, Error> {
    let newest = names.iter().rfind(|name| snapshot::index_of(name).is_some());
    let Some(newest) = newest else { return Err(damaged("snapshot", 0, "there is none")) };
    let bytes = disk.read(newest).map_err(|source| failed("read", newest, source))?;
    let file = snapshot::check(&bytes).map_err(|(at, why)| damaged(newest, at, why))?;
    if file.name() != *newest {
        return Err(damaged(newest, 24, format!("it is the snapshot up to entry {}", file.meta.stamp.index)));
    }
    let old = names.iter().filter(|name| *name != newest && snapshot::index_of(name).is_some());
    for name in old.chain(names.iter().filter(|name| super::TEMPORARY.contains(&name.as_str()))) {
        disk.remove(name).map_err(|source| failed("remove", name, source))?;
    }
    Ok(file)
}

/// Reads all segments; gives them and the length of the last.
fn read_segments<D: Disk>(
    disk: &mut D,
    names: &[String],
    id: DiskId,
    replay: &mut Replay,
) -> Result<(VecDeque<Segment>, u64), Error> {
    let numbers: Vec<u64> = names.iter().filter_map(|name| Segment::number_of(name)).collect();
    let mut segments = VecDeque::new();
    let mut length = 0;
    for (place, &number) in numbers.iter().enumerate() {
        let name = Segment::name_of(number);
        if place > 0 && numbers[place - 1] + 1 != number {
            return Err(damaged(&name, 0, "the segment before it is missing"));
        }
        let is_last = place + 1 == numbers.len();
        let bytes = disk.read(&name).map_err(|source| failed("read", &name, source))?;
        let segment = Segment { number, last: Index(0) };
        if bytes.get(..SEGMENT_HEADER_BYTES) != Some(&segment_header(id, number)[..]) {
            if !is_last || bytes.len() > SEGMENT_HEADER_BYTES {
                return Err(damaged(&name, 0, "its header is wrong, or of another disk"));
            }
            // It was being made.
            length = super::begin_segment(disk, id, number)?;
            segments.push_back(segment);
            continue;
        }
        let (segment, end) = read_frames(id, segment, &bytes, is_last, replay)?;
        if end < bytes.len() {
            disk.truncate(&name, end as u64).map_err(|source| failed("cut off", &name, source))?;
            disk.sync(&name).map_err(|source| failed("sync", &name, source))?;
        }
        length = end as u64;
        segments.push_back(segment);
    }
    if segments.is_empty() {
        return Err(damaged("log", 0, "there is no segment"));
    }
    Ok((segments, length))
}

fn read_frames(
    id: DiskId,
    mut segment: Segment,
    bytes: &Bytes,
    is_last: bool,
    replay: &mut Replay,
) -> Result<(Segment, usize), Error> {
    let name = Segment::name_of(segment.number);
    let mut at = SEGMENT_HEADER_BYTES;
    while at < bytes.len() {
        let Some((number, body, end)) = frame_at(id, bytes, at) else {
            let later = later_frame(id, bytes, at, replay.frame.unwrap_or(0));
            if let Some(later) = later {
                return Err(damaged(&name, at as u64, format!("a whole frame follows at byte {later}")));
            }
            if !is_last {
                return Err(damaged(&name, at as u64, "a frame is broken, and there is a later segment"));
            }
            break;
        };
        if replay.frame.is_some_and(|last| last + 1 != number) {
            return Err(damaged(
                &name,
                at as u64,
                format!("frame {number} does not follow the one before it"),
            ));
        }
        replay.frame = Some(number);
        for record in records(body).map_err(|error| damaged(&name, at as u64, error.to_string()))? {
            let index = replay.take(record).map_err(|why| damaged(&name, at as u64, why))?;
            segment.last = segment.last.max(index);
        }
        at = end;
    }
    Ok((segment, at))
}

/// The entries that follow the snapshot; and whether the log on disk goes on from them.
fn behind(
    meta: &SnapshotMeta,
    mut entries: Vec<Entry>,
    first: Option<&Segment>,
) -> Result<(Vec<Entry>, bool), Error> {
    let Stamp { index, .. } = meta.stamp;
    let (Some(begin), Some(end)) = (entries.first(), entries.last()) else {
        return Ok((entries, false));
    };
    if begin.stamp.index > index.next() {
        let name = first.map_or(String::new(), |first| Segment::name_of(first.number));
        return Err(damaged(
            &name,
            0,
            format!("the entries between {index} and {} are missing", begin.stamp.index),
        ));
    }
    // A snapshot came in, and the crash came before the log was emptied behind it.
    let known = entries.iter().find(|entry| entry.stamp.index == index);
    if end.stamp.index < index || known.is_some_and(|entry| entry.stamp != meta.stamp) {
        return Ok((Vec::new(), false));
    }
    entries.retain(|entry| entry.stamp.index > index);
    Ok((entries, true))
}
