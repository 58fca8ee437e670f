//! Where metadata rests: an ordered map of small records, changed by atomic batches.
//!
//! Two of them: [`Memory`] for tests of the core, [`Disk`] (fjall) for the server. A batch is in the operating system's
//! hands when `commit` returns (it survives SIGKILL of the daemon) and on disk after `persist`.

use crate::error::Error;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;

/// The records to write (`Some`) and to remove (`None`) together.
pub type Batch = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A record as it is read: its key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// An ordered map with atomic batches.
pub trait Store: Send + 'static {
    /// The value at `key`.
    ///
    /// # Errors
    /// The store's files cannot be read.
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;

    /// At most `limit` rows with this prefix, from key `from` on, in order.
    ///
    /// # Errors
    /// The store's files cannot be read.
    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Row>, Error>;

    /// Writes and removes all of `batch`, or nothing.
    ///
    /// # Errors
    /// The store's files cannot be written; nothing has changed.
    fn commit(&mut self, batch: Batch) -> Result<(), Error>;
}

/// A store that forgets.
#[derive(Debug, Default)]
pub struct Memory {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Store for Memory {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.rows.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Row>, Error> {
        let rows = self.rows.range(from.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        Ok(rows.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn commit(&mut self, batch: Batch) -> Result<(), Error> {
        for (key, value) in batch {
            match value {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
        Ok(())
    }
}

/// A fjall database in a directory of its own.
pub struct Disk {
    database: fjall::Database,
    rows: fjall::Keyspace,
}

/// The right to make a [`Disk`]'s commits durable from another thread.
#[derive(Clone)]
pub struct Persist {
    database: fjall::Database,
}

impl Disk {
    /// Opens (or makes) the database in `directory`.
    ///
    /// # Errors
    /// It cannot be opened, or somebody else has it open.
    pub fn open(directory: &Path) -> Result<Disk, Error> {
        let database = fjall::Database::builder(directory).open()?;
        let rows = database.keyspace("metadata", fjall::KeyspaceCreateOptions::default)?;
        Ok(Disk { database, rows })
    }

    /// Makes durable what was committed, from any thread.
    pub fn persist(&self) -> Persist {
        Persist { database: self.database.clone() }
    }
}

/// Where the keys with this prefix end.
fn end_of(prefix: &[u8]) -> Bound<Vec<u8>> {
    let Some(last) = prefix.iter().rposition(|byte| *byte < u8::MAX) else { return Bound::Unbounded };
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Bound::Excluded(end)
}

impl Persist {
    /// Returns when every commit that ended before this call is on disk. Blocks.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn all(&self) -> Result<(), Error> {
        Ok(self.database.persist(fjall::PersistMode::SyncAll)?)
    }
}

impl Store for Disk {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.rows.get(key)?.map(|value| value.to_vec()))
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Row>, Error> {
        // Without an end the search for a row behind the last one would go through everything that was ever removed
        // there.
        let bounds = (Bound::Included(from.to_vec()), end_of(prefix));
        let mut found = Vec::new();
        for guard in self.rows.range::<Vec<u8>, _>(bounds).take(limit) {
            let (key, value) = guard.into_inner()?;
            found.push((key.to_vec(), value.to_vec()));
        }
        Ok(found)
    }

    fn commit(&mut self, batch: Batch) -> Result<(), Error> {
        let mut write = self.database.batch();
        for (key, value) in batch {
            match value {
                Some(value) => write.insert(&self.rows, key, value),
                None => write.remove(&self.rows, key),
            }
        }
        Ok(write.commit()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_ends_where_its_prefix_ends() {
        let directory = tempfile::tempdir().unwrap();
        let mut disk = Disk::open(directory.path()).unwrap();
        let keys: [&[u8]; 5] = [b"a", b"a\xff", b"a\xff\xff", b"b", b"\xff\x01"];
        disk.commit(keys.iter().map(|key| (key.to_vec(), Some(Vec::new()))).collect()).unwrap();
        let found = |prefix: &[u8], from: &[u8]| disk.scan(prefix, from, 10).unwrap().len();
        assert_eq!(found(b"a", b"a"), 3);
        assert_eq!(found(b"a\xff", b"a\xff\x01"), 1);
        assert_eq!(found(b"\xff", b"\xff"), 1);
        assert_eq!(found(b"", b""), 5);
        assert_eq!(found(b"c", b"c"), 0);
    }
}
