//! Open files: a file lives until its last name and its last handle are gone, whichever comes later.

use crate::error::Error;
use crate::mds::change::Change;
use crate::mds::record::{self, Inode};
use crate::mds::store::Store;
use crate::wire::{Handle, MetaReply};

impl<S: Store> Change<'_, S> {
    /// Notes a handle. Asked twice it is the same handle.
    pub(crate) fn open(&mut self, handle: &Handle) -> Result<MetaReply, Error> {
        let inode = self.inode(handle.ino)?;
        if inode.is_regular() {
            self.write(record::open_key(handle), Vec::new());
        }
        Ok(Self::reply(&inode))
    }

    /// Drops a handle. Asked twice, or of a handle that never was, it does nothing.
    pub(crate) fn release(&mut self, handle: &Handle) -> Result<MetaReply, Error> {
        let key = record::open_key(handle);
        if self.read(&key)?.is_none() {
            return Ok(MetaReply::default());
        }
        self.erase(key);
        let inode: Option<Inode> = self.record(&record::inode_key(handle.ino))?;
        if let Some(inode) = inode
            && inode.nlink == 0
            && !self.is_open(inode.ino)?
        {
            self.destroy(&inode)?;
        }
        Ok(MetaReply::default())
    }
}
