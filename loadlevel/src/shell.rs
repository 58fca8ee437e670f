//! The shell: takes a sample every [`INTERVAL`], spreads it, and keeps the table.
//!
//! Up to [`PEERS_DIRECT`] nodes are told directly. In a larger cluster a node tells so many, chosen anew each time, and
//! passes on the newest samples of others, so that every node hears of every other within a few intervals.

use crate::procfs;
use crate::sampler::Sampler;
use crate::table::{NodeLoad, Table, fastest};
use crate::wire::{Aged, SAMPLES_MAX, Spread};
use base::{NodeId, Prng, Time};
use bytes::Bytes;
use fabric::{Endpoint, Message, Peer, Priority, Reply, Role, Service, service};
use membership::{NodeState, View};
use parking_lot::Mutex;
use prost::Message as _;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// Between two samples.
pub const INTERVAL: Duration = Duration::from_millis(500);
/// Nodes that are told of a sample directly.
pub const PEERS_DIRECT: usize = 16;
/// A sample that is not taken in so long is not worth delivering: the next one comes.
const SPREAD_DEADLINE: Duration = Duration::from_millis(400);

/// What the node gives to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// Cores.
    pub cpus: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Relative speed of a core; 100 is the reference.
    pub speed: u32,
}

/// Load levelling of one node, started by [`LoadLevel::start`].
pub struct LoadLevel;

impl LoadLevel {
    /// Starts sampling the processes in `procfs` (the root of the view's own procfs), serves LOAD on `endpoint`, and
    /// tells the other nodes of `views`. Must be called inside a tokio runtime. It ends when the last handle is dropped.
    pub fn start(
        config: Config,
        endpoint: Endpoint,
        procfs: OwnedFd,
        views: watch::Receiver<Arc<View>>,
    ) -> Handle {
        let shared =
            Arc::new(Shared { start: Instant::now(), table: Mutex::default(), views, local: config.node });
        endpoint.serve(service::LOAD, Arc::new(Desk(Arc::downgrade(&shared))));
        let views = shared.views.clone();
        tokio::spawn(run(config, endpoint, Arc::new(procfs), views, Arc::downgrade(&shared)));
        Handle { shared }
    }
}

struct Shared {
    start: Instant,
    table: Mutex<Table>,
    views: watch::Receiver<Arc<View>>,
    local: NodeId,
}

impl Shared {
    fn now(&self) -> Time {
        Time(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn view(&self) -> Arc<View> {
        self.views.borrow().clone()
    }
}

/// What a daemon holds of load levelling. Clones are the same.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    /// The load of every node that is alive, by id.
    pub fn table(&self) -> Vec<NodeLoad> {
        self.shared.table.lock().rows(self.shared.now(), &self.shared.view())
    }

    /// The node where one more process costs least; `None` if no node is UP. It only looks: whoever places a process
    /// there says so with [`Handle::placed`].
    pub fn fastnode(&self) -> Option<NodeId> {
        fastest(&self.table(), &self.shared.view())
    }

    /// Processes are about to start on these nodes, one for each entry. They count as load at once, until samples must
    /// show them.
    pub fn placed(&self, nodes: &[NodeId]) {
        self.shared.table.lock().placed(self.shared.now(), nodes);
    }
}

struct Desk(Weak<Shared>);

impl Service for Desk {
    fn handle(self: Arc<Self>, from: Peer, request: Message) -> Reply {
        match (self.0.upgrade(), Spread::decode(request.head)) {
            (Some(shared), Ok(spread)) => take(&shared, &spread),
            (_, Err(error)) => tracing::debug!("a load sample of {from} does not decode: {error}"),
            (None, _) => {}
        }
        Reply::Now(Message::default())
    }
}

fn take(shared: &Shared, spread: &Spread) {
    let (now, view) = (shared.now(), shared.view());
    let mut table = shared.table.lock();
    for Aged { sample, age_ms } in spread.samples.iter().take(SAMPLES_MAX) {
        // Nobody knows better than this node how this node is; and strangers do not fill the table.
        let known = |sample: &crate::Sample| {
            sample.node_id() != shared.local && view.node(sample.node_id()).is_some()
        };
        if let Some(sample) = sample.filter(known) {
            table.take(now, sample, Duration::from_millis(*age_ms));
        }
    }
}

async fn run(
    config: Config,
    endpoint: Endpoint,
    procfs: Arc<OwnedFd>,
    mut views: watch::Receiver<Arc<View>>,
    shared: Weak<Shared>,
) {
    let Config { node, cpus, memory_bytes, speed } = config;
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let mut sampler = Sampler::new(node, cpus, memory_bytes, speed, ticks_per_second);
    let mut prng = Prng::new(u64::from(node.0));
    let mut pace = tokio::time::interval(INTERVAL);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut complained = false;
    loop {
        // A node that has just come hears of us at once, not at the next beat.
        tokio::select! {
            _ = pace.tick() => {}
            Ok(()) = views.changed() => {}
        }
        let Some(shared) = shared.upgrade() else { return };
        let root = procfs.clone();
        let page_bytes = rustix::param::page_size() as u64;
        // Thousands of processes take milliseconds to read: not on a thread that others wait for.
        let read = tokio::task::spawn_blocking(move || procfs::rows(&*root, page_bytes)).await;
        let rows = match read {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) => {
                if !std::mem::replace(&mut complained, true) {
                    tracing::warn!("node {node}: its load is not known, its procfs cannot be read: {error}");
                }
                continue;
            }
            Err(_) => return,
        };
        let mut sample = sampler.sample(shared.now(), &rows);
        sample.at_ms = wall_clock_ms();
        let view = shared.view();
        let spread = {
            let mut table = shared.table.lock();
            table.keep(&view);
            table.take(shared.now(), sample, Duration::ZERO);
            what_to_tell(&table, shared.now(), sample, &view)
        };
        tell(&endpoint, peers(&view, node, &mut prng), &spread);
    }
}

/// Orders the samples of this node also over a restart of its daemon.
fn wall_clock_ms() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn what_to_tell(table: &Table, now: Time, own: crate::Sample, view: &View) -> Spread {
    let aged = |(sample, age): (crate::Sample, Duration)| Aged {
        sample: Some(sample),
        age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
    };
    if view.nodes.len() <= PEERS_DIRECT + 1 {
        return Spread { samples: vec![aged((own, Duration::ZERO))] };
    }
    Spread { samples: table.newest(now, SAMPLES_MAX).into_iter().map(aged).collect() }
}

/// Whom to tell: all others that are UP, or as many as [`PEERS_DIRECT`] of them.
fn peers(view: &View, me: NodeId, prng: &mut Prng) -> Vec<NodeId> {
    let up = view.nodes.iter().filter(|row| row.state() == NodeState::Up && row.node_id() != me);
    let mut up: Vec<NodeId> = up.map(membership::Node::node_id).collect();
    while up.len() > PEERS_DIRECT {
        let at = prng.below(up.len() as u64) as usize;
        up.swap_remove(at);
    }
    up
}

fn tell(endpoint: &Endpoint, peers: Vec<NodeId>, spread: &Spread) {
    let message = Message { head: Bytes::from(spread.encode_to_vec()), bulk: Bytes::new() };
    for node in peers {
        let (endpoint, message) = (endpoint.clone(), message.clone());
        tokio::spawn(async move {
            let peer = Peer { node, role: Role::Control };
            // A sample that does not arrive is followed by another; a node that hears none for long knows what to think.
            let _ = endpoint.call(peer, service::LOAD, Priority::Meta, message, SPREAD_DEADLINE).await;
        });
    }
}
