//! The endpoint: what the crates above hold. Composes gate, links and services.

use crate::connection::{End, Request};
use crate::dialler::Dialler;
use crate::gate::Gate;
use crate::handshake::Identity;
use crate::link::{Link, Over, judge};
use crate::serving::{Services, Started};
use crate::status::Traffic;
use crate::wire::Lane;
use crate::{Config, Error, LinkEvent, Message, Peer, Priority, Service, ServiceId, Stage, Status, Target};
use base::limits::{BULK_BYTES_MAX, HEAD_BYTES_MAX};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, oneshot, watch};
use tokio::time::timeout;

/// Link events that a slow listener may lag behind by.
const EVENTS_MAX: usize = 4_096;

/// One daemon's place on the fabric. Clones are the same endpoint; it closes with [`Endpoint::close`], or when the last
/// clone is dropped (a service that holds a clone keeps it open).
#[derive(Clone)]
pub struct Endpoint {
    parts: Arc<Parts>,
}

struct Parts {
    local: Peer,
    address: SocketAddr,
    dialler: Arc<Dialler>,
    services: Arc<Services>,
    gate: Arc<Gate>,
    links: RwLock<BTreeMap<Peer, Arc<Link>>>,
}

impl Endpoint {
    /// Listens and is ready to serve and to call. Needs a tokio runtime (of any flavour) with I/O and time.
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub async fn bind(config: Config) -> Result<Endpoint, Error> {
        let listening = async {
            let listener = TcpListener::bind(config.listen).await?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let cannot =
            |source: std::io::Error| Error::Listen { address: config.listen, source: Arc::new(source) };
        let (listener, address) = listening.await.map_err(cannot)?;
        let identity = Arc::new(Identity { local: config.local, key: config.key, cluster: config.cluster });
        let services = Arc::<Services>::default();
        let dialler = Arc::new(Dialler {
            identity: identity.clone(),
            limits: config.limits.clone(),
            events: broadcast::Sender::new(EVENTS_MAX),
            closing: watch::Sender::new(false),
        });
        let gate = Gate::new(identity, services.clone(), config.limits);
        tokio::spawn(gate.clone().run(listener, dialler.closing.subscribe()));
        let parts = Parts { local: config.local, address, dialler, services, gate, links: RwLock::default() };
        Ok(Endpoint { parts: Arc::new(parts) })
    }

    /// The name under which it speaks.
    pub fn local(&self) -> Peer {
        self.parts.local
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.parts.address
    }

    /// Offers a service from now on, in place of what was offered under this number.
    pub fn serve(&self, service: ServiceId, handler: Arc<dyn Service>) {
        self.parts.services.offer(service, handler);
    }

    /// Says where a peer is dialled. Connections to it at another address end.
    pub fn set_address(&self, peer: Peer, address: SocketAddr) {
        self.parts.link(peer).set_address(address);
    }

    /// Declares a peer down: all calls to it, those under way included, fail at once with [`Error::NodeDown`], until
    /// it is declared no longer down. What it asks of this end is still served.
    pub fn set_down(&self, peer: Peer, down: bool) {
        self.parts.link(peer).set_down(down);
    }

    /// Keeps the link to a peer up: dials as soon as its address is known, and again after short pauses whenever the
    /// connection is lost, until [`Endpoint::forget`]. Not while it is declared down.
    pub fn keep_connected(&self, peer: Peer) {
        self.parts.link(peer).keep();
    }

    /// Ends all connections to a peer and forgets its address and that it was kept or down.
    pub fn forget(&self, peer: Peer) {
        let link = self.parts.links.write().remove(&peer);
        if let Some(link) = link {
            link.finish(Over::Forgotten);
        }
    }

    /// Asks a peer's service and waits for the reply. The deadline covers connecting, waiting for a turn and the reply.
    /// Nothing is repeated here: after [`Error::Unreachable`] or [`Error::Deadline`] only the caller knows whether its
    /// request may be carried out twice.
    ///
    /// # Errors
    /// [`Error`]; which of them means what is told there.
    pub async fn call(
        &self,
        peer: Peer,
        service: ServiceId,
        priority: Priority,
        request: Message,
        deadline: Duration,
    ) -> Result<Message, Error> {
        check_length(&request)?;
        if *self.parts.dialler.closing.borrow() {
            return Err(Error::Closed);
        }
        if peer == self.parts.local {
            return self.call_local(service, request, deadline).await;
        }
        let link = self.parts.link(peer);
        link.call(Request { service, priority, message: request }, deadline).await
    }

    /// Asks whoever of this cluster listens at an address, over a connection of its own: for a node that joins and
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
        check_length(&request)?;
        let target = Target::Address(address);
        if *self.parts.dialler.closing.borrow() {
            return Err(Error::Closed);
        }
        let request = Request { service, priority, message: request };
        let late = Error::Deadline { target, service, stage: Stage::Reply, after: deadline };
        timeout(deadline, self.parts.call_once(address, request, deadline)).await.unwrap_or(Err(late))
    }

    /// What happens to links from now on. A listener that lags behind is told so by its receiver: it then looks at
    /// [`Endpoint::status`].
    pub fn links(&self) -> broadcast::Receiver<LinkEvent> {
        self.parts.dialler.events.subscribe()
    }

    /// A snapshot for operators.
    pub fn status(&self) -> Status {
        Status {
            local: self.parts.local,
            address: self.parts.address,
            peers: self.parts.links.read().values().map(|link| link.status()).collect(),
            accepted: self.parts.gate.accepted(),
            half_open: self.parts.gate.half_open(),
            refused: self.parts.gate.refused(),
        }
    }

    /// Ends everything: calls fail with [`Error::Closed`], requests under way are dropped, and when this returns no
    /// task or socket of the endpoint is left.
    pub async fn close(&self) {
        self.parts.shut();
        self.parts.dialler.closing.closed().await;
        // Not before: until its connection ends, a peer must not be told that there is no such service.
        self.parts.services.clear();
    }

    /// A request to this very endpoint: the same rules, no socket.
    async fn call_local(
        &self,
        service: ServiceId,
        request: Message,
        deadline: Duration,
    ) -> Result<Message, Error> {
        let target = Target::Peer(self.parts.local);
        let outcome = match self.parts.services.start(service, self.parts.local, request) {
            Started::Done(outcome) => Ok(outcome),
            Started::Running(running) => {
                let (sender, receiver) = oneshot::channel();
                let mut closing = self.parts.dialler.closing.subscribe();
                // It runs to its end also when the caller gives up, as it would on another node.
                tokio::spawn(async move {
                    tokio::select! {
                        outcome = running => drop(sender.send(outcome)),
                        _ = closing.wait_for(|closing| *closing) => {}
                    }
                });
                let late = Error::Deadline { target, service, stage: Stage::Reply, after: deadline };
                timeout(deadline, receiver).await.map_err(|_| late)?.map_err(|_| End::Closed)
            }
        };
        judge(target, outcome)
    }
}

impl Parts {
    fn link(&self, peer: Peer) -> Arc<Link> {
        if let Some(link) = self.links.read().get(&peer) {
            return link.clone();
        }
        let mut links = self.links.write();
        let link = links.entry(peer).or_insert_with(|| Link::new(peer, self.dialler.clone())).clone();
        if *self.dialler.closing.borrow() {
            link.finish(Over::Closed);
        }
        link
    }

    async fn call_once(
        &self,
        address: SocketAddr,
        request: Request,
        deadline: Duration,
    ) -> Result<Message, Error> {
        let target = Target::Address(address);
        let lane = Lane::of(request.priority);
        let (connection, source) =
            self.dialler.dial(target, address, lane, &Arc::<Traffic>::default()).await?;
        self.dialler.look_after(connection.clone(), source, || ());
        // Also when the caller gives up in the middle: the connection has no other use.
        let _ending = EndOnDrop(connection.clone());
        let room = connection.room_for(&request).await;
        judge(target, connection.call(request, room, deadline).await)
    }

    fn shut(&self) {
        self.dialler.closing.send_replace(true);
        let links = std::mem::take(&mut *self.links.write());
        for link in links.values() {
            link.finish(Over::Closed);
        }
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.shut();
    }
}

/// Ends the connection of a single call.
struct EndOnDrop(Arc<crate::connection::Connection>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(End::Closed);
    }
}

fn check_length(request: &Message) -> Result<(), Error> {
    let part = |part, bytes, max| if bytes > max { Err(Error::TooLong { part, bytes, max }) } else { Ok(()) };
    part("head", request.head.len(), HEAD_BYTES_MAX)?;
    part("bulk", request.bulk.len(), BULK_BYTES_MAX)
}
