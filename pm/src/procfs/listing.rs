//! The entries of one directory, and the cookies by which a reader goes on in the middle.
//!
//! Cookies do not depend on what else is in the directory: a name of the real procfs is its place there, a pid is itself.
//! So a reader goes on at the right place although processes came and went, or the daemon with them.

use super::node::{FILES, Node, file_index, hash};
use super::snapshot::parse_pid;
use super::table::Table;
use fuse::{Attr, DirBuffer, EntryOut, FileType};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// Pids follow behind every other name.
const PID_COOKIES: u64 = 1 << 32;

/// How long the kernel may believe that a pid means what it meant: a process can end, or become a shadow.
pub(crate) const PID_VALID: Duration = Duration::from_millis(100);
/// How long it may believe in what does not change as long as the directory above does not.
pub(crate) const NAME_VALID: Duration = Duration::from_secs(60);

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    cookie: u64,
    name: Vec<u8>,
    node: Node,
    uid: u32,
    gid: u32,
}

/// A directory's entries, ascending by cookie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing(Vec<Entry>);

impl Listing {
    /// /proc: the names of the real procfs root, and the foreign processes.
    /// `owner` tells uid and gid of a local one, `None` if it has ended.
    pub(crate) fn root(
        local_names: &[Vec<u8>],
        owner: impl Fn(u32) -> Option<(u32, u32)>,
        foreign: &Table,
        shadows: &BTreeSet<u32>,
    ) -> Listing {
        let mut entries = Vec::with_capacity(local_names.len() + foreign.rows().len());
        let mut pids = BTreeMap::new();
        for name in local_names {
            match parse_pid(name) {
                Some(pid) if shadows.contains(&pid) => {}
                Some(pid) => {
                    if let Some((uid, gid)) = owner(pid) {
                        pids.insert(pid, (Node::Local { pid }, uid, gid));
                    }
                }
                None => {
                    let (cookie, node) = (entries.len() as u64 + 1, Node::LocalEntry { hash: hash(name) });
                    entries.push(Entry { cookie, name: name.clone(), node, uid: 0, gid: 0 });
                }
            }
        }
        for row in foreign.rows() {
            // What is here is here, whatever another node's older knowledge says.
            pids.entry(row.pid).or_insert((Node::Process { pid: row.pid }, row.uid, row.gid));
        }
        let named = |(pid, (node, uid, gid)): (u32, (Node, u32, u32))| Entry {
            cookie: PID_COOKIES + u64::from(pid),
            name: pid.to_string().into_bytes(),
            node,
            uid,
            gid,
        };
        entries.extend(pids.into_iter().map(named));
        Listing(entries)
    }

    /// The directory of a local process, which has these names in the real procfs.
    pub(crate) fn local(pid: u32, names: &[Vec<u8>], uid: u32, gid: u32) -> Listing {
        let entry = |(name, cookie): (&Vec<u8>, u64)| Entry {
            cookie,
            name: name.clone(),
            node: Node::of_local(pid, name, 0),
            uid,
            gid,
        };
        Listing(names.iter().zip(1..).map(entry).collect())
    }

    /// The directory of a foreign process owned by `uid` and `gid`.
    pub(crate) fn process(pid: u32, uid: u32, gid: u32) -> Listing {
        let mut listing = Listing::files(uid, gid, false, |file| Node::of_process(pid, file, 0));
        let cookie = FILES.len() as u64 + 1;
        listing.0.push(Entry { cookie, name: b"task".to_vec(), node: Node::Tasks { pid }, uid, gid });
        listing
    }

    /// The directory of one of its threads.
    pub(crate) fn task(pid: u32, tid: u32, uid: u32, gid: u32) -> Listing {
        Listing::files(uid, gid, true, |file| Node::TaskFile { pid, tid, file })
    }

    /// Its directory of threads.
    pub(crate) fn tasks(pid: u32, tids: &BTreeSet<u32>, uid: u32, gid: u32) -> Listing {
        let entry = |tid: &u32| Entry {
            cookie: PID_COOKIES + u64::from(*tid),
            name: tid.to_string().into_bytes(),
            node: Node::Task { pid, tid: *tid },
            uid,
            gid,
        };
        Listing(tids.iter().map(entry).collect())
    }

    fn files(uid: u32, gid: u32, task: bool, node: impl Fn(u8) -> Node) -> Listing {
        let offered = FILES.iter().filter(|file| file.in_task || !task);
        let entry = |name: &str| {
            let index = file_index(name)?;
            Some(Entry { cookie: u64::from(index) + 1, name: name.into(), node: node(index), uid, gid })
        };
        Listing(offered.filter_map(|file| entry(file.name)).collect())
    }

    /// What the kernel is sent: the entries behind `offset` that fit into `size` bytes, with attributes if `plus`.
    pub(crate) fn fill(&self, offset: u64, size: u32, plus: bool) -> DirBuffer {
        let mut buffer = DirBuffer::new(size);
        let start = self.0.partition_point(|entry| entry.cookie <= offset);
        for Entry { cookie, name, node, uid, gid } in &self.0[start..] {
            let name = OsStr::from_bytes(name);
            let fits = if plus {
                buffer.add_plus(&entry(*node, *uid, *gid), *cookie, name)
            } else {
                buffer.add(node.id(), *cookie, FileType::of_mode(mode(*node)), name)
            };
            if !fits {
                break;
            }
        }
        buffer
    }
}

/// Type and permission bits of a node.
pub(crate) fn mode(node: Node) -> u32 {
    match node {
        Node::Root | Node::Local { .. } | Node::Process { .. } | Node::Tasks { .. } | Node::Task { .. } => {
            0o040_555
        }
        Node::LocalEntry { .. } | Node::LocalFile { .. } | Node::LocalLink { .. } => 0o120_777,
        Node::ProcessFile { file, .. } | Node::ProcessLink { file, .. } | Node::TaskFile { file, .. } => {
            let file = FILES[usize::from(file)];
            file.mode | if file.link { 0o120_000 } else { 0o100_000 }
        }
    }
}

/// The attributes of a node.
pub(crate) fn attr(node: Node, uid: u32, gid: u32) -> Attr {
    let mode = mode(node);
    let nlink = if FileType::of_mode(mode) == FileType::Directory { 2 } else { 1 };
    Attr { ino: node.id(), mode, nlink, uid, gid, blksize: 1_024, ..Attr::default() }
}

/// The answer to a LOOKUP that found the node.
pub(crate) fn entry(node: Node, uid: u32, gid: u32) -> EntryOut {
    let valid = match node {
        Node::Local { .. } | Node::Process { .. } | Node::Task { .. } => PID_VALID,
        Node::ProcessLink { .. } | Node::LocalLink { .. } => Duration::ZERO,
        _ => NAME_VALID,
    };
    let attr_valid =
        if matches!(node, Node::LocalEntry { .. } | Node::LocalFile { .. }) { NAME_VALID } else { PID_VALID };
    EntryOut { nodeid: node.id(), generation: 0, entry_valid: valid, attr_valid, attr: attr(node, uid, gid) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::peer::ProcessRow;

    fn root() -> Listing {
        let row = |pid| ProcessRow { pid, ..Default::default() };
        let names = ["meminfo", "self", "7", "40", "300"].map(|name| name.as_bytes().to_vec());
        Listing::root(
            &names,
            |_| Some((0, 0)),
            &Table::new(vec![row(50), row(40), row(300)]),
            &BTreeSet::from([300]),
        )
    }

    #[test]
    fn shadows_are_foreign_and_what_is_local_stays_local() {
        let shown: Vec<_> = root()
            .0
            .iter()
            .map(|entry| (String::from_utf8_lossy(&entry.name).into_owned(), entry.node))
            .collect();
        let name = |text: &str| (text.to_owned(), Node::LocalEntry { hash: hash(text.as_bytes()) });
        let local = |pid: u32| (pid.to_string(), Node::Local { pid });
        let foreign = |pid: u32| (pid.to_string(), Node::Process { pid });
        assert_eq!(shown, [name("meminfo"), name("self"), local(7), local(40), foreign(50), foreign(300)]);
    }

    #[test]
    fn reading_in_small_pieces_gives_every_entry_once() {
        for plus in [false, true] {
            let whole = root().fill(0, 1 << 16, plus);
            let mut pieces = Vec::new();
            let mut offset = 0;
            for entry in &root().0 {
                let piece = root().fill(offset, if plus { 168 } else { 40 }, plus);
                assert!(!piece.is_empty());
                pieces.extend_from_slice(piece.as_bytes());
                offset = entry.cookie;
            }
            assert_eq!(pieces, whole.as_bytes());
            assert!(root().fill(offset, 1 << 16, plus).is_empty());
        }
    }

    #[test]
    fn a_process_directory_has_its_files_and_its_tasks() {
        let names = |listing: Listing| {
            listing.0.into_iter().map(|e| String::from_utf8(e.name).unwrap()).collect::<Vec<_>>()
        };
        let process = names(Listing::process(5, 1, 2));
        for name in ["stat", "status", "cmdline", "environ", "exe", "task"] {
            assert!(process.iter().any(|known| known == name), "{name}");
        }
        assert!(!names(Listing::task(5, 6, 1, 2)).contains(&"auxv".to_owned()));
        assert_eq!(names(Listing::tasks(5, &BTreeSet::from([6, 5]), 1, 2)), ["5", "6"]);
    }
}
