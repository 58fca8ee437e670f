//! The processes of the other nodes, as /proc shows them: one question a node, in parallel, kept for a moment.
//!
//! Owns: the newest table of each node. Invariant: a table is shown only while its node lives in the newest view; a node
//! that does not answer in time shows what it last said, until the view says that it is DOWN.

use crate::control::Shared;
use crate::control::limits::{TABLE_BYTES_MAX, TABLE_FRESH, TABLE_LONGEST};
use crate::control::routes::Routes;
use crate::procfs::{ProcessTable, Table, read_file, read_rows};
use crate::wire::peer::{Answer, Body, FileOf, ProcessRow};
use base::NodeId;
use futures_util::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use prost::Message;
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// What the other nodes last said, put together.
struct Known {
    told: BTreeMap<NodeId, Vec<ProcessRow>>,
    table: Arc<Table>,
    at: Instant,
    epoch: u64,
    /// The shadows on this node when it was put together: when one comes or goes, so does a task elsewhere.
    shadows: BTreeSet<u32>,
}

struct Inner {
    shared: Arc<Shared>,
    known: Mutex<Option<Known>>,
    refreshing: tokio::sync::Mutex<()>,
}

/// The other nodes' processes.
pub struct ForeignProcesses {
    inner: Arc<Inner>,
}

impl ForeignProcesses {
    pub(crate) fn new(shared: Arc<Shared>) -> ForeignProcesses {
        let (known, refreshing) = (Mutex::new(None), tokio::sync::Mutex::new(()));
        ForeignProcesses { inner: Arc::new(Inner { shared, known, refreshing }) }
    }
}

impl Inner {
    /// All of them, at most [`TABLE_FRESH`] old where the nodes answer in time.
    async fn table(&self) -> Arc<Table> {
        let routes = self.shared.routes();
        if let Some(fresh) = self.fresh(&routes) {
            return fresh;
        }
        // Readers that come meanwhile wait for the same answers.
        let _one_at_a_time = self.refreshing.lock().await;
        match self.fresh(&routes) {
            Some(fresh) => fresh,
            None => self.refresh(&routes).await,
        }
    }

    fn fresh(&self, routes: &Routes) -> Option<Arc<Table>> {
        let known = self.known.lock();
        let known = known.as_ref()?;
        let fresh = known.at.elapsed() < TABLE_FRESH && known.epoch == routes.nodes().epoch();
        let fresh = fresh && known.shadows == routes.shadows();
        fresh.then(|| known.table.clone())
    }

    async fn refresh(&self, routes: &Routes) -> Arc<Table> {
        let others = routes.nodes().alive().filter(|node| *node != self.shared.node());
        let answers = join_all(others.map(async |node| (node, self.rows_of(node).await))).await;
        let mut known = self.known.lock();
        let mut before = known.take().map(|known| known.told).unwrap_or_default();
        // A node that is silent shows what it said last; one that is no longer alive shows nothing.
        let told = answers
            .into_iter()
            .map(|(node, rows)| (node, rows.or_else(|| before.remove(&node)).unwrap_or_default()))
            .collect::<BTreeMap<_, _>>();
        // A number of ours without a shadow here has ended: whoever waited for it must not see it again.
        let shadows = self.shared.routes().shadows();
        let home = routes.regions().home(self.shared.node());
        let lives = |row: &&ProcessRow| !home.contains(&row.pid) || shadows.contains(&row.pid);
        let table = Arc::new(Table::new(told.values().flatten().filter(lives).cloned().collect()));
        let epoch = routes.nodes().epoch();
        *known = Some(Known { told, table: table.clone(), at: Instant::now(), epoch, shadows });
        table
    }

    async fn rows_of(&self, node: NodeId) -> Option<Vec<ProcessRow>> {
        let answer = self.shared.ask(node, Body::Table(()), TABLE_LONGEST).await.ok()?;
        (answer.errno == 0).then_some(answer.rows)
    }

    /// The node that has `pid` in the newest tables, else the one that the number names.
    fn holder(&self, pid: u32) -> Option<NodeId> {
        let by_table = self.known.lock().as_ref().and_then(|known| {
            known.told.iter().find(|(_, rows)| rows.iter().any(|row| row.pid == pid)).map(|(node, _)| *node)
        });
        by_table.or_else(|| self.shared.routes().whereabouts(pid)).filter(|node| *node != self.shared.node())
    }

    async fn file(&self, pid: u32, name: String, uid: u32, gid: u32) -> Result<Vec<u8>, Errno> {
        let node = self.holder(pid).ok_or(Errno::SRCH)?;
        let answer = self.shared.ask(node, Body::File(FileOf { pid, name, uid, gid }), TABLE_LONGEST).await;
        match answer {
            Ok(answer) if answer.errno == 0 => Ok(answer.content),
            Ok(answer) => Err(i32::try_from(answer.errno).map_or(Errno::IO, Errno::from_raw_os_error)),
            Err(_) => Err(Errno::IO),
        }
    }
}

impl ProcessTable for ForeignProcesses {
    fn rows(&self) -> BoxFuture<'static, Arc<Table>> {
        let inner = self.inner.clone();
        Box::pin(async move { inner.table().await })
    }

    fn row(&self, pid: u32) -> BoxFuture<'static, Option<Arc<ProcessRow>>> {
        let inner = self.inner.clone();
        Box::pin(async move { inner.table().await.row(pid).cloned().map(Arc::new) })
    }

    fn file(&self, pid: u32, name: String, uid: u32, gid: u32) -> BoxFuture<'static, Result<Vec<u8>, Errno>> {
        let inner = self.inner.clone();
        Box::pin(async move { inner.file(pid, name, uid, gid).await })
    }

    fn shadows(&self) -> Arc<BTreeSet<u32>> {
        Arc::new(self.inner.shared.routes().shadows())
    }
}

/// The answer to a peer's [`Body::Table`]: every process here that the cluster can name, except shadows.
pub(crate) async fn local_rows(shared: &Arc<Shared>) -> Answer {
    let Some(procfs) = shared.procfs.clone() else { return Answer::default() };
    let routes = shared.routes();
    let first = routes.regions().node_local().end;
    let rows = tokio::task::spawn_blocking(move || {
        use std::os::fd::AsFd;
        read_rows(procfs.as_fd(), first)
    });
    let mut rows = rows.await.unwrap_or_default();
    let shadows = routes.shadows();
    rows.retain(|row| !shadows.contains(&row.pid));
    keep_within(&mut rows, TABLE_BYTES_MAX);
    Answer { rows, ..Answer::default() }
}

/// Leaves out the last rows where all of them would not fit into one answer.
fn keep_within(rows: &mut Vec<ProcessRow>, limit: usize) {
    let mut bytes = 0;
    let fits = rows.iter().take_while(|row| {
        // A tag and a length stand before each row.
        bytes += row.encoded_len() + 8;
        bytes <= limit
    });
    let kept = fits.count();
    if kept < rows.len() {
        tracing::warn!("{} processes are too many to show to other nodes: they see {kept}", rows.len());
        rows.truncate(kept);
    }
}

/// The answer to a peer's [`Body::File`].
pub(crate) async fn local_file(shared: &Arc<Shared>, file: FileOf) -> Answer {
    let Some(procfs) = shared.procfs.clone() else { return refusal(Errno::SRCH) };
    if shared.routes().regions().node_local().contains(&file.pid) {
        return refusal(Errno::SRCH);
    }
    let content = tokio::task::spawn_blocking(move || {
        use std::os::fd::AsFd;
        read_file(procfs.as_fd(), file.pid, &file.name, file.uid, file.gid)
    });
    match content.await.unwrap_or(Err(Errno::IO)) {
        Ok(content) => Answer { content, ..Answer::default() },
        Err(errno) => refusal(errno),
    }
}

fn refusal(errno: Errno) -> Answer {
    Answer { errno: errno.raw_os_error() as u32, ..Answer::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_too_long_is_cut_at_a_row() {
        let row = |pid| ProcessRow { pid, status: vec![0; 100], ..ProcessRow::default() };
        let mut rows: Vec<ProcessRow> = (1..=10).map(row).collect();
        keep_within(&mut rows, 10_000);
        assert_eq!(rows.len(), 10);
        keep_within(&mut rows, 500);
        let answer = Answer { rows: rows.clone(), ..Answer::default() };
        assert!(rows.len() == 4 && answer.encoded_len() <= 500);
    }
}
