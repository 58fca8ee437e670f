//! Attributes: getattr, setattr, the striping pattern of a directory.

use crate::error::Error;
use crate::mds::change::Change;
use crate::mds::record::KIND_MASK;
use crate::mds::store::Store;
use crate::wire::{MetaReply, SetPattern, SetTime, Setattr};
use rustix::io::Errno;

impl<S: Store> Change<'_, S> {
    /// Attributes, and the layout of a regular file.
    pub(crate) fn getattr(&mut self, ino: u64) -> Result<MetaReply, Error> {
        Ok(Self::reply(&self.inode(ino)?))
    }

    /// chmod, chown, utimensat, and the metadata's half of truncate. The kernel has checked that the caller may.
    pub(crate) fn setattr(&mut self, set: &Setattr) -> Result<MetaReply, Error> {
        let mut inode = self.inode(set.ino)?;
        if set.resized && !inode.is_regular() {
            return Err(if inode.is_directory() { Errno::ISDIR } else { Errno::INVAL }.into());
        }
        if let Some(mode) = set.mode {
            inode.mode = (inode.mode & KIND_MASK) | (mode & 0o7777);
        }
        inode.uid = set.uid.unwrap_or(inode.uid);
        inode.gid = set.gid.unwrap_or(inode.gid);
        if set.resized {
            inode.mtime = self.now;
        }
        let time = |set: SetTime| if set.now { self.now } else { set.at };
        inode.atime = set.atime.map_or(inode.atime, time);
        inode.mtime = set.mtime.map_or(inode.mtime, time);
        inode.ctime = self.now;
        self.put(&inode);
        Ok(Self::reply(&inode))
    }

    /// Gives a directory its pattern: the owner's and root's to do.
    pub(crate) fn set_pattern(&mut self, set: SetPattern) -> Result<MetaReply, Error> {
        let mut inode = self.directory(set.ino)?;
        if self.uid != 0 && self.uid != inode.uid {
            return Err(Errno::PERM.into());
        }
        if !set.pattern.as_ref().is_none_or(|pattern| pattern.is_valid()) {
            return Err(Errno::INVAL.into());
        }
        inode.pattern = set.pattern;
        inode.ctime = self.now;
        self.put(&inode);
        Ok(Self::reply(&inode))
    }
}
