//! The shell: runs a core with a real clock, disk and fabric, on three threads of its own.
//!
//! ```text
//!   handles --+                         +--> replog-disk   writes, one sync for all that waits; sends snapshots
//!   fabric  --+--> inbox --> replog ----+--> fabric        messages
//!   disk    --+      core, clock        +--> replog-apply  state machine, reads, answers
//! ```
//!
//! Invariant: the core's effects are carried out in its order, each kind by one thread; the core's thread waits for nothing
//! but its inbox. Queues to the other two are bounded by what the core lets be under way.

mod applying;
mod clock;
mod exchange;
mod handle;
mod keeping;
mod running;

pub use exchange::Exchange;
pub use handle::{Handle, Leadership, Outcome};
pub use keeping::CHUNK_BYTES;

use crate::config::Config;
use crate::core::{Core, Status};
use crate::entry::Origin;
use crate::error::Error;
use crate::event::Event;
use crate::ids::{DiskId, Index, Member};
use crate::session::Sessions;
use crate::store::{Directory, Store};
use crate::voters::Voters;
use applying::{Applier, Query, Waiter};
use base::NodeId;
use bytes::Bytes;
use handle::News;
use keeping::Keeper;
use running::{Runner, Threads};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use tokio::sync::{oneshot, watch};

/// Inputs that wait for the core.
pub const INBOX_MAX: usize = 8_192;

/// What is replicated. All members' machines must do the same with the same commands: no clock, no chance, no order of
/// a hash map.
pub trait StateMachine: Send + 'static {
    /// Carries out an agreed command; what it gives goes to whoever asked for it.
    fn apply(&mut self, index: Index, command: &[u8]) -> Bytes;

    /// The whole state.
    fn snapshot(&mut self) -> Bytes;

    /// Takes a state over, in place of its own.
    ///
    /// # Errors
    /// Why it cannot: this member ends.
    fn restore(&mut self, snapshot: Bytes) -> Result<(), String>;

    /// Others decide from this place on; it is agreed.
    fn voters(&mut self, _index: Index, _voters: &Voters) {}
}

/// What a log is told when it starts.
#[derive(Clone)]
pub struct Start {
    /// Which of the endpoint's logs it is.
    pub log: u64,
    /// This node.
    pub node: NodeId,
    /// Its directory: made by [`create`].
    pub dir: PathBuf,
    /// Changes the core's settings from [`Config::new`].
    pub tune: fn(&mut Config),
    /// Called first by each thread, to ask the kernel for a better place.
    pub on_thread_start: fn(),
}

/// What the core's thread is told.
pub(crate) enum Input {
    Event(Event),
    Ask(Ask),
    Wake,
}

/// What handles want.
pub(crate) enum Ask {
    Propose { origin: Option<Origin>, bytes: Bytes, waiter: Waiter },
    ChangeVoters { voters: BTreeSet<Member>, learners: BTreeSet<Member>, waiter: Waiter },
    Read(Query),
    Look(Query),
    Status(oneshot::Sender<Status>),
}

fn disk_error(action: &'static str, dir: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error {
    let file = dir.display().to_string();
    move |source| Error::Disk { action, file, source }
}

/// Makes the store of one member in `dir`, and gives its identity. `first` says with which others it founds a log, given
/// its own identity; a member that joins a log later founds none: it is made a voter by
/// [`Handle::change_voters`] at the leader.
///
/// # Errors
/// [`Error::StoreExists`], [`Error::Disk`].
pub fn create(
    dir: &std::path::Path,
    node: NodeId,
    first: impl FnOnce(Member) -> Option<Voters>,
) -> Result<Member, Error> {
    let mut random = [0; 16];
    let fault = |error: getrandom::Error| std::io::Error::other(error.to_string());
    getrandom::fill(&mut random).map_err(|error| disk_error("draw an identity for", dir)(fault(error)))?;
    let member = Member { node, disk: DiskId(u128::from_le_bytes(random)) };
    let mut disk = Directory::at(dir).map_err(disk_error("open", dir))?;
    Store::create(&mut disk, member.disk, first(member))?;
    Ok(member)
}

/// Opens the store and takes part in the log.
///
/// # Errors
/// What is wrong with the store ([`Error::NoStore`], [`Error::Damaged`], [`Error::Disk`]); a thread cannot be started.
pub fn start<S: StateMachine>(start: Start, exchange: Arc<Exchange>, machine: S) -> Result<Handle<S>, Error> {
    let Start { log, node, dir, tune, on_thread_start } = start;
    let disk = Directory::at(&dir).map_err(disk_error("open", &dir))?;
    let (store, recovered) = Store::open(disk)?;
    let me = Member { node, disk: store.id() };
    // Members must not draw the same patience.
    let seed = getrandom::u64().unwrap_or(u64::from(node.0) ^ me.disk.0 as u64);
    let mut config = Config::new(me, seed);
    tune(&mut config);
    let core = Core::new(clock::now(), config, recovered);

    let (inbox, inputs) = mpsc::sync_channel(INBOX_MAX);
    let (orders, ordered) = mpsc::channel();
    let (tasks, tasked) = mpsc::channel();
    let (leadership_out, leadership) = watch::channel(Leadership::default());
    let (voters_out, voters) = watch::channel(Voters::default());
    let (ended_out, ended) = watch::channel(None);
    let keeper = Keeper { store, me, log, exchange: exchange.clone(), inbox: inbox.clone() };
    let applier =
        Applier { machine, sessions: Sessions::default(), log, orders: orders.clone(), inbox: inbox.clone() };
    let mut threads = Threads::default();
    threads.spawn("replog-disk", on_thread_start, move || keeper.run(&ordered))?;
    threads.spawn("replog-apply", on_thread_start, move || applier.run(&tasked))?;
    exchange.attach(log, inbox.clone());
    let news = News { leadership, voters, ended };
    let stopping = Arc::new(AtomicBool::new(false));
    let handle = Handle::new(me, inbox, news, stopping.clone());
    let runner = Runner {
        core,
        log,
        exchange,
        orders: Some(orders),
        tasks: Some(tasks),
        threads,
        waiters: Default::default(),
        queries: Default::default(),
        proposals: Vec::new(),
        next: 0,
        stopping,
        effects: Vec::new(),
        leadership: leadership_out,
        voters: voters_out,
        ended: ended_out,
    };
    // Should this fail, the other two end with their channels.
    running::launch(runner, on_thread_start, inputs)?;
    Ok(handle)
}
