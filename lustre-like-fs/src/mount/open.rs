//! Open files: open, release, read, write, fsync, fallocate, lseek.

use super::{Answer, Task, empty_answer, unknown};
use crate::error::Error;
use crate::wire::MetaVerb;
use bytes::Bytes;
use fuse::{Operation, open_flags};
use rustix::fs::OFlags;
use rustix::io::Errno;

/// Direct, so that every read and write is asked; several writers of one file at once.
pub(super) const OPEN_FLAGS: u32 = open_flags::DIRECT_IO | open_flags::PARALLEL_DIRECT_WRITES;
/// Each waits for the server with the patience of any request.
const RELEASE_ATTEMPTS_MAX: u32 = 60;
const SEEK_DATA: u32 = 3;
const SEEK_HOLE: u32 = 4;

impl Task {
    pub(super) async fn file(&self, operation: Operation) -> Answer {
        let ino = self.header.nodeid;
        match operation {
            Operation::Open { .. } => self.open().await,
            Operation::Release { fh, .. } => self.release(fh).await,
            Operation::Read { offset, size, .. } => self.read(offset, size).await,
            Operation::Write { offset, data, flags, cached, .. } => {
                self.write(offset, data, flags, cached).await
            }
            Operation::Fsync { .. } => {
                self.client.sync(ino).await?;
                empty_answer()
            }
            Operation::FsyncDir { .. } => {
                self.client.sync_metadata().await?;
                empty_answer()
            }
            Operation::Fallocate { offset, length, mode, .. } => {
                self.client.allocate(ino, mode, offset, length).await?;
                empty_answer()
            }
            Operation::Lseek { offset, whence, .. } => self.seek(offset, whence).await,
            _ => unknown(),
        }
    }

    async fn open(&self) -> Answer {
        let handle = self.client.handle(self.header.nodeid, self.caller.operation.sequence);
        self.client.ask(MetaVerb::Open(handle.clone())).await?;
        Ok(Box::new(move |reply| reply.opened(handle.handle, OPEN_FLAGS)))
    }

    /// Nobody waits for a release, and one that is lost keeps a file's room for as long as this node lives.
    async fn release(&self, handle: u64) -> Answer {
        for _ in 0..RELEASE_ATTEMPTS_MAX {
            match self.client.ask(MetaVerb::Release(self.client.handle(self.header.nodeid, handle))).await {
                Err(Error::Unreachable { .. }) => {}
                other => return other.and_then(|_| empty_answer()),
            }
        }
        empty_answer()
    }

    async fn read(&self, offset: u64, size: u32) -> Answer {
        let pieces = self.client.read(self.header.nodeid, offset, size).await?;
        Ok(Box::new(move |reply| {
            let pieces: Vec<&[u8]> = pieces.iter().map(|piece| &piece[..]).collect();
            reply.data_vectored(&pieces);
        }))
    }

    /// A page that a mapping changed goes where it belongs, also in a file that is open for appending.
    async fn write(&self, offset: u64, data: Bytes, flags: u32, cached: bool) -> Answer {
        let ino = self.header.nodeid;
        let appends = OFlags::from_bits_retain(flags).contains(OFlags::APPEND) && !cached;
        let written = match appends {
            true => self.client.append(self.caller, ino, data).await?,
            false => self.client.write(ino, offset, data).await?,
        };
        Ok(Box::new(move |reply| reply.written(written as u32)))
    }

    /// The whole file counts as data: allowed, and cheap.
    async fn seek(&self, offset: u64, whence: u32) -> Answer {
        let size = self.client.getattr(self.header.nodeid).await?.size;
        if offset >= size {
            return Err(Errno::NXIO.into());
        }
        let found = match whence {
            SEEK_DATA => offset,
            SEEK_HOLE => size,
            _ => return Err(Error::Errno(Errno::INVAL)),
        };
        Ok(Box::new(move |reply| reply.seeked(found)))
    }
}
