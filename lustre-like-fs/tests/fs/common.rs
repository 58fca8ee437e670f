//! A cluster in one process: an endpoint and the servers for each node, on loopback, in a temporary directory.

use base::{Incarnation, NodeId};
use fabric::{ClusterKey, Endpoint, Peer, Role};
use lustre_like_fs::wire::{Create, MetaVerb, Place};
use lustre_like_fs::{Client, Config, Error, Servers};
use membership::{Node, NodeState, View};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

pub const KEY: [u8; 32] = [7; 32];
pub const INCARNATION: Incarnation = Incarnation(1);
pub const REGULAR: u32 = 0o100_644;
pub const DIRECTORY: u32 = 0o040_755;

/// Binds the endpoint of `node`'s data daemon to a port that is free.
pub async fn bind(node: u32) -> Endpoint {
    try_bind(node, SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a loopback port")
}

async fn try_bind(node: u32, listen: SocketAddr) -> Result<Endpoint, fabric::Error> {
    let local = Peer { node: NodeId(node), role: Role::Data };
    Endpoint::bind(fabric::Config::new(local, listen, ClusterKey::from_bytes(KEY), "test")).await
}

/// A view in which these nodes are UP; the first has the metadata server.
pub fn view(addresses: &[SocketAddr]) -> View {
    let row = |(index, address): (usize, &SocketAddr)| Node {
        id: index as u32 + 1,
        name: format!("node{}", index + 1),
        data_address: address.to_string(),
        incarnation: INCARNATION.0,
        ..Node::default()
    };
    View { epoch: 1, mds: 1, nodes: addresses.iter().enumerate().map(row).collect(), ..View::default() }
}

pub fn config(node: u32, directory: &Path) -> Config {
    let own = directory.join(node.to_string());
    Config { node: NodeId(node), mds: NodeId(1), mdt_dir: own.join("mdt"), ost_dir: own.join("ost") }
}

pub struct Cluster {
    pub endpoints: Vec<Endpoint>,
    servers: Vec<Option<Servers>>,
    pub view: watch::Sender<Arc<View>>,
    pub directory: PathBuf,
    _own: Option<tempfile::TempDir>,
}

impl Cluster {
    pub async fn start(nodes: u32) -> Cluster {
        let own = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::start_in(nodes, own.path()).await;
        cluster._own = Some(own);
        cluster
    }

    pub async fn start_in(nodes: u32, directory: &Path) -> Cluster {
        let mut endpoints = Vec::new();
        for node in 1..=nodes {
            endpoints.push(bind(node).await);
        }
        let addresses: Vec<SocketAddr> = endpoints.iter().map(Endpoint::address).collect();
        let view = watch::Sender::new(Arc::new(view(&addresses)));
        let directory = directory.to_owned();
        let mut cluster = Cluster { endpoints, servers: vec![], view, directory, _own: None };
        for node in 1..=nodes {
            let servers = cluster.start_servers(node).await;
            cluster.servers.push(Some(servers));
        }
        cluster
    }

    async fn start_servers(&self, node: u32) -> Servers {
        let endpoint = self.endpoints[node as usize - 1].clone();
        Servers::start(config(node, &self.directory), endpoint, self.view.subscribe()).await.unwrap()
    }

    /// Ends the servers and the endpoint of a node: connections to it break, new ones are refused.
    pub async fn stop(&mut self, node: u32) {
        self.endpoints[node as usize - 1].close().await;
        self.servers[node as usize - 1].take().unwrap().stop().await;
    }

    /// Starts a stopped node again: at its address, or, if somebody was given the port meanwhile, at another that the
    /// view tells.
    pub async fn resume(&mut self, node: u32) {
        let address = self.endpoints[node as usize - 1].address();
        let endpoint = match try_bind(node, address).await {
            Ok(endpoint) => endpoint,
            Err(_) => bind(node).await,
        };
        let address = endpoint.address().to_string();
        self.change(node, |row| row.data_address = address);
        self.endpoints[node as usize - 1] = endpoint;
        self.servers[node as usize - 1] = Some(self.start_servers(node).await);
    }

    /// A client on `node`.
    pub fn client(&self, node: u32) -> Client {
        Client::new(self.endpoints[node as usize - 1].clone(), INCARNATION, self.view.subscribe())
    }

    /// Says that a node is in `state` now.
    pub fn set_state(&self, node: u32, state: NodeState) {
        self.change(node, |row| row.set_state(state));
    }

    fn change(&self, node: u32, change: impl FnOnce(&mut Node)) {
        self.view.send_modify(|view| {
            let mut next = (**view).clone();
            next.epoch += 1;
            change(&mut next.nodes[node as usize - 1]);
            *view = Arc::new(next);
        });
    }

    /// The files that hold objects on `node`.
    pub fn objects(&self, node: u32) -> Vec<PathBuf> {
        let top = self.directory.join(node.to_string()).join("ost/objects");
        let below =
            std::fs::read_dir(top).unwrap().flat_map(|dir| std::fs::read_dir(dir.unwrap().path()).unwrap());
        below.map(|entry| entry.unwrap().path()).collect()
    }
}

/// Makes `name` in the root and returns its inode number.
pub async fn create(client: &Client, name: &str, mode: u32) -> Result<u64, Error> {
    let place = Some(Place { parent: 1, name: name.into() });
    let create = MetaVerb::Create(Create { place, mode, ..Create::default() });
    Ok(client.change(client.caller(0, 0), create).await?.attr.unwrap().ino)
}

/// Reads through and joins the pieces.
pub async fn read(client: &Client, ino: u64, offset: u64, size: u32) -> Result<Vec<u8>, Error> {
    Ok(client.read(ino, offset, size).await?.concat())
}

/// Waits until `condition` holds; an event that cannot be subscribed to is looked for every few milliseconds.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}
