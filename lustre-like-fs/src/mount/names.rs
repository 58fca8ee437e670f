//! Names: lookup, making, removing, renaming, reading directories; extended attributes.

use super::open::OPEN_FLAGS;
use super::{Answer, Task, empty_answer, fuse_entry, unknown};
use crate::error::Error;
use crate::mds::record::{DIRECTORY, REGULAR, SYMLINK};
use crate::wire::{Create, Link, MetaReply, MetaVerb, Place, Readdir, Rename, Setxattr};
use fuse::{DirBuffer, FileType, Operation};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Cookies of the two names that every directory has.
const SELF_COOKIE: u64 = 1;
const PARENT_COOKIE: u64 = 2;
/// The shortest entry in the kernel's buffer: how many names one READDIR can take at most.
const ENTRY_BYTES_MIN: u32 = 32;
/// Names asked of the server at once.
const NAMES_MAX: u32 = 1_024;

impl Task {
    pub(super) async fn name(&self, operation: Operation) -> Answer {
        match operation {
            Operation::Lookup { name } => {
                let entry = fuse_entry(&self.client.lookup(self.place(name)).await?);
                Ok(Box::new(move |reply| reply.entry(&entry)))
            }
            Operation::ReadLink => {
                let reply = self.client.ask(MetaVerb::Readlink(self.header.nodeid)).await?;
                Ok(Box::new(move |to| to.data(&reply.data)))
            }
            Operation::SymLink { name, target } => {
                let target = target.into_vec();
                self.make(name, Create { mode: SYMLINK | 0o777, target, ..Create::default() }).await
            }
            Operation::MkNod { name, mode, rdev, .. } => {
                self.make(name, Create { mode, rdev, ..Create::default() }).await
            }
            Operation::MkDir { name, mode, .. } => {
                self.make(name, Create { mode: DIRECTORY | mode & 0o7777, ..Create::default() }).await
            }
            Operation::Create { name, mode, flags, .. } => self.create(name, mode, flags).await,
            Operation::Unlink { name } => self.done(MetaVerb::Unlink(self.place(name))).await,
            Operation::RmDir { name } => self.done(MetaVerb::Rmdir(self.place(name))).await,
            Operation::Rename { name, new_parent, new_name, flags } => {
                let from = Some(self.place(name));
                let to = Some(Place { parent: new_parent, name: new_name.into_vec() });
                self.done(MetaVerb::Rename(Rename { from, to, flags })).await
            }
            Operation::Link { existing, new_name } => {
                let link = Link { ino: existing, to: Some(self.place(new_name)) };
                let reply = self.client.change(self.caller, MetaVerb::Link(link)).await?;
                self.entry(reply).await
            }
            Operation::ReadDir { offset, size, .. } => self.read_directory(offset, size).await,
            _ => unknown(),
        }
    }

    fn place(&self, name: OsString) -> Place {
        Place { parent: self.header.nodeid, name: name.into_vec() }
    }

    async fn done(&self, verb: MetaVerb) -> Answer {
        self.client.change(self.caller, verb).await?;
        empty_answer()
    }

    async fn entry(&self, reply: MetaReply) -> Answer {
        let entry = fuse_entry(&self.client.complete_if_possible(reply).await?);
        Ok(Box::new(move |reply| reply.entry(&entry)))
    }

    async fn make(&self, name: OsString, create: Create) -> Answer {
        let create = Create { place: Some(self.place(name)), ..create };
        let reply = self.client.change(self.caller, MetaVerb::Create(create)).await?;
        self.entry(reply).await
    }

    /// The kernel asks this where it found no such name. If another node was quicker and the caller does not insist on a
    /// new file, ESTALE makes the kernel look again: it then opens what is there, with its checks of permission.
    async fn create(&self, name: OsString, mode: u32, flags: u32) -> Answer {
        let handle = self.client.handle(0, self.caller.operation.sequence);
        let create = Create {
            place: Some(self.place(name)),
            mode: REGULAR | mode & 0o7777,
            handle: Some(handle.clone()),
            ..Create::default()
        };
        let exclusive = OFlags::from_bits_retain(flags).contains(OFlags::EXCL);
        let reply = match self.client.change(self.caller, MetaVerb::Create(create)).await {
            Err(Error::Errno(Errno::EXIST)) if !exclusive => return Err(Errno::STALE.into()),
            other => other?,
        };
        // Nobody has written to it: what the metadata server says is all there is.
        let entry = fuse_entry(reply.attr.as_ref().ok_or(Errno::IO)?);
        Ok(Box::new(move |reply| reply.created(&entry, handle.handle, OPEN_FLAGS)))
    }

    async fn read_directory(&self, offset: u64, size: u32) -> Answer {
        let ino = self.header.nodeid;
        let after = if offset < PARENT_COOKIE { 0 } else { offset };
        let limit = (size / ENTRY_BYTES_MIN).clamp(1, NAMES_MAX);
        let listing = self.client.ask(MetaVerb::Readdir(Readdir { ino, after, limit })).await?;
        let mut buffer = DirBuffer::new(size);
        let own = [(ino, SELF_COOKIE, "."), (listing.parent, PARENT_COOKIE, "..")];
        let own = own.into_iter().filter(|(_, cookie, _)| *cookie > offset);
        let fits = own
            .into_iter()
            .all(|(ino, cookie, name)| buffer.add(ino, cookie, FileType::Directory, OsStr::new(name)));
        for entry in listing.entries.iter().filter(|_| fits) {
            let name = OsStr::from_bytes(&entry.name);
            if !buffer.add(entry.ino, entry.cookie, FileType::of_mode(entry.kind), name) {
                break;
            }
        }
        Ok(Box::new(move |reply| reply.directory(&buffer)))
    }

    pub(super) async fn xattr(&self, operation: Operation) -> Answer {
        let ino = self.header.nodeid;
        let (value, size) = match operation {
            Operation::SetXattr { name, value, flags } => {
                let set = Setxattr { place: Some(self.place(name)), value: value.to_vec(), flags };
                return self.done(MetaVerb::Setxattr(set)).await;
            }
            Operation::RemoveXattr { name } => {
                return self.done(MetaVerb::Removexattr(self.place(name))).await;
            }
            Operation::GetXattr { name, size } => {
                (self.client.ask(MetaVerb::Getxattr(self.place(name))).await?.data, size)
            }
            Operation::ListXattr { size } => (self.client.ask(MetaVerb::Listxattr(ino)).await?.data, size),
            _ => return unknown(),
        };
        match size as usize {
            0 => Ok(Box::new(move |reply| reply.xattr_size(value.len() as u32))),
            room if value.len() > room => Err(Errno::RANGE.into()),
            _ => Ok(Box::new(move |reply| reply.data(&value))),
        }
    }
}
