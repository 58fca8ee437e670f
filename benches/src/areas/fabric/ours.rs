//! Our own sides: an endpoint that serves, and one that drives.
//!
//! Invariant: the driver's clock starts when its links are up and its buffers warm, as the peers' do.

use super::sample::Laps;
use super::side::{finished, serving, warm};
use crate::Error;
use base::NodeId;
use fabric::{
    ClusterKey, Config, Endpoint, Limits, Message, Peer, Priority, Reply, Role, Service, ServiceId,
};
use futures_util::future::try_join_all;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a call's message.
const BYTES: usize = 64;
/// Calls before the clock starts.
const WARM_UP: usize = 2_000;
const ECHO: ServiceId = ServiceId(100);
const WITHIN: Duration = Duration::from_secs(30);

/// `ours.NAME PROVIDER SECURITY WAIT ..`.
pub fn run(name: &str, words: &[&str]) -> Result<(), Error> {
    let [provider, security, wait, rest @ ..] = words else { return Err("which setting?".into()) };
    let place = Place::new(provider, security, wait)?;
    match (name, rest) {
        ("ours.serve", []) => place.serve(),
        ("ours.call", [count, outstanding, batch, at]) => {
            place.drive(count.parse()?, outstanding.parse()?, batch.parse()?, at)
        }
        _ => Err(format!("no side {name} {rest:?}").into()),
    }
}

struct Echo;

impl Service for Echo {
    fn handle(self: Arc<Self>, _from: Peer, request: Message) -> Reply {
        Box::pin(std::future::ready(request))
    }
}

/// An endpoint and what drives it.
struct Place {
    runtime: tokio::runtime::Runtime,
}

impl Place {
    fn new(provider: &str, security: &str, wait: &str) -> Result<Place, Error> {
        match (provider, security, wait) {
            ("tcp", "encrypted", "sleep") => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                Ok(Place { runtime })
            }
            _ => Err(format!("the fabric has no {provider} {security} {wait} yet").into()),
        }
    }

    async fn endpoint(&self, node: u32) -> Result<Endpoint, Error> {
        let config = Config {
            local: peer(node),
            listen: "127.0.0.1:0".parse()?,
            key: ClusterKey::from_bytes([7; 32]),
            cluster: "bench".to_owned(),
            limits: Limits::default(),
        };
        Ok(Endpoint::bind(config).await?)
    }

    fn serve(&self) -> Result<(), Error> {
        self.runtime.block_on(async {
            let endpoint = self.endpoint(1).await?;
            endpoint.serve(ECHO, Arc::new(Echo));
            serving(&endpoint.address().to_string())?;
            std::future::pending().await
        })
    }

    fn drive(&self, count: usize, outstanding: usize, batch: u32, at: &str) -> Result<(), Error> {
        self.runtime.block_on(async {
            let endpoint = self.endpoint(2).await?;
            endpoint.set_address(peer(1), at.parse()?);
            calls(&endpoint, WARM_UP, outstanding, batch).await?;
            let before = warm()?;
            let laps = calls(&endpoint, count, outstanding, batch).await?;
            finished(laps.sample()?, &before)
        })
    }
}

async fn calls(endpoint: &Endpoint, count: usize, outstanding: usize, batch: u32) -> Result<Laps, Error> {
    let laps = Rc::new(RefCell::new(Laps::start(count, batch)));
    let request = Message { head: bytes::Bytes::from_static(&[7; BYTES]), bulk: bytes::Bytes::new() };
    let loops = (0..outstanding).map(|_| {
        let (laps, request) = (laps.clone(), request.clone());
        async move {
            for _ in 0..count / outstanding {
                let reply = endpoint.call(peer(1), ECHO, Priority::Control, request.clone(), WITHIN).await?;
                assert_eq!(reply.head.len(), BYTES, "an echo is as long");
                laps.borrow_mut().lap();
            }
            Ok::<(), Error>(())
        }
    });
    try_join_all(loops).await?;
    Ok(Rc::into_inner(laps).ok_or("a loop still runs")?.into_inner())
}

fn peer(node: u32) -> Peer {
    Peer { node: NodeId(node), role: Role::Control }
}
