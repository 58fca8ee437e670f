//! Reading the real procfs, through a descriptor of its root, for this node and for its peers.

use super::FILE_BYTES_MAX;
use super::node::{FILES, file_index};
use crate::wire::peer::ProcessRow;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

/// Every process of `procfs` with a pid of at least `first_cluster_pid`, ascending. Processes that end meanwhile are left
/// out. Shadows are not: the caller knows which they are. Blocks for some 20 us a process; a process in the middle of an
/// exec or a page fault may hold it up, so call it where that harms nobody.
pub fn read_rows(procfs: BorrowedFd<'_>, first_cluster_pid: u32) -> Vec<ProcessRow> {
    let names = entry_names(procfs, ".").unwrap_or_default();
    let mut pids: Vec<u32> = names.iter().filter_map(|name| parse_pid(name)).collect();
    pids.sort_unstable();
    pids.into_iter().filter(|pid| *pid >= first_cluster_pid).filter_map(|pid| read_row(procfs, pid)).collect()
}

/// The process `pid` of `procfs`; `None` if there is none (any more).
pub fn read_row(procfs: BorrowedFd<'_>, pid: u32) -> Option<ProcessRow> {
    let dir = open_dir(procfs, &pid.to_string()).ok()?;
    let owner = rustix::fs::fstat(&dir).ok()?;
    let stat = read_at(dir.as_fd(), "stat").ok()?;
    Some(ProcessRow {
        pid,
        uid: owner.st_uid,
        gid: owner.st_gid,
        start_time: start_time(&stat)?,
        stat,
        statm: read_at(dir.as_fd(), "statm").ok()?,
        status: read_at(dir.as_fd(), "status").ok()?,
        // A process that is just ending has none any more; it is shown as a zombie.
        cmdline: read_at(dir.as_fd(), "cmdline").unwrap_or_default(),
    })
}

/// The content of the file `name` (or `task/<tid>/<name>`) of the process `pid`, for a reader with this uid and gid; the
/// text of the links `exe`, `cwd` and `root`; for `task` the thread ids, one a line.
///
/// # Errors
/// ENOENT for a name that is not offered, ESRCH if there is no such process, EACCES if the reader may not see it (as on the
/// node itself: what ptrace(2) guards is for the owner and root), EFBIG above [`FILE_BYTES_MAX`], and what the kernel says.
pub fn read_file(procfs: BorrowedFd<'_>, pid: u32, name: &str, uid: u32, gid: u32) -> Result<Vec<u8>, Errno> {
    let dir = open_dir(procfs, &pid.to_string()).map_err(gone)?;
    if name == "task" {
        let mut tids: Vec<u32> =
            entry_names(dir.as_fd(), "task").map_err(gone)?.iter().filter_map(|n| parse_pid(n)).collect();
        tids.sort_unstable();
        return Ok(tids.iter().map(|tid| format!("{tid}\n")).collect::<String>().into_bytes());
    }
    let (dir, name) = match name.strip_prefix("task/") {
        Some(rest) => {
            let (tid, name) = rest.split_once('/').ok_or(Errno::NOENT)?;
            let tid = parse_pid(tid.as_bytes()).ok_or(Errno::NOENT)?;
            (open_dir(dir.as_fd(), &format!("task/{tid}")).map_err(gone)?, name)
        }
        None => (dir, name),
    };
    let file = FILES[usize::from(file_index(name).ok_or(Errno::NOENT)?)];
    // The directory is owned by the effective ids, or by root if the process is not dumpable.
    let owner = rustix::fs::fstat(&dir).map_err(gone)?;
    if file.guarded && uid != 0 && (uid != owner.st_uid || gid != owner.st_gid) {
        return Err(Errno::ACCESS);
    }
    if file.link {
        let target = rustix::fs::readlinkat(&dir, file.name, Vec::new()).map_err(gone)?;
        return Ok(target.into_bytes());
    }
    read_at(dir.as_fd(), file.name).map_err(gone)
}

/// Owner (uid, gid) of the directory of the process `pid`, `None` if there is no such process.
pub(crate) fn owner(procfs: BorrowedFd<'_>, pid: u32) -> Option<(u32, u32)> {
    let stat = rustix::fs::statat(procfs, pid.to_string(), AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some((stat.st_uid, stat.st_gid))
}

/// Where `exe`, `cwd` or `root` (`name`) of the local process `pid` leads, for a reader with this uid and gid: a text that
/// can be followed. `None` if only the real link itself leads there: the process lives in other mounts than the view's
/// first process, or under another root, or its file has been removed.
pub(crate) fn local_link(
    procfs: BorrowedFd<'_>,
    pid: u32,
    name: &str,
    uid: u32,
    gid: u32,
) -> Result<Option<Vec<u8>>, Errno> {
    let text = read_file(procfs, pid, name, uid, gid)?;
    let link = |path: String| rustix::fs::readlinkat(procfs, path, Vec::new()).ok();
    let same_mounts =
        link(format!("{pid}/ns/mnt")).is_some_and(|mounts| Some(mounts) == link("1/ns/mnt".to_owned()));
    let same_root = link(format!("{pid}/root")).is_some_and(|root| root.as_bytes() == b"/");
    let there = text.starts_with(b"/") && !text.ends_with(b" (deleted)");
    Ok((same_mounts && same_root && there).then_some(text))
}

/// The names in the directory `path` below `dir`, without `.` and `..`, in the kernel's order.
pub(crate) fn entry_names(dir: BorrowedFd<'_>, path: &str) -> Result<Vec<Vec<u8>>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let entries = Dir::new(rustix::fs::openat(dir, path, flags, Mode::empty())?)?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// A pid as procfs writes it: digits, no leading zero.
pub(crate) fn parse_pid(name: &[u8]) -> Option<u32> {
    let starts_well = matches!(name.first(), Some(b'1'..=b'9'));
    let digits = starts_well && name.len() <= 8 && name.iter().all(u8::is_ascii_digit);
    let pid = digits.then(|| str::from_utf8(name).ok()?.parse().ok())??;
    (pid < base::regions::PID_LIMIT).then_some(pid)
}

/// The process's name as in `comm`: what stands in parentheses in `stat`.
pub(crate) fn comm(stat: &[u8]) -> &[u8] {
    let start = stat.iter().position(|&byte| byte == b'(').map_or(0, |at| at + 1);
    let end = stat.iter().rposition(|&byte| byte == b')').unwrap_or(stat.len());
    stat.get(start..end).unwrap_or_default()
}

/// Field 22 of `stat`: clock ticks since boot. The name before it may hold spaces and parentheses.
fn start_time(stat: &[u8]) -> Option<u64> {
    let after_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
    str::from_utf8(&stat[after_name..]).ok()?.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn open_dir(dir: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// A process that is gone has no directory: ESRCH, as its open files say.
fn gone(errno: Errno) -> Errno {
    if errno == Errno::NOENT { Errno::SRCH } else { errno }
}

fn read_at(dir: BorrowedFd<'_>, name: &str) -> Result<Vec<u8>, Errno> {
    let file = rustix::fs::openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut content = vec![0; 4_096];
    let mut length = 0;
    loop {
        match rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut content[length..]))? {
            0 => break,
            count => length += count,
        }
        if length > FILE_BYTES_MAX {
            return Err(Errno::FBIG);
        }
        if length == content.len() {
            content.resize(2 * length, 0);
        }
    }
    content.truncate(length);
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn procfs() -> OwnedFd {
        rustix::fs::open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    #[test]
    fn this_process_is_among_the_rows() {
        let (procfs, me) = (procfs(), std::process::id());
        let rows = read_rows(procfs.as_fd(), me);
        assert_eq!(rows[0].pid, me);
        assert!(rows.is_sorted_by_key(|row| row.pid));
        assert!(rows[0].stat.starts_with(format!("{me} (").as_bytes()));
        assert!(rows[0].start_time > 0 && !rows[0].cmdline.is_empty());
        assert_eq!(rows[0].uid, rustix::process::geteuid().as_raw());
    }

    #[test]
    fn files_are_given_to_those_who_may_see_them() {
        let (procfs, me) = (procfs(), std::process::id());
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let read = |name: &str, uid| read_file(procfs.as_fd(), me, name, uid, gid);
        assert!(read("stat", 12_345).is_ok());
        assert!(read("environ", uid).is_ok() && read("environ", 0).is_ok());
        assert_eq!(read("environ", 12_345), Err(Errno::ACCESS));
        assert_eq!(
            read("exe", uid).unwrap(),
            std::env::current_exe().unwrap().into_os_string().into_encoded_bytes()
        );
        assert!(
            String::from_utf8(read("task", uid).unwrap()).unwrap().lines().any(|tid| tid == me.to_string())
        );
        assert!(read(&format!("task/{me}/stat"), uid).unwrap().starts_with(me.to_string().as_bytes()));
        for bad in
            ["mem", "../1/stat", "task/../environ", "task/1/../stat", "task/", "", "fd/0", "root/etc/shadow"]
        {
            assert!(matches!(read(bad, 0), Err(Errno::NOENT | Errno::SRCH)), "{bad}");
        }
    }

    #[test]
    fn names_with_parentheses_do_not_confuse() {
        let stat = b"7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!((comm(stat), start_time(stat)), (&b"a) b (c"[..], Some(4_711)));
    }

    proptest! {
        #[test]
        fn any_stat_text_is_survived(stat in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = (comm(&stat), start_time(&stat), parse_pid(&stat));
        }
    }
}
