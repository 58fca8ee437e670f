//! One request's view of the store: it reads through its own writes, and all of them are committed together or dropped.

use super::record::{self, COUNTERS, Counters, Inode, Link, Listed};
use super::store::{Batch, Row, Store};
use crate::error::Error;
use crate::layout::Layout;
use crate::wire::{MetaReply, Place};
use base::NodeId;
use prost::Message;
use rustix::io::Errno;

/// The longest name of a directory entry or an extended attribute, in bytes (NAME_MAX).
pub const NAME_BYTES_MAX: usize = 255;

/// A request being carried out.
pub struct Change<'a, S> {
    store: &'a S,
    writes: Batch,
    /// The time that the request is stamped with, nanoseconds since 1970.
    pub now: i64,
    /// The caller's user.
    pub uid: u32,
    /// The caller's group.
    pub gid: u32,
    /// Where objects of new files may go.
    pub servers: &'a [NodeId],
}

impl<'a, S: Store> Change<'a, S> {
    /// A request without writes yet.
    pub fn new(store: &'a S, now: i64, caller: (u32, u32), servers: &'a [NodeId]) -> Change<'a, S> {
        Change { store, writes: Batch::new(), now, uid: caller.0, gid: caller.1, servers }
    }

    /// What the request wrote.
    pub fn into_batch(self) -> Batch {
        self.writes
    }

    pub(super) fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        match self.writes.get(key) {
            Some(written) => Ok(written.clone()),
            None => self.store.read(key),
        }
    }

    /// Rows of the store as it was before this request.
    pub(super) fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Row>, Error> {
        self.store.scan(prefix, from, limit)
    }

    pub(super) fn write(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.writes.insert(key, Some(value));
    }

    pub(super) fn erase(&mut self, key: Vec<u8>) {
        self.writes.insert(key, None);
    }

    pub(super) fn record<M: Message + Default>(&self, key: &[u8]) -> Result<Option<M>, Error> {
        self.read(key)?.map(|value| decode(key, &value)).transpose()
    }

    /// The inode `ino`, or ENOENT.
    pub fn inode(&self, ino: u64) -> Result<Inode, Error> {
        self.record(&record::inode_key(ino))?.ok_or(Error::Errno(Errno::NOENT))
    }

    /// The directory `ino`, or ENOENT, ENOTDIR.
    pub fn directory(&self, ino: u64) -> Result<Inode, Error> {
        let inode = self.inode(ino)?;
        if inode.is_directory() { Ok(inode) } else { Err(Errno::NOTDIR.into()) }
    }

    pub(super) fn put(&mut self, inode: &Inode) {
        self.write(record::inode_key(inode.ino), inode.encode_to_vec());
    }

    /// What `name` stands for in `directory`.
    pub fn link_at(&self, directory: u64, name: &[u8]) -> Result<Option<Link>, Error> {
        self.record(&record::name_key(directory, name))
    }

    /// Counts a new inode and gives its number.
    pub(super) fn allocate(&mut self) -> Result<u64, Error> {
        let mut counters = self.counters()?;
        let ino = counters.next_ino;
        counters.next_ino += 1;
        counters.inodes += 1;
        self.write(COUNTERS.to_vec(), counters.encode_to_vec());
        Ok(ino)
    }

    pub(super) fn counters(&self) -> Result<Counters, Error> {
        Ok(self.record(COUNTERS)?.unwrap_or(Counters { next_ino: record::ROOT + 1, inodes: 1 }))
    }

    /// Puts a name into `directory` and stamps the directory (in memory: the caller puts it).
    pub(super) fn add_name(&mut self, directory: &mut Inode, name: &[u8], ino: u64, kind: u32) {
        let cookie = directory.next_cookie;
        directory.next_cookie += 1;
        directory.entries += 1;
        self.stamp(directory);
        let link = Link { ino, kind, cookie };
        self.write(record::name_key(directory.ino, name), link.encode_to_vec());
        let listed = Listed { ino, kind, name: name.to_vec() };
        self.write(record::listing_key(directory.ino, cookie), listed.encode_to_vec());
    }

    /// Takes a name out of `directory` and stamps the directory (in memory).
    pub(super) fn remove_name(&mut self, directory: &mut Inode, name: &[u8], link: &Link) {
        directory.entries = directory.entries.saturating_sub(1);
        self.stamp(directory);
        self.erase(record::name_key(directory.ino, name));
        self.erase(record::listing_key(directory.ino, link.cookie));
    }

    /// Lets an existing name stand for another inode; its place in the order stays.
    pub(super) fn turn_name(&mut self, directory: &mut Inode, name: &[u8], link: &Link, ino: u64, kind: u32) {
        self.stamp(directory);
        let turned = Link { ino, kind, cookie: link.cookie };
        self.write(record::name_key(directory.ino, name), turned.encode_to_vec());
        let listed = Listed { ino, kind, name: name.to_vec() };
        self.write(record::listing_key(directory.ino, link.cookie), listed.encode_to_vec());
    }

    fn stamp(&self, directory: &mut Inode) {
        directory.mtime = self.now;
        directory.ctime = self.now;
    }

    /// One name of `inode` is gone: with the last name, and if nobody has it open, it goes too.
    pub(super) fn drop_link(&mut self, mut inode: Inode) -> Result<(), Error> {
        inode.nlink = inode.nlink.saturating_sub(1);
        inode.ctime = self.now;
        if inode.nlink > 0 || (inode.is_regular() && self.is_open(inode.ino)?) {
            self.put(&inode);
            return Ok(());
        }
        self.destroy(&inode)
    }

    /// Whether some handle on `ino` is open, those aside that this request closes.
    pub(super) fn is_open(&self, ino: u64) -> Result<bool, Error> {
        let prefix = record::opens_prefix(ino);
        let erased = self.writes.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
        let limit = erased.count() + 1;
        let rows = self.scan(&prefix, &prefix, limit)?;
        Ok(rows.iter().any(|(key, _)| self.writes.get(key) != Some(&None)))
    }

    /// Removes the inode with all that hangs on it; its objects are noted for the purge.
    pub(super) fn destroy(&mut self, inode: &Inode) -> Result<(), Error> {
        self.erase(record::inode_key(inode.ino));
        let prefix = record::xattr_key(inode.ino, &[]);
        for (key, _) in self.scan(&prefix, &prefix, usize::MAX)? {
            self.erase(key);
        }
        if let Some(layout) = &inode.layout {
            self.write(record::purge_key(inode.ino), layout.encode_to_vec());
        }
        let mut counters = self.counters()?;
        counters.inodes = counters.inodes.saturating_sub(1);
        self.write(COUNTERS.to_vec(), counters.encode_to_vec());
        Ok(())
    }

    pub(super) fn reply(inode: &Inode) -> MetaReply {
        let layout: Option<Layout> = inode.layout.clone();
        MetaReply {
            attr: Some(inode.attr()),
            layout,
            parent: inode.parent,
            pattern: inode.pattern.clone(),
            ..MetaReply::default()
        }
    }
}

/// The place in a request, its name checked.
pub(super) fn named(place: Option<&Place>) -> Result<&Place, Error> {
    let place = place.ok_or(Error::Errno(Errno::INVAL))?;
    check_name(&place.name)?;
    if matches!(&place.name[..], b"." | b"..") {
        return Err(Errno::INVAL.into());
    }
    Ok(place)
}

/// Whether `name` can be one.
pub(super) fn check_name(name: &[u8]) -> Result<(), Error> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Errno::NAMETOOLONG.into());
    }
    if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
        return Err(Errno::INVAL.into());
    }
    Ok(())
}

/// A record's value, or an error that names its key.
pub(super) fn decode<M: Message + Default>(key: &[u8], value: &[u8]) -> Result<M, Error> {
    M::decode(value).map_err(|error| Error::Record { key: key.to_vec(), what: error.to_string() })
}
