//! What a FUSE node id stands for: plain bits, so that any daemon, also the next one, can read it.
//!
//! ```text
//!   63      56 55       32 31        8 7       0
//!  | class    | pid        | tid       | file    |     LocalEntry: class, then 56 bits of the name's hash
//!                           | salt      | file    |     ProcessLink, LocalLink
//!                           | hash of the name    |     LocalFile
//! ```

/// A file of the directory of a foreign process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct File {
    /// Its name below /proc/PID (and, if `in_task`, below /proc/PID/task/TID).
    pub(crate) name: &'static str,
    /// Its permission bits.
    pub(crate) mode: u32,
    /// Readable only for whom ptrace(2) would let look: its owner and root.
    pub(crate) guarded: bool,
    /// A symbolic link.
    pub(crate) link: bool,
    /// Threads have it too.
    pub(crate) in_task: bool,
}

const fn open(name: &'static str, in_task: bool) -> File {
    File { name, mode: 0o444, guarded: false, link: false, in_task }
}

const fn guarded(name: &'static str, mode: u32, in_task: bool) -> File {
    File { name, mode, guarded: true, link: false, in_task }
}

const fn link(name: &'static str) -> File {
    File { name, mode: 0o777, guarded: true, link: true, in_task: false }
}

/// Every file that a foreign process shows; a file's index is part of node ids: add at the end only.
pub(crate) const FILES: &[File] = &[
    open("stat", true),
    open("statm", true),
    open("status", true),
    open("cmdline", true),
    open("comm", true),
    guarded("environ", 0o400, true),
    open("cgroup", true),
    open("limits", true),
    open("wchan", true),
    open("oom_score", true),
    open("oom_score_adj", true),
    open("loginuid", true),
    open("sessionid", true),
    open("schedstat", true),
    guarded("io", 0o400, true),
    guarded("maps", 0o444, true),
    guarded("smaps", 0o444, true),
    guarded("smaps_rollup", 0o444, false),
    guarded("auxv", 0o400, false),
    link("exe"),
    link("cwd"),
    link("root"),
];

/// The index of the file called `name`.
pub(crate) fn file_index(name: &str) -> Option<u8> {
    FILES.iter().position(|file| file.name == name).map(|index| index as u8)
}

/// Something in the view's /proc.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Node {
    /// /proc itself.
    Root,
    /// The directory of a local process.
    Local { pid: u32 },
    /// A file in it, known by the hash of its name: a symlink to the real one.
    LocalFile { pid: u32, hash: u32 },
    /// `exe`, `cwd` or `root` in it (an index of [`FILES`]); see [`Node::ProcessLink`].
    LocalLink { pid: u32, salt: u32, file: u8 },
    /// Another entry of the real procfs root, known by the hash of its name: a symlink.
    LocalEntry { hash: u64 },
    /// The directory of a foreign process.
    Process { pid: u32 },
    /// A file in it; an index of [`FILES`].
    ProcessFile { pid: u32, file: u8 },
    /// A symlink in it. The kernel remembers a link's text as long as its node lives, but a process changes its
    /// directory: each LOOKUP gives out another `salt`, and so another node.
    ProcessLink { pid: u32, salt: u32, file: u8 },
    /// Its directory of threads.
    Tasks { pid: u32 },
    /// The directory of a thread.
    Task { pid: u32, tid: u32 },
    /// A file in it.
    TaskFile { pid: u32, tid: u32, file: u8 },
}

const HASH_MASK: u64 = (1 << 56) - 1;

/// FNV-1a, cut to the bits that fit.
pub(crate) fn hash(name: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    name.iter().fold(0xcbf2_9ce4_8422_2325, step) & HASH_MASK
}

impl Node {
    /// The file or link `file` of a process.
    pub(crate) fn of_process(pid: u32, file: u8, salt: u32) -> Node {
        if FILES[usize::from(file)].link {
            Node::ProcessLink { pid, salt, file }
        } else {
            Node::ProcessFile { pid, file }
        }
    }

    /// The entry `name` of the directory of a local process.
    pub(crate) fn of_local(pid: u32, name: &[u8], salt: u32) -> Node {
        let index = str::from_utf8(name).ok().and_then(file_index);
        match index.filter(|index| FILES[usize::from(*index)].link) {
            Some(file) => Node::LocalLink { pid, salt, file },
            None => Node::LocalFile { pid, hash: hash(name) as u32 },
        }
    }

    /// The node id; pids and tids are below 2^24 (a kernel's end at 2^22).
    pub(crate) fn id(self) -> u64 {
        let pack = |class: u64, pid: u32, tid: u32, file: u8| {
            class << 56 | u64::from(pid & 0xff_ffff) << 32 | u64::from(tid & 0xff_ffff) << 8 | u64::from(file)
        };
        match self {
            Node::Root => fuse::ROOT_ID,
            Node::Local { pid } => pack(1, pid, 0, 0),
            Node::LocalEntry { hash } => 2 << 56 | hash & HASH_MASK,
            Node::Process { pid } => pack(3, pid, 0, 0),
            Node::ProcessFile { pid, file } => pack(4, pid, 0, file),
            Node::Tasks { pid } => pack(5, pid, 0, 0),
            Node::Task { pid, tid } => pack(6, pid, tid, 0),
            Node::TaskFile { pid, tid, file } => pack(7, pid, tid, file),
            Node::ProcessLink { pid, salt, file } => pack(8, pid, salt, file),
            Node::LocalLink { pid, salt, file } => pack(9, pid, salt, file),
            Node::LocalFile { pid, hash } => pack(10, pid, 0, 0) | u64::from(hash),
        }
    }

    /// What the id stands for; `None` if it was never given out.
    pub(crate) fn of_id(id: u64) -> Option<Node> {
        let (pid, tid, file) = ((id >> 32 & 0xff_ffff) as u32, (id >> 8 & 0xff_ffff) as u32, id as u8);
        let node = match id >> 56 {
            0 => Node::Root,
            1 => Node::Local { pid },
            2 => Node::LocalEntry { hash: id & HASH_MASK },
            3 => Node::Process { pid },
            4 => Node::ProcessFile { pid, file },
            5 => Node::Tasks { pid },
            6 => Node::Task { pid, tid },
            7 => Node::TaskFile { pid, tid, file },
            8 => Node::ProcessLink { pid, salt: tid, file },
            9 => Node::LocalLink { pid, salt: tid, file },
            10 => Node::LocalFile { pid, hash: id as u32 },
            _ => return None,
        };
        let is = |wanted: fn(&File) -> bool| FILES.get(usize::from(file)).is_some_and(wanted);
        let known = match node {
            Node::ProcessFile { .. } => is(|file| !file.link),
            Node::ProcessLink { .. } | Node::LocalLink { .. } => is(|file| file.link),
            Node::TaskFile { .. } => is(|file| file.in_task),
            _ => true,
        };
        (known && node.id() == id).then_some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_id_is_a_node_or_nothing(id: u64) {
            if let Some(node) = Node::of_id(id) {
                prop_assert_eq!(node.id(), id);
            }
        }

        #[test]
        fn every_node_comes_back_from_its_id(pid in 0u32..1 << 22, tid in 0u32..1 << 22, file in 0..FILES.len() as u8, name: Vec<u8>) {
            let mut nodes = vec![
                Node::Root, Node::Local { pid }, Node::LocalEntry { hash: hash(&name) }, Node::Process { pid },
                Node::of_process(pid, file, tid), Node::of_local(pid, &name, tid), Node::of_local(pid, b"exe", tid),
                Node::Tasks { pid }, Node::Task { pid, tid },
            ];
            if FILES[usize::from(file)].in_task {
                nodes.push(Node::TaskFile { pid, tid, file });
            }
            for node in nodes {
                prop_assert_eq!(Node::of_id(node.id()), Some(node));
            }
        }
    }
}
