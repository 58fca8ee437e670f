//! Keeps the kernel's allocation of pids inside the node's home region.
//!
//! ```text
//!  node-local         home region                      pid_max
//!  |300 ......| ....  |start .... cursor -> .... margin|
//!  ^                  ^                            |
//!  |                  +---- moved back in time ----+
//!  +---- where a fork lands that finds the home region full
//! ```
//!
//! Invariant: pid_max of the view is the end of the home region, except while one `clone3(set_tid)` asks for a pid
//! beyond it. Before Linux 6.14 pid_max belongs to the whole machine: it is then only ever raised, and the cursor alone
//! keeps forks inside.

use super::Error;
use super::process::Procfs;
use rustix::fs::{Mode, OFlags};
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;

/// The cursor and the fence behind it.
#[derive(Debug)]
pub struct Cursor {
    home: Range<u32>,
    last_pid: OwnedFd,
    pid_max: OwnedFd,
    pid_max_is_ours: bool,
}

impl Cursor {
    /// Sets fence and cursor so that the next process gets the first id of `home`.
    ///
    /// # Errors
    /// [`Error::Start`]: the two files cannot be written (no CAP_SYS_ADMIN, or /proc/sys is read-only).
    pub fn new(procfs: &Procfs, home: Range<u32>) -> Result<Cursor, Error> {
        let open = |name: &str| {
            let flags = OFlags::RDWR | OFlags::CLOEXEC;
            rustix::fs::openat(procfs.root(), name, flags, Mode::empty()).map_err(|errno| Error::Start {
                what: format!("open {name} of the view"),
                source: errno.into(),
            })
        };
        let (last_pid, pid_max) = (open("sys/kernel/ns_last_pid")?, open("sys/kernel/pid_max")?);
        let cursor = Cursor { home, last_pid, pid_max, pid_max_is_ours: has_own_pid_max() };
        let failed =
            |source| Error::Start { what: format!("give the view the pids {:?}", cursor.home), source };
        cursor.restore_fence().map_err(failed)?;
        write_number(&cursor.last_pid, cursor.home.start - 1).map_err(failed)?;
        Ok(cursor)
    }

    fn restore_fence(&self) -> io::Result<()> {
        if self.pid_max_is_ours || read_number(&self.pid_max)? < self.home.end {
            write_number(&self.pid_max, self.home.end)?;
        }
        Ok(())
    }

    /// Moves the cursor back to the start of the region if it has left it or is about to. Ids in use are skipped by
    /// the kernel; if all are, it goes on in the node-local region by itself.
    pub fn tidy(&self) {
        let margin = self.home.len() as u32 / 8;
        let Ok(last) = read_number(&self.last_pid) else { return };
        if last + 1 < self.home.start || last >= self.home.end - margin {
            let _ = write_number(&self.last_pid, self.home.start - 1);
        }
    }

    /// Carries out `clone`, which asks for the very id `pid`, with the fence out of its way.
    ///
    /// # Errors
    /// What `clone` or moving the fence says.
    pub fn with_room_for<T>(&self, pid: u32, clone: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if pid < self.home.end || read_number(&self.pid_max)? > pid {
            return clone();
        }
        write_number(&self.pid_max, pid + 1)?;
        let result = clone();
        if self.pid_max_is_ours {
            self.restore_fence()?;
        }
        result
    }
}

/// pid_max is one per pid namespace from Linux 6.14 on.
fn has_own_pid_max() -> bool {
    let name = rustix::system::uname();
    let mut numbers =
        name.release().to_str().unwrap_or("").split(['.', '-']).map_while(|n| n.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(14))
}

fn read_number(file: &OwnedFd) -> io::Result<u32> {
    let mut text = [0; 16];
    let n = rustix::io::pread(file, &mut text, 0)?;
    let text = std::str::from_utf8(&text[..n]).unwrap_or("").trim();
    text.parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

fn write_number(file: &OwnedFd, number: u32) -> io::Result<()> {
    rustix::io::pwrite(file, number.to_string().as_bytes(), 0)?;
    Ok(())
}
