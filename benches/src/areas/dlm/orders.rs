//! The server's side: all nodes but the driver's, and what the driver tells them to do.
//!
//! ```text
//!  here ADDRESS                where the driver is
//!  links PROVIDER              returns when this carries node 1's calls to the driver
//!  hold FIGURE FIRST COUNT     its nodes in turn become masters of these, and hold them in CR
//!  rival NAME                  a loop that holds it in EX until somebody wants it
//! ```

use super::nodes::{endpoint_config, manager, name, peer, space, wait};
use crate::Error;
use crate::areas::fabric::side::serving;
use bytes::Bytes;
use dlm::{Flags, Handle, Lock, Mode, Name};
use fabric::session::Lane;
use fabric::{Endpoint, Message, Peer, RailState, Reply, Service, ServiceId};
use parking_lot::Mutex;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

/// What the driver's orders come by.
pub const ORDERS: ServiceId = ServiceId(102);
/// What looks at links.
pub const ECHO: ServiceId = ServiceId(100);
const UP_WITHIN: Duration = Duration::from_secs(10);

struct Orders {
    driver: u32,
    nodes: Vec<(Endpoint, Handle)>,
    held: Mutex<Vec<Lock>>,
}

/// Serves nodes 1 to `nodes - 1`.
pub fn serve(provider: &str, word: &str, nodes: u32) -> Result<(), Error> {
    match wait(word)? {
        Some(wait) => {
            let endpoint = Endpoint::driven(endpoint_config(provider, 1)?)?;
            let all = vec![(endpoint.clone(), manager(&endpoint, 1, nodes)?)];
            begin(nodes, all)?;
            endpoint.block_on(wait, pending())
        }
        None => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut all = Vec::new();
                for k in 1..nodes {
                    let endpoint = Endpoint::bind(endpoint_config(provider, k)?).await?;
                    all.push((endpoint.clone(), manager(&endpoint, k, nodes)?));
                }
                begin(nodes, all)?;
                pending().await
            })
        }
    }
}

fn begin(driver: u32, nodes: Vec<(Endpoint, Handle)>) -> Result<(), Error> {
    for (endpoint, _) in &nodes {
        for (other, _) in &nodes {
            endpoint.set_address(other.local(), other.address());
        }
    }
    let addresses: Vec<String> = nodes.iter().map(|(endpoint, _)| endpoint.address().to_string()).collect();
    let orders = Arc::new(Orders { driver, nodes, held: Mutex::default() });
    if let Some((first, _)) = orders.nodes.first() {
        first.serve(ORDERS, orders.clone());
        first.serve(ECHO, Arc::new(Echo));
    }
    serving(&addresses.join(","))
}

impl Service for Orders {
    fn handle(self: Arc<Self>, _from: Peer, request: Message) -> Reply {
        Reply::later(async move {
            let said = self.obey(&request.head).await.err();
            Message { head: Bytes::from(said.unwrap_or_default()), bulk: Bytes::new() }
        })
    }
}

/// Echoes, so that links can be looked at.
pub struct Echo;

impl Service for Echo {
    fn handle(self: Arc<Self>, _from: Peer, request: Message) -> Reply {
        Reply::Now(request)
    }
}

/// Calls a node until the best provider carries what is said of locks.
pub async fn links_up(endpoint: &Endpoint, to: u32, provider: &str) -> Result<(), String> {
    for _ in 0..20_000 {
        let called =
            endpoint.call(peer(to), ECHO, fabric::Priority::Lock, Message::default(), UP_WITHIN).await;
        called.map_err(said)?;
        let peers = endpoint.status().peers;
        let links = peers.iter().filter(|status| status.peer == peer(to)).flat_map(|status| &status.links);
        let mut of_lane = links.filter(|link| link.lane == Lane::Urgent);
        if of_lane.any(|link| link.state == RailState::Calls && link.provider.to_string() == provider) {
            return Ok(());
        }
    }
    Err(format!("{provider} does not carry"))
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn named(figure: &str, k: usize) -> Result<Name, String> {
    name(figure, k).map_err(said)
}

impl Orders {
    async fn obey(&self, order: &[u8]) -> Result<(), String> {
        let words: Vec<&str> = std::str::from_utf8(order).map_err(said)?.split(' ').collect();
        match words.as_slice() {
            ["here", address] => {
                let address = address.parse().map_err(said)?;
                self.nodes.iter().for_each(|(endpoint, _)| endpoint.set_address(peer(self.driver), address));
                Ok(())
            }
            ["links", provider] => {
                let (endpoint, _) = self.nodes.first().ok_or("no node")?;
                links_up(endpoint, self.driver, provider).await
            }
            ["hold", figure, first, count] => {
                self.hold(figure, first.parse().map_err(said)?, count.parse().map_err(said)?).await
            }
            ["rival", figure] => self.rival(named(figure, 0)?),
            _ => Err(format!("no order {words:?}")),
        }
    }

    async fn hold(&self, figure: &str, first: usize, count: usize) -> Result<(), String> {
        for (k, (_, node)) in (first..first + count).zip(self.nodes.iter().cycle()) {
            let lock = node.lock(space(), named(figure, k)?, Mode::CR, Flags::NONE).await.map_err(said)?;
            self.held.lock().push(lock);
        }
        Ok(())
    }

    /// Node 1 has it whenever nobody else wants it.
    fn rival(&self, name: Name) -> Result<(), String> {
        let (endpoint, node) = self.nodes.first().ok_or("no node")?;
        let node = node.clone();
        rival_of(endpoint, async move {
            loop {
                let Ok(lock) = node.lock(space(), name, Mode::EX, Flags::NONE).await else { return };
                lock.wanted().await;
            }
        });
        Ok(())
    }
}

/// Runs beside everything else, driven by whoever drives the endpoint.
fn rival_of(endpoint: &Endpoint, work: impl Future<Output = ()> + Send + 'static) {
    struct Once(Mutex<Option<std::pin::Pin<Box<dyn Future<Output = ()> + Send>>>>);
    impl Service for Once {
        fn handle(self: Arc<Self>, _from: Peer, _request: Message) -> Reply {
            let work = self.0.lock().take();
            Reply::later(async move {
                if let Some(work) = work {
                    work.await;
                }
                Message::default()
            })
        }
    }
    const RIVAL: ServiceId = ServiceId(103);
    endpoint.serve(RIVAL, Arc::new(Once(Mutex::new(Some(Box::pin(work))))));
    let (priority, within) = (fabric::Priority::Meta, std::time::Duration::from_secs(100));
    let sent = endpoint.send(endpoint.local(), RIVAL, priority, Message::default(), within);
    debug_assert!(sent.is_ok(), "it asks itself");
}
