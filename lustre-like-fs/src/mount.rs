//! The mount: requests of the kernel become operations of the client.
//!
//! A node id is an inode number, a file handle is the number of the request that opened it, and both are all that the
//! kernel brings back: a daemon that has just begun can answer any request. Each request runs as a task of its own, the
//! session's threads only start them. Attributes and names are valid for no time at all, files are open for direct
//! I/O (which may be mapped), so the kernel asks every time.

mod names;
mod open;

use crate::client::{Caller, Client};
use crate::error::Error;
use crate::wire::{Attr, Setattr};
use fuse::{Filesystem, Header, Operation, Reply, Request, init_flags};
use rustix::io::Errno;
use std::time::Duration;
use tokio::runtime::Handle;

/// Nothing may be believed without asking.
const NO_TIME: Duration = Duration::ZERO;
/// What reads and writes best have: one stripe.
const BLOCK_BYTES: u32 = 1 << 20;
const NANOS: i64 = 1_000_000_000;

/// How a session of this filesystem must be set up.
pub fn fuse_config() -> fuse::Config {
    fuse::Config {
        // The kernel cuts a file opened with O_TRUNC by a request of its own, and takes the umask off itself.
        flags: fuse::Config::FLAGS & !(init_flags::ATOMIC_O_TRUNC | init_flags::DONT_MASK)
            | init_flags::AUTO_INVAL_DATA,
        max_write: BLOCK_BYTES,
        ..fuse::Config::default()
    }
}

/// How this filesystem must be mounted: for everybody, the kernel checks permission bits.
pub fn mount_options() -> fuse::MountOptions {
    fuse::MountOptions { allow_other: true, default_permissions: true, ..fuse::MountOptions::default() }
}

/// What a FUSE session serves.
pub struct Mount {
    client: Client,
    runtime: Handle,
}

impl Mount {
    /// Serves `client`'s files with tasks on `runtime`.
    pub fn new(client: Client, runtime: Handle) -> Mount {
        Mount { client, runtime }
    }
}

impl Filesystem for Mount {
    fn handle(&self, request: Request) {
        let Request { header, operation, reply } = request;
        match operation {
            Operation::Forget { .. } | Operation::Interrupt { .. } => reply.none(),
            // Nothing is held back that a close would have to send: the kernel need not ask again.
            Operation::Flush { .. } => reply.error(Errno::NOSYS),
            // Directories need no opening.
            Operation::ReleaseDir { .. } | Operation::Destroy => reply.empty(),
            Operation::OpenDir { .. } => reply.opened(0, 0),
            operation => {
                let client = self.client.clone();
                let owed = Owed(Some(reply));
                self.runtime.spawn(async move {
                    let task = Task { caller: client.mounted(&header), client, header };
                    task.run(operation, owed).await;
                });
            }
        }
    }
}

/// The answer to a request that this daemon may not live to give: unless the task panics it is left to the next daemon,
/// which the kernel asks again.
struct Owed(Option<Reply>);

impl Owed {
    fn take(mut self) -> Option<Reply> {
        self.0.take()
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::mem::forget(self.0.take());
        }
    }
}

/// One request being answered.
struct Task {
    client: Client,
    caller: Caller,
    header: Header,
}

/// What an operation ends with: the answer is sent, or an error is to be.
type Answer = Result<Box<dyn FnOnce(Reply) + Send>, Error>;

impl Task {
    async fn run(self, operation: Operation, owed: Owed) {
        let answer = self.answer(operation).await;
        if matches!(answer, Err(Error::Stopped)) {
            return;
        }
        let Some(reply) = owed.take() else { return };
        match answer {
            Ok(send) => send(reply),
            Err(error) => {
                if !matches!(error, Error::Errno(_) | Error::Down { .. }) {
                    tracing::error!(ino = self.header.nodeid, %error, "a file operation failed");
                }
                reply.error(error.errno());
            }
        }
    }

    async fn answer(&self, operation: Operation) -> Answer {
        match operation {
            Operation::GetAttr { .. } => attr_answer(&self.client.getattr(self.header.nodeid).await?),
            Operation::SetAttr(set) => self.setattr(set).await,
            Operation::StatFs => self.statfs().await,
            Operation::SetXattr { .. }
            | Operation::GetXattr { .. }
            | Operation::ListXattr { .. }
            | Operation::RemoveXattr { .. } => self.xattr(operation).await,
            Operation::Open { .. }
            | Operation::Release { .. }
            | Operation::Read { .. }
            | Operation::Write { .. }
            | Operation::Fsync { .. }
            | Operation::FsyncDir { .. }
            | Operation::Fallocate { .. }
            | Operation::Lseek { .. } => self.file(operation).await,
            other => self.name(other).await,
        }
    }

    async fn setattr(&self, set: fuse::SetAttr) -> Answer {
        let time = |time: fuse::SetTime| match time {
            fuse::SetTime::Now => crate::wire::SetTime { now: true, at: 0 },
            fuse::SetTime::At(at) => {
                let at = at.seconds.saturating_mul(NANOS).saturating_add(i64::from(at.nanos));
                crate::wire::SetTime { now: false, at }
            }
        };
        let change = Setattr {
            ino: self.header.nodeid,
            mode: set.mode,
            uid: set.uid,
            gid: set.gid,
            atime: set.atime.map(time),
            mtime: set.mtime.map(time),
            resized: false,
        };
        attr_answer(&self.client.setattr(self.caller, change, set.size).await?)
    }

    async fn statfs(&self) -> Answer {
        const BLOCK: u64 = 4_096;
        let figures = self.client.statfs().await?;
        let statfs = fuse::StatFs {
            blocks: figures.space.total / BLOCK,
            bfree: figures.space.free / BLOCK,
            bavail: figures.space.available / BLOCK,
            files: figures.inodes.saturating_add(figures.space.available / BLOCK),
            ffree: figures.space.available / BLOCK,
            bsize: BLOCK as u32,
            namelen: crate::mds::change::NAME_BYTES_MAX as u32,
            frsize: BLOCK as u32,
        };
        Ok(Box::new(move |reply| reply.statfs(&statfs)))
    }
}

fn attr_answer(attr: &Attr) -> Answer {
    let attr = fuse_attr(attr);
    Ok(Box::new(move |reply| reply.attr(&attr, NO_TIME)))
}

fn empty_answer() -> Answer {
    Ok(Box::new(Reply::empty))
}

fn timestamp(nanos: i64) -> fuse::Timestamp {
    fuse::Timestamp { seconds: nanos.div_euclid(NANOS), nanos: nanos.rem_euclid(NANOS) as u32 }
}

fn fuse_attr(attr: &Attr) -> fuse::Attr {
    fuse::Attr {
        ino: attr.ino,
        size: attr.size,
        blocks: attr.blocks,
        atime: timestamp(attr.atime),
        mtime: timestamp(attr.mtime),
        ctime: timestamp(attr.ctime),
        mode: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: BLOCK_BYTES,
    }
}

fn fuse_entry(attr: &Attr) -> fuse::EntryOut {
    fuse::EntryOut {
        nodeid: attr.ino,
        generation: 0,
        entry_valid: NO_TIME,
        attr_valid: NO_TIME,
        attr: fuse_attr(attr),
    }
}

/// An operation that this filesystem does not know; the kernel does not ask for it again.
fn unknown() -> Answer {
    Err(Errno::NOSYS.into())
}
