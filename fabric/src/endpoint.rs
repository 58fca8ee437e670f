//! The endpoint: what the crates above hold. A handle to the engine, which somebody drives: a task of a runtime, or whoever waits.

mod bulk;
mod calling;
mod driving;
mod shared;
mod simulated;
mod tree;
mod waiting;

use crate::setup::Keys;
use crate::{Config, Error, LinkEvent, Message, Peer, Priority, Service, ServiceId, Status};
pub use bulk::Region;
use calling::Calling;
use shared::{Driven, Shared};
pub(crate) use simulated::Simulated;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;

/// How a thread waits that drives an endpoint itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It never sleeps: the least latency, at the price of a core.
    Poll,
    /// It looks for a short while, as long as that has been worth it, then sleeps.
    Sleep,
}

/// One daemon's place on the fabric. Clones are the same endpoint; it closes with [`Endpoint::close`], or when the last
/// clone is dropped (a service that holds a clone keeps it open).
#[derive(Clone)]
pub struct Endpoint {
    parts: Arc<Parts>,
}

struct Parts {
    shared: Arc<Shared>,
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.shared.shut();
    }
}

impl Endpoint {
    /// Listens and is ready to serve and to call, driven by a task of the current tokio runtime (of any flavour, with I/O and time).
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub async fn bind(config: Config) -> Result<Endpoint, Error> {
        let runtime = tokio::runtime::Handle::current();
        let shared = Shared::new(config, Driven::ByTask(runtime.clone()))?;
        runtime.spawn(driving::drive(shared.clone()));
        Ok(Endpoint { parts: Arc::new(Parts { shared }) })
    }

    /// Listens and is ready to serve and to call, driven by whoever waits in [`Endpoint::block_on`]: no task or thread stands
    /// between the caller and the wire.
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub fn driven(config: Config) -> Result<Endpoint, Error> {
        let shared = Shared::new(config, Driven::ByCaller)?;
        Ok(Endpoint { parts: Arc::new(Parts { shared }) })
    }

    /// Runs a future on this thread and drives the endpoint while it waits. Of several threads that do so at once one drives for all.
    /// Only for an endpoint made by [`Endpoint::driven`].
    pub fn block_on<F: Future>(&self, wait: Wait, future: F) -> F::Output {
        waiting::block_on(&self.parts.shared, wait, future)
    }

    /// The name under which it speaks.
    pub fn local(&self) -> Peer {
        self.parts.shared.local
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.parts.shared.address
    }

    /// Offers a service from now on, in place of what was offered under this number.
    pub fn serve(&self, service: ServiceId, handler: Arc<dyn Service>) {
        self.parts.shared.services.offer(service, handler);
    }

    /// Says where a peer is dialled. Links to it at another address end.
    pub fn set_address(&self, peer: Peer, address: SocketAddr) {
        self.set_addresses(peer, &[address]);
    }

    /// Says where a peer is dialled on each of its rails. It may tell of further ones itself.
    pub fn set_addresses(&self, peer: Peer, addresses: &[SocketAddr]) {
        self.parts.shared.with(|engine, now| engine.set_addresses(peer, addresses, now));
    }

    /// Declares a peer down: all calls to it, those under way included, fail at once with [`Error::NodeDown`], until
    /// it is declared no longer down. What it asks of this end is still served.
    pub fn set_down(&self, peer: Peer, down: bool) {
        self.parts.shared.with(|engine, now| engine.set_down(peer, down, now));
    }

    /// Keeps the link to a peer up: dials as soon as its address is known, and again after short pauses whenever the
    /// connection is lost, until [`Endpoint::forget`]. Not while it is declared down.
    pub fn keep_connected(&self, peer: Peer) {
        self.parts.shared.with(|engine, now| engine.keep(peer, now));
    }

    /// Ends all links to a peer and forgets its address and that it was kept or down.
    pub fn forget(&self, peer: Peer) {
        self.parts.shared.with(|engine, _| engine.forget(peer));
    }

    /// Changes the cluster's keys: links that are up stay, new ones prove and take these.
    pub fn set_keys(&self, keys: Keys) {
        self.parts.shared.with(|engine, now| engine.set_keys(keys, now));
    }

    /// Begins to make every link of this end anew, under its present key, beside the old ones, which end as soon as the new ones are up. No
    /// call is lost. One that cannot be made leaves the old one as it is.
    pub fn renew_links(&self) {
        self.parts.shared.with(|engine, now| engine.renew_links(now));
    }

    /// True while [`Endpoint::renew_links`] is not through.
    pub fn is_renewing(&self) -> bool {
        self.parts.shared.with(|engine, _| engine.is_renewing())
    }

    /// Asks a peer's service and waits for the reply. The deadline covers connecting, waiting for a turn and the reply. It
    /// is carried out once, whatever happens to links meanwhile.
    ///
    /// # Errors
    /// [`Error`]; which of them means what is told in the crate's README.
    pub async fn call(
        &self,
        peer: Peer,
        service: ServiceId,
        priority: Priority,
        request: Message,
        deadline: Duration,
    ) -> Result<Message, Error> {
        calling::call(&self.parts.shared, peer, service, priority, request, deadline).await
    }

    /// Asks a service of many peers, down a tree with a fan-out of 8, and brings every peer's answer up it; this endpoint may be among
    /// them. A peer of the tree that fails is gone round: then some of its part may be asked twice.
    pub async fn broadcast(
        &self,
        peers: &[Peer],
        service: ServiceId,
        priority: Priority,
        request: Message,
        deadline: Duration,
    ) -> Vec<(Peer, Result<Message, Error>)> {
        let ask = tree::Ask { from: self.local(), service, priority, request };
        tree::broadcast(self.parts.shared.clone(), peers.to_vec(), ask, deadline).await
    }

    /// Sends a peer's service a request whose answer nobody waits for: as a call, in the same order and also once. It is
    /// given up if it has not been started within `deadline`.
    ///
    /// # Errors
    /// It is not even tried: [`Error::NodeDown`], [`Error::Unreachable`] without an address, [`Error::TooLong`], [`Error::Closed`];
    /// [`Error::Busy`] if `Limits::calls_waiting` requests to this peer wait already.
    pub fn send(
        &self,
        peer: Peer,
        service: ServiceId,
        priority: Priority,
        request: Message,
        deadline: Duration,
    ) -> Result<(), Error> {
        let request = calling::request(service, priority, request, deadline, true)?;
        if peer == self.parts.shared.local {
            calling::send_local(&self.parts.shared, request);
            return Ok(());
        }
        self.parts.shared.with(|engine, now| engine.call(peer, request, now)).map(|_| ())
    }

    /// Runs something beside everything else, until it is through or the endpoint closes: as a task of the runtime that drives the endpoint, or by
    /// whoever waits. It begins here and now.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut work = Box::pin(work);
        // No one need wake this poll: if it is pending, the next one registers its own waker.
        if work.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_pending() {
            self.parts.shared.spawn(work);
        }
    }

    /// Asks whoever of this cluster listens at an address, over links of its own: for a node that joins and
    /// knows nobody's name yet.
    ///
    /// # Errors
    /// As [`Endpoint::call`].
    pub async fn call_address(
        &self,
        address: SocketAddr,
        service: ServiceId,
        priority: Priority,
        request: Message,
        deadline: Duration,
    ) -> Result<Message, Error> {
        let request = calling::request(service, priority, request, deadline, false)?;
        let shared = &self.parts.shared;
        let stranger = calling::Stranger::new(shared, address);
        Calling::begin(shared, |engine, now| engine.call_remote(stranger.place(), request, now))?.await
    }

    /// What happens to links from now on. A listener that lags behind is told so by its receiver: it then looks at
    /// [`Endpoint::status`].
    pub fn links(&self) -> broadcast::Receiver<LinkEvent> {
        self.parts.shared.events.subscribe()
    }

    /// A snapshot for operators.
    pub fn status(&self) -> Status {
        self.parts.shared.with(|engine, _| engine.status())
    }

    /// Memory of this length that others may be allowed to reach.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn register(&self, length: usize) -> Result<Region, Error> {
        Region::new(self.parts.shared.clone(), length)
    }

    /// Ends everything: calls fail with [`Error::Closed`], requests under way are dropped, and when this returns no
    /// task or socket of the endpoint is left.
    pub async fn close(&self) {
        self.parts.shared.shut();
        self.parts.shared.closed().await;
        // Not before: until its links end, a peer must not be told that there is no such service.
        self.parts.shared.services.clear();
    }
}

impl Endpoint {
    fn shared(&self) -> &Arc<Shared> {
        &self.parts.shared
    }
}
