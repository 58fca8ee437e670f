//! The shell: runs the core on a thread of its own (`ssi-membership`) with a real clock, disk and fabric.
//!
//! ```text
//!  ssi-heartbeat --Heard--+
//!  fabric links ----------+                             +--> fabric (tokio), history, lease
//!  fabric requests -------+--> inbox --> core thread ---+
//!  ssi-clms-disk --Stored-+                             +--> ssi-clms-disk: log, table
//! ```
//!
//! Invariant: effects are carried out in their order by one thread, which waits for nothing but its inbox; if the log cannot
//! be written this node's membership ends, because it could break its word.

use crate::clock;
use crate::core::{Config as CoreConfig, Core, Effect, Event, OnDisk, RequestId, Status};
use crate::fencing::{Guard, Plan, Wanted};
use crate::history::History;
use crate::joining::log_dir;
use crate::keeping::{Keeper, Work};
use crate::lease::{Lease, Lessor};
use crate::receiver::{Receiver, prefer_this_thread};
use crate::saved;
use crate::table::Feed;
use crate::talk::{Answer, Request};
use crate::timings::Timings;
use crate::wire::{Node, View};
use crate::{Error, links, peers};
use base::NodeId;
use bytes::Bytes;
use fabric::{Endpoint, Message, Peer, Priority, Role, service};
use prost::Message as _;
use replog::{Directory, Member, Recovered, Store};
use std::collections::HashMap;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{oneshot, watch};

/// Events that wait for the core.
pub const INBOX_MAX: usize = 4_096;
/// The deadline of one request between cores; they repeat what matters.
const ASK_DEADLINE: Duration = Duration::from_millis(500);
/// A snapshot of the table is made when the log behind the last one weighs so many bytes.
const SNAPSHOT_AFTER_BYTES: usize = 1 << 20;

/// What membership is told when it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's row as it should appear: its id, how it is reached, what it gives, and its present life.
    pub local: Node,
    /// The directory that holds the file `table` and the log's store `clms/`.
    pub state_dir: PathBuf,
    /// The cluster key, for heartbeats.
    pub key: [u8; 32],
    /// The cluster's name, for heartbeats.
    pub cluster: String,
    /// See [`Timings`].
    pub timings: Timings,
    /// How nodes that are DOWN are fenced, when this node is master; empty: they are not.
    pub fencing: Plan,
    /// Called first by each thread that detection depends on: to ask the kernel for a better place than nice -10, which
    /// they ask for themselves.
    pub on_thread_start: fn(),
}

/// Why this node's membership is over.
#[derive(Clone, Debug)]
pub enum Ended {
    /// This life was declared DOWN in this view: end its processes; a later life rejoins when it starts.
    Evicted(Arc<View>),
    /// It left.
    Left,
    /// It cannot go on (its disk fails); start again.
    Failed(String),
}

pub(crate) type Inbox = SyncSender<Input>;

/// What the core's thread is told.
pub(crate) enum Input {
    Event(Event),
    Request { from: NodeId, request: Request, reply: oneshot::Sender<Answer> },
    Status(oneshot::Sender<Status>),
    Wake,
}

/// What threads, tasks and handles share.
pub(crate) struct Shared {
    pub(crate) local: Node,
    pub(crate) endpoint: Endpoint,
    pub(crate) inbox: Inbox,
    pub(crate) history: History,
    pub(crate) lease: Lease,
    pub(crate) over: watch::Receiver<bool>,
    pub(crate) ended: watch::Receiver<Option<Ended>>,
    pub(crate) stopping: Arc<AtomicBool>,
    pub(crate) leaving: AtomicBool,
    pub(crate) data_up: AtomicBool,
    /// The keys with which heartbeats may be signed.
    pub(crate) keys: Arc<Mutex<Vec<[u8; 32]>>>,
}

/// Membership of one node, started by [`Membership::start`].
pub struct Membership;

impl Membership {
    /// Starts membership from the table in the state directory. Must be called inside a tokio runtime, which carries
    /// its messages. The node rejoins by itself if the table knows an earlier life of it.
    ///
    /// # Errors
    /// No table, a damaged one, one without this node, or a thread that cannot be started.
    pub fn start(
        config: Config,
        endpoint: Endpoint,
        heartbeat_socket: UdpSocket,
    ) -> Result<crate::Handle, Error> {
        let Config { mut local, state_dir, key, cluster, timings, fencing, on_thread_start } = config;
        let table = saved::load(&state_dir)?;
        local.daemon = random_number();
        let id = local.node_id();
        if table.view().node(id).is_none() {
            return Err(Error::NotInTable(id));
        }
        check_life(table.view(), &local)?;
        let (store, log) = open_log(&log_dir(&state_dir), id)?;
        let member = Member { node: id, disk: store.id() };
        let (inbox, events) = mpsc::sync_channel(INBOX_MAX);
        let (ended_out, ended) = watch::channel(None);
        let (over_out, over) = watch::channel(false);
        let (lessor, lease) = Lease::new();
        let shared = Arc::new(Shared {
            local: local.clone(),
            endpoint: endpoint.clone(),
            inbox: inbox.clone(),
            history: History::new(table.clone()),
            lease,
            over,
            ended,
            stopping: Arc::default(),
            leaving: AtomicBool::new(false),
            data_up: AtomicBool::new(true),
            keys: Arc::new(Mutex::new(vec![key])),
        });
        let start_error = |what| move |source| Error::Start { what, source };
        let keeper = Keeper { store, me: member, state_dir, shared: shared.clone(), inbox: inbox.clone() };
        let (orders, disk_thread) =
            keeper.start(on_thread_start).map_err(start_error("the disk's thread"))?;
        let tick = timings.tick;
        let core_config = CoreConfig {
            daemon: local.daemon,
            row: local,
            timings,
            member,
            fencing: !fencing.is_empty(),
            snapshot_after_bytes: SNAPSHOT_AFTER_BYTES,
        };
        let disk = OnDisk { log, table };
        peers::apply(&endpoint, id, None, disk.table.view());
        let runner = Runner {
            core: Core::new(clock::now(), core_config, disk, random_number()),
            tick,
            shared: shared.clone(),
            runtime: tokio::runtime::Handle::current(),
            waiting: HashMap::new(),
            next_id: 0,
            data_up: true,
            orders,
            guard: Guard::start(fencing, shared.history.watch(), inbox.clone()),
            lessor,
            ended_out,
            over_out,
        };
        endpoint.serve(service::MEMBERSHIP, Arc::new(crate::service::Desk::new(shared.clone())));
        tokio::spawn(links::watch(endpoint, inbox.clone()));
        let (socket, stopping, keys) = (heartbeat_socket, shared.stopping.clone(), shared.keys.clone());
        Receiver { socket, keys, cluster, tick, inbox, stopping, on_thread_start }
            .start()
            .map_err(start_error("the heartbeat receiver"))?;
        runner.launch(events, disk_thread, on_thread_start).map_err(start_error("the membership thread"))?;
        Ok(crate::Handle::new(shared))
    }
}

/// Opens the store of the log. Every node has one: it may be asked to vote at any time.
fn open_log(dir: &Path, node: NodeId) -> Result<(Store<Directory>, Recovered), Error> {
    let open = || {
        let file = dir.display().to_string();
        let at = Directory::at(dir).map_err(|source| replog::Error::Disk { action: "open", file, source })?;
        Store::open(at)
    };
    match open() {
        Err(replog::Error::NoStore) => {
            replog::create(dir, node, |_| None)?;
            Ok(open()?)
        }
        opened => Ok(opened?),
    }
}

/// A life that the cluster has outlived already would only be told so, again and again.
fn check_life(view: &View, local: &Node) -> Result<(), Error> {
    let known = view.node(local.node_id()).map_or(0, |row| row.incarnation);
    if local.incarnation < known {
        return Err(Error::OldLife { node: local.node_id(), life: local.incarnation, known });
    }
    Ok(())
}

/// A number that differs between runs of a daemon; if the machine gives no randomness, the time does.
pub(crate) fn random_number() -> u64 {
    getrandom::u64().unwrap_or_else(|_| {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

/// The core's thread.
struct Runner {
    core: Core,
    tick: Duration,
    shared: Arc<Shared>,
    runtime: tokio::runtime::Handle,
    waiting: HashMap<RequestId, oneshot::Sender<Answer>>,
    next_id: u64,
    data_up: bool,
    orders: Sender<Work>,
    guard: UnboundedSender<Wanted>,
    lessor: Lessor,
    ended_out: watch::Sender<Option<Ended>>,
    over_out: watch::Sender<bool>,
}

impl Runner {
    /// Starts the core's thread.
    fn launch(
        self,
        events: mpsc::Receiver<Input>,
        disk_thread: JoinHandle<()>,
        on_thread_start: fn(),
    ) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name("ssi-membership".into());
        let started = thread.spawn(move || {
            on_thread_start();
            self.run(events, disk_thread);
        });
        started.map(drop)
    }

    fn run(mut self, events: mpsc::Receiver<Input>, disk_thread: JoinHandle<()>) {
        prefer_this_thread();
        let runtime = self.runtime.clone();
        let _inside = runtime.enter();
        self.serve(&events);
        self.lessor.set(None);
        self.over_out.send_replace(true);
        self.shared.stopping.store(true, Ordering::Relaxed);
        // Nobody must wait for room in the inbox while this thread waits for him.
        drop(events);
        let Runner { orders, ended_out, .. } = self;
        drop(orders);
        if disk_thread.join().is_err() {
            tracing::error!("the thread of the table's disk has panicked");
        }
        // Whoever waits for the end finds the store closed.
        drop(ended_out);
    }

    /// Runs until stopped. Everything that waits in the inbox is handled before the clock is looked at, so that after a
    /// pause nobody is judged by what has already arrived.
    fn serve(&mut self, events: &mpsc::Receiver<Input>) {
        let mut next_tick = Instant::now();
        while !self.shared.stopping.load(Ordering::Relaxed) {
            let due = self.core.next_deadline().map_or(Duration::MAX, |at| at.since(clock::now()));
            let rest = next_tick.saturating_duration_since(Instant::now()).min(due);
            match events.recv_timeout(rest) {
                Ok(input) => self.take(input),
                Err(RecvTimeoutError::Timeout) => {
                    self.handle(Event::Tick { wall_ms: clock::wall_ms() });
                    next_tick = Instant::now() + self.tick;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let data_up = self.shared.data_up.load(Ordering::Relaxed);
            if data_up != self.data_up {
                self.data_up = data_up;
                self.handle(Event::DataUp(data_up));
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => self.handle(event),
            Input::Wake => {}
            Input::Status(reply) => {
                // Whoever asked may have gone away.
                let _ = reply.send(self.core.status(clock::now()));
            }
            Input::Request { from, request, reply } => {
                self.next_id += 1;
                let id = RequestId(self.next_id);
                self.waiting.insert(id, reply);
                self.handle(Event::Request { id, from, request })
            }
        }
    }

    fn handle(&mut self, event: Event) {
        for effect in self.core.handle(clock::now(), event) {
            match effect {
                // If the disk's thread is gone it has said why in the inbox.
                Effect::Store(order) => drop(self.orders.send(Work::Log(order))),
                Effect::Log(envelope) => self.shared.send_log(&envelope),
                Effect::Publish(feed) => self.publish(&feed),
                Effect::Lease(until) => self.lessor.set(until),
                Effect::Down { peer, down } => peers::set_down(&self.shared.endpoint, peer, down),
                Effect::Reach(row) => peers::reach(&self.shared.endpoint, &row),
                Effect::Ask { to, request } => self.ask(to, &request),
                Effect::Answer { id, answer } => {
                    if let Some(reply) = self.waiting.remove(&id) {
                        // Whoever asked may have gone away.
                        let _ = reply.send(answer);
                    }
                }
                // If its task is gone, so is the runtime.
                Effect::Fence { node, life } => drop(self.guard.send(Wanted { node, life })),
                Effect::Evicted(view) => self.end(view),
                Effect::Failed(why) => {
                    tracing::error!("node {}: membership ends: {why}", self.shared.local.id);
                    self.ended_out.send_replace(Some(Ended::Failed(why)));
                }
            }
        }
    }

    fn publish(&mut self, feed: &Feed) {
        let before = self.shared.history.view();
        let Some(view) = self.shared.history.take(feed) else { return };
        let me = view.node(self.shared.local.node_id()).map(Node::state);
        tracing::info!(
            "node {}: view {} agreed, master {}, own state {me:?}",
            self.shared.local.id,
            view.epoch,
            view.master
        );
        peers::apply(&self.shared.endpoint, self.shared.local.node_id(), Some(&before), &view);
        // If the disk's thread is gone it has said why in the inbox.
        drop(self.orders.send(Work::Table(Box::new(self.shared.history.table()))));
    }

    fn end(&mut self, view: View) {
        let left = self.shared.leaving.load(Ordering::Relaxed);
        let (id, epoch) = (self.shared.local.id, view.epoch);
        let ended = if left { Ended::Left } else { Ended::Evicted(Arc::new(view)) };
        tracing::warn!(
            "node {id}: this life ended in view {epoch} ({})",
            if left { "left" } else { "declared DOWN" }
        );
        self.ended_out.send_replace(Some(ended));
    }

    /// Sends a request; the answer comes back as an event. A request that fails is not told: cores repeat.
    fn ask(&self, to: NodeId, request: &Request) {
        let endpoint = self.shared.endpoint.clone();
        let inbox = self.shared.inbox.clone();
        let message = Message { head: Bytes::from(request.encode_to_vec()), bulk: Bytes::new() };
        self.runtime.spawn(async move {
            let peer = Peer { node: to, role: Role::Control };
            let call = endpoint.call(peer, service::MEMBERSHIP, Priority::Control, message, ASK_DEADLINE);
            let Ok(reply) = call.await else { return };
            if let Ok(answer) = Answer::decode(reply.head) {
                // A full inbox loses an answer as a cut link would.
                let _ = inbox.try_send(Input::Event(Event::Answered { from: to, answer }));
            }
        });
    }
}
