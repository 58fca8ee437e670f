//! The shell: runs the core on a thread of its own (`ssi-membership`) with a real clock, disk and fabric.
//!
//! ```text
//!  ssi-heartbeat --Heard--+
//!  fabric links ----------+--> inbox --> core thread --> disk, fabric (tokio), watch of views
//!  fabric requests -------+
//! ```
//!
//! Invariant: effects are carried out in their order by one thread, and the disk is written before anything is said; if
//! it cannot be written this node's membership ends, because it could break its word.

use crate::clock::Clock;
use crate::core::{Config as CoreConfig, Core, Effect, Event, RequestId, Status};
use crate::receiver::{Receiver, prefer_this_thread};
use crate::saved;
use crate::talk::{Answer, Request};
use crate::timings::Timings;
use crate::wire::{Node, View};
use crate::{Error, peers};
use base::NodeId;
use bytes::Bytes;
use fabric::{Endpoint, LinkEvent, Message, Peer, Priority, Role, service};
use prost::Message as _;
use std::collections::HashMap;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// Events that wait for the core.
pub const INBOX_MAX: usize = 4_096;
/// The deadline of one request between cores; they repeat what matters.
const ASK_DEADLINE: Duration = Duration::from_millis(500);

/// What membership is told when it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's row as it should appear: its id, how it is reached, what it gives, and its present life.
    pub local: Node,
    /// The directory that holds the file `table`.
    pub state_dir: PathBuf,
    /// The cluster key, for heartbeats.
    pub key: [u8; 32],
    /// The cluster's name, for heartbeats.
    pub cluster: String,
    /// See [`Timings`].
    pub timings: Timings,
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
    pub(crate) views: watch::Receiver<Arc<View>>,
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
        let Config { mut local, state_dir, key, cluster, timings, on_thread_start } = config;
        let register = saved::load(&state_dir)?;
        let id = local.node_id();
        if register.accepted.node(id).is_none() {
            return Err(Error::NotInTable(id));
        }
        check_life(&register.committed, &local)?;
        local.daemon = random_number();
        let clock = Clock::start();
        let first = Arc::new(register.committed.clone());
        let (inbox, events) = mpsc::sync_channel(INBOX_MAX);
        let (view_out, views) = watch::channel(first.clone());
        let (ended_out, ended) = watch::channel(None);
        let shared = Arc::new(Shared {
            local: local.clone(),
            endpoint: endpoint.clone(),
            inbox: inbox.clone(),
            views,
            ended,
            stopping: Arc::new(AtomicBool::new(false)),
            leaving: AtomicBool::new(false),
            data_up: AtomicBool::new(true),
            keys: Arc::new(Mutex::new(vec![key])),
        });
        let tick = timings.tick;
        let core_config = CoreConfig { daemon: local.daemon, row: local, timings };
        let runner = Runner {
            core: Core::new(core_config, register, clock.now()),
            clock,
            tick,
            state_dir,
            shared: shared.clone(),
            runtime: tokio::runtime::Handle::current(),
            waiting: HashMap::new(),
            next_id: 0,
            data_up: true,
            view_out,
            ended_out,
        };
        peers::apply(&endpoint, id, None, &first);
        endpoint.serve(service::MEMBERSHIP, Arc::new(crate::service::Desk::new(shared.clone())));
        tokio::spawn(watch_links(endpoint, inbox.clone()));
        let start_error = |what| move |source| Error::Start { what, source };
        let (socket, stopping, keys) = (heartbeat_socket, shared.stopping.clone(), shared.keys.clone());
        Receiver { socket, keys, cluster, clock, tick, inbox, stopping, on_thread_start }
            .start()
            .map_err(start_error("the heartbeat receiver"))?;
        std::thread::Builder::new()
            .name("ssi-membership".into())
            .spawn(move || {
                on_thread_start();
                runner.run(&events);
            })
            .map_err(start_error("the membership thread"))?;
        Ok(crate::Handle::new(shared))
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
fn random_number() -> u64 {
    getrandom::u64().unwrap_or_else(|_| {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

/// Tells the core of links to other `ssid`s, until the endpoint or the core is gone.
async fn watch_links(endpoint: Endpoint, inbox: Inbox) {
    let mut links = endpoint.links();
    let mut missed = true;
    loop {
        if std::mem::take(&mut missed) {
            for status in endpoint.status().peers {
                if tell_link(&inbox, status.peer, status.connected).await.is_none() {
                    return;
                }
            }
        }
        let told = match links.recv().await {
            Ok(LinkEvent::Connected(peer)) => tell_link(&inbox, peer, true).await,
            Ok(LinkEvent::Lost(peer)) => tell_link(&inbox, peer, false).await,
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {
                missed = true;
                Some(())
            }
            Err(tokio::sync::broadcast::error::RecvError::Closed) => None,
        };
        if told.is_none() {
            return;
        }
    }
}

/// None once the core is gone. A link event must not be lost, so a full inbox is waited for.
async fn tell_link(inbox: &Inbox, peer: Peer, linked: bool) -> Option<()> {
    if peer.role != Role::Control {
        return Some(());
    }
    match inbox.try_send(Input::Event(Event::Link { peer: peer.node, linked })) {
        Ok(()) => Some(()),
        Err(mpsc::TrySendError::Disconnected(_)) => None,
        Err(mpsc::TrySendError::Full(input)) => {
            let inbox = inbox.clone();
            let sent = tokio::task::spawn_blocking(move || inbox.send(input).is_ok()).await;
            sent.unwrap_or(false).then_some(())
        }
    }
}

/// The core's thread.
struct Runner {
    core: Core,
    clock: Clock,
    tick: Duration,
    state_dir: PathBuf,
    shared: Arc<Shared>,
    runtime: tokio::runtime::Handle,
    waiting: HashMap<RequestId, oneshot::Sender<Answer>>,
    next_id: u64,
    data_up: bool,
    view_out: watch::Sender<Arc<View>>,
    ended_out: watch::Sender<Option<Ended>>,
}

impl Runner {
    fn run(mut self, events: &mpsc::Receiver<Input>) {
        prefer_this_thread();
        let runtime = self.runtime.clone();
        let _inside = runtime.enter();
        if let Err(error) = self.serve(events) {
            tracing::error!("node {}: membership ends: {error}", self.shared.local.id);
            self.ended_out.send_replace(Some(Ended::Failed(error.to_string())));
        }
        self.shared.stopping.store(true, Ordering::Relaxed);
    }

    /// Runs until stopped. Everything that waits in the inbox is handled before the clock is looked at, so that after a
    /// pause nobody is judged by what has already arrived.
    fn serve(&mut self, events: &mpsc::Receiver<Input>) -> Result<(), Error> {
        let mut next_tick = Instant::now();
        while !self.shared.stopping.load(Ordering::Relaxed) {
            match events.recv_timeout(next_tick.saturating_duration_since(Instant::now())) {
                Ok(input) => self.take(input)?,
                Err(RecvTimeoutError::Timeout) => {
                    self.handle(Event::Tick)?;
                    next_tick = Instant::now() + self.tick;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let data_up = self.shared.data_up.load(Ordering::Relaxed);
            if data_up != self.data_up {
                self.data_up = data_up;
                self.handle(Event::DataUp(data_up))?;
            }
        }
        Ok(())
    }

    fn take(&mut self, input: Input) -> Result<(), Error> {
        match input {
            Input::Event(event) => self.handle(event),
            Input::Wake => Ok(()),
            Input::Status(reply) => {
                // Whoever asked may have gone away.
                let _ = reply.send(self.core.status(self.clock.now()));
                Ok(())
            }
            Input::Request { from, request, reply } => {
                self.next_id += 1;
                let id = RequestId(self.next_id);
                self.waiting.insert(id, reply);
                self.handle(Event::Request { id, from, request })
            }
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), Error> {
        for effect in self.core.handle(self.clock.now(), event) {
            match effect {
                Effect::Persist(register) => saved::save(&self.state_dir, &register)?,
                Effect::Publish(view) => self.publish(view),
                Effect::Down { peer, down } => peers::set_down(&self.shared.endpoint, peer, down),
                Effect::Reach(row) => peers::reach(&self.shared.endpoint, &row),
                Effect::Ask { to, request } => self.ask(to, &request),
                Effect::Answer { id, answer } => {
                    if let Some(reply) = self.waiting.remove(&id) {
                        // Whoever asked may have gone away.
                        let _ = reply.send(answer);
                    }
                }
                Effect::Evicted(view) => self.end(view),
            }
        }
        Ok(())
    }

    fn publish(&mut self, view: View) {
        let me = self.core.view().node(self.shared.local.node_id()).map(|row| row.state());
        tracing::info!(
            "node {}: view {} agreed, master {}, own state {me:?}",
            self.shared.local.id,
            view.epoch,
            view.master
        );
        let view = Arc::new(view);
        let before = self.view_out.borrow().clone();
        peers::apply(&self.shared.endpoint, self.shared.local.node_id(), Some(&before), &view);
        self.view_out.send_replace(view);
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
