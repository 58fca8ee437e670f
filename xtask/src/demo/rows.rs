//! What `ps -ef` prints, read.
//!
//! Invariant: a row is a process; its command is matched by its first word, so `ssirun .. heat` is no heat.

/// One row of `ps -ef`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The process.
    pub pid: u32,
    /// Its command line.
    pub command: String,
    /// The row as it was printed.
    pub line: String,
}

impl Row {
    /// True if the process runs the program of this name.
    pub fn runs(&self, name: &str) -> bool {
        let first = self.command.split_whitespace().next().unwrap_or("");
        first.rsplit('/').next() == Some(name)
    }
}

/// The rows after the header.
pub fn rows(text: &str) -> Vec<Row> {
    text.lines().filter_map(row).collect()
}

/// `UID PID PPID C STIME TTY TIME CMD`
fn row(line: &str) -> Option<Row> {
    let mut rest = line;
    let mut cell = || {
        let (cell, after) = rest.trim_start().split_once(' ')?;
        rest = after;
        Some(cell)
    };
    let pid = (cell()?, cell()?.parse().ok()?).1;
    for _ in 2..7 {
        cell()?;
    }
    Some(Row { pid, command: rest.trim().to_owned(), line: line.trim_end().to_owned() })
}

/// The processes that run the program of this name, in the order of their pids.
pub fn of<'a>(rows: &'a [Row], name: &str) -> Vec<&'a Row> {
    let mut found: Vec<&Row> = rows.iter().filter(|row| row.runs(name)).collect();
    found.sort_by_key(|row| row.pid);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const PS: &str = "\
UID          PID    PPID  C STIME TTY          TIME CMD
root           1       0  0 15:10 ?        00:00:00 ssi-init
root       16390       1 12 Nov21 ?        00:00:03 /ssi/demo/heat -s 800
nobody     32770       1 12 15:10 pts/0    00:00:03 ssirun -n 6 /ssi/demo/heat -s 800
root       16388       1 12 15:10 ?        00:00:03 /ssi/demo/heat -s 800
root       16391       1 12 15:10 ?        00:00:03 [heat]
";

    #[test]
    fn rows_are_read_and_chosen_by_their_program() {
        let all = rows(PS);
        assert_eq!(all.len(), 5);
        assert_eq!(of(&all, "heat").iter().map(|row| row.pid).collect::<Vec<_>>(), [16388, 16390]);
        assert_eq!(of(&all, "ssirun").len(), 1);
        assert_eq!(all[1].command, "/ssi/demo/heat -s 800");
    }

    #[test]
    fn what_is_no_row_is_left_out() {
        assert!(rows("").is_empty() && rows("error: no /proc\n").is_empty());
    }
}
