//! Answers the kernel's requests about the view's /proc.
//!
//! What this node can say by itself is answered on the FUSE thread; what other nodes must be asked for is answered by a task
//! of the runtime, within the deadline.

use super::listing::{self, Listing, NAME_VALID, PID_VALID};
use super::node::{FILES, Node, file_index, hash};
use super::opened::{Handles, Opened};
use super::snapshot::{self, comm, parse_pid};
use super::table::{ProcessTable, Table};
use super::{LOCAL_PROC, REQUEST_DEADLINE};
use crate::wire::peer::ProcessRow;
use fuse::{Errno, Filesystem, Header, Operation, Reply, Request, StatFs, open_flags};
use parking_lot::Mutex;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::AtFlags;
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::future::Future;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// The view's /proc; see the module's top.
pub struct ProcFs {
    tree: Arc<Tree>,
    runtime: tokio::runtime::Handle,
}

impl ProcFs {
    /// A /proc over the real one behind `procfs` (its root directory; an O_PATH descriptor will do) and the other nodes'
    /// processes in `table`, which is asked on `runtime`.
    pub fn new(
        procfs: OwnedFd,
        table: Arc<dyn ProcessTable>,
        runtime: tokio::runtime::Handle,
    ) -> Arc<ProcFs> {
        let tree = Tree {
            procfs,
            table,
            last: Mutex::default(),
            silence: Mutex::default(),
            handles: Handles::new(),
            names: Mutex::default(),
            file_names: Mutex::default(),
            salts: AtomicU32::new(1),
        };
        Arc::new(ProcFs { tree: Arc::new(tree), runtime })
    }
}

impl Filesystem for ProcFs {
    fn handle(&self, request: Request) {
        let Some(node) = Node::of_id(request.header.nodeid) else {
            return refuse(request, Errno::STALE);
        };
        if let Some(request) = self.tree.answer_at_once(node, request) {
            let tree = self.tree.clone();
            self.runtime.spawn(async move { tree.answer(node, request).await });
        }
    }
}

/// How long after a silence questions are hurried.
const HURRIED_FOR: Duration = Duration::from_secs(5);
/// The time that a hurried question has.
const HURRIED_DEADLINE: Duration = Duration::from_millis(20);

/// What the file system knows.
struct Tree {
    procfs: OwnedFd,
    table: Arc<dyn ProcessTable>,
    /// What the other nodes said last, for when they are silent.
    last: Mutex<Arc<Table>>,
    /// When a question went unanswered.
    silence: Mutex<Option<Instant>>,
    handles: Handles,
    /// Names of the real procfs root by their hashes. Filled on demand: the kernel may ask for what it learnt from the
    /// daemon before.
    names: Mutex<HashMap<u64, Vec<u8>>>,
    /// The same of the directories of local processes.
    file_names: Mutex<HashMap<u32, Vec<u8>>>,
    /// See [`Node::ProcessLink`].
    salts: AtomicU32,
}

impl Tree {
    /// Answers what needs no other node; gives back what does.
    fn answer_at_once(&self, node: Node, request: Request) -> Option<Request> {
        let Request { header, operation, reply } = request;
        match (&operation, node) {
            (Operation::Lookup { name }, Node::Root | Node::Local { .. }) => {
                if let Some(found) = self.look_up_local(node, name) {
                    answer(reply, found, |reply, entry| reply.entry(&entry));
                    return None;
                }
            }
            (Operation::GetAttr { .. }, Node::Local { pid }) => {
                let owner = snapshot::owner(self.procfs.as_fd(), pid).ok_or(Errno::NOENT);
                answer(reply, owner, |reply, (uid, gid)| {
                    reply.attr(&listing::attr(node, uid, gid), PID_VALID)
                });
                return None;
            }
            (
                Operation::GetAttr { .. },
                Node::Root | Node::LocalEntry { .. } | Node::LocalFile { .. } | Node::LocalLink { .. },
            ) => {
                reply.attr(&listing::attr(node, 0, 0), NAME_VALID);
                return None;
            }
            (
                Operation::ReadLink,
                Node::LocalEntry { .. } | Node::LocalFile { .. } | Node::LocalLink { .. },
            ) => {
                answer(reply, self.local_target(node, &header), |reply, target| reply.data(&target));
                return None;
            }
            (Operation::Read { .. } | Operation::ReadDir { .. } | Operation::ReadDirPlus { .. }, _)
            | (
                Operation::Lookup { .. }
                | Operation::GetAttr { .. }
                | Operation::ReadLink
                | Operation::Open { .. },
                _,
            ) => {}
            _ => {
                self.answer_anywhere(node, &operation, reply);
                return None;
            }
        }
        Some(Request { header, operation, reply })
    }

    /// Operations whose answer is the same for every node, or only concerns open files.
    fn answer_anywhere(&self, node: Node, operation: &Operation, reply: Reply) {
        match *operation {
            Operation::OpenDir { .. } => match self.handles.open(node, Opened::Unread) {
                Ok(fh) => reply.opened(fh, 0),
                Err(errno) => reply.error(errno),
            },
            Operation::Release { fh, .. } | Operation::ReleaseDir { fh, .. } => {
                self.handles.close(fh);
                reply.empty();
            }
            Operation::Flush { .. } => reply.empty(),
            Operation::Forget { .. } | Operation::Interrupt { .. } => reply.none(),
            Operation::StatFs => {
                reply.statfs(&StatFs { bsize: 4_096, frsize: 4_096, namelen: 255, ..StatFs::default() })
            }
            Operation::SetAttr(_)
            | Operation::Create { .. }
            | Operation::MkDir { .. }
            | Operation::MkNod { .. }
            | Operation::SymLink { .. }
            | Operation::Link { .. }
            | Operation::Unlink { .. }
            | Operation::RmDir { .. }
            | Operation::Rename { .. } => reply.error(Errno::PERM),
            // ENOSYS makes the kernel stop asking (extended attributes, seeking, polling, ioctl).
            _ => reply.error(Errno::NOSYS),
        }
    }

    async fn answer(&self, node: Node, Request { header, operation, reply }: Request) {
        match operation {
            Operation::Lookup { name } => {
                let found = self.look_up(node, &name, &header).await.map_err(absent);
                answer(reply, found, |reply, entry| reply.entry(&entry));
            }
            Operation::GetAttr { .. } => {
                let owner = self.owner(node).await;
                answer(reply, owner, |reply, (uid, gid)| {
                    reply.attr(&listing::attr(node, uid, gid), PID_VALID)
                });
            }
            Operation::ReadLink => {
                let target = self.content(node, &header).await.map_err(absent);
                answer(reply, target, |reply, target| reply.data(&target));
            }
            Operation::Open { flags } => {
                let fh = self.open(node, flags, &header).await;
                answer(reply, fh, |reply, fh| reply.opened(fh, open_flags::DIRECT_IO));
            }
            Operation::Read { fh, offset, size, .. } => {
                let content = self.read(node, fh, &header).await;
                answer(reply, content, |reply, content| {
                    let start =
                        usize::try_from(offset).map_or(content.len(), |offset| offset.min(content.len()));
                    let end = content.len().min(start.saturating_add(size as usize));
                    reply.data(&content[start..end]);
                });
            }
            Operation::ReadDir { fh, offset, size } => {
                let listing = self.list(node, fh, offset, &header).await;
                answer(reply, listing, |reply, listing| reply.directory(&listing.fill(offset, size, false)));
            }
            Operation::ReadDirPlus { fh, offset, size } => {
                let listing = self.list(node, fh, offset, &header).await;
                answer(reply, listing, |reply, listing| reply.directory(&listing.fill(offset, size, true)));
            }
            _ => reply.error(Errno::NOSYS),
        }
    }

    /// A name in /proc or in the directory of a local process, if this node alone can tell.
    fn look_up_local(&self, parent: Node, name: &OsStr) -> Option<Result<fuse::EntryOut, Errno>> {
        let name = name.as_bytes();
        match (parent, parse_pid(name)) {
            (Node::Root, Some(pid)) if self.table.shadows().contains(&pid) => None,
            (Node::Root, Some(pid)) => {
                let (uid, gid) = snapshot::owner(self.procfs.as_fd(), pid)?;
                Some(Ok(listing::entry(Node::Local { pid }, uid, gid)))
            }
            (Node::Root, None) => Some(self.exists(name).map(|()| {
                let hash = hash(name);
                self.names.lock().entry(hash).or_insert_with(|| name.to_vec());
                listing::entry(Node::LocalEntry { hash }, 0, 0)
            })),
            (Node::Local { pid }, _) => {
                let path = [pid.to_string().as_bytes(), b"/", name].concat();
                Some(self.exists(&path).map(|()| {
                    let node = Node::of_local(pid, name, self.salt());
                    if let Node::LocalFile { hash, .. } = node {
                        self.file_names.lock().entry(hash).or_insert_with(|| name.to_vec());
                    }
                    listing::entry(node, 0, 0)
                }))
            }
            _ => None,
        }
    }

    fn exists(&self, path: &[u8]) -> Result<(), Errno> {
        rustix::fs::statat(&self.procfs, path, AtFlags::SYMLINK_NOFOLLOW).map(|_| ())
    }

    /// Where a symlink into the real procfs leads.
    fn local_target(&self, node: Node, header: &Header) -> Result<Vec<u8>, Errno> {
        let path = match node {
            Node::LocalEntry { hash } => self.local_name(hash)?,
            Node::LocalFile { pid, hash } => {
                [pid.to_string().as_bytes(), b"/", &self.local_file_name(pid, hash)?].concat()
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

    fn local_name(&self, wanted: u64) -> Result<Vec<u8>, Errno> {
        let mut names = self.names.lock();
        if !names.contains_key(&wanted) {
            let all = snapshot::entry_names(self.procfs.as_fd(), ".")?;
            names.extend(
                all.into_iter().filter(|name| parse_pid(name).is_none()).map(|name| (hash(&name), name)),
            );
        }
        names.get(&wanted).cloned().ok_or(Errno::STALE)
    }

    fn local_file_name(&self, pid: u32, wanted: u32) -> Result<Vec<u8>, Errno> {
        if let Some(name) = self.file_names.lock().get(&wanted) {
            return Ok(name.clone());
        }
        let all = snapshot::entry_names(self.procfs.as_fd(), &pid.to_string())?;
        let mut names = self.file_names.lock();
        names.extend(all.into_iter().map(|name| (hash(&name) as u32, name)));
        names.get(&wanted).cloned().ok_or(Errno::STALE)
    }

    async fn look_up(&self, node: Node, name: &OsStr, header: &Header) -> Result<fuse::EntryOut, Errno> {
        let text = name.to_str().ok_or(Errno::NOENT)?;
        let number = || parse_pid(name.as_bytes()).ok_or(Errno::NOENT);
        let found = match node {
            Node::Root => Node::Process { pid: number()? },
            Node::Process { pid } if text == "task" => Node::Tasks { pid },
            Node::Process { pid } => {
                Node::of_process(pid, file_index(text).ok_or(Errno::NOENT)?, self.salt())
            }
            Node::Tasks { pid } => {
                let tid = number()?;
                if !self.tids(pid, header).await.contains(&tid) {
                    return Err(Errno::NOENT);
                }
                Node::Task { pid, tid }
            }
            Node::Task { pid, tid } => {
                let file = file_index(text).ok_or(Errno::NOENT)?;
                Node::TaskFile { pid, tid, file }
            }
            _ => return Err(Errno::NOTDIR),
        };
        if Node::of_id(found.id()).is_none() {
            return Err(Errno::NOENT);
        }
        let (uid, gid) = self.owner(found).await?;
        Ok(listing::entry(found, uid, gid))
    }

    /// Another one each time, but for a lap of 2^24.
    fn salt(&self) -> u32 {
        self.salts.fetch_add(1, Ordering::Relaxed) & 0xff_ffff
    }

    /// Who owns a node of a foreign process.
    async fn owner(&self, node: Node) -> Result<(u32, u32), Errno> {
        match node {
            Node::Local { pid } => snapshot::owner(self.procfs.as_fd(), pid).ok_or(Errno::SRCH),
            Node::Root | Node::LocalEntry { .. } | Node::LocalFile { .. } | Node::LocalLink { .. } => {
                Ok((0, 0))
            }
            Node::Process { pid }
            | Node::ProcessFile { pid, .. }
            | Node::ProcessLink { pid, .. }
            | Node::Tasks { pid }
            | Node::Task { pid, .. }
            | Node::TaskFile { pid, .. } => self.row(pid).await.map(|row| (row.uid, row.gid)),
        }
    }

    /// What `asked` says, if it does so in time. `ps` asks several times for every process: after a silence the
    /// next questions are given less time, or it would wait for each of them anew.
    async fn in_time<T>(&self, asked: impl Future<Output = T>) -> Option<T> {
        let hurried = self.silence.lock().is_some_and(|since| since.elapsed() < HURRIED_FOR);
        let answer = timeout(if hurried { HURRIED_DEADLINE } else { REQUEST_DEADLINE }, asked).await.ok();
        if answer.is_none() && !hurried {
            *self.silence.lock() = Some(Instant::now());
        }
        answer
    }

    /// The row of a foreign process: as its node says, or as it said last.
    async fn row(&self, pid: u32) -> Result<Arc<ProcessRow>, Errno> {
        match self.in_time(self.table.row(pid)).await {
            Some(row) => row.ok_or(Errno::SRCH),
            None => self.last.lock().row(pid).cloned().map(Arc::new).ok_or(Errno::SRCH),
        }
    }

    async fn rows(&self) -> Arc<Table> {
        match self.in_time(self.table.rows()).await {
            Some(rows) => self.last.lock().clone_from(&rows),
            None => tracing::debug!("/proc shows other nodes' processes as they were: no answer in time"),
        }
        self.last.lock().clone()
    }

    async fn file(&self, pid: u32, name: String, header: &Header) -> Result<Vec<u8>, Errno> {
        self.in_time(self.table.file(pid, name, header.uid, header.gid)).await.unwrap_or(Err(Errno::IO))
    }

    /// The threads of a foreign process; at least the first if its node does not say.
    async fn tids(&self, pid: u32, header: &Header) -> BTreeSet<u32> {
        let text = self.file(pid, "task".to_owned(), header).await.unwrap_or_default();
        let mut tids: BTreeSet<u32> = text.split(|&byte| byte == b'\n').filter_map(parse_pid).collect();
        if tids.is_empty() {
            tids.insert(pid);
        }
        tids
    }

    /// What a file of a foreign process holds, or where its link leads.
    async fn content(&self, node: Node, header: &Header) -> Result<Vec<u8>, Errno> {
        let (pid, name) = match node {
            Node::ProcessFile { pid, file } | Node::ProcessLink { pid, file, .. } => {
                (pid, FILES[usize::from(file)].name.to_owned())
            }
            Node::TaskFile { pid, tid, file } => {
                (pid, format!("task/{tid}/{}", FILES[usize::from(file)].name))
            }
            _ => return Err(Errno::ISDIR),
        };
        let row = match name.as_str() {
            "stat" | "statm" | "status" | "cmdline" | "comm" => self.row(pid).await?,
            _ => return self.file(pid, name, header).await,
        };
        Ok(match name.as_str() {
            "stat" => row.stat.clone(),
            "statm" => row.statm.clone(),
            "status" => row.status.clone(),
            "cmdline" => row.cmdline.clone(),
            _ => [comm(&row.stat), b"\n"].concat(),
        })
    }

    async fn open(&self, node: Node, flags: u32, header: &Header) -> Result<u64, Errno> {
        const ACCESS_MODE: u32 = 3;
        if flags & ACCESS_MODE != 0 {
            return Err(Errno::ACCESS);
        }
        let content = self.content(node, header).await.map_err(absent)?;
        self.handles.open(node, Opened::Content(Arc::new(content)))
    }

    /// What was there when the file was opened. A file that was opened under the daemon before is read anew.
    async fn read(&self, node: Node, fh: u64, header: &Header) -> Result<Arc<Vec<u8>>, Errno> {
        if let Some(Opened::Content(content)) = self.handles.find(node, fh) {
            return Ok(content);
        }
        let content = Arc::new(self.content(node, header).await?);
        self.handles.keep(node, fh, Opened::Content(content.clone()))?;
        Ok(content)
    }

    /// The directory as it is at offset 0; further on, as it was then.
    async fn list(&self, node: Node, fh: u64, offset: u64, header: &Header) -> Result<Arc<Listing>, Errno> {
        if let (true, Some(Opened::Listing(listing))) = (offset > 0, self.handles.find(node, fh)) {
            return Ok(listing);
        }
        let listing = match node {
            Node::Root => {
                let names = snapshot::entry_names(self.procfs.as_fd(), ".")?;
                let owner = |pid| snapshot::owner(self.procfs.as_fd(), pid);
                Listing::root(&names, owner, &*self.rows().await, &self.table.shadows())
            }
            Node::Local { pid } => {
                let names = snapshot::entry_names(self.procfs.as_fd(), &pid.to_string())?;
                let (uid, gid) = self.owner(node).await?;
                Listing::local(pid, &names, uid, gid)
            }
            Node::Process { pid } => {
                let (uid, gid) = self.owner(node).await?;
                Listing::process(pid, uid, gid)
            }
            Node::Tasks { pid } => {
                let (uid, gid) = self.owner(node).await?;
                Listing::tasks(pid, &self.tids(pid, header).await, uid, gid)
            }
            Node::Task { pid, tid } => {
                let (uid, gid) = self.owner(node).await?;
                Listing::task(pid, tid, uid, gid)
            }
            _ => return Err(Errno::NOTDIR),
        };
        let listing = Arc::new(listing);
        self.handles.keep(node, fh, Opened::Listing(listing.clone()))?;
        Ok(listing)
    }
}

/// A process that is gone has no name any more.
fn absent(errno: Errno) -> Errno {
    if errno == Errno::SRCH { Errno::NOENT } else { errno }
}

fn answer<T>(reply: Reply, result: Result<T, Errno>, say: impl FnOnce(Reply, T)) {
    match result {
        Ok(value) => say(reply, value),
        Err(errno) => reply.error(errno),
    }
}

/// Also a request that expects no answer may name a node that never was.
fn refuse(request: Request, errno: Errno) {
    match request.operation {
        Operation::Forget { .. } | Operation::Interrupt { .. } => request.reply.none(),
        _ => request.reply.error(errno),
    }
}
