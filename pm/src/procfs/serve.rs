//! Answers the kernel's requests about the view's /proc.
//!
//! What this node can say by itself is answered on the FUSE thread; what other nodes must be asked for is answered by a task
//! of the runtime, within the deadline.

use super::foreign::Foreign;
use super::listing::{self, Listing, NAME_VALID, PID_VALID};
use super::local::{Local, absent};
use super::node::{Node, file_index};
use super::opened::{Handles, Opened};
use super::snapshot::parse_pid;
use super::table::ProcessTable;
use fuse::{EntryOut, Errno, Filesystem, Header, Operation, Reply, Request, StatFs, open_flags};
use rustix::fd::OwnedFd;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

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
        let tree = Tree { local: Local::new(procfs), foreign: Foreign::new(table), handles: Handles::new() };
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

/// What the file system knows.
struct Tree {
    local: Local,
    foreign: Foreign,
    handles: Handles,
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
                let owner = self.local.owner(pid).ok_or(Errno::NOENT);
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
                answer(reply, self.local.target(node, &header), |reply, target| reply.data(&target));
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
                let target = self.foreign.content(node, &header).await.map_err(absent);
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
    fn look_up_local(&self, parent: Node, name: &OsStr) -> Option<Result<EntryOut, Errno>> {
        let name = name.as_bytes();
        match (parent, parse_pid(name)) {
            (Node::Root, Some(pid)) if self.foreign.shadows().contains(&pid) => None,
            (Node::Root, Some(pid)) => {
                let (uid, gid) = self.local.owner(pid)?;
                Some(Ok(listing::entry(Node::Local { pid }, uid, gid)))
            }
            (Node::Root, None) => Some(self.local.entry(name)),
            (Node::Local { pid }, _) => Some(self.local.entry_of(pid, name)),
            _ => None,
        }
    }

    async fn look_up(&self, node: Node, name: &OsStr, header: &Header) -> Result<EntryOut, Errno> {
        let text = name.to_str().ok_or(Errno::NOENT)?;
        let number = || parse_pid(name.as_bytes()).ok_or(Errno::NOENT);
        let found = match node {
            Node::Root => Node::Process { pid: number()? },
            Node::Process { pid } if text == "task" => Node::Tasks { pid },
            Node::Process { pid } => {
                Node::of_process(pid, file_index(text).ok_or(Errno::NOENT)?, self.local.salt())
            }
            Node::Tasks { pid } => {
                let tid = number()?;
                if !self.foreign.tids(pid, header).await.contains(&tid) {
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

    /// Who owns a node of a foreign process.
    async fn owner(&self, node: Node) -> Result<(u32, u32), Errno> {
        match node {
            Node::Local { pid } => self.local.owner(pid).ok_or(Errno::SRCH),
            Node::Root | Node::LocalEntry { .. } | Node::LocalFile { .. } | Node::LocalLink { .. } => {
                Ok((0, 0))
            }
            Node::Process { pid }
            | Node::ProcessFile { pid, .. }
            | Node::ProcessLink { pid, .. }
            | Node::Tasks { pid }
            | Node::Task { pid, .. }
            | Node::TaskFile { pid, .. } => self.foreign.row(pid).await.map(|row| (row.uid, row.gid)),
        }
    }

    async fn open(&self, node: Node, flags: u32, header: &Header) -> Result<u64, Errno> {
        const ACCESS_MODE: u32 = 3;
        if flags & ACCESS_MODE != 0 {
            return Err(Errno::ACCESS);
        }
        let content = self.foreign.content(node, header).await.map_err(absent)?;
        self.handles.open(node, Opened::Content(Arc::new(content)))
    }

    /// What was there when the file was opened. A file that was opened under the daemon before is read anew.
    async fn read(&self, node: Node, fh: u64, header: &Header) -> Result<Arc<Vec<u8>>, Errno> {
        if let Some(Opened::Content(content)) = self.handles.find(node, fh) {
            return Ok(content);
        }
        let content = Arc::new(self.foreign.content(node, header).await?);
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
                let names = self.local.names(".")?;
                let owner = |pid| self.local.owner(pid);
                Listing::root(&names, owner, &*self.foreign.rows().await, &self.foreign.shadows())
            }
            Node::Local { pid } => {
                let names = self.local.names(&pid.to_string())?;
                let (uid, gid) = self.owner(node).await?;
                Listing::local(pid, &names, uid, gid)
            }
            Node::Process { pid } => {
                let (uid, gid) = self.owner(node).await?;
                Listing::process(pid, uid, gid)
            }
            Node::Tasks { pid } => {
                let (uid, gid) = self.owner(node).await?;
                Listing::tasks(pid, &self.foreign.tids(pid, header).await, uid, gid)
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
