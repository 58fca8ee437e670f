//! The shell of the object server: requests of the fabric go to the objects, on tokio's threads for blocking work.

use super::append::Appends;
use super::objects::{ObjectName, Objects};
use crate::error::Error;
use crate::peers::Peers;
use crate::wire::{ObjectReply, ObjectRequest, ObjectVerb};
use bytes::Bytes;
use fabric::{Message, Peer, Reply, Service};
use prost::Message as _;
use rustix::io::Errno;
use std::path::Path;
use std::sync::Arc;

/// The object server of this node.
pub struct ObjectServer {
    objects: Arc<Objects>,
    appends: Appends,
    peers: Peers,
}

impl ObjectServer {
    /// Opens the objects in `directory`. Blocks. Appends reach the other objects of their file through `peers`.
    ///
    /// # Errors
    /// The directory cannot be prepared.
    pub fn open(directory: &Path, peers: Peers) -> Result<ObjectServer, Error> {
        Ok(ObjectServer { objects: Arc::new(Objects::open(directory)?), appends: Appends::default(), peers })
    }

    async fn answer(&self, message: Message) -> Message {
        let Ok(request) = ObjectRequest::decode(message.head) else {
            return reply(Err(Errno::PROTO), Bytes::new());
        };
        if let Some(ObjectVerb::Append(append)) = request.verb {
            let done =
                self.appends.append(&self.objects, &self.peers, request.ino, append, message.bulk).await;
            return reply(Ok(done), Bytes::new());
        }
        let (ino, stripe) = (request.ino, request.stripe);
        if let Some(ObjectVerb::Glimpse(())) = request.verb {
            // One inode, nearly always in memory: two wake-ups of another thread would cost more than all the rest.
            return reply(
                carry_out(&self.objects, request, &message.bulk).map(|(done, _)| done),
                Bytes::new(),
            );
        }
        let objects = self.objects.clone();
        let done = tokio::task::spawn_blocking(move || carry_out(&objects, request, &message.bulk)).await;
        let (done, bulk) = match done.unwrap_or(Err(Errno::IO)) {
            Ok((done, bulk)) => (Ok(done), bulk),
            Err(errno) => (Err(errno), Bytes::new()),
        };
        if let Err(errno @ (Errno::IO | Errno::ROFS)) = done {
            tracing::error!(ino, stripe, "an object cannot be used: {errno}");
        }
        reply(done, bulk)
    }
}

impl Service for ObjectServer {
    fn handle(self: Arc<Self>, _from: Peer, request: Message) -> Reply {
        Reply::later(async move { self.answer(request).await })
    }
}

fn reply(done: Result<ObjectReply, Errno>, bulk: Bytes) -> Message {
    let done = done.unwrap_or_else(|errno| ObjectReply {
        errno: errno.raw_os_error().unsigned_abs(),
        ..ObjectReply::default()
    });
    Message { head: done.encode_to_vec().into(), bulk }
}

fn carry_out(objects: &Objects, request: ObjectRequest, bulk: &Bytes) -> Result<(ObjectReply, Bytes), Errno> {
    let name = ObjectName { ino: request.ino, stripe: request.stripe };
    let mut reply = ObjectReply::default();
    match request.verb.ok_or(Errno::NOSYS)? {
        ObjectVerb::Read(run) => return Ok((reply, objects.read(name, run)?.into())),
        ObjectVerb::Write(offset) => {
            let (written, failed) = objects.write(name, offset, bulk);
            reply.written = written;
            reply.errno = failed.map_or(0, |errno| errno.raw_os_error().unsigned_abs());
        }
        ObjectVerb::Glimpse(()) => reply.object = objects.glimpse(name)?,
        ObjectVerb::Resize(resize) => objects.resize(name, resize)?,
        ObjectVerb::Stamp(mtime) => objects.stamp(name, mtime)?,
        ObjectVerb::Allocate(allocate) => objects.allocate(name, allocate)?,
        ObjectVerb::Sync(()) => objects.sync(name)?,
        ObjectVerb::Destroy(()) => objects.destroy(name)?,
        ObjectVerb::Statfs(()) => reply.space = Some(objects.space()?),
        ObjectVerb::Append(_) => return Err(Errno::NOSYS),
    }
    Ok((reply, Bytes::new()))
}
