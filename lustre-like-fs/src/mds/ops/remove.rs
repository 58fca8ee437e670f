//! Names that go: unlink, rmdir.

use crate::error::Error;
use crate::mds::change::{Change, named};
use crate::mds::store::Store;
use crate::wire::{MetaReply, Place};
use rustix::io::Errno;

impl<S: Store> Change<'_, S> {
    /// Removes a name of something that is no directory.
    pub(crate) fn unlink(&mut self, place: &Place) -> Result<MetaReply, Error> {
        let place = named(Some(place))?;
        let mut directory = self.directory(place.parent)?;
        let link = self.link_at(directory.ino, &place.name)?.ok_or(Errno::NOENT)?;
        let inode = self.inode(link.ino)?;
        if inode.is_directory() {
            return Err(Errno::ISDIR.into());
        }
        self.remove_name(&mut directory, &place.name, &link);
        self.put(&directory);
        self.drop_link(inode)?;
        Ok(MetaReply::default())
    }

    /// Removes an empty directory.
    pub(crate) fn rmdir(&mut self, place: &Place) -> Result<MetaReply, Error> {
        let place = named(Some(place))?;
        let mut directory = self.directory(place.parent)?;
        let link = self.link_at(directory.ino, &place.name)?.ok_or(Errno::NOENT)?;
        let inode = self.directory(link.ino)?;
        if inode.entries > 0 {
            return Err(Errno::NOTEMPTY.into());
        }
        self.remove_name(&mut directory, &place.name, &link);
        directory.nlink = directory.nlink.saturating_sub(1);
        self.put(&directory);
        self.destroy(&inode)?;
        Ok(MetaReply::default())
    }
}
