//! What other nodes say about their processes, each answer in time.

use super::REQUEST_DEADLINE;
use super::node::{FILES, Node};
use super::snapshot::{comm, parse_pid};
use super::table::{ProcessTable, Table};
use crate::wire::peer::ProcessRow;
use fuse::{Errno, Header};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How long after a silence questions are hurried.
const HURRIED_FOR: Duration = Duration::from_secs(5);
/// The time that a hurried question has.
const HURRIED_DEADLINE: Duration = Duration::from_millis(20);

/// The other nodes' processes.
pub(crate) struct Foreign {
    table: Arc<dyn ProcessTable>,
    /// What the other nodes said last, for when they are silent.
    last: Mutex<Arc<Table>>,
    /// When a question went unanswered.
    silence: Mutex<Option<Instant>>,
}

impl Foreign {
    /// What `table` knows.
    pub(crate) fn new(table: Arc<dyn ProcessTable>) -> Foreign {
        Foreign { table, last: Mutex::default(), silence: Mutex::default() }
    }

    /// See [`ProcessTable::shadows`].
    pub(crate) fn shadows(&self) -> Arc<BTreeSet<u32>> {
        self.table.shadows()
    }

    /// What `asked` says, if it does so in time. `ps` asks several times for every process: after a silence the
    /// next questions are given less time, or it would wait for each of them anew.
    async fn in_time<T>(&self, asked: impl Future<Output = T>) -> Option<T> {
        let hurried = self.silence.lock().is_some_and(|since| since.elapsed() < HURRIED_FOR);
        let answer = timeout(if hurried { HURRIED_DEADLINE } else { REQUEST_DEADLINE }, asked).await.ok();
        if answer.is_none() && !hurried {
            *self.silence.lock() = Some(Instant::now());
        }
        answer
    }

    /// The row of a foreign process: as its node says, or as it said last.
    pub(crate) async fn row(&self, pid: u32) -> Result<Arc<ProcessRow>, Errno> {
        match self.in_time(self.table.row(pid)).await {
            Some(row) => row.ok_or(Errno::SRCH),
            None => self.last.lock().row(pid).cloned().map(Arc::new).ok_or(Errno::SRCH),
        }
    }

    /// All foreign processes: as the other nodes say, or as they said last.
    pub(crate) async fn rows(&self) -> Arc<Table> {
        match self.in_time(self.table.rows()).await {
            Some(rows) => self.last.lock().clone_from(&rows),
            None => tracing::debug!("/proc shows other nodes' processes as they were: no answer in time"),
        }
        self.last.lock().clone()
    }

    async fn file(&self, pid: u32, name: String, header: &Header) -> Result<Vec<u8>, Errno> {
        self.in_time(self.table.file(pid, name, header.uid, header.gid)).await.unwrap_or(Err(Errno::IO))
    }

    /// The threads of a foreign process; at least the first if its node does not say.
    pub(crate) async fn tids(&self, pid: u32, header: &Header) -> BTreeSet<u32> {
        let text = self.file(pid, "task".to_owned(), header).await.unwrap_or_default();
        let mut tids: BTreeSet<u32> = text.split(|&byte| byte == b'\n').filter_map(parse_pid).collect();
        if tids.is_empty() {
            tids.insert(pid);
        }
        tids
    }

    /// What a file of a foreign process holds, or where its link leads.
    pub(crate) async fn content(&self, node: Node, header: &Header) -> Result<Vec<u8>, Errno> {
        let (pid, name) = match node {
            Node::ProcessFile { pid, file } | Node::ProcessLink { pid, file, .. } => {
                (pid, FILES[usize::from(file)].name.to_owned())
            }
            Node::TaskFile { pid, tid, file } => {
                (pid, format!("task/{tid}/{}", FILES[usize::from(file)].name))
            }
            _ => return Err(Errno::ISDIR),
        };
        let row = match name.as_str() {
            "stat" | "statm" | "status" | "cmdline" | "comm" => self.row(pid).await?,
            _ => return self.file(pid, name, header).await,
        };
        Ok(match name.as_str() {
            "stat" => row.stat.clone(),
            "statm" => row.statm.clone(),
            "status" => row.status.clone(),
            "cmdline" => row.cmdline.clone(),
            _ => [comm(&row.stat), b"\n"].concat(),
        })
    }
}
