//! Questions about names: lookup, readdir, readlink, statfs.

use crate::error::Error;
use crate::mds::change::{Change, check_name, decode};
use crate::mds::record::{self, Listed, SYMLINK};
use crate::mds::store::Store;
use crate::wire::{Entry, MetaReply, Place, Readdir};
use rustix::io::Errno;

/// Names in one reply, at most.
const NAMES_PER_REPLY_MAX: u32 = 4_096;

impl<S: Store> Change<'_, S> {
    /// The inode behind a name; `.` and `..` mean what they say.
    pub(crate) fn lookup(&mut self, place: &Place) -> Result<MetaReply, Error> {
        let directory = self.directory(place.parent)?;
        check_name(&place.name)?;
        let ino = match &place.name[..] {
            b"." => directory.ino,
            b".." => directory.parent,
            name => self.link_at(directory.ino, name)?.ok_or(Errno::NOENT)?.ino,
        };
        Ok(Self::reply(&self.inode(ino)?))
    }

    /// Names after a cookie, in an order that other changes do not disturb.
    pub(crate) fn readdir(&mut self, readdir: &Readdir) -> Result<MetaReply, Error> {
        let directory = self.directory(readdir.ino)?;
        let from = record::listing_key(directory.ino, readdir.after.saturating_add(1));
        let limit = readdir.limit.clamp(1, NAMES_PER_REPLY_MAX) as usize;
        let rows = self.scan(&record::listing_prefix(directory.ino), &from, limit)?;
        let entries = rows.iter().map(|(key, value)| {
            let listed: Listed = decode(key, value)?;
            let cookie = key[9..].try_into().map(u64::from_be_bytes);
            let cookie = cookie.map_err(|_| Error::Record { key: key.clone(), what: "no cookie".into() })?;
            Ok(Entry { ino: listed.ino, kind: listed.kind, cookie, name: listed.name })
        });
        let entries = entries.collect::<Result<Vec<Entry>, Error>>()?;
        Ok(MetaReply { entries, ..Self::reply(&directory) })
    }

    /// Where a symbolic link points.
    pub(crate) fn readlink(&mut self, ino: u64) -> Result<MetaReply, Error> {
        let inode = self.inode(ino)?;
        if inode.kind() != SYMLINK {
            return Err(Errno::INVAL.into());
        }
        Ok(MetaReply { data: inode.target, ..MetaReply::default() })
    }

    /// Inodes in use.
    pub(crate) fn statfs(&mut self) -> Result<MetaReply, Error> {
        Ok(MetaReply { inodes: self.counters()?.inodes, ..MetaReply::default() })
    }
}
