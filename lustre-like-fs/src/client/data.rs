//! The bytes of a file: read, write, append, cut, allocate, sync. All objects that an operation concerns work at once.

use super::{Caller, Client};
use crate::error::Error;
use crate::layout::{FILE_BYTES_MAX, Layout};
use crate::peers::{Peers, errno_of};
use crate::wire::{Allocate, Append, MetaVerb, Object, ObjectReply, ObjectRequest, ObjectVerb, Run, Space};
use base::NodeId;
use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use rustix::io::Errno;

impl Client {
    /// At most `size` bytes from `offset` on, in pieces; fewer where the file ends.
    ///
    /// # Errors
    /// What a server says, or that it does not.
    pub async fn read(&self, ino: u64, offset: u64, size: u32) -> Result<Vec<Bytes>, Error> {
        let layout = self.layout(ino).await?;
        let wanted = layout.pieces(offset, u64::from(size));
        let reads = wanted.iter().map(|piece| {
            let run = Run { offset: piece.object_offset, length: piece.length };
            ask_object(&self.peers, ino, &layout, piece.stripe, ObjectVerb::Read(run), Bytes::new())
        });
        let read = try_join_all(reads).await?;
        let mut pieces: Vec<Bytes> = read.into_iter().map(|(_, bulk)| bulk).collect();
        let is_short = |(piece, bytes): (&crate::layout::Piece, &Bytes)| (bytes.len() as u64) < piece.length;
        if !wanted.iter().zip(&pieces).any(is_short) {
            return Ok(pieces);
        }
        // An object ended early: there the file ends, or has a hole.
        let end = file_size(&self.peers, ino, &layout).await?;
        for (piece, bytes) in wanted.iter().zip(&mut pieces) {
            let length = end.saturating_sub(piece.file_offset).min(piece.length) as usize;
            let mut filled = Vec::from(std::mem::take(bytes));
            filled.resize(length, 0);
            *bytes = filled.into();
        }
        Ok(pieces)
    }

    /// Writes at `offset`; returns how many bytes were written, all of them unless a disk is full.
    ///
    /// # Errors
    /// Nothing was written: what a server says, or that it does not.
    pub async fn write(&self, ino: u64, offset: u64, bytes: Bytes) -> Result<u64, Error> {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > FILE_BYTES_MAX) {
            return Err(Errno::FBIG.into());
        }
        let layout = self.layout(ino).await?;
        match write_pieces(&self.peers, ino, &layout, offset, bytes).await {
            (0, Some(error)) => Err(error),
            (written, _) => Ok(written),
        }
    }

    /// Writes at the end of the file, wherever that is when its turn comes; returns how many bytes were written.
    ///
    /// # Errors
    /// Nothing was written: what a server says, or that it does not.
    pub async fn append(&self, caller: Caller, ino: u64, bytes: Bytes) -> Result<u64, Error> {
        let layout = self.layout(ino).await?;
        let append = Append { operation: Some(caller.operation), layout: Some((*layout).clone()) };
        let (reply, _) = ask_object(&self.peers, ino, &layout, 0, ObjectVerb::Append(append), bytes).await?;
        Ok(reply.written)
    }

    /// Returns when all that was written to the file, by anybody, and all metadata are on disk.
    ///
    /// # Errors
    /// Nothing is promised then.
    pub async fn sync(&self, ino: u64) -> Result<(), Error> {
        let layout = self.layout(ino).await?;
        let objects = on_all(&self.peers, ino, &layout, |_| ObjectVerb::Sync(()));
        let (objects, metadata) = tokio::join!(objects, self.sync_metadata());
        objects?;
        metadata
    }

    /// Returns when all metadata are on disk.
    ///
    /// # Errors
    /// Nothing is promised then.
    pub async fn sync_metadata(&self) -> Result<(), Error> {
        self.ask(MetaVerb::Sync(())).await.map(|_| ())
    }

    /// fallocate(2) on a run of the file.
    ///
    /// # Errors
    /// EFBIG, EOPNOTSUPP, ENOSPC; what a server says, or that it does not.
    pub async fn allocate(&self, ino: u64, mode: u32, offset: u64, length: u64) -> Result<(), Error> {
        let end = offset.checked_add(length).filter(|end| *end <= FILE_BYTES_MAX).ok_or(Errno::FBIG)?;
        let layout = self.layout(ino).await?;
        let verb = |stripe| {
            let run = layout.object_range(stripe, offset..end);
            let run = Run { offset: run.start, length: run.end - run.start };
            ObjectVerb::Allocate(Allocate { mode, run: Some(run) })
        };
        on_all(&self.peers, ino, &layout, verb).await.map(|_| ())
    }

    /// Room on the object server of `node`.
    ///
    /// # Errors
    /// What the server says, or that it does not.
    pub async fn space(&self, node: NodeId) -> Result<Space, Error> {
        let request = ObjectRequest { verb: Some(ObjectVerb::Statfs(())), ..ObjectRequest::default() };
        let (reply, _) = self.peers.object(node, &request, Bytes::new()).await?;
        match reply.errno {
            0 => Ok(reply.space.unwrap_or_default()),
            errno => Err(errno_of(errno).into()),
        }
    }
}

/// Asks the server of one object. A reply with an errno is an error.
async fn ask_object(
    peers: &Peers,
    ino: u64,
    layout: &Layout,
    stripe: u32,
    verb: ObjectVerb,
    bulk: Bytes,
) -> Result<(ObjectReply, Bytes), Error> {
    let request = ObjectRequest { ino, stripe, verb: Some(verb) };
    let (reply, bulk) = peers.object(layout.server(stripe), &request, bulk).await?;
    match reply.errno {
        0 => Ok((reply, bulk)),
        errno => Err(errno_of(errno).into()),
    }
}

/// Asks the servers of all objects at once; the replies in the order of the objects. All are waited for, so that none
/// is at work any more when the first failure is told.
pub(crate) async fn on_all(
    peers: &Peers,
    ino: u64,
    layout: &Layout,
    verb: impl Fn(u32) -> ObjectVerb,
) -> Result<Vec<ObjectReply>, Error> {
    let asked =
        (0..layout.count()).map(|stripe| ask_object(peers, ino, layout, stripe, verb(stripe), Bytes::new()));
    join_all(asked).await.into_iter().map(|reply| reply.map(|(reply, _)| reply)).collect()
}

/// All objects of a file as they are, `None` where there is none yet.
pub(crate) async fn glimpse(peers: &Peers, ino: u64, layout: &Layout) -> Result<Vec<Option<Object>>, Error> {
    let replies = on_all(peers, ino, layout, |_| ObjectVerb::Glimpse(())).await?;
    Ok(replies.into_iter().map(|reply| reply.object).collect())
}

/// Where the file ends.
pub(crate) async fn file_size(peers: &Peers, ino: u64, layout: &Layout) -> Result<u64, Error> {
    Ok(size_of(layout, &glimpse(peers, ino, layout).await?))
}

/// Where the file with these objects ends.
pub(crate) fn size_of(layout: &Layout, objects: &[Option<Object>]) -> u64 {
    let end = |(stripe, object): (usize, &Option<Object>)| {
        object.map_or(0, |object| layout.file_end(stripe as u32, object.length))
    };
    objects.iter().enumerate().map(end).max().unwrap_or(0)
}

/// Writes the pieces of `bytes` at once. Returns how many bytes were written without a gap, and why not all.
pub(crate) async fn write_pieces(
    peers: &Peers,
    ino: u64,
    layout: &Layout,
    offset: u64,
    bytes: Bytes,
) -> (u64, Option<Error>) {
    let pieces = layout.pieces(offset, bytes.len() as u64);
    let writes = pieces.iter().map(|piece| {
        let from = (piece.file_offset - offset) as usize;
        let bulk = bytes.slice(from..from + piece.length as usize);
        let verb = Some(ObjectVerb::Write(piece.object_offset));
        async move {
            let request = ObjectRequest { ino, stripe: piece.stripe, verb };
            peers.object(layout.server(piece.stripe), &request, bulk).await
        }
    });
    let mut written = 0;
    for (piece, reply) in pieces.iter().zip(join_all(writes).await) {
        match reply {
            Err(error) => return (written, Some(error)),
            Ok((reply, _)) => {
                written += reply.written.min(piece.length);
                if reply.errno != 0 || reply.written < piece.length {
                    return (written, Some(errno_of(reply.errno).into()));
                }
            }
        }
    }
    (written, None)
}
