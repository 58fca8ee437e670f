//! What the rest of a daemon holds of the lock manager: where it is told of the cluster, and where threads and tasks of the same process lock.

mod holds;
mod lock;
mod locking;
mod parking;
mod threads;

pub use lock::Lock;
pub use locking::Locking;

use crate::deadlock::Sighting;
use crate::error::Error;
use crate::event::{Effect, Event, Gone, Lockspace, Owner};
use crate::flags::Flags;
use crate::message::Key;
use crate::mode::Mode;
use crate::name::Name;
use crate::node::{Config, Member};
use crate::server::{Listed, Lister, Locks, Surveying};
use crate::shell::{self, Shared};
use base::{Epoch, NodeId, Time};
use fabric::Endpoint;
use std::sync::Arc;
use threads::Threads;
use tokio::sync::mpsc::UnboundedSender;

/// The lock manager of one node: its part in the locks of the cluster. Clones are the same one.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    threads: Arc<Threads>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>, seed: u64) -> Handle {
        let threads = Arc::new(Threads::new(seed));
        let owner = shared.turn(|state, _| state.owners().join(threads.clone()));
        threads.be(owner);
        Handle { shared, threads }
    }

    /// A lock on `name` for this process. Awaited, or waited for, it is a [`Lock`], which is held until it is dropped.
    ///
    /// NOQUEUE: not if somebody really uses what is in the way; VALBLK: with the value block. Who asks again for what this process has let go, and
    /// nobody has asked for since, has it without a message, and without another thread's help.
    pub fn lock(&self, space: Lockspace, name: Name, mode: Mode, flags: Flags) -> Locking<'_> {
        Locking::new(self, space, name, mode, flags)
    }

    /// Starts it, as a service of `endpoint` and with a thread of its own. It grants nothing before its first [`Handle::view`].
    ///
    /// # Errors
    /// [`Error::Limit`]; [`Error::Thread`].
    pub fn start(config: Config, endpoint: Endpoint) -> Result<Handle, Error> {
        shell::start(config, endpoint)
    }

    /// A new view: since when those who live do, and who is in it.
    pub fn view(&self, era: Epoch, members: Vec<Member>) {
        self.shared.turn(|state, now| state.view(now, era, members));
    }

    /// Whether the node has its lease: without it nothing new is granted, whatever it holds; what is asked meanwhile waits.
    pub fn lease(&self, has_lease: bool) {
        self.shared.turn(|state, now| state.lease(now, has_lease));
    }

    /// The node in whose directory a resource tree is looked up, in the last view.
    pub fn directory_of(&self, key: &Key) -> Option<NodeId> {
        self.shared.look(|state| state.core().directory_of(key))
    }

    /// Follows membership's views from now on, until membership or the handle's last clone is gone.
    pub async fn follow(self, membership: membership::Handle) {
        let (me, own) = (self.shared.node, shell::life(membership.local()));
        let mut views = membership.watch();
        let mut lease = membership.lease();
        self.shared.turn(|state, _| state.serve_under(lease.clone()));
        loop {
            let view = views.borrow_and_update().clone();
            if let Some((era, members)) = shell::members(&view, me, own) {
                self.view(era, members);
            }
            self.lease(lease.is_held());
            tokio::select! {
                changed = views.changed() => if changed.is_err() { return },
                changed = lease.changed() => if changed.is_none() { return },
            }
        }
    }
}

impl Locks for Handle {
    fn node(&self) -> NodeId {
        self.shared.node
    }

    fn now(&self) -> Time {
        self.shared.now()
    }

    fn join(&self, effects: UnboundedSender<Effect>) -> Owner {
        self.shared.turn(|state, _| state.owners().join(Arc::new(effects)))
    }

    fn submit(&self, event: Event) {
        self.shared.submit(event);
    }

    fn leave(&self, owner: Owner) {
        self.shared.turn(|state, now| {
            state.owners().leave(owner);
            state.submit(now, Event::Gone(Gone::Holder(owner)));
        });
    }

    fn survey(&self) -> Surveying<'_> {
        let seen: Vec<Sighting> = self.shared.survey();
        Box::pin(std::future::ready(seen))
    }

    fn list_with(&self, lister: Lister) {
        self.shared.lists.set(lister);
    }

    fn list_elsewhere(&self) -> Listed<'_> {
        Box::pin(self.shared.list_elsewhere())
    }
}
