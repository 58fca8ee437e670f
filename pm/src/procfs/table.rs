//! What the view's /proc must be told about other nodes.

use crate::wire::peer::ProcessRow;
use fuse::Errno;
use futures_util::future::BoxFuture;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Processes, in the order of their pids, each once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    rows: Vec<ProcessRow>,
}

impl Table {
    /// A table of `rows` in any order; of two with the same pid the one that started later stays.
    pub fn new(mut rows: Vec<ProcessRow>) -> Table {
        rows.sort_by_key(|row| (row.pid, std::cmp::Reverse(row.start_time)));
        rows.dedup_by_key(|row| row.pid);
        Table { rows }
    }

    /// All rows, ascending by pid.
    pub fn rows(&self) -> &[ProcessRow] {
        &self.rows
    }

    /// The row of `pid`.
    pub fn row(&self, pid: u32) -> Option<&ProcessRow> {
        let index = self.rows.binary_search_by_key(&pid, |row| row.pid).ok()?;
        self.rows.get(index)
    }
}

/// The processes of the other nodes, as the daemon of this node can find them out. Every method may be called often (`ps`
/// calls [`ProcessTable::row`] several times a process): the implementor keeps what it learnt for some 100 ms and asks each
/// node once for everybody who wants to know. Futures that take longer than [`super::REQUEST_DEADLINE`] are dropped.
pub trait ProcessTable: Send + Sync {
    /// All foreign processes that are known: those of every other node that answers (a node that does not is left out
    /// or shown as it was last), without shadows.
    fn rows(&self) -> BoxFuture<'static, Arc<Table>>;

    /// One foreign process, wherever it runs; `None` if there is none with that pid.
    fn row(&self, pid: u32) -> BoxFuture<'static, Option<Arc<ProcessRow>>>;

    /// A file (or a link's text, or the `task` list) of a foreign process: what [`super::read_file`] says on the node
    /// where it runs, for a reader with this uid and gid.
    fn file(&self, pid: u32, name: String, uid: u32, gid: u32) -> BoxFuture<'static, Result<Vec<u8>, Errno>>;

    /// Local pids that are shadows of tasks elsewhere: shown as foreign.
    fn shadows(&self) -> Arc<BTreeSet<u32>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_each_pid_once_and_in_order() {
        let row = |pid, start_time| ProcessRow { pid, start_time, ..Default::default() };
        let table = Table::new(vec![row(9, 1), row(3, 5), row(3, 7), row(4, 2)]);
        let order: Vec<_> = table.rows().iter().map(|row| (row.pid, row.start_time)).collect();
        assert_eq!(order, [(3, 7), (4, 2), (9, 1)]);
        assert_eq!(table.row(4).map(|row| row.start_time), Some(2));
        assert_eq!(table.row(5), None);
    }
}
