//! The shell of the metadata server: one thread, named `ssi-mds`, that owns the namespace and takes one request after the
//! other from a bounded queue.

use super::namespace::Namespace;
use super::store::{Disk, Persist};
use crate::clock::now_ns;
use crate::error::Error;
use crate::layout::Layout;
use crate::peers::servers;
use crate::wire::{MetaReply, MetaRequest, MetaVerb};
use base::NodeId;
use fabric::{Message, Peer, Reply, Service};
use membership::View;
use parking_lot::Mutex;
use prost::Message as _;
use rustix::io::Errno;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::{Notify, mpsc, oneshot};

/// Requests that wait for the thread; further ones wait with their senders.
const QUEUE_MAX: usize = 1_024;

enum Job {
    Request(MetaRequest, oneshot::Sender<MetaReply>),
    View(Arc<View>),
    Purges(usize, oneshot::Sender<Vec<(u64, Layout)>>),
    Purged(Vec<u64>),
    Stop,
}

/// The metadata server of this node.
pub struct MetadataServer {
    queue: mpsc::Sender<Job>,
    persist: Persist,
    /// Told after each request that may have left objects behind.
    pub(super) purge: Notify,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl MetadataServer {
    /// Opens the store in `directory` and starts the thread. Blocks.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub fn start(directory: PathBuf) -> Result<Arc<MetadataServer>, Error> {
        let made = std::fs::create_dir_all(&directory);
        made.map_err(|source| Error::Directory { path: directory.display().to_string(), source })?;
        let disk = Disk::open(&directory)?;
        let persist = disk.persist();
        let namespace = Namespace::open(disk, now_ns())?;
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("ssi-mds".into())
            .spawn(move || run(namespace, jobs))
            .map_err(|source| Error::Directory { path: directory.display().to_string(), source })?;
        let thread = Mutex::new(Some(thread));
        Ok(Arc::new(MetadataServer { queue, persist, purge: Notify::new(), thread }))
    }

    /// Ends the thread and waits for it. Requests that come later are not answered.
    pub async fn stop(&self) {
        let _ = self.queue.send(Job::Stop).await;
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    /// Tells the namespace who is in the cluster: files are laid out over the nodes that are not down, and what a node
    /// that is down had open is closed.
    pub async fn set_view(&self, view: Arc<View>) {
        let _ = self.queue.send(Job::View(view)).await;
        self.purge.notify_one();
    }

    pub(super) async fn purges(&self, limit: usize) -> Result<Vec<(u64, Layout)>, Error> {
        let (answer, purges) = oneshot::channel();
        self.queue.send(Job::Purges(limit, answer)).await.map_err(|_| Error::Stopped)?;
        purges.await.map_err(|_| Error::Stopped)
    }

    pub(super) async fn purged(&self, inos: Vec<u64>) -> Result<(), Error> {
        self.queue.send(Job::Purged(inos)).await.map_err(|_| Error::Stopped)
    }

    async fn answer(&self, request: Message) -> Result<MetaReply, Error> {
        let request = MetaRequest::decode(request.head).map_err(|_| Errno::PROTO)?;
        if matches!(request.verb, Some(MetaVerb::Sync(()))) {
            return self.sync().await;
        }
        let frees =
            matches!(request.verb, Some(MetaVerb::Unlink(_) | MetaVerb::Rename(_) | MetaVerb::Release(_)));
        let (answer, reply) = oneshot::channel();
        self.queue.send(Job::Request(request, answer)).await.map_err(|_| Error::Stopped)?;
        let reply = reply.await.map_err(|_| Error::Stopped)?;
        if frees {
            self.purge.notify_one();
        }
        Ok(reply)
    }

    /// What was answered was committed before it was answered; now it goes to disk, beside the other requests.
    async fn sync(&self) -> Result<MetaReply, Error> {
        let persist = self.persist.clone();
        tokio::task::spawn_blocking(move || persist.all()).await.map_err(|_| Error::Stopped)??;
        Ok(MetaReply::default())
    }
}

impl Service for MetadataServer {
    fn handle(self: Arc<Self>, _from: Peer, request: Message) -> Reply {
        Box::pin(async move {
            let reply = self.answer(request).await.unwrap_or_else(|error| MetaReply {
                errno: error.errno().raw_os_error().unsigned_abs(),
                ..MetaReply::default()
            });
            Message { head: reply.encode_to_vec().into(), bulk: bytes::Bytes::new() }
        })
    }
}

fn run(mut namespace: Namespace<Disk>, mut jobs: mpsc::Receiver<Job>) {
    while let Some(job) = jobs.blocking_recv() {
        match job {
            Job::Request(request, answer) => {
                // Whoever asked may be gone; the change stands all the same.
                let _ = answer.send(namespace.handle(now_ns(), request));
            }
            Job::View(view) => {
                namespace.set_servers(servers(&view));
                let dropped = namespace.drop_lives(now_ns(), |node, life| is_over(&view, node, life));
                log_failure(dropped);
            }
            Job::Purges(limit, answer) => match namespace.purges(limit) {
                Ok(purges) => drop(answer.send(purges)),
                Err(error) => tracing::error!(%error, "files to be destroyed cannot be listed"),
            },
            Job::Purged(inos) => log_failure(namespace.purged(&inos)),
            Job::Stop => return,
        }
    }
}

/// Whether the life of a node is over for everybody. A life that the view does not know yet is not.
fn is_over(view: &View, node: NodeId, incarnation: u64) -> bool {
    match view.node(node) {
        None => true,
        Some(row) if row.incarnation == incarnation => !row.is_alive(),
        Some(row) => incarnation < row.incarnation,
    }
}

fn log_failure(result: Result<(), Error>) {
    if let Err(error) = result {
        tracing::error!(%error, "the metadata store cannot be changed");
    }
}
