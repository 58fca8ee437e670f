//! The store: the log in segment files, the promises in it, and the newest snapshot.
//!
//! ```text
//!   identity             which disk this is
//!   log-0000000000000007 segments: frames, one a group commit, each all or nothing
//!   log-0000000000000008
//!   snapshot-000000000000a120   the state after that entry
//!   incoming, making     half a snapshot; worth nothing
//! ```
//!
//! Invariant: what [`Store::commit`] has returned from survives a crash, in that order and whole. After an error nothing
//! more is written: what a failed sync has left nobody knows.

pub mod disk;
mod frame;
mod open;
mod snapshot;

pub use disk::{Directory, Disk};

use crate::entry::{HardState, SnapshotMeta, Write};
use crate::error::Error;
use crate::ids::{DiskId, Index, Stamp};
use crate::voters::Voters;
use bytes::Bytes;
use frame::{Record, frame, put_record};
use snapshot::{Incoming, SnapshotFile};
use std::collections::VecDeque;
use std::io;

/// A segment that has so many bytes is not written on.
pub const SEGMENT_BYTES_MAX: u64 = 8 << 20;

const IDENTITY: &str = "identity";
const INCOMING: &str = "incoming";
const MAKING: &str = "making";
const TEMPORARY: [&str; 3] = [INCOMING, MAKING, "identity.new"];

/// One segment file.
#[derive(Clone, Copy, Debug)]
struct Segment {
    number: u64,
    /// The largest place of an entry in it.
    last: Index,
}

impl Segment {
    fn name_of(number: u64) -> String {
        format!("log-{number:016x}")
    }

    fn number_of(name: &str) -> Option<u64> {
        u64::from_str_radix(name.strip_prefix("log-")?, 16).ok()
    }
}

/// A member's disk.
#[derive(Debug)]
pub struct Store<D> {
    disk: D,
    id: DiskId,
    segments: VecDeque<Segment>,
    /// Bytes of the last segment.
    length: u64,
    /// The number of the next frame.
    frame: u64,
    body: Vec<u8>,
    body_last: Index,
    unsynced: bool,
    hard: HardState,
    snapshot: SnapshotFile,
    incoming: Option<Incoming>,
    broken: Option<String>,
}

fn failed(action: &'static str, file: &str, source: io::Error) -> Error {
    Error::Disk { action, file: file.to_owned(), source }
}

/// Makes an empty segment, safely; gives its length.
fn begin_segment<D: Disk>(disk: &mut D, id: DiskId, number: u64) -> Result<u64, Error> {
    let name = Segment::name_of(number);
    let header = open::segment_header(id, number);
    let made = disk.create(&name).and_then(|()| disk.append(&name, &header)).and_then(|()| disk.sync(&name));
    made.and_then(|()| disk.sync_dir()).map_err(|source| failed("create", &name, source))?;
    Ok(header.len() as u64)
}

impl<D: Disk> Store<D> {
    /// Makes a store in an empty directory. `first` are the first voters, if this member is one of them; a member that
    /// joins a log later knows none.
    ///
    /// # Errors
    /// [`Error::StoreExists`], [`Error::Disk`].
    pub fn create(disk: &mut D, id: DiskId, first: Option<Voters>) -> Result<(), Error> {
        let names = disk.list().map_err(|source| failed("list", "the directory", source))?;
        if names.iter().any(|name| name == IDENTITY) {
            return Err(Error::StoreExists);
        }
        let meta = SnapshotMeta { voters: first.unwrap_or_default(), ..SnapshotMeta::default() };
        write_snapshot(disk, &meta, &[])?;
        begin_segment(disk, id, 1)?;
        let temporary = "identity.new";
        let bytes = open::identity_file(id);
        let made = disk.create(temporary).and_then(|()| disk.append(temporary, &bytes));
        let made = made.and_then(|()| disk.sync(temporary)).and_then(|()| disk.rename(temporary, IDENTITY));
        made.and_then(|()| disk.sync_dir()).map_err(|source| failed("create", IDENTITY, source))
    }

    /// Which disk this is.
    pub fn id(&self) -> DiskId {
        self.id
    }

    /// What the newest snapshot stands for.
    pub fn snapshot(&self) -> &SnapshotMeta {
        &self.snapshot.meta
    }

    /// Notes a write; it is safe after the next [`Store::commit`].
    pub fn write(&mut self, write: &Write) {
        if let Some(hard) = write.hard {
            self.hard = hard;
            self.put(&Record::Hard(hard));
        }
        if let Some(from) = write.truncate {
            self.put(&Record::Truncate(from));
        }
        for entry in &write.entries {
            self.body_last = self.body_last.max(entry.stamp.index);
            self.put(&Record::Entry(entry.clone()));
        }
    }

    fn put(&mut self, record: &Record) {
        put_record(record, &mut self.body);
    }

    /// Makes everything noted so far safe, by one write and one sync.
    ///
    /// # Errors
    /// [`Error::Disk`]: this store is at its end.
    pub fn commit(&mut self) -> Result<(), Error> {
        self.flush()?;
        self.sync()
    }

    /// Writes what was noted, and does not wait until it is safe.
    ///
    /// # Errors
    /// [`Error::Disk`]: this store is at its end.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.unbroken()?;
        let outcome = self.flush_frame();
        self.judge(outcome)
    }

    fn flush_frame(&mut self) -> Result<(), Error> {
        if self.body.is_empty() {
            return Ok(());
        }
        // A frame follows only one that is safe, and so does a segment.
        self.sync_last()?;
        if self.length >= SEGMENT_BYTES_MAX {
            self.rotate()?;
        }
        let bytes = frame(self.id, self.frame, &self.body);
        let Some(last) = self.segments.back_mut() else { return Ok(()) };
        let name = Segment::name_of(last.number);
        last.last = last.last.max(self.body_last);
        self.unsynced = true;
        self.disk.append(&name, &bytes).map_err(|source| failed("write to", &name, source))?;
        self.length += bytes.len() as u64;
        self.frame += 1;
        self.body.clear();
        self.body_last = Index(0);
        Ok(())
    }

    /// A new segment begins with the promises, so that those before it can go.
    fn rotate(&mut self) -> Result<(), Error> {
        let number = self.segments.back().map_or(1, |last| last.number + 1);
        self.length = begin_segment(&mut self.disk, self.id, number)?;
        self.segments.push_back(Segment { number, last: Index(0) });
        let mut body = Vec::with_capacity(self.body.len() + 64);
        put_record(&Record::Hard(self.hard), &mut body);
        body.append(&mut self.body);
        self.body = body;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Error> {
        self.unbroken()?;
        let outcome = self.sync_last();
        self.judge(outcome)
    }

    fn sync_last(&mut self) -> Result<(), Error> {
        if let Some(last) = self.segments.back().filter(|_| self.unsynced) {
            let name = Segment::name_of(last.number);
            self.disk.sync(&name).map_err(|source| failed("sync", &name, source))?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// A piece of a snapshot that is coming in. At offset 0 a new one begins; a piece that does not follow the one before it
    /// is left out.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub fn take_chunk(
        &mut self,
        meta: &SnapshotMeta,
        offset: u64,
        bytes: &[u8],
        size: u64,
    ) -> Result<(), Error> {
        self.unbroken()?;
        let fault = |source| failed("write to", INCOMING, source);
        if offset == 0 {
            self.disk.create(INCOMING).map_err(fault)?;
            self.disk.append(INCOMING, &snapshot::header(meta, size)).map_err(fault)?;
            self.incoming = Some(Incoming { stamp: meta.stamp, size, length: 0, sum: 0 });
        }
        let Some(incoming) = &mut self.incoming else { return Ok(()) };
        if incoming.stamp == meta.stamp && incoming.length == offset {
            self.disk.append(INCOMING, bytes).map_err(fault)?;
            incoming.length += bytes.len() as u64;
            incoming.sum = crc32c::crc32c_append(incoming.sum, bytes);
        }
        Ok(())
    }

    /// Makes the snapshot that came in the newest one, and the log empty behind it.
    ///
    /// # Errors
    /// [`Error::Malformed`]: it is not whole; [`Error::Disk`].
    pub fn install(&mut self, meta: &SnapshotMeta) -> Result<(), Error> {
        self.commit()?;
        let whole = |incoming: &Incoming| incoming.stamp == meta.stamp && incoming.length == incoming.size;
        let Some(incoming) = self.incoming.take().filter(whole) else {
            return Err(Error::Malformed(format!("the snapshot {:?} did not come in whole", meta.stamp)));
        };
        let sum = incoming.sum.to_le_bytes();
        let made = self.disk.append(INCOMING, &sum).and_then(|()| self.disk.sync(INCOMING));
        made.map_err(|source| failed("write to", INCOMING, source))?;
        self.adopt(INCOMING, SnapshotFile::written(meta.clone(), incoming.size))?;
        self.put(&Record::Reset(meta.stamp));
        self.commit()
    }

    /// Writes down a snapshot of this member's own making. An older one than is there is left out.
    ///
    /// # Errors
    /// [`Error::Disk`]: there is the one before, still.
    pub fn save_snapshot(&mut self, meta: &SnapshotMeta, data: &[u8]) -> Result<(), Error> {
        self.unbroken()?;
        if meta.stamp.index <= self.snapshot.meta.stamp.index {
            return Ok(());
        }
        let bytes = snapshot::file(meta, data);
        let made = self.disk.create(MAKING).and_then(|()| self.disk.append(MAKING, &bytes));
        made.and_then(|()| self.disk.sync(MAKING)).map_err(|source| failed("write to", MAKING, source))?;
        self.adopt(MAKING, SnapshotFile::written(meta.clone(), data.len() as u64))
    }

    /// A file becomes the newest snapshot.
    fn adopt(&mut self, temporary: &str, file: SnapshotFile) -> Result<(), Error> {
        let (name, old) = (file.name(), self.snapshot.name());
        let named = self.disk.rename(temporary, &name).and_then(|()| self.disk.sync_dir());
        named.map_err(|source| failed("name", &name, source))?;
        self.snapshot = file;
        if old != name {
            self.disk.remove(&old).map_err(|source| failed("remove", &old, source))?;
        }
        Ok(())
    }

    /// Removes segments that hold nothing behind `upto`, which a snapshot has.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub fn trim(&mut self, upto: Index) -> Result<(), Error> {
        self.unbroken()?;
        while self.segments.len() > 1 && self.segments.front().is_some_and(|first| first.last <= upto) {
            let Some(first) = self.segments.pop_front() else { break };
            let name = Segment::name_of(first.number);
            // One by one: after a crash there must be no gap.
            let removed = self.disk.remove(&name).and_then(|()| self.disk.sync_dir());
            removed.map_err(|source| failed("remove", &name, source))?;
        }
        Ok(())
    }

    /// All bytes of the newest snapshot.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub fn read_snapshot(&self) -> Result<Bytes, Error> {
        let length = usize::try_from(self.snapshot.size).unwrap_or(usize::MAX);
        let whole = self.snapshot.piece(&self.disk, 0, length);
        whole.map_err(|source| failed("read", &self.snapshot.name(), source))
    }

    /// A piece of the snapshot with this stamp, and how many bytes it has in all; `None`: it is not the newest any more.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub fn read_chunk(
        &self,
        stamp: Stamp,
        offset: u64,
        length: usize,
    ) -> Result<Option<(Bytes, u64)>, Error> {
        if self.snapshot.meta.stamp != stamp {
            return Ok(None);
        }
        let piece = self.snapshot.piece(&self.disk, offset, length);
        let piece = piece.map_err(|source| failed("read", &self.snapshot.name(), source))?;
        Ok(Some((piece, self.snapshot.size)))
    }

    /// The disk, given back.
    pub fn into_disk(self) -> D {
        self.disk
    }

    fn unbroken(&self) -> Result<(), Error> {
        match &self.broken {
            Some(why) => Err(Error::Ended(why.clone())),
            None => Ok(()),
        }
    }

    fn judge(&mut self, outcome: Result<(), Error>) -> Result<(), Error> {
        if let Err(error) = &outcome {
            self.broken = Some(error.to_string());
        }
        outcome
    }
}

/// Writes a whole snapshot under its name.
fn write_snapshot<D: Disk>(disk: &mut D, meta: &SnapshotMeta, data: &[u8]) -> Result<(), Error> {
    let name = snapshot::name_of(meta.stamp.index);
    let made = disk.create(MAKING).and_then(|()| disk.append(MAKING, &snapshot::file(meta, data)));
    let made = made.and_then(|()| disk.sync(MAKING)).and_then(|()| disk.rename(MAKING, &name));
    made.and_then(|()| disk.sync_dir()).map_err(|source| failed("create", &name, source))
}

#[cfg(test)]
#[path = "store/tests.rs"]
mod tests;
