//! The file of a snapshot: what it stands for, its bytes, their checksum.
//!
//! Invariant: a file that bears a snapshot's name is whole: it was written under another name, synced, then renamed.

use super::disk::Disk;
use crate::entry::SnapshotMeta;
use crate::ids::{Index, Stamp};
use crate::wire;
use bytes::{Buf, Bytes};

const MAGIC: [u8; 8] = *b"SSIRSNP1";
const HEADER_BYTES: usize = 24;
const TRAILER_BYTES: u64 = 4;

/// A snapshot on disk.
#[derive(Clone, Debug)]
pub struct SnapshotFile {
    /// What it stands for.
    pub meta: SnapshotMeta,
    /// How many bytes the state machine has put into it.
    pub size: u64,
    data_at: u64,
}

/// The name of the snapshot up to an entry.
pub fn name_of(index: Index) -> String {
    format!("snapshot-{:016x}", index.0)
}

/// The entry up to which a file of this name is a snapshot.
pub fn index_of(name: &str) -> Option<Index> {
    u64::from_str_radix(name.strip_prefix("snapshot-")?, 16).ok().map(Index)
}

/// What stands before the bytes.
pub fn header(meta: &SnapshotMeta, size: u64) -> Vec<u8> {
    let meta = wire::encode_meta(meta);
    let mut bytes = Vec::from(MAGIC);
    bytes.extend_from_slice(&size.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(meta.len()).expect("24 members at most").to_le_bytes());
    let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes), &meta);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes.extend_from_slice(&meta);
    bytes
}

/// A whole file.
pub fn file(meta: &SnapshotMeta, data: &[u8]) -> Vec<u8> {
    let mut bytes = header(meta, data.len() as u64);
    bytes.extend_from_slice(data);
    bytes.extend_from_slice(&crc32c::crc32c(data).to_le_bytes());
    bytes
}

/// What a file is a snapshot of.
///
/// # Errors
/// Why it is none, and at which byte.
pub fn check(bytes: &Bytes) -> Result<SnapshotFile, (u64, String)> {
    let head =
        bytes.get(..HEADER_BYTES).filter(|head| head[..8] == MAGIC).ok_or((0, "no snapshot".to_owned()))?;
    let mut fields = &head[8..];
    let size = fields.get_u64_le();
    let length = usize::try_from(fields.get_u32_le()).unwrap_or(usize::MAX);
    let sum = fields.get_u32_le();
    let data_at = HEADER_BYTES.saturating_add(length);
    let meta = bytes.get(HEADER_BYTES..data_at).ok_or((8, "it is cut off".to_owned()))?;
    if crc32c::crc32c_append(crc32c::crc32c(&head[..20]), meta) != sum {
        return Err((0, "the checksum of its header is wrong".to_owned()));
    }
    let meta =
        wire::decode_meta(bytes.slice(HEADER_BYTES..data_at)).map_err(|error| (24, error.to_string()))?;
    let data_at = data_at as u64;
    if bytes.len() as u64 != data_at.saturating_add(size).saturating_add(TRAILER_BYTES) {
        return Err((bytes.len() as u64, format!("it is not as long as it says ({size} bytes of data)")));
    }
    let (data, mut trailer) = bytes[data_at as usize..].split_at(size as usize);
    if crc32c::crc32c(data) != trailer.get_u32_le() {
        return Err((data_at, "the checksum of its data is wrong".to_owned()));
    }
    Ok(SnapshotFile { meta, size, data_at })
}

impl SnapshotFile {
    /// A file that was just written.
    pub fn written(meta: SnapshotMeta, size: u64) -> SnapshotFile {
        let data_at = header(&meta, size).len() as u64;
        SnapshotFile { meta, size, data_at }
    }

    /// Its name.
    pub fn name(&self) -> String {
        name_of(self.meta.stamp.index)
    }

    /// A piece of its data.
    ///
    /// # Errors
    /// What the disk says.
    pub fn piece<D: Disk>(&self, disk: &D, offset: u64, length: usize) -> std::io::Result<Bytes> {
        let rest = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        disk.read_at(&self.name(), self.data_at.saturating_add(offset), length.min(rest))
    }
}

/// A snapshot that is coming in.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Which.
    pub stamp: Stamp,
    /// How many bytes it will have.
    pub size: u64,
    /// How many are there.
    pub length: u64,
    /// Their checksum.
    pub sum: u32,
}
