//! What the supervisor reads about processes, through the descriptor of the view's own procfs.
//! Only files that the kernel answers without touching the process's memory, so no read can wait for anybody.

use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::OwnedFd;

/// Which life of a pid this is, and its process group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Process group.
    pub group: u32,
    /// Clock ticks since boot.
    pub start_time: u64,
}

/// Whose a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The process that the thread belongs to.
    pub process: u32,
    /// Real user id.
    pub uid: u32,
    /// Saved user id.
    pub saved_uid: u32,
}

/// The view's procfs.
#[derive(Debug)]
pub struct Procfs {
    root: OwnedFd,
}

impl Procfs {
    /// Reads through `root` (O_PATH suffices).
    pub fn new(root: OwnedFd) -> Procfs {
        Procfs { root }
    }

    /// The root, to open other things below it or to pass it on.
    pub fn root(&self) -> &OwnedFd {
        &self.root
    }

    fn read(&self, pid: u32, name: &str) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.root, format!("{pid}/{name}"), flags, Mode::empty())?;
        let mut content = vec![0; 4096];
        let n = rustix::io::read(fd, &mut content[..])?;
        content.truncate(n);
        Ok(content)
    }

    /// `None` if there is no such process.
    pub fn stat(&self, pid: u32) -> Option<Stat> {
        parse_stat(&self.read(pid, "stat").ok()?)
    }

    /// `None` if there is no such process or thread.
    pub fn owner(&self, pid: u32) -> Option<Owner> {
        parse_owner(&self.read(pid, "status").ok()?)
    }

    /// True if SIGTSTP would stop the process: it neither catches nor ignores nor blocks it.
    pub fn obeys_sigtstp(&self, pid: u32) -> bool {
        self.read(pid, "status").is_ok_and(|text| takes_default(&text, libc::SIGTSTP))
    }

    /// Every process there is.
    pub fn pids(&self) -> Vec<u32> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&self.root, ".", flags, Mode::empty());
        let Ok(directory) = opened.and_then(rustix::fs::Dir::new) else { return Vec::new() };
        directory.flatten().filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok()).collect()
    }
}

/// The name, in parentheses, may hold anything: what follows the last one is regular.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let after_name = text.iter().rposition(|byte| *byte == b')')? + 1;
    let rest = std::str::from_utf8(&text[after_name..]).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Stat { group: fields.get(2)?.parse().ok()?, start_time: fields.get(19)?.parse().ok()? })
}

fn parse_owner(text: &[u8]) -> Option<Owner> {
    let text = String::from_utf8_lossy(text);
    let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let mut ids = line("Uid:")?.split_ascii_whitespace().map(str::parse);
    let process = line("Tgid:")?.trim().parse().ok()?;
    let (uid, _effective, saved_uid) = (ids.next()?.ok()?, ids.next()?.ok()?, ids.next()?.ok()?);
    Some(Owner { process, uid, saved_uid })
}

/// True if the masks of a status file say that nothing stands between `signal` and its default action.
fn takes_default(text: &[u8], signal: i32) -> bool {
    let text = String::from_utf8_lossy(text);
    let free = |name: &str| {
        let mask = text.lines().find_map(|line| line.strip_prefix(name));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .is_some_and(|mask| mask >> (signal - 1) & 1 == 0)
    };
    ["SigBlk:", "SigIgn:", "SigCgt:"].into_iter().all(free)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_full_of_traps_does_not_shift_the_fields() {
        let text = b"77 (a) R 1 2 (b) S 1 42 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 1 1";
        assert_eq!(parse_stat(text), Some(Stat { group: 42, start_time: 987_654 }));
    }

    #[test]
    fn the_owner_is_real_and_saved() {
        let text = b"Name:\tsh\nTgid:\t77\nUid:\t1000\t0\t1001\t0\n";
        assert_eq!(parse_owner(text), Some(Owner { process: 77, uid: 1000, saved_uid: 1001 }));
    }

    #[test]
    fn a_signal_takes_its_default_unless_one_of_three_masks_says_otherwise() {
        let text = |blocked, ignored, caught| {
            format!("SigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n").into_bytes()
        };
        let stop = 1u64 << (libc::SIGTSTP - 1);
        assert!(takes_default(&text(!stop, !stop, !stop), libc::SIGTSTP));
        for masks in [text(stop, 0, 0), text(0, stop, 0), text(0, 0, stop), Vec::new()] {
            assert!(!takes_default(&masks, libc::SIGTSTP));
        }
    }

    proptest! {
        #[test]
        fn garbage_is_nobody(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (parse_stat(&bytes), parse_owner(&bytes));
        }
    }
}
