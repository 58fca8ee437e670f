//! What this node shows in the view's /proc by itself: links into the real procfs.

use super::LOCAL_PROC;
use super::listing;
use super::node::{FILES, Node, hash};
use super::snapshot::{self, parse_pid};
use fuse::{EntryOut, Errno, Header};
use parking_lot::Mutex;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::AtFlags;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

/// The real procfs of the view, and the names in it that the kernel may ask for by their hashes. These are learnt on
/// demand, also those that the kernel has from the daemon before; there are no more of them than the real procfs has.
pub(crate) struct Local {
    procfs: OwnedFd,
    /// Of its root, without pids.
    names: Mutex<HashMap<u64, Vec<u8>>>,
    /// Of the directories of processes.
    file_names: Mutex<HashMap<u32, Vec<u8>>>,
    /// See [`Node::ProcessLink`].
    salts: AtomicU32,
}

impl Local {
    /// Over the real procfs whose root is `procfs`.
    pub(crate) fn new(procfs: OwnedFd) -> Local {
        Local { procfs, names: Mutex::default(), file_names: Mutex::default(), salts: AtomicU32::new(1) }
    }

    /// Owner (uid, gid) of a process directory.
    pub(crate) fn owner(&self, pid: u32) -> Option<(u32, u32)> {
        snapshot::owner(self.procfs.as_fd(), pid)
    }

    /// The names in a directory of the real procfs.
    pub(crate) fn names(&self, directory: &str) -> Result<Vec<Vec<u8>>, Errno> {
        snapshot::entry_names(self.procfs.as_fd(), directory)
    }

    /// The entry of /proc that is no pid.
    pub(crate) fn entry(&self, name: &[u8]) -> Result<EntryOut, Errno> {
        self.exists(name)?;
        let hash = hash(name);
        self.names.lock().entry(hash).or_insert_with(|| name.to_vec());
        Ok(listing::entry(Node::LocalEntry { hash }, 0, 0))
    }

    /// The entry of the directory of a local process.
    pub(crate) fn entry_of(&self, pid: u32, name: &[u8]) -> Result<EntryOut, Errno> {
        self.exists(&[pid.to_string().as_bytes(), b"/", name].concat())?;
        let node = Node::of_local(pid, name, self.salt());
        if let Node::LocalFile { hash, .. } = node {
            self.file_names.lock().entry(hash).or_insert_with(|| name.to_vec());
        }
        Ok(listing::entry(node, 0, 0))
    }

    /// Another one each time, but for a lap of 2^24.
    pub(crate) fn salt(&self) -> u32 {
        self.salts.fetch_add(1, Ordering::Relaxed) & 0xff_ffff
    }

    fn exists(&self, path: &[u8]) -> Result<(), Errno> {
        rustix::fs::statat(&self.procfs, path, AtFlags::SYMLINK_NOFOLLOW).map(|_| ())
    }

    /// Where a symlink into the real procfs leads.
    pub(crate) fn target(&self, node: Node, header: &Header) -> Result<Vec<u8>, Errno> {
        let path = match node {
            Node::LocalEntry { hash } => self.entry_name(hash)?,
            Node::LocalFile { pid, hash } => {
                [pid.to_string().as_bytes(), b"/", &self.file_name(pid, hash)?].concat()
            }
            Node::LocalLink { pid, file, .. } => {
                let name = FILES[usize::from(file)].name;
                let text = snapshot::local_link(self.procfs.as_fd(), pid, name, header.uid, header.gid);
                match text.map_err(absent)? {
                    Some(text) => return Ok(text),
                    None => format!("{pid}/{name}").into_bytes(),
                }
            }
            _ => return Err(Errno::INVAL),
        };
        Ok([LOCAL_PROC.as_bytes(), b"/", &path].concat())
    }

    fn entry_name(&self, wanted: u64) -> Result<Vec<u8>, Errno> {
        let mut names = self.names.lock();
        if !names.contains_key(&wanted) {
            let all = self.names(".")?;
            names.extend(
                all.into_iter().filter(|name| parse_pid(name).is_none()).map(|name| (hash(&name), name)),
            );
        }
        names.get(&wanted).cloned().ok_or(Errno::STALE)
    }

    fn file_name(&self, pid: u32, wanted: u32) -> Result<Vec<u8>, Errno> {
        if let Some(name) = self.file_names.lock().get(&wanted) {
            return Ok(name.clone());
        }
        let all = self.names(&pid.to_string())?;
        let mut names = self.file_names.lock();
        names.extend(all.into_iter().map(|name| (hash(&name) as u32, name)));
        names.get(&wanted).cloned().ok_or(Errno::STALE)
    }
}

/// A process that is gone has no name any more.
pub(crate) fn absent(errno: Errno) -> Errno {
    if errno == Errno::SRCH { Errno::NOENT } else { errno }
}
