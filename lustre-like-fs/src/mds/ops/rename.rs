//! Rename: one batch, so that every observer sees the old names or the new ones.

use crate::error::Error;
use crate::mds::change::{Change, named};
use crate::mds::record::{Inode, Link, ROOT};
use crate::mds::store::Store;
use crate::wire::{MetaReply, Place, Rename};
use rustix::io::Errno;

/// `renameat2` flag: fail if the new name is there.
pub(crate) const NOREPLACE: u32 = 1;
/// `renameat2` flag: swap the two names.
pub(crate) const EXCHANGE: u32 = 2;

/// A name, and what it stands for.
struct Named<'a> {
    place: &'a Place,
    link: Link,
    inode: Inode,
}

impl<S: Store> Change<'_, S> {
    /// rename(2), renameat2(2).
    pub(crate) fn rename(&mut self, rename: &Rename) -> Result<MetaReply, Error> {
        let (from, to) = (named(rename.from.as_ref())?, named(rename.to.as_ref())?);
        if ![0, NOREPLACE, EXCHANGE].contains(&rename.flags) {
            return Err(Errno::INVAL.into());
        }
        self.directory(from.parent)?;
        self.directory(to.parent)?;
        let source = self.resolve(from)?.ok_or(Errno::NOENT)?;
        let target = self.resolve(to)?;
        if rename.flags == NOREPLACE && target.is_some() {
            return Err(Errno::EXIST.into());
        }
        if target.as_ref().is_some_and(|target| target.inode.ino == source.inode.ino) {
            return Ok(MetaReply::default());
        }
        self.check_no_loop(&source.inode, to.parent)?;
        match (rename.flags, target) {
            (EXCHANGE, None) => return Err(Errno::NOENT.into()),
            (EXCHANGE, Some(target)) => {
                self.check_no_loop(&target.inode, from.parent)?;
                self.exchange(source, target)?;
            }
            (_, target) => self.replace(source, to, target)?,
        }
        Ok(MetaReply::default())
    }

    fn resolve<'a>(&self, place: &'a Place) -> Result<Option<Named<'a>>, Error> {
        let Some(link) = self.link_at(place.parent, &place.name)? else { return Ok(None) };
        let inode = self.inode(link.ino)?;
        Ok(Some(Named { place, link, inode }))
    }

    /// A directory must not come to lie below itself.
    fn check_no_loop(&self, moved: &Inode, new_parent: u64) -> Result<(), Error> {
        let mut at = new_parent;
        while moved.is_directory() {
            if at == moved.ino {
                return Err(Errno::INVAL.into());
            }
            if at == ROOT {
                break;
            }
            at = self.directory(at)?.parent;
        }
        Ok(())
    }

    fn replace(&mut self, source: Named<'_>, to: &Place, target: Option<Named<'_>>) -> Result<(), Error> {
        let Named { place: from, link, mut inode } = source;
        if let Some(target) = target {
            check_replaceable(&inode, &target.inode)?;
            self.remove_replaced(target)?;
        }
        let mut old_parent = self.directory(from.parent)?;
        self.remove_name(&mut old_parent, &from.name, &link);
        if inode.is_directory() {
            old_parent.nlink = old_parent.nlink.saturating_sub(1);
        }
        self.put(&old_parent);
        let mut new_parent = self.directory(to.parent)?;
        self.add_name(&mut new_parent, &to.name, inode.ino, inode.kind());
        if inode.is_directory() {
            new_parent.nlink += 1;
            inode.parent = new_parent.ino;
        }
        self.put(&new_parent);
        inode.ctime = self.now;
        self.put(&inode);
        Ok(())
    }

    fn remove_replaced(&mut self, target: Named<'_>) -> Result<(), Error> {
        let mut parent = self.directory(target.place.parent)?;
        self.remove_name(&mut parent, &target.place.name, &target.link);
        if target.inode.is_directory() {
            parent.nlink = parent.nlink.saturating_sub(1);
            self.put(&parent);
            return self.destroy(&target.inode);
        }
        self.put(&parent);
        self.drop_link(target.inode)
    }

    fn exchange(&mut self, one: Named<'_>, other: Named<'_>) -> Result<(), Error> {
        self.turn(&one, &other.inode)?;
        self.turn(&other, &one.inode)
    }

    /// Lets the name of `old` stand for `inode` from now on.
    fn turn(&mut self, old: &Named<'_>, inode: &Inode) -> Result<(), Error> {
        let mut parent = self.directory(old.place.parent)?;
        self.turn_name(&mut parent, &old.place.name, &old.link, inode.ino, inode.kind());
        parent.nlink += u32::from(inode.is_directory());
        parent.nlink = parent.nlink.saturating_sub(u32::from(old.inode.is_directory()));
        self.put(&parent);
        // Read again: the other turn, or this directory's own change as a parent, may have put it already.
        let mut inode = self.inode(inode.ino)?;
        inode.ctime = self.now;
        if inode.is_directory() {
            inode.parent = old.place.parent;
        }
        self.put(&inode);
        Ok(())
    }
}

fn check_replaceable(source: &Inode, target: &Inode) -> Result<(), Error> {
    match (source.is_directory(), target.is_directory()) {
        (true, false) => Err(Errno::NOTDIR.into()),
        (false, true) => Err(Errno::ISDIR.into()),
        (true, true) if target.entries > 0 => Err(Errno::NOTEMPTY.into()),
        _ => Ok(()),
    }
}
