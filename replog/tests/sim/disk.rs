//! A disk that forgets: at a crash any part of what was not synced is lost or torn, bytes as well as names.
//!
//! Invariant: what was synced is there afterwards, unharmed.

use crate::Disk;
use base::Prng;
use bytes::Bytes;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

#[derive(Clone, Default, Debug)]
struct File {
    bytes: Vec<u8>,
    synced: usize,
}

#[derive(Clone, Debug)]
enum Naming {
    Name(String, u64),
    Remove(String),
}

/// The disk.
#[derive(Clone, Default, Debug)]
pub struct SimDisk {
    files: BTreeMap<u64, File>,
    names: BTreeMap<String, u64>,
    safe_names: BTreeMap<String, u64>,
    namings: Vec<Naming>,
    next: u64,
    /// While it is set nothing more fits on it.
    pub full: Rc<Cell<bool>>,
    pub syncs: u64,
    /// It says that all is safe, and does nothing.
    pub lies: bool,
}

fn missing() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no such file")
}

impl SimDisk {
    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        let id = self.names.get(name).ok_or_else(missing)?;
        self.files.get_mut(id).ok_or_else(missing)
    }

    fn room(&self) -> io::Result<()> {
        if self.full.get() {
            Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on device"))
        } else {
            Ok(())
        }
    }

    fn name(&mut self, naming: Naming) {
        apply(&mut self.names, &naming);
        self.namings.push(naming);
    }

    /// The power fails.
    pub fn crash(&mut self, prng: &mut Prng) {
        let kept = prng.below(self.namings.len() as u64 + 1) as usize;
        self.namings[..kept].iter().for_each(|naming| apply(&mut self.safe_names, naming));
        self.namings.clear();
        self.names = self.safe_names.clone();
        for file in self.files.values_mut() {
            let unsynced = file.bytes.len() - file.synced;
            let left = file.synced + prng.below(unsynced as u64 + 1) as usize;
            file.bytes.truncate(left);
            if left > file.synced && prng.one_in(2) {
                let hole = file.synced + prng.below((left - file.synced) as u64) as usize;
                file.bytes[hole..].fill(0);
            }
            file.synced = left;
        }
        let used: Vec<u64> = self.names.values().copied().collect();
        self.files.retain(|id, _| used.contains(id));
    }

    /// Flips bits of one byte, as a bad disk does.
    pub fn rot(&mut self, name: &str, at: usize, mask: u8) {
        if let Ok(file) = self.file(name) {
            file.bytes[at] ^= mask;
        }
    }

    pub fn length(&self, name: &str) -> usize {
        self.names.get(name).map_or(0, |id| self.files[id].bytes.len())
    }
}

fn apply(names: &mut BTreeMap<String, u64>, naming: &Naming) {
    match naming {
        Naming::Name(name, id) => {
            names.retain(|_, known| known != id);
            names.insert(name.clone(), *id);
        }
        Naming::Remove(name) => {
            names.remove(name);
        }
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Bytes> {
        let id = self.names.get(name).ok_or_else(missing)?;
        Ok(Bytes::copy_from_slice(&self.files[id].bytes))
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Bytes> {
        let bytes = self.read(name)?;
        let start = (offset as usize).min(bytes.len());
        Ok(bytes.slice(start..bytes.len().min(start + length)))
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.room()?;
        self.next += 1;
        self.files.insert(self.next, File::default());
        self.name(Naming::Name(name.to_owned(), self.next));
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let room = self.room();
        let fits = if room.is_ok() { bytes.len() } else { bytes.len() / 2 };
        self.file(name)?.bytes.extend_from_slice(&bytes[..fits]);
        room
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        let file = self.file(name)?;
        file.bytes.truncate(length as usize);
        file.synced = file.synced.min(length as usize);
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.syncs += 1;
        if self.lies {
            return Ok(());
        }
        let file = self.file(name)?;
        file.synced = file.bytes.len();
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let id = *self.names.get(from).ok_or_else(missing)?;
        self.name(Naming::Name(to.to_owned(), id));
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.file(name)?;
        self.name(Naming::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        self.namings.clear();
        self.safe_names = self.names.clone();
        Ok(())
    }
}
