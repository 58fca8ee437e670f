//! Attributes of a file: the metadata server's and the object servers' parts put together.

use super::data::{glimpse, on_all, size_of};
use super::{Caller, Client};
use crate::error::Error;
use crate::layout::Layout;
use crate::wire::{Attr, MetaReply, MetaVerb, Object, ObjectVerb, Place, Resize, Setattr};
use futures_util::future::{Either, select};
use rustix::io::Errno;
use std::pin::pin;

impl Client {
    /// All attributes of `ino`.
    ///
    /// # Errors
    /// ENOENT; what a server says, or that it does not.
    pub async fn getattr(&self, ino: u64) -> Result<Attr, Error> {
        let Some(layout) = self.known_layout(ino) else {
            let reply = self.ask(MetaVerb::Getattr(ino)).await?;
            return self.complete(reply).await;
        };
        let (reply, objects) =
            tokio::join!(self.ask(MetaVerb::Getattr(ino)), glimpse(&self.peers, ino, &layout));
        let attr = reply?.attr.ok_or(Errno::IO)?;
        Ok(merge(attr, &layout, &objects?))
    }

    /// All attributes of what `place` stands for. The objects of the file that it stood for last time are asked at the same
    /// time as the metadata server; if it stands for another file now, that one's are asked after it.
    ///
    /// # Errors
    /// ENOENT; what the metadata server says, or that it does not. A file whose objects cannot be asked is still found.
    pub async fn lookup(&self, place: Place) -> Result<Attr, Error> {
        let Some((guess, layout)) = self.guess(&place) else {
            let reply = self.ask(MetaVerb::Lookup(place.clone())).await?;
            return self.found(place, reply).await;
        };
        let ask = pin!(self.ask(MetaVerb::Lookup(place.clone())));
        let objects = pin!(glimpse(&self.peers, guess, &layout));
        let is_it = |reply: &MetaReply| reply.attr.as_ref().is_some_and(|attr| attr.ino == guess);
        let (reply, objects) = match select(ask, objects).await {
            Either::Left((reply, objects)) => {
                let reply = reply?;
                // Objects of a file that the name does not mean any more are not waited for.
                let objects = if is_it(&reply) { Some(objects.await) } else { None };
                (reply, objects)
            }
            Either::Right((objects, reply)) => (reply.await?, Some(objects)),
        };
        match (reply.attr.as_ref().filter(|_| is_it(&reply)), objects) {
            (Some(attr), Some(Ok(objects))) => Ok(merge(attr.clone(), &layout, &objects)),
            (Some(attr), _) => Ok(attr.clone()),
            (None, _) => self.found(place, reply).await,
        }
    }

    async fn found(&self, place: Place, reply: MetaReply) -> Result<Attr, Error> {
        if let (Some(attr), Some(_)) = (&reply.attr, &reply.layout) {
            self.remember_name(place, attr.ino);
        }
        self.complete_if_possible(reply).await
    }

    /// Adds to the metadata server's reply what the objects know.
    pub(crate) async fn complete(&self, reply: MetaReply) -> Result<Attr, Error> {
        let attr = reply.attr.ok_or(Errno::IO)?;
        let Some(layout) = reply.layout else { return Ok(attr) };
        let objects = glimpse(&self.peers, attr.ino, &layout).await?;
        Ok(merge(attr, &layout, &objects))
    }

    /// Like `complete`, but a file whose objects cannot be asked is still found (and can be renamed and removed), with the
    /// attributes that the metadata server has.
    pub(crate) async fn complete_if_possible(&self, reply: MetaReply) -> Result<Attr, Error> {
        let attr = reply.attr.clone().ok_or(Errno::IO)?;
        Ok(self.complete(reply).await.unwrap_or(attr))
    }

    /// Changes attributes; `size` cuts or stretches the file.
    ///
    /// # Errors
    /// What a server says, or that it does not. The metadata's half of the change may have been made.
    pub async fn setattr(&self, caller: Caller, mut set: Setattr, size: Option<u64>) -> Result<Attr, Error> {
        set.resized = size.is_some();
        let stamps = set.mtime.is_some() || set.resized;
        let reply = self.ask_as(caller, MetaVerb::Setattr(set)).await?;
        if let (true, Some(attr), Some(layout)) = (stamps, &reply.attr, &reply.layout) {
            let (ino, mtime) = (attr.ino, attr.mtime);
            let verb = |stripe| match size {
                Some(size) => {
                    ObjectVerb::Resize(Resize { length: layout.object_length(stripe, size), mtime })
                }
                None => ObjectVerb::Stamp(mtime),
            };
            on_all(&self.peers, ino, layout, verb).await?;
        }
        self.complete(reply).await
    }

    /// Sends a change that may be made twice: it is not remembered by the server.
    async fn ask_as(&self, caller: Caller, verb: MetaVerb) -> Result<MetaReply, Error> {
        let request =
            crate::wire::MetaRequest { operation: None, uid: caller.uid, gid: caller.gid, verb: Some(verb) };
        self.peers.meta(&request).await
    }
}

/// Size, blocks and times from the objects. See the module's head for the rule of the mtime.
fn merge(mut attr: Attr, layout: &Layout, objects: &[Option<Object>]) -> Attr {
    attr.size = size_of(layout, objects);
    attr.blocks = objects.iter().flatten().map(|object| object.blocks).sum();
    let set = attr.mtime;
    let written = objects.iter().flatten().map(|object| object.mtime).filter(|mtime| *mtime != set).max();
    if let Some(written) = written {
        attr.mtime = written;
        attr.ctime = attr.ctime.max(written);
    }
    attr
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(set: i64, ctime: i64, objects: &[Option<(u64, i64)>]) -> (u64, i64, i64) {
        let attr = Attr { mtime: set, ctime, ..Attr::default() };
        let layout = Layout { stripe_size: 10, osts: vec![1, 2, 3] };
        let object = |(length, mtime)| Object { length, blocks: 1, mtime };
        let objects: Vec<Option<Object>> = objects.iter().map(|known| known.map(object)).collect();
        let attr = merge(attr, &layout, &objects);
        (attr.size, attr.mtime, attr.ctime)
    }

    #[test]
    fn an_unwritten_file_has_the_time_that_was_set() {
        assert_eq!(merged(50, 60, &[None, None, None]), (0, 50, 60));
        assert_eq!(merged(50, 60, &[Some((10, 50)), Some((5, 50)), None]), (15, 50, 60));
    }

    #[test]
    fn a_write_after_the_setting_counts_also_if_the_time_set_lies_ahead() {
        assert_eq!(merged(1_000, 60, &[Some((10, 70)), Some((10, 1_000)), None]), (20, 70, 70));
        assert_eq!(merged(5, 60, &[Some((10, 70)), Some((10, 80)), Some((1, 5))]), (21, 80, 80));
    }
}
