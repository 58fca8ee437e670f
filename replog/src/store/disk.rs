//! What a store needs of a disk: few operations, by name, in one directory. The simulator has one that forgets.
//!
//! Invariant of every implementation: after [`Disk::sync`] the bytes of that file survive a crash; after
//! [`Disk::sync_dir`] so do the names; before that any part of them may be there or not.

use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// One directory.
pub trait Disk {
    /// The names of all files.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// A whole file.
    ///
    /// # Errors
    /// What the system says; also if there is no such file.
    fn read(&self, name: &str) -> io::Result<Bytes>;

    /// `length` bytes from `offset` on; fewer where the file ends.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Bytes>;

    /// Makes an empty file, also in place of one that is there.
    ///
    /// # Errors
    /// What the system says.
    fn create(&mut self, name: &str) -> io::Result<()>;

    /// Puts bytes to the end of a file.
    ///
    /// # Errors
    /// What the system says; a part may have been written then.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Cuts a file off.
    ///
    /// # Errors
    /// What the system says.
    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()>;

    /// Makes the bytes of a file safe.
    ///
    /// # Errors
    /// What the system says. The file must not be written on after that: what is in it nobody knows.
    fn sync(&mut self, name: &str) -> io::Result<()>;

    /// Gives a file another name, in place of one that has it.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&mut self, name: &str) -> io::Result<()>;

    /// Makes the names safe.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&mut self) -> io::Result<()>;
}

/// A directory of a real filesystem. One process has it at a time.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    handle: File,
    open: BTreeMap<String, File>,
}

impl Directory {
    /// The directory at `path`; it is made if it is not there.
    ///
    /// # Errors
    /// What the system says; `WouldBlock` if another process has it.
    pub fn at(path: &Path) -> io::Result<Directory> {
        std::fs::create_dir_all(path)?;
        let handle = File::open(path)?;
        flock(&handle, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Directory { path: path.to_owned(), handle, open: BTreeMap::new() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        if !self.open.contains_key(name) {
            let file = OpenOptions::new().append(true).open(self.path.join(name))?;
            self.open.insert(name.to_owned(), file);
        }
        self.open.get_mut(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(&self.path)?;
        names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn read(&self, name: &str) -> io::Result<Bytes> {
        let mut bytes = Vec::new();
        File::open(self.path.join(name))?.read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Bytes> {
        let file = File::open(self.path.join(name))?;
        let rest = file.metadata()?.len().saturating_sub(offset);
        let mut bytes = vec![0; length.min(usize::try_from(rest).unwrap_or(usize::MAX))];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes.into())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let file = OpenOptions::new().create(true).append(true).open(self.path.join(name))?;
        file.set_len(0)?;
        self.open.insert(name.to_owned(), file);
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.file(name)?.write_all(bytes)
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.file(name)?.set_len(length)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.file(name)?.sync_data()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.open.remove(from);
        self.open.remove(to);
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.open.remove(name);
        std::fs::remove_file(self.path.join(name))
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        self.handle.sync_all()
    }
}
