//! The shell of the metadata server: one thread, named `ssi-mds`, that owns the namespace and takes one request after the
//! other from a bounded queue.

use super::namespace::Namespace;
use super::store::{Disk, Persist};
use crate::clock::now_ns;
use crate::error::Error;
use crate::layout::Layout;
use crate::ost::objects::{reserve, room};
use crate::peers::servers;
use crate::wire::{MetaReply, MetaRequest, MetaVerb};
use base::NodeId;
use fabric::{Message, Peer, Reply, Service};
use membership::View;
use parking_lot::Mutex;
use prost::Message as _;
use rustix::io::Errno;
use std::path::{Path, PathBuf};
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
    Postpone(Vec<u64>),
    ResumePurges,
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
        let disk = directory.clone();
        let thread = std::thread::Builder::new()
            .name("ssi-mds".into())
            .spawn(move || run(namespace, jobs, &disk))
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

    pub(super) async fn postpone(&self, inos: Vec<u64>) -> Result<(), Error> {
        self.queue.send(Job::Postpone(inos)).await.map_err(|_| Error::Stopped)
    }

    pub(super) async fn resume_purges(&self) -> Result<(), Error> {
        self.queue.send(Job::ResumePurges).await.map_err(|_| Error::Stopped)
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
        Reply::later(async move {
            let reply = self.answer(request).await.unwrap_or_else(|error| failed(error.errno()));
            Message { head: reply.encode_to_vec().into(), bulk: bytes::Bytes::new() }
        })
    }
}

fn run(mut namespace: Namespace<Disk>, mut jobs: mpsc::Receiver<Job>, directory: &Path) {
    let mut room = Room { directory, is_short: false, looked_at: None };
    while let Some(job) = jobs.blocking_recv() {
        match job {
            Job::Request(request, answer) => {
                let now = now_ns();
                let reply = match room.is_short(now) && grows(&request) {
                    true => failed(Errno::NOSPC),
                    false => namespace.handle(now, request),
                };
                // Whoever asked may be gone; the change stands all the same.
                let _ = answer.send(reply);
            }
            Job::View(view) => {
                namespace.set_servers(servers(&view));
                let dropped = namespace.drop_lives(now_ns(), |node, life| is_over(&view, node, life));
                log_failure(dropped);
                namespace.resume_purges();
            }
            Job::Purges(limit, answer) => {
                let purges = namespace.purges(limit).unwrap_or_else(|error| {
                    tracing::error!(%error, "files to be destroyed cannot be listed");
                    Vec::new()
                });
                let _ = answer.send(purges);
            }
            Job::Purged(inos) => {
                let done = namespace.purged(&inos);
                if done.is_err() {
                    namespace.postpone(&inos);
                }
                log_failure(done);
            }
            Job::Postpone(inos) => namespace.postpone(&inos),
            Job::ResumePurges => namespace.resume_purges(),
            Job::Stop => return,
        }
    }
}

/// Whether the store's disk is nearly full. The store cannot go on after it has found it full, so it must not.
struct Room<'a> {
    directory: &'a Path,
    is_short: bool,
    looked_at: Option<i64>,
}

impl Room<'_> {
    /// Looks at most ten times a second.
    fn is_short(&mut self, now: i64) -> bool {
        const INTERVAL_NS: i64 = 100_000_000;
        if self.looked_at.is_none_or(|at| (now - at).abs() >= INTERVAL_NS) {
            self.looked_at = Some(now);
            // Half of what the objects leave free: they stop first.
            self.is_short = room(self.directory).is_ok_and(|room| room.available < reserve(room.total) / 2);
        }
        self.is_short
    }
}

/// Whether a request makes something that stays; removing must go on when the disk is full.
fn grows(request: &MetaRequest) -> bool {
    matches!(
        request.verb,
        Some(MetaVerb::Create(_) | MetaVerb::Link(_) | MetaVerb::Setxattr(_) | MetaVerb::Rename(_))
    )
}

fn failed(errno: Errno) -> MetaReply {
    MetaReply { errno: errno.raw_os_error().unsigned_abs(), ..MetaReply::default() }
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
