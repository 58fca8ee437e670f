//! The processes of the other nodes, as /proc shows them: one question a node, in parallel, kept for a moment.
//!
//! Owns: the newest table of each node. Invariant: a table is shown only while its node lives in the newest view; a node
//! that does not answer in time shows what it last said, until the view says that it is DOWN.

use crate::control::Shared;
use crate::control::limits::{TABLE_FRESH, TABLE_LONGEST};
use crate::wire::peer::{Answer, Body, FileOf, ProcessRow};
use base::NodeId;
use futures_util::future::join_all;
use parking_lot::Mutex;
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// What one node last said.
type Told = (Instant, Vec<Arc<ProcessRow>>);

/// The other nodes' processes.
pub struct ForeignProcesses {
    shared: Arc<Shared>,
    told: Arc<Mutex<BTreeMap<NodeId, Told>>>,
    refreshing: tokio::sync::Mutex<()>,
}

impl ForeignProcesses {
    pub(crate) fn new(shared: Arc<Shared>) -> ForeignProcesses {
        ForeignProcesses { shared, told: Arc::default(), refreshing: tokio::sync::Mutex::new(()) }
    }

    /// All of them by pid, at most [`TABLE_FRESH`] old where the node answers in time.
    pub async fn all(&self) -> BTreeMap<u32, Arc<ProcessRow>> {
        self.refresh().await;
        let routes = self.shared.routes();
        let mut told = self.told.lock();
        told.retain(|node, _| routes.nodes().is_alive(*node));
        let rows = told.values().flat_map(|(_, rows)| rows.iter().cloned());
        rows.map(|row| (row.pid, row)).collect()
    }

    /// Asks every node whose table is not fresh. Readers that come meanwhile wait for the same answers.
    async fn refresh(&self) {
        let _one_at_a_time = self.refreshing.lock().await;
        let stale: Vec<NodeId> = {
            let told = self.told.lock();
            let fresh = |node: &NodeId| told.get(node).is_some_and(|(at, _)| at.elapsed() < TABLE_FRESH);
            let routes = self.shared.routes();
            routes.nodes().alive().filter(|node| *node != self.shared.node() && !fresh(node)).collect()
        };
        join_all(stale.into_iter().map(|node| self.ask(node))).await;
    }

    async fn ask(&self, node: NodeId) {
        // An answer that comes too late is no reason to ask this node again at once.
        let answer = self.shared.ask(node, Body::Table(()), TABLE_LONGEST).await;
        let mut told = self.told.lock();
        match answer {
            Ok(answer) if answer.errno == 0 => {
                told.insert(node, (Instant::now(), answer.rows.into_iter().map(Arc::new).collect()));
            }
            _ => {
                let old = told.entry(node).or_insert_with(|| (Instant::now(), Vec::new()));
                old.0 = Instant::now();
            }
        }
    }

    /// The node that runs `pid` by the newest tables.
    fn holder(&self, pid: u32) -> Option<NodeId> {
        let told = self.told.lock();
        told.iter().find(|(_, (_, rows))| rows.iter().any(|row| row.pid == pid)).map(|(node, _)| *node)
    }

    /// A file below /proc/`pid`, with the rights of `uid` and `gid`.
    ///
    /// # Errors
    /// The errno that the real file gives; ESRCH if nobody knows the process, EIO if its node does not answer.
    pub async fn file_of(&self, pid: u32, name: String, uid: u32, gid: u32) -> Result<Vec<u8>, Errno> {
        let node = match self.holder(pid) {
            Some(node) => node,
            None => self.shared.routes().whereabouts(pid).ok_or(Errno::SRCH)?,
        };
        let answer = self.shared.ask(node, Body::File(FileOf { pid, name, uid, gid }), TABLE_LONGEST).await;
        match answer {
            Ok(answer) if answer.errno == 0 => Ok(answer.content),
            Ok(answer) => Err(Errno::from_raw_os_error(i32::try_from(answer.errno).unwrap_or(libc::EIO))),
            Err(_) => Err(Errno::IO),
        }
    }

    /// Local processes that only stand for one that runs elsewhere.
    pub fn shadow_pids(&self) -> BTreeSet<u32> {
        self.shared.routes().shadows()
    }
}

/// The answer to a peer's [`Body::Table`].
pub(crate) async fn local_rows(shared: &Arc<Shared>) -> Answer {
    let _ = shared;
    Answer::default()
}

/// The answer to a peer's [`Body::File`].
pub(crate) async fn local_file(shared: &Arc<Shared>, file: FileOf) -> Answer {
    let _ = (shared, file);
    Answer::default()
}
