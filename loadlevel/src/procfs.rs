//! Reads the rows of all processes from a procfs that is given as a descriptor; never by a path, because the view's /proc
//! is served by this very daemon.

use crate::sampler::Row;
use rustix::fs::{Dir, Mode, OFlags, openat};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

/// Processes looked at in one sample; a view can have more, then the load is that of these.
const PROCESSES_MAX: usize = 65_536;
/// Bytes of a stat line that are read; the fields that matter stand in the first few hundred.
const STAT_BYTES_MAX: u64 = 1_024;

/// The rows of all processes in the procfs whose root is `root`.
///
/// # Errors
/// The root cannot be listed. A process that ends meanwhile is left out.
pub fn rows(root: impl AsFd, page_bytes: u64) -> io::Result<Vec<Row>> {
    let root = root.as_fd();
    let listing = openat(root, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut rows = Vec::new();
    for entry in Dir::read_from(&listing)? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok()) else { continue };
        if let Some(row) = read_row(root, pid, page_bytes) {
            rows.push(row);
        }
        if rows.len() == PROCESSES_MAX {
            break;
        }
    }
    Ok(rows)
}

fn read_row(root: BorrowedFd<'_>, pid: u32, page_bytes: u64) -> Option<Row> {
    let stat = openat(root, format!("{pid}/stat"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut line = Vec::new();
    File::from(stat).take(STAT_BYTES_MAX).read_to_end(&mut line).ok()?;
    parse_stat(pid, &line, page_bytes)
}

/// The row in a line of /proc/PID/stat (proc(5)): `pid (name) state ppid ...`; a name may hold anything, so the fields
/// are counted from the last `)`.
fn parse_stat(pid: u32, line: &[u8], page_bytes: u64) -> Option<Row> {
    let name_end = line.iter().rposition(|&byte| byte == b')')?;
    let fields: Vec<&str> =
        std::str::from_utf8(&line[name_end + 1..]).ok()?.split_ascii_whitespace().collect();
    // The state is field 3 in proc(5); it is the first behind the name.
    let number = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok());
    Some(Row {
        pid,
        start: number(22)?,
        runnable: *fields.first()? == "R",
        own_ticks: number(14)?.saturating_add(number(15)?),
        children_ticks: number(16)?.saturating_add(number(17)?),
        rss_bytes: number(24)?.saturating_mul(page_bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stat_line_is_read_by_its_fields_whatever_the_name() {
        let line = b"7 (a) R (b) S 1 7 7 0 -1 4194304 98 0 0 0 11 22 33 44 20 0 1 0 334024 3133440 383 18446744073709551615 1";
        let row = parse_stat(7, line, 4_096).unwrap();
        let wanted = Row {
            pid: 7,
            start: 334_024,
            runnable: false,
            own_ticks: 33,
            children_ticks: 77,
            rss_bytes: 383 * 4_096,
        };
        assert_eq!(row, wanted);
    }

    #[test]
    fn this_process_is_in_its_procfs() {
        let root = File::open("/proc").unwrap();
        let rows = rows(&root, 4_096).unwrap();
        let me = rows.iter().find(|row| row.pid == std::process::id()).expect("this process");
        assert!(me.rss_bytes > 0 && me.start > 0);
    }

    proptest! {
        #[test]
        fn garbage_gives_no_row_and_no_panic(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_stat(1, &line, 4_096);
        }
    }
}
