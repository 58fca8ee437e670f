//! The servers of one node, started and stopped together.

use crate::error::Error;
use crate::mds::purge;
use crate::mds::server::MetadataServer;
use crate::ost::ObjectServer;
use crate::peers::Peers;
use base::NodeId;
use fabric::{Endpoint, service};
use membership::View;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the servers of a node are and where they keep things.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// The node with the metadata server.
    pub mds: NodeId,
    /// The metadata server's directory; used only on its node.
    pub mdt_dir: PathBuf,
    /// The object server's directory.
    pub ost_dir: PathBuf,
}

/// The running servers of a node.
pub struct Servers {
    metadata: Option<Arc<MetadataServer>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Servers {
    /// Starts the object server, and the metadata server where it belongs, and registers them on `endpoint`.
    ///
    /// # Errors
    /// A directory cannot be prepared, or another process has the metadata store open.
    pub async fn start(
        config: Config,
        endpoint: Endpoint,
        view: watch::Receiver<Arc<View>>,
    ) -> Result<Servers, Error> {
        let peers = Peers::new(endpoint.clone(), view);
        let (ost_dir, own_peers) = (config.ost_dir, peers.clone());
        let objects = tokio::task::spawn_blocking(move || ObjectServer::open(&ost_dir, own_peers));
        let objects = objects.await.map_err(|_| Error::Stopped)??;
        endpoint.serve(service::OBJECTS, Arc::new(objects));
        let mut servers = Servers { metadata: None, tasks: vec![tokio::spawn(peers.clone().follow())] };
        if config.mds == config.node {
            let mdt_dir = config.mdt_dir;
            let metadata = tokio::task::spawn_blocking(move || MetadataServer::start(mdt_dir));
            let metadata = metadata.await.map_err(|_| Error::Stopped)??;
            metadata.set_view(peers.view()).await;
            endpoint.serve(service::METADATA, metadata.clone());
            servers.tasks.push(tokio::spawn(hear_views(metadata.clone(), peers.watch())));
            servers.tasks.push(tokio::spawn(purge::run(metadata.clone(), peers)));
            servers.metadata = Some(metadata);
        }
        Ok(servers)
    }

    /// Ends the servers: the metadata store is closed when this returns.
    pub async fn stop(mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            let _ = task.await;
        }
        if let Some(metadata) = self.metadata.take() {
            metadata.stop().await;
        }
    }
}

async fn hear_views(metadata: Arc<MetadataServer>, mut view: watch::Receiver<Arc<View>>) {
    while view.changed().await.is_ok() {
        let now = view.borrow_and_update().clone();
        metadata.set_view(now).await;
    }
}
