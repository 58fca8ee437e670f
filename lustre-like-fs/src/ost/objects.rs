//! Objects on disk: `DIRECTORY/objects/XX/INO.STRIPE`, one file each, made by the first write.
//!
//! `XX` is the low byte of the inode number, `INO` its 16 hex digits. The bytes of the file are the bytes of the object; its
//! mtime is the time of the last write to the object; the extended attribute `user.ssi.appends` of object 0 holds the
//! last appends ([`super::append`]).
//!
//! Invariant: `sync` returns only when the object's bytes, its length and its directory entry are on disk.

use crate::error::Error;
use crate::wire::{Allocate, Object, Resize, Run, Space};
use base::limits::BULK_BYTES_MAX;
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const FANOUT: usize = 256;
const APPENDS: &str = "user.ssi.appends";
/// The largest value of that attribute.
const APPENDS_BYTES_MAX: usize = 4_096;
/// The largest reserve.
const RESERVE_BYTES_MAX: u64 = 64 << 20;
const NANOS: i64 = 1_000_000_000;

/// Which object: of which file, and its number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ObjectName {
    /// The file.
    pub ino: u64,
    /// The object's number.
    pub stripe: u32,
}

/// The objects in one directory. All methods block.
pub struct Objects {
    directory: PathBuf,
    /// Whether a directory has entries that are perhaps not on disk. Locked while it is being synced, so that nobody
    /// believes in a sync that still runs.
    unsynced: Vec<Mutex<bool>>,
}

impl Objects {
    /// Opens (or makes) the store in `directory`.
    ///
    /// # Errors
    /// The directories cannot be made.
    pub fn open(directory: &Path) -> Result<Objects, Error> {
        let objects = directory.join("objects");
        for number in 0..FANOUT {
            let path = objects.join(format!("{number:02x}"));
            std::fs::create_dir_all(&path)
                .map_err(|source| Error::Directory { path: path.display().to_string(), source })?;
        }
        let synced = File::open(&objects).and_then(|top| top.sync_all());
        synced.map_err(|source| Error::Directory { path: objects.display().to_string(), source })?;
        // A daemon that was here before may have left entries that only the page cache knows.
        let unsynced = (0..FANOUT).map(|_| Mutex::new(true)).collect();
        Ok(Objects { directory: objects, unsynced })
    }

    fn path(&self, name: ObjectName) -> PathBuf {
        self.directory.join(format!("{:02x}/{:016x}.{}", name.ino as u8, name.ino, name.stripe))
    }

    fn existing(&self, name: ObjectName, flags: OFlags) -> Result<Option<File>, Errno> {
        match rustix::fs::open(self.path(name), flags | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => Ok(Some(file.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn made(&self, name: ObjectName) -> Result<File, Errno> {
        if let Some(file) = self.existing(name, OFlags::RDWR)? {
            return Ok(file);
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let file = rustix::fs::open(self.path(name), flags, Mode::RUSR | Mode::WUSR)?;
        *self.unsynced[usize::from(name.ino as u8)].lock() = true;
        Ok(file.into())
    }

    /// Bytes of the object from `run.offset` on; fewer than asked where it ends.
    ///
    /// # Errors
    /// EINVAL for more bytes than a message holds; what the disk says.
    pub fn read(&self, name: ObjectName, run: Run) -> Result<Vec<u8>, Errno> {
        let length = usize::try_from(run.length).map_err(|_| Errno::INVAL)?;
        if length > BULK_BYTES_MAX {
            return Err(Errno::INVAL);
        }
        let Some(file) = self.existing(name, OFlags::RDONLY)? else { return Ok(Vec::new()) };
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let offset = run.offset.saturating_add(bytes.len() as u64);
            let spare = rustix::buffer::spare_capacity(&mut bytes);
            match rustix::io::pread(&file, spare, offset) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        bytes.truncate(length);
        Ok(bytes)
    }

    /// Puts `bytes` at `offset`, making the object if need be. Returns how many were written, and why not all.
    pub fn write(&self, name: ObjectName, offset: u64, bytes: &[u8]) -> (u64, Option<Errno>) {
        let end = offset.saturating_add(bytes.len() as u64);
        let file = match self.made(name).and_then(|file| self.check_room(&file, end).map(|()| file)) {
            Ok(file) => file,
            Err(errno) => return (0, Some(errno)),
        };
        let mut done = 0;
        while done < bytes.len() {
            match file.write_at(&bytes[done..], offset.saturating_add(done as u64)) {
                Ok(0) => return (done as u64, Some(Errno::IO)),
                Ok(written) => done += written,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return (done as u64, Some(Errno::from_io_error(&error).unwrap_or(Errno::IO))),
            }
        }
        (done as u64, None)
    }

    /// ENOSPC if the object would grow to `end` and eat the reserve.
    fn check_room(&self, file: &File, end: u64) -> Result<(), Errno> {
        let length = rustix::fs::fstat(file)?.st_size.unsigned_abs();
        let growth = end.saturating_sub(length);
        if growth > 0 && growth > self.space()?.available {
            return Err(Errno::NOSPC);
        }
        Ok(())
    }

    /// The object as it is; `None` if there is none.
    ///
    /// # Errors
    /// What the disk says.
    pub fn glimpse(&self, name: ObjectName) -> Result<Option<Object>, Errno> {
        match rustix::fs::stat(self.path(name)) {
            Ok(stat) => Ok(Some(Object {
                length: stat.st_size.unsigned_abs(),
                blocks: stat.st_blocks.unsigned_abs(),
                mtime: stat.st_mtime.saturating_mul(NANOS).saturating_add(stat.st_mtime_nsec as i64),
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Cuts or stretches the object and stamps it. One that does not exist is made only to have a length. Appends from
    /// before are forgotten: their place is no longer theirs.
    ///
    /// # Errors
    /// What the disk says.
    pub fn resize(&self, name: ObjectName, resize: Resize) -> Result<(), Errno> {
        let file = match self.existing(name, OFlags::RDWR)? {
            Some(file) => file,
            None if resize.length == 0 => return Ok(()),
            None => self.made(name)?,
        };
        rustix::fs::ftruncate(&file, resize.length)?;
        match rustix::fs::fremovexattr(&file, APPENDS) {
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(errno) => return Err(errno),
        }
        stamp(&file, resize.mtime)
    }

    /// Sets the time of the last write of an object, if it exists.
    ///
    /// # Errors
    /// What the disk says.
    pub fn stamp(&self, name: ObjectName, mtime: i64) -> Result<(), Errno> {
        match self.existing(name, OFlags::RDWR)? {
            Some(file) => stamp(&file, mtime),
            None => Ok(()),
        }
    }

    /// fallocate(2): plain, KEEP_SIZE, or PUNCH_HOLE with KEEP_SIZE.
    ///
    /// # Errors
    /// EOPNOTSUPP for other modes; what the disk says.
    pub fn allocate(&self, name: ObjectName, allocate: Allocate) -> Result<(), Errno> {
        let run = allocate.run.unwrap_or_default();
        let keep = FallocateFlags::KEEP_SIZE;
        let punch = keep | FallocateFlags::PUNCH_HOLE;
        let mode =
            [FallocateFlags::empty(), keep, punch].into_iter().find(|mode| mode.bits() == allocate.mode);
        let mode = mode.ok_or(Errno::OPNOTSUPP)?;
        if run.length == 0 {
            return Ok(());
        }
        let file = match self.existing(name, OFlags::RDWR)? {
            Some(file) => file,
            None if mode == punch => return Ok(()),
            None => self.made(name)?,
        };
        rustix::io::retry_on_intr(|| rustix::fs::fallocate(&file, mode, run.offset, run.length))
    }

    /// Returns when the object is on disk, if it exists.
    ///
    /// # Errors
    /// What the disk says; nothing is promised then.
    pub fn sync(&self, name: ObjectName) -> Result<(), Errno> {
        let Some(file) = self.existing(name, OFlags::RDWR)? else { return Ok(()) };
        rustix::fs::fdatasync(&file)?;
        let number = usize::from(name.ino as u8);
        let mut unsynced = self.unsynced[number].lock();
        if *unsynced {
            let path = self.directory.join(format!("{number:02x}"));
            let directory = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::fs::fsync(directory)?;
            *unsynced = false;
        }
        Ok(())
    }

    /// Removes the object, if it exists.
    ///
    /// # Errors
    /// What the disk says.
    pub fn destroy(&self, name: ObjectName) -> Result<(), Errno> {
        match rustix::fs::unlink(self.path(name)) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Room on the disk.
    ///
    /// # Errors
    /// What the disk says.
    pub fn space(&self) -> Result<Space, Errno> {
        let stat = rustix::fs::statvfs(&self.directory)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Space { total: bytes(stat.f_blocks), free: bytes(stat.f_bfree), available: bytes(stat.f_bavail) })
    }

    /// What was last written by [`Objects::set_appends`]; empty where there is nothing.
    ///
    /// # Errors
    /// What the disk says.
    pub fn appends(&self, name: ObjectName) -> Result<Vec<u8>, Errno> {
        let mut value = Vec::with_capacity(APPENDS_BYTES_MAX);
        match rustix::fs::getxattr(self.path(name), APPENDS, rustix::buffer::spare_capacity(&mut value)) {
            Ok(_) => Ok(value),
            Err(Errno::NODATA | Errno::NOENT | Errno::NOTSUP) => Ok(Vec::new()),
            Err(errno) => Err(errno),
        }
    }

    /// Notes appends with the object, which is made if need be. On a disk without extended attributes nothing is
    /// noted: there an append that is repeated after a restart of this server is written twice.
    ///
    /// # Errors
    /// What the disk says.
    pub fn set_appends(&self, name: ObjectName, value: &[u8]) -> Result<(), Errno> {
        let file = self.made(name)?;
        match rustix::fs::fsetxattr(&file, APPENDS, value, XattrFlags::empty()) {
            Err(Errno::NOTSUP) => Ok(()),
            result => result,
        }
    }
}

/// Room on the disk that holds `directory`.
///
/// # Errors
/// What the disk says.
pub fn room(directory: &Path) -> Result<Space, Errno> {
    let stat = rustix::fs::statvfs(directory)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(Space { total: bytes(stat.f_blocks), free: bytes(stat.f_bfree), available: bytes(stat.f_bavail) })
}

/// Bytes of a disk of `total` bytes that objects leave free: a metadata store on the same disk must never find it
/// full, for it could not go on without a restart then.
pub fn reserve(total: u64) -> u64 {
    (total / 20).min(RESERVE_BYTES_MAX)
}

fn stamp(file: &File, mtime: i64) -> Result<(), Errno> {
    let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let at = Timespec { tv_sec: mtime.div_euclid(NANOS), tv_nsec: mtime.rem_euclid(NANOS) };
    rustix::fs::futimens(file, &Timestamps { last_access: omit, last_modification: at })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: ObjectName = ObjectName { ino: 0x1ff, stripe: 2 };

    #[test]
    fn an_object_is_made_by_its_first_write_and_ends_where_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let objects = Objects::open(directory.path()).unwrap();
        assert_eq!(objects.glimpse(NAME), Ok(None));
        assert_eq!(objects.read(NAME, Run { offset: 0, length: 10 }), Ok(vec![]));
        assert_eq!(objects.write(NAME, 3, b"abc"), (3, None));
        assert_eq!(objects.read(NAME, Run { offset: 2, length: 10 }), Ok(b"\0abc".to_vec()));
        assert_eq!(objects.glimpse(NAME).unwrap().unwrap().length, 6);
        assert_eq!(objects.sync(NAME), Ok(()));
        assert_eq!(objects.destroy(NAME), Ok(()));
        assert_eq!(objects.destroy(NAME), Ok(()));
        assert_eq!(objects.glimpse(NAME), Ok(None));
    }

    #[test]
    fn a_stamp_is_read_back_to_the_nanosecond_also_before_1970() {
        let directory = tempfile::tempdir().unwrap();
        let objects = Objects::open(directory.path()).unwrap();
        assert_eq!(objects.stamp(NAME, 5), Ok(()), "nothing to stamp");
        objects.write(NAME, 0, b"x");
        for mtime in [1_700_000_000_123_456_789, -1] {
            assert_eq!(objects.resize(NAME, Resize { length: 1, mtime }), Ok(()));
            assert_eq!(objects.glimpse(NAME).unwrap().unwrap().mtime, mtime);
        }
    }

    #[test]
    fn more_than_a_message_holds_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let objects = Objects::open(directory.path()).unwrap();
        assert_eq!(objects.read(NAME, Run { offset: 0, length: u64::MAX }), Err(Errno::INVAL));
        let zero_range = Allocate { mode: 0x10, run: Some(Run { offset: 0, length: 1 }) };
        assert_eq!(objects.allocate(NAME, zero_range), Err(Errno::OPNOTSUPP));
    }
}
