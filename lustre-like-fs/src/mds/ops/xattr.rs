//! Extended attributes: stored as given, except the `system.` ones, which would have a meaning that is not enforced.

use crate::error::Error;
use crate::mds::change::{Change, check_name, named};
use crate::mds::record;
use crate::mds::store::Store;
use crate::wire::{MetaReply, Place, Setxattr};
use rustix::io::Errno;

/// The largest value (XATTR_SIZE_MAX).
const VALUE_BYTES_MAX: usize = 65_536;
/// The largest list of names (XATTR_LIST_MAX).
const LIST_BYTES_MAX: usize = 65_536;
/// `setxattr` flag: it must be new.
const CREATE: u32 = 1;
/// `setxattr` flag: it must be there.
const REPLACE: u32 = 2;

impl<S: Store> Change<'_, S> {
    /// Sets one.
    pub(crate) fn setxattr(&mut self, set: Setxattr) -> Result<MetaReply, Error> {
        let place = named(set.place.as_ref())?;
        if place.name.starts_with(b"system.") {
            return Err(Errno::OPNOTSUPP.into());
        }
        if set.value.len() > VALUE_BYTES_MAX {
            return Err(Errno::TOOBIG.into());
        }
        let mut inode = self.inode(place.parent)?;
        let key = record::xattr_key(inode.ino, &place.name);
        match (set.flags, self.read(&key)?.is_some()) {
            (CREATE, true) => return Err(Errno::EXIST.into()),
            (REPLACE, false) => return Err(Errno::NODATA.into()),
            (0 | CREATE | REPLACE, there) => {
                let names = self.names(inode.ino)?.len() + place.name.len() + 1;
                if !there && names > LIST_BYTES_MAX {
                    return Err(Errno::NOSPC.into());
                }
            }
            _ => return Err(Errno::INVAL.into()),
        }
        self.write(key, set.value);
        inode.ctime = self.now;
        self.put(&inode);
        Ok(MetaReply::default())
    }

    /// Reads one.
    pub(crate) fn getxattr(&mut self, place: &Place) -> Result<MetaReply, Error> {
        check_name(&place.name)?;
        let inode = self.inode(place.parent)?;
        let value = self.read(&record::xattr_key(inode.ino, &place.name))?.ok_or(Errno::NODATA)?;
        Ok(MetaReply { data: value, ..MetaReply::default() })
    }

    /// Lists the names.
    pub(crate) fn listxattr(&mut self, ino: u64) -> Result<MetaReply, Error> {
        let inode = self.inode(ino)?;
        Ok(MetaReply { data: self.names(inode.ino)?, ..MetaReply::default() })
    }

    /// Removes one.
    pub(crate) fn removexattr(&mut self, place: &Place) -> Result<MetaReply, Error> {
        check_name(&place.name)?;
        let mut inode = self.inode(place.parent)?;
        let key = record::xattr_key(inode.ino, &place.name);
        self.read(&key)?.ok_or(Errno::NODATA)?;
        self.erase(key);
        inode.ctime = self.now;
        self.put(&inode);
        Ok(MetaReply::default())
    }

    fn names(&self, ino: u64) -> Result<Vec<u8>, Error> {
        let prefix = record::xattr_key(ino, &[]);
        let rows = self.scan(&prefix, &prefix, usize::MAX)?;
        Ok(rows.iter().flat_map(|(key, _)| key[prefix.len()..].iter().copied().chain([0])).collect())
    }
}
