//! Many peers of one process: a hub that every endpoint of a crowd greets and that greets each of them back.

use super::{ECHO, Echo, Setting, WITHIN, peer};
use crate::Error;
use crate::areas::fabric::sample::Sample;
use crate::areas::fabric::side::{finished, serving, warm};
use bytes::Bytes;
use fabric::{Endpoint, Message, Peer, Priority, Reply, Service, ServiceId};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;

const GREET: ServiceId = ServiceId(101);
/// Peers before anything is measured.
const WARM_UP: u32 = 20;

/// The process whose memory is measured: one endpoint, driven by a runtime of one thread.
pub fn hub(setting: &Setting) -> Result<(), Error> {
    many_descriptors()?;
    runtime()?.block_on(async {
        let endpoint = Endpoint::bind(setting.config(1)?).await?;
        endpoint.serve(ECHO, Arc::new(Echo));
        endpoint.serve(GREET, Arc::new(Greeting { endpoint: endpoint.clone() }));
        serving(&endpoint.address().to_string())?;
        pending().await
    })
}

/// Asked at an address, calls back there.
struct Greeting {
    endpoint: Endpoint,
}

impl Service for Greeting {
    fn handle(self: Arc<Self>, from: Peer, request: Message) -> Reply {
        Reply::later(async move {
            // In a task of its own: a service is started while its endpoint is being driven.
            let greeting = tokio::spawn(async move {
                self.call_back(from, &request).await.map_err(|error| error.to_string())
            });
            let outcome = greeting.await.unwrap_or_else(|_| Err("a greeting panicked".to_owned()));
            Message { head: Bytes::from(outcome.err().unwrap_or_default()), bulk: Bytes::new() }
        })
    }
}

impl Greeting {
    async fn call_back(&self, from: Peer, request: &Message) -> Result<(), Error> {
        let text = std::str::from_utf8(&request.head)?;
        let (lanes, address) = text.split_once(' ').ok_or("no address")?;
        self.endpoint.set_address(from, address.parse()?);
        for priority in priorities(lanes.parse()?) {
            self.endpoint.call(from, ECHO, *priority, Message::default(), WITHIN).await?;
        }
        Ok(())
    }
}

/// One priority of each lane.
fn priorities(lanes: usize) -> &'static [Priority] {
    &[Priority::Control, Priority::Data][..lanes]
}

/// So many endpoints in one process, each with links to the hub and the hub with links to it.
pub fn crowd(setting: &Setting, at: &str, peers: u32, lanes: usize) -> Result<(), Error> {
    many_descriptors()?;
    let hub: SocketAddr = at.parse()?;
    runtime()?.block_on(async {
        let mut endpoints = Vec::new();
        for k in 0..WARM_UP {
            endpoints.push(greet(setting, 2 + k, hub, lanes).await?);
        }
        let before = warm()?;
        for k in 0..peers {
            endpoints.push(greet(setting, 2 + WARM_UP + k, hub, lanes).await?);
        }
        finished(Sample::default().with("count", f64::from(peers)), &before)
    })
}

async fn greet(setting: &Setting, node: u32, hub: SocketAddr, lanes: usize) -> Result<Endpoint, Error> {
    let endpoint = Endpoint::bind(setting.config(node)?).await?;
    endpoint.serve(ECHO, Arc::new(Echo));
    endpoint.set_address(peer(1), hub);
    let request =
        Message { head: Bytes::from(format!("{lanes} {}", endpoint.address())), bulk: Bytes::new() };
    for priority in priorities(lanes) {
        let reply = endpoint.call(peer(1), GREET, *priority, request.clone(), WITHIN).await?;
        if !reply.head.is_empty() {
            return Err(String::from_utf8_lossy(&reply.head).into());
        }
    }
    Ok(endpoint)
}

/// As many descriptors as this user may have.
fn many_descriptors() -> Result<(), Error> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}

fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
