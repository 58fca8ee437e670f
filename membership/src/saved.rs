//! The table as a node last knew it, on its disk: what it starts with, and what `ssi` and `ssid --data` read without asking.
//! One small file, replaced as a whole. What a voter promises is in the log's store beside it, in `clms/`.
//!
//! ```text
//!  0       4             8            12          20                     20 + length
//!  | magic | version u32 | length u32 | check u64 | table (tagged) ...   |
//!  | "SSIt"| 2           |            |           |                      |
//! ```
//!
//! Little-endian. `check` is the first 8 bytes of SHA-256 over the table. Invariant: the file is a whole old table
//! or a whole new one, whatever happens when; and once [`save`] has returned it is the new one.

use crate::Error;
use crate::table::Table;
use base::limits::FRAME_BYTES_MAX;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 4] = *b"SSIt";
const VERSION: u32 = 2;
/// Transitions that are kept in it, for those who wait for the next one over a restart of the daemon.
const TRANSITIONS_MAX: usize = 256;
const HEADER_BYTES: usize = 20;

/// The file in a node's state directory.
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("table")
}

/// Replaces the file; durable on return.
///
/// # Errors
/// [`Error::Store`]; the old table is then still whole.
pub fn save(state_dir: &Path, table: &Table) -> Result<(), Error> {
    let path = path(state_dir);
    write_whole(state_dir, &path, &encode(table)).map_err(|source| Error::Store {
        action: "write",
        path,
        source,
    })
}

/// Reads the file.
///
/// # Errors
/// [`Error::NoTable`] if there is none, [`Error::Store`] if it cannot be read, [`Error::Damaged`] if it is not whole.
pub fn load(state_dir: &Path) -> Result<Table, Error> {
    let path = path(state_dir);
    match std::fs::read(&path) {
        Ok(bytes) => decode(&bytes).map_err(|why| Error::Damaged { path, why }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NoTable(path)),
        Err(source) => Err(Error::Store { action: "read", path, source }),
    }
}

fn write_whole(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = dir.join("table.new");
    let mut file = File::create(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    File::open(dir)?.sync_all()
}

fn encode(table: &Table) -> Vec<u8> {
    let body = table.encode(TRANSITIONS_MAX);
    let length = u32::try_from(body.len()).expect("a table of NODES_MAX rows is far smaller");
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&check(&body));
    bytes.extend_from_slice(&body);
    bytes
}

fn check(body: &[u8]) -> [u8; 8] {
    let digest = Sha256::digest(body);
    let mut check = [0; 8];
    check.copy_from_slice(&digest[..8]);
    check
}

fn decode(bytes: &[u8]) -> Result<Table, String> {
    let Some((header, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err("it is too short".into());
    };
    if header[..4] != MAGIC || header[4..8] != VERSION.to_le_bytes() {
        return Err("it is no cluster table of a version known here".into());
    }
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    if body.len() > FRAME_BYTES_MAX || header[8..12] != length || header[12..20] != check(body) {
        return Err("its length or its check is wrong".into());
    }
    Table::decode(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;
    use crate::wire::Node;
    use proptest::prelude::*;

    fn saved_table() -> Table {
        let row = Node { name: "one".into(), cpus: 1, ..Node::default() };
        let mut table = Table::default();
        let founded = crate::Act::Found(table::founded("blue", &row, 16_384));
        table.apply(&crate::Command { at_ms: 5, act: Some(founded) });
        table
    }

    #[test]
    fn a_table_comes_back_as_it_was_saved() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(load(dir.path()), Err(Error::NoTable(_))));
        save(dir.path(), &saved_table()).unwrap();
        let mut later = saved_table();
        later.apply(&crate::Command { at_ms: 6, act: Some(crate::Act::Reign(7)) });
        save(dir.path(), &later).unwrap();
        assert_eq!(load(dir.path()).unwrap(), later);
    }

    #[test]
    fn a_missing_directory_is_a_clear_error() {
        let error = save(Path::new("/nowhere/at/all"), &saved_table()).unwrap_err();
        assert!(
            error.to_string().contains("cannot write the cluster table /nowhere/at/all/table"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn a_damaged_file_is_refused(at in any::<prop::sample::Index>(), bit in 0..8) {
            let mut bytes = encode(&saved_table());
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&bytes).is_err());
        }
    }
}
