//! New inodes and new names: create, mkdir, mknod, symlink, link.

use crate::error::Error;
use crate::mds::change::{Change, named};
use crate::mds::record::{self, DIRECTORY, Inode, KIND_MASK, REGULAR, SETGID, SYMLINK};
use crate::mds::store::Store;
use crate::wire::{self, Create, MetaReply};
use rustix::io::Errno;

/// The longest target of a symbolic link (PATH_MAX without its end).
const TARGET_BYTES_MAX: usize = 4_095;
/// Names of one inode, at most: as in ext4.
const LINKS_MAX: u32 = 65_000;
/// Device, pipe and socket nodes.
const SPECIAL: [u32; 4] = [0o020_000, 0o060_000, 0o010_000, 0o140_000];

impl<S: Store> Change<'_, S> {
    /// Makes an inode under a new name; EEXIST if the name is there.
    pub(crate) fn create(&mut self, create: Create) -> Result<MetaReply, Error> {
        let place = named(create.place.as_ref())?;
        let mut directory = self.directory(place.parent)?;
        if self.link_at(directory.ino, &place.name)?.is_some() {
            return Err(Errno::EXIST.into());
        }
        let inode = self.new_inode(&create, &directory)?;
        if inode.is_directory() {
            if directory.nlink >= LINKS_MAX {
                return Err(Errno::MLINK.into());
            }
            directory.nlink += 1;
        }
        self.add_name(&mut directory, &place.name, inode.ino, inode.kind());
        self.put(&directory);
        self.put(&inode);
        if let Some(handle) = create.handle.filter(|_| inode.is_regular()) {
            self.write(record::open_key(&wire::Handle { ino: inode.ino, ..handle }), Vec::new());
        }
        Ok(Self::reply(&inode))
    }

    fn new_inode(&mut self, create: &Create, directory: &Inode) -> Result<Inode, Error> {
        let kind = create.mode & KIND_MASK;
        let known = [DIRECTORY, REGULAR, SYMLINK].contains(&kind) || SPECIAL.contains(&kind);
        let target_fits = match kind {
            SYMLINK => (1..=TARGET_BYTES_MAX).contains(&create.target.len()),
            _ => create.target.is_empty(),
        };
        if !known || !target_fits {
            return Err(Errno::INVAL.into());
        }
        let inherits = directory.mode & SETGID != 0;
        let ino = self.allocate()?;
        let mut inode = Inode {
            ino,
            mode: create.mode & (KIND_MASK | 0o7777),
            nlink: 1,
            uid: self.uid,
            gid: if inherits { directory.gid } else { self.gid },
            rdev: create.rdev,
            atime: self.now,
            mtime: self.now,
            ctime: self.now,
            target: create.target.clone(),
            ..Inode::default()
        };
        let pattern = create.pattern.as_ref().or(directory.pattern.as_ref());
        match kind {
            DIRECTORY => {
                inode.nlink = 2;
                inode.parent = directory.ino;
                inode.next_cookie = record::COOKIE_FIRST;
                inode.pattern = pattern.cloned();
                inode.mode |= if inherits { SETGID } else { 0 };
            }
            REGULAR => {
                let pattern = pattern.cloned().unwrap_or_default();
                if !pattern.is_valid() {
                    return Err(Errno::INVAL.into());
                }
                inode.layout = Some(pattern.layout(ino, self.servers).ok_or(Errno::NOTCONN)?);
            }
            _ => {}
        }
        Ok(inode)
    }

    /// Another name for an inode that is no directory.
    pub(crate) fn link(&mut self, link: &wire::Link) -> Result<MetaReply, Error> {
        let place = named(link.to.as_ref())?;
        let mut inode = self.inode(link.ino)?;
        if inode.is_directory() {
            return Err(Errno::PERM.into());
        }
        if inode.nlink == 0 {
            return Err(Errno::NOENT.into());
        }
        if inode.nlink >= LINKS_MAX {
            return Err(Errno::MLINK.into());
        }
        let mut directory = self.directory(place.parent)?;
        if self.link_at(directory.ino, &place.name)?.is_some() {
            return Err(Errno::EXIST.into());
        }
        inode.nlink += 1;
        inode.ctime = self.now;
        self.add_name(&mut directory, &place.name, inode.ino, inode.kind());
        self.put(&directory);
        self.put(&inode);
        Ok(Self::reply(&inode))
    }
}
