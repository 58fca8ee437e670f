//! What the tests of a provider stand on: endpoints of one cluster, services made of closures, waiting with an end.

use base::NodeId;
use fabric::{
    ClusterKey, Config, Endpoint, Error, Limits, LinkEvent, Message, Peer, Priority, Reply, Role, Service,
    ServiceId,
};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::broadcast;

/// The end of every wait that should not take long.
pub const SOON: Duration = Duration::from_secs(10);
/// The service that the tests offer.
pub const ECHO: ServiceId = ServiceId(100);

/// How the endpoints of a test differ from the default.
#[derive(Clone)]
pub struct World {
    pub key: u8,
    pub cluster: &'static str,
    pub limits: Limits,
}

impl Default for World {
    fn default() -> World {
        World { key: 7, cluster: "blue", limits: Limits::default() }
    }
}

pub fn peer(node: u32) -> Peer {
    Peer { node: NodeId(node), role: Role::Control }
}

impl World {
    pub fn config(&self, node: u32) -> Config {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let key = ClusterKey::from_bytes([self.key; 32]);
        Config { limits: self.limits.clone(), ..Config::new(peer(node), listen, key, self.cluster) }
    }

    pub async fn endpoint(&self, node: u32) -> Endpoint {
        Endpoint::bind(self.config(node)).await.expect("loopback has a free port")
    }

    /// An endpoint that answers with what it is asked, and one that knows it.
    pub async fn pair(&self) -> (Endpoint, Endpoint) {
        let (caller, server) = (self.endpoint(1).await, self.endpoint(2).await);
        server.serve(ECHO, service(|_, request| async move { request }));
        caller.set_address(peer(2), server.address());
        (caller, server)
    }
}

struct Closure<F>(F);

impl<F, A> Service for Closure<F>
where
    F: Fn(Peer, Message) -> A + Send + Sync + 'static,
    A: Future<Output = Message> + Send + 'static,
{
    fn handle(self: Arc<Self>, from: Peer, request: Message) -> Reply {
        Reply::later((self.0)(from, request))
    }
}

/// A service made of a closure.
pub fn service<F, A>(closure: F) -> Arc<dyn Service>
where
    F: Fn(Peer, Message) -> A + Send + Sync + 'static,
    A: Future<Output = Message> + Send + 'static,
{
    Arc::new(Closure(closure))
}

pub fn message(head: &[u8]) -> Message {
    Message { head: head.to_vec().into(), bulk: Default::default() }
}

/// Asks node 2 with a head only.
pub async fn ask(caller: &Endpoint, head: &[u8]) -> Result<Message, Error> {
    caller.call(peer(2), ECHO, Priority::Control, message(head), SOON).await
}

/// Waits until a condition holds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < end, "{what} does not happen");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The next event of a link.
pub async fn next_event(events: &mut broadcast::Receiver<LinkEvent>) -> LinkEvent {
    tokio::time::timeout(SOON, events.recv()).await.expect("an event comes soon").expect("nobody lags behind")
}
