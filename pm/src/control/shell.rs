//! The thin shell of process control: it carries out what the core decides, on tokio.
//!
//! Owns: the core behind one lock, the link to `ssi-init`, the clients' sockets. Invariant: effects are carried out in the
//! order in which the core gave them, under the lock under which it gave them; nothing under that lock waits.

use super::calls::{Outgoing, Posters};
use super::lane::Ticket;
use super::outbox::Outbox;
use super::routes::Routes;
use super::{ClientId, Core, CoreConfig, Effect, Event};
use crate::control::lane::Track;
use crate::link::{self, Link};
use crate::notify;
use crate::procfs::ProcessTable;
use crate::table::ForeignProcesses;
use crate::wire::init::{FromInit, Heartbeat, Report, Request, ToInit};
use crate::wire::peer::Answer;
use crate::wire::{Signal, init};
use base::{FrameReader, NodeId, Pid, PidRegions, Time, encode_frame};
use fabric::{Endpoint, service};
use membership::View;
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot, watch};

/// What the shell is started with. The descriptors are those of `ssi-init`'s welcome.
#[derive(Debug)]
pub struct Config {
    /// The node.
    pub node: NodeId,
    /// How pids are cut into home regions.
    pub regions: PidRegions,
    /// Root directory of the view's own procfs; without it no process is visible to other nodes.
    pub procfs: Option<OwnedFd>,
    /// The user-notification listener; without it no foreign kill is answered.
    pub listener: Option<OwnedFd>,
    /// The in-flight ledger that belongs to the listener.
    pub ledger: Option<OwnedFd>,
}

/// Why process control did not start, or a client was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The link to `ssi-init` cannot be used.
    #[error(transparent)]
    Link(#[from] link::Error),
    /// Something of this machine failed.
    #[error("process control: {what}: {source}")]
    Machine {
        /// What failed.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// Names the step for an error of the machine.
pub(super) fn machine(what: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::Machine { what, source }
}

/// Everything that the tasks and threads of the shell share.
pub(crate) struct Shared {
    pub(super) node: NodeId,
    pub(super) endpoint: Endpoint,
    pub(crate) procfs: Option<Arc<OwnedFd>>,
    pub(crate) runtime: tokio::runtime::Handle,
    core: Mutex<Core>,
    started: Instant,
    routes: RwLock<(u64, Arc<Routes>)>,
    init: Outbox,
    pub(super) clients: Mutex<HashMap<ClientId, Arc<Outbox>>>,
    posters: Posters,
    answers: Mutex<HashMap<u64, oneshot::Sender<u32>>>,
    questions: AtomicU64,
    armed: AtomicU64,
    alarm: Notify,
    stop: watch::Sender<bool>,
}

/// Process control of one node. Start it with [`Pm::start`].
#[derive(Debug)]
pub struct Pm;

impl Pm {
    /// Starts process control on the current tokio runtime: registers the service on `endpoint`, answers what
    /// `ssi-init` and the kernel have waiting, and follows `view`.
    ///
    /// # Errors
    /// See [`Error`]; nothing is left running then.
    pub fn start(
        config: Config,
        endpoint: Endpoint,
        link: Link,
        view: watch::Receiver<Arc<View>>,
    ) -> Result<Handle, Error> {
        let (stream, reader) = link.into_parts();
        stream.set_nonblocking(true).map_err(machine("the socket of ssi-init"))?;
        let stream = Arc::new(UnixStream::from_std(stream).map_err(machine("the socket of ssi-init"))?);
        let core_config =
            CoreConfig { node: config.node, regions: config.regions, life: nanoseconds_since_epoch() };
        let (core, first) = Core::start(core_config, Time(0));
        let shared = Arc::new(Shared {
            node: config.node,
            endpoint: endpoint.clone(),
            procfs: config.procfs.map(Arc::new),
            runtime: tokio::runtime::Handle::current(),
            routes: RwLock::new((0, Arc::new(core.routes().clone()))),
            core: Mutex::new(core),
            started: Instant::now(),
            init: Outbox::new(stream.clone()),
            clients: Mutex::default(),
            posters: Posters::default(),
            answers: Mutex::default(),
            questions: AtomicU64::new(1),
            armed: AtomicU64::new(u64::MAX),
            alarm: Notify::new(),
            stop: watch::Sender::new(false),
        });
        shared.carry_out(first);
        shared.drive(Event::View(view.borrow().clone()));
        if let Some(listener) = config.listener {
            let serving = notify::serve(listener, config.ledger, shared.clone());
            serving.map_err(machine("the listener for trapped calls"))?;
        }
        shared.spawn(follow_view(shared.clone(), view));
        shared.spawn(wait_for_deadlines(shared.clone()));
        shared.spawn(write_to_init(shared.clone()));
        shared.spawn(read_from_init(shared.clone(), stream, reader));
        endpoint.serve(service::PROCESSES, Arc::new(super::calls::Processes(shared.clone())));
        Ok(Handle { shared })
    }
}

fn nanoseconds_since_epoch() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX >> 1)
}

impl Shared {
    /// The node.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    pub(super) fn now(&self) -> Time {
        Time(0) + self.started.elapsed()
    }

    /// Hands `event` to the core and carries out what follows; returns the answer if the event was a request.
    pub(super) fn drive(self: &Arc<Self>, event: Event) -> Option<Answer> {
        let mut core = self.core.lock();
        let effects = core.handle(self.now(), event);
        let answer = self.carry_out(effects);
        if core.routes_version() != self.routes.read().0 {
            *self.routes.write() = (core.routes_version(), Arc::new(core.routes().clone()));
        }
        let deadline = core.deadline().map_or(u64::MAX, |at| at.0);
        drop(core);
        if deadline < self.armed.load(Ordering::Acquire) {
            self.alarm.notify_one();
        }
        answer
    }

    fn carry_out(self: &Arc<Self>, effects: Vec<Effect>) -> Option<Answer> {
        let mut answer = None;
        for effect in effects {
            match effect {
                Effect::Client { client, message } => {
                    if let Some(outbox) = self.clients.lock().get(&client) {
                        outbox.send(&encode_frame(&message));
                    }
                }
                Effect::CloseClient { client, why } => self.close_client(client, &why),
                Effect::Init(message) => self.init.send(&encode_frame(&message)),
                Effect::Call { to, track, ticket, request } => {
                    self.posters.post(self, to, track, Outgoing { ticket, request });
                }
                Effect::Answer(given) => answer = Some(given),
            }
        }
        answer
    }

    fn close_client(&self, client: ClientId, why: &str) {
        if !why.is_empty() {
            tracing::warn!(client = client.0, "a client is turned away: {why}");
        }
        if let Some(outbox) = self.clients.lock().remove(&client) {
            outbox.close();
        }
    }

    /// Where signals go, as of now.
    pub(crate) fn routes(&self) -> Arc<Routes> {
        self.routes.read().1.clone()
    }

    /// Runs `future` until it ends or the shell is closed.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let mut stop = self.stop.subscribe();
        self.runtime.spawn(async move {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => {}
                () = future => {}
            }
        });
    }

    pub(super) fn answered(self: &Arc<Self>, from: NodeId, track: Track, ticket: Ticket, errno: Option<u32>) {
        self.drive(match errno {
            Some(errno) => Event::Answered { from, track, ticket, errno },
            None => Event::CallFailed { from, track, ticket },
        });
    }

    /// Has `ssi-init` deliver a signal; the errno, 0 if it was delivered.
    pub(super) async fn ask_init(&self, signal: Signal) -> u32 {
        let request_id = self.questions.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.answers.lock().insert(request_id, sender);
        let message = ToInit { task: None, request_id, request: Some(init::Request::Signal(signal)) };
        self.init.send(&encode_frame(&message));
        let answer = tokio::time::timeout(super::limits::INIT_LONGEST, receiver).await;
        self.answers.lock().remove(&request_id);
        match answer {
            Ok(Ok(errno)) => errno,
            _ => rustix::io::Errno::SRCH.raw_os_error() as u32,
        }
    }

    fn take_report(self: &Arc<Self>, report: FromInit) {
        if let Some(Report::Errno(errno)) = report.report
            && let Some(sender) = self.answers.lock().remove(&report.request_id)
        {
            // Whoever asked may have given up.
            let _ = sender.send(errno);
            return;
        }
        self.drive(Event::Init(report));
    }

    /// Sends `ssi-init` a request that is about no task and has no answer.
    pub(super) fn tell_init(&self, request: Request) {
        self.init.send(&encode_frame(&ToInit { task: None, request_id: 0, request: Some(request) }));
    }

    fn init_is_gone(&self, why: &str) {
        tracing::error!("the connection to ssi-init is gone: {why}");
        self.stop.send_replace(true);
    }
}

async fn follow_view(shared: Arc<Shared>, mut view: watch::Receiver<Arc<View>>) {
    while view.changed().await.is_ok() {
        let newest = view.borrow_and_update().clone();
        shared.drive(Event::View(newest));
    }
    // Membership has ended, so the daemon is ending.
    std::future::pending().await
}

async fn wait_for_deadlines(shared: Arc<Shared>) {
    loop {
        let deadline = shared.core.lock().deadline().map_or(u64::MAX, |at| at.0);
        shared.armed.store(deadline, Ordering::Release);
        let wait = Duration::from_nanos(deadline).saturating_sub(shared.started.elapsed());
        tokio::select! {
            () = tokio::time::sleep(wait), if deadline != u64::MAX => { shared.drive(Event::Tick); }
            () = shared.alarm.notified() => {}
        }
    }
}

async fn write_to_init(shared: Arc<Shared>) {
    if let Err(error) = shared.init.run(|_| {}).await {
        shared.init_is_gone(&error.to_string());
    }
}

async fn read_from_init(shared: Arc<Shared>, stream: Arc<UnixStream>, mut reader: FrameReader) {
    let mut buffer = vec![0; 64 << 10];
    let why = loop {
        match reader.next::<FromInit>() {
            Ok(Some(report)) => {
                shared.take_report(report);
                continue;
            }
            Ok(None) => {}
            Err(error) => break error.to_string(),
        }
        match read_some(&stream, &mut buffer).await {
            Ok(0) => break "it closed the connection".to_owned(),
            Ok(n) => reader.push(&buffer[..n]),
            Err(error) => break error.to_string(),
        }
    };
    shared.init_is_gone(&why);
}

/// One read, waiting for it.
pub(super) async fn read_some(stream: &UnixStream, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match stream.try_read(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => stream.readable().await?,
            result => return result,
        }
    }
}

/// What the daemon holds of process control. Clones are the same.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Handle of process control on node {}", self.shared.node)
    }
}

impl Handle {
    /// Takes over a client that asked for the service `tasks`: its stream, and what was read from it behind that request.
    pub fn attach_client(&self, stream: UnixStream, read: FrameReader) {
        super::attach::attach(&self.shared, stream, read);
    }

    /// The node where the process runs; `None`: no such process that this node could find.
    pub async fn where_pid(&self, pid: Pid) -> Option<NodeId> {
        self.shared.where_pid(pid.0).await
    }

    /// kill(2) of any process of the cluster: 0 or the errno that a local kill would give. `signal` carries the
    /// sender's credentials.
    pub async fn kill(&self, signal: Signal) -> u32 {
        self.shared.kill(signal).await
    }

    /// All processes of the other nodes, for /proc.
    pub fn process_table(&self) -> Arc<dyn ProcessTable> {
        Arc::new(ForeignProcesses::new(self.shared.clone()))
    }

    /// Has `ssi-init` send heartbeats to `watchers`, `interval` apart.
    pub fn watch_heartbeats(&self, watchers: &[SocketAddr], interval: Duration) {
        let watchers = watchers.iter().map(SocketAddr::to_string).collect();
        let interval_ms = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
        let node = self.shared.node.0;
        self.shared.tell_init(Request::Heartbeat(Heartbeat { watchers, interval_ms, node }));
    }

    /// Has `ssi-init` sign its heartbeats with this cluster key.
    pub fn sign_heartbeats(&self, key: &[u8; 32]) {
        self.shared.tell_init(Request::Key(key.to_vec()));
    }

    /// Has `ssi-init` keep `state` for this daemon's next life: what was agreed with the kernel about /proc.
    pub fn keep_fuse_state(&self, state: Vec<u8>) {
        self.shared.tell_init(Request::FuseState(state));
    }

    /// Ends every process of this node's view, and `ssi-init`. The link to it closes then.
    pub fn shutdown_view(&self) {
        self.shared.tell_init(Request::Shutdown(()));
    }

    /// Tasks of this node's clients, and tasks that run here.
    pub fn counts(&self) -> (usize, usize) {
        self.shared.core.lock().counts()
    }

    /// Waits until `ssi-init` is gone (the view ended, or it welcomed another daemon) or [`Handle::close`] was called.
    pub async fn closed(&self) {
        let mut stop = self.shared.stop.subscribe();
        // The sender lives in `shared`.
        let _ = stop.wait_for(|stop| *stop).await;
    }

    /// Ends all tasks of the shell. What runs in the view goes on; `ssi-init` keeps all that a successor needs.
    pub fn close(&self) {
        self.shared.stop.send_replace(true);
        for (_, outbox) in self.shared.clients.lock().drain() {
            outbox.close();
        }
    }
}
