//! What a node keeps on disk: its part in the agreement. One small file, replaced as a whole.
//!
//! ```text
//!  0       4             8            12          20                     20 + length
//!  | magic | version u32 | length u32 | check u64 | register (tagged) ...|
//!  | "SSIt"| 1           |            |           |                      |
//! ```
//!
//! Little-endian. `check` is the first 8 bytes of SHA-256 over the register. Invariant: the file is a whole old register
//! or a whole new one, whatever happens when; and once [`save`] has returned it is the new one.

use crate::Error;
use crate::wire::View;
use base::NodeId;
use base::limits::FRAME_BYTES_MAX;
use prost::Message;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 4] = *b"SSIt";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 20;

/// One node's part in the agreement.
#[derive(Clone, Debug, PartialEq)]
pub struct Register {
    /// The largest term heard of.
    pub term: u64,
    /// Whom this node voted for in that term.
    pub vote: Option<NodeId>,
    /// The term in which `accepted` was accepted.
    pub accepted_term: u64,
    /// The last view accepted; agreed or not.
    pub accepted: View,
    /// The voters of the view before `accepted`; of meaning while `accepted` is not known to be agreed.
    pub base: Vec<NodeId>,
    /// The newest view known to be agreed.
    pub committed: View,
}

impl Register {
    /// The register of a node that starts with an agreed view.
    pub fn agreed(view: View) -> Register {
        Register {
            term: 0,
            vote: None,
            accepted_term: 0,
            accepted: view.clone(),
            base: Vec::new(),
            committed: view,
        }
    }
}

/// [`Register`] as it rests.
#[derive(Clone, PartialEq, prost::Message)]
struct Resting {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint32, tag = "2")]
    vote: u32,
    #[prost(uint64, tag = "3")]
    accepted_term: u64,
    #[prost(message, optional, tag = "4")]
    accepted: Option<View>,
    #[prost(uint32, repeated, tag = "5")]
    base: Vec<u32>,
    #[prost(message, optional, tag = "6")]
    committed: Option<View>,
}

/// The file in a node's state directory.
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("table")
}

/// Replaces the file; durable on return.
///
/// # Errors
/// [`Error::Store`]; the old register is then still whole.
pub fn save(state_dir: &Path, register: &Register) -> Result<(), Error> {
    let path = path(state_dir);
    write_whole(state_dir, &path, &encode(register)).map_err(|source| Error::Store {
        action: "write",
        path,
        source,
    })
}

/// Reads the file.
///
/// # Errors
/// [`Error::NoTable`] if there is none, [`Error::Store`] if it cannot be read, [`Error::Damaged`] if it is not whole.
pub fn load(state_dir: &Path) -> Result<Register, Error> {
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

fn encode(register: &Register) -> Vec<u8> {
    let resting = Resting {
        term: register.term,
        vote: register.vote.map_or(0, |id| id.0),
        accepted_term: register.accepted_term,
        accepted: Some(register.accepted.clone()),
        base: register.base.iter().map(|id| id.0).collect(),
        committed: Some(register.committed.clone()),
    };
    let body = resting.encode_to_vec();
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

fn decode(bytes: &[u8]) -> Result<Register, String> {
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
    let resting = Resting::decode(body).map_err(|error| error.to_string())?;
    let (Some(accepted), Some(committed)) = (resting.accepted, resting.committed) else {
        return Err("it holds no view".into());
    };
    Ok(Register {
        term: resting.term,
        vote: (resting.vote != 0).then_some(NodeId(resting.vote)),
        accepted_term: resting.accepted_term,
        accepted,
        base: resting.base.into_iter().map(NodeId).collect(),
        committed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;
    use crate::wire::Node;
    use proptest::prelude::*;

    fn register() -> Register {
        let row = Node { name: "one".into(), cpus: 1, ..Node::default() };
        let view = table::founded("blue", &row, 16_384);
        Register { term: 4, vote: Some(NodeId(2)), base: vec![NodeId(1)], ..Register::agreed(view) }
    }

    #[test]
    fn a_register_comes_back_as_it_was_saved() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(load(dir.path()), Err(Error::NoTable(_))));
        save(dir.path(), &register()).unwrap();
        save(dir.path(), &Register { term: 5, ..register() }).unwrap();
        assert_eq!(load(dir.path()).unwrap(), Register { term: 5, ..register() });
    }

    #[test]
    fn a_missing_directory_is_a_clear_error() {
        let error = save(Path::new("/nowhere/at/all"), &register()).unwrap_err();
        assert!(
            error.to_string().contains("cannot write the cluster table /nowhere/at/all/table"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn a_damaged_file_is_refused(at in any::<prop::sample::Index>(), bit in 0..8) {
            let mut bytes = encode(&register());
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
