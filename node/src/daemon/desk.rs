//! What stands behind the two admin sockets of a node.

use super::keyholder::Keyholder;
use super::rekeying::Rekeying;
use super::report;
use super::{changes, history, table};
use crate::admin::server::{Answering, Connection, Desk, is_owner, not_permitted, refuse, watch_presence};
use admin::wire::{Answer, Ask, Layout, Load, PlacementRequest, SetStripe, Space};
use base::{NodeId, Pid};
use fabric::Endpoint;
use lustre_like_fs::layout::{STRIPE_BYTES_DEFAULT, STRIPE_BYTES_MAX, STRIPE_BYTES_MIN};
use lustre_like_fs::{Pattern, ServerSpace, Striping};
use membership::View;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::unix::UCred;
use tokio::sync::watch;

/// `ssid`'s.
pub struct ControlDesk {
    /// The cluster table.
    pub membership: membership::Handle,
    /// Processes.
    pub pm: pm::Handle,
    /// Loads.
    pub load: loadlevel::Handle,
    /// The fabric.
    pub endpoint: Endpoint,
    /// This node.
    pub node: NodeId,
    /// When this daemon began.
    pub began: Instant,
    /// Changes of the cluster's key.
    pub rekeying: Arc<Rekeying>,
}

impl Desk for ControlDesk {
    fn answer(&self, ask: Ask, peer: UCred) -> Answering<'_> {
        Box::pin(async move {
            match ask {
                Ask::Nodes(()) => self.nodes().await,
                Ask::Loads(()) => self.loads(),
                Ask::WherePid(pid) => match self.pm.where_pid(Pid(pid)).await {
                    Some(node) => Answer { nodes: vec![node.0], ..Answer::default() },
                    None => Answer::default(),
                },
                Ask::Placement(wanted) => self.placement(&wanted),
                Ask::Fabric(()) => {
                    Answer { fabric: Some(report::fabric(&self.endpoint, self.began)), ..Answer::default() }
                }
                Ask::Rekey(wanted) if is_owner(peer) => self.rekeying.answer(&wanted).await,
                Ask::Rekey(_) => not_permitted("change the cluster's key"),
                Ask::Stop(()) if is_owner(peer) => self.stop().await,
                Ask::Stop(()) => not_permitted("stop it"),
                Ask::Transitions(wanted) => history::answer(&self.membership.history(), wanted).await,
                Ask::Change(wanted) if is_owner(peer) => {
                    changes::answer(&self.membership, &self.rekeying, wanted).await
                }
                Ask::Change(_) => not_permitted("change the cluster table"),
                Ask::Stripe(_) | Ask::SetStripe(_) | Ask::Space(()) | Ask::ReadKeys(()) => {
                    refuse("this is a question for ssid --data")
                }
            }
        })
    }

    fn serve(&self, connection: Connection) -> Option<Connection> {
        match connection.hello.service.as_str() {
            "tasks" => self.pm.attach_client(connection.stream, connection.reader),
            "views" => {
                tokio::spawn(super::views::tell(connection.stream, self.membership.watch(), self.node.0));
            }
            "data" if is_owner(connection.peer) => {
                let membership = self.membership.clone();
                tokio::spawn(watch_presence(connection.stream, move |up| membership.set_data_up(up)));
            }
            _ => return Some(connection),
        }
        None
    }
}

/// The keeper ends the node in good order: SIGTERM for it, and it ends the rest, us included.
/// How long the others may take to agree that this node leaves; without a majority it goes all the same.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// The keeper of this node, if it lives. An orphan's parent is somebody else, who must not be told to end.
fn keeper() -> Option<rustix::process::Pid> {
    let parent = rustix::process::getppid()?;
    let name = std::fs::read_to_string(format!("/proc/{}/comm", parent.as_raw_nonzero())).ok()?;
    (name.trim_end() == "ssi-keeper").then_some(parent)
}

impl ControlDesk {
    /// Leaves the cluster's present view, then ends the node: through the keeper, or by itself if that was killed.
    async fn stop(&self) -> Answer {
        if let Err(error) = tokio::time::timeout(LEAVE_WITHIN, self.membership.leave()).await {
            tracing::warn!(%error, "the others did not agree in time that this node leaves");
        }
        match keeper() {
            Some(keeper) => {
                if let Err(error) = rustix::process::kill_process(keeper, rustix::process::Signal::TERM) {
                    return refuse(format!("the keeper (pid {}): {error}", keeper.as_raw_nonzero()));
                }
            }
            None => self.pm.shutdown_view(),
        }
        Answer::default()
    }

    async fn nodes(&self) -> Answer {
        let view = table::view(&self.membership.view());
        let status = self.membership.status().await;
        let quorum = status.as_ref().is_some_and(|status| status.quorum);
        let lease = status.and_then(|status| status.lease).unwrap_or_default();
        let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        Answer { view: Some(view), local: self.node.0, quorum, lease_ms, ..Answer::default() }
    }

    fn loads(&self) -> Answer {
        let row = |load: &loadlevel::NodeLoad| Load {
            node: load.sample.node,
            busy_permille: load.sample.busy_permille,
            memory_used: load.sample.memory_used,
            memory_total: load.sample.memory_total,
            cpus: load.sample.cpus,
            speed: load.sample.speed,
            runnable: load.sample.runnable,
            age_ms: u64::try_from(load.age.as_millis()).unwrap_or(u64::MAX),
            cost: load.cost,
        };
        let table = self.load.table();
        let fastest = self.load.fastnode().map_or(0, |node| node.0);
        Answer { loads: table.iter().map(row).collect(), fastest, ..Answer::default() }
    }

    fn placement(&self, wanted: &PlacementRequest) -> Answer {
        let view = self.membership.view();
        match loadlevel::placement(wanted.ranks, wanted.per_node, &wanted.hosts, &view, &self.load.table()) {
            Ok(nodes) => {
                self.load.placed(&nodes);
                Answer {
                    nodes: nodes.iter().map(|node| node.0).collect(),
                    view: Some(table::view(&view)),
                    ..Answer::default()
                }
            }
            Err(error) => refuse(error),
        }
    }
}

/// `ssid --data`'s.
pub struct DataDesk {
    /// The filesystem.
    pub client: lustre_like_fs::Client,
    /// The cluster.
    pub views: watch::Receiver<Arc<View>>,
    /// The fabric, and the keys that it uses.
    pub keyholder: Keyholder,
    /// When this daemon began.
    pub began: Instant,
}

impl Desk for DataDesk {
    fn answer(&self, ask: Ask, peer: UCred) -> Answering<'_> {
        Box::pin(async move {
            match ask {
                Ask::Stripe(path) => self.stripe(&path, peer).await,
                Ask::SetStripe(wanted) => self.set_stripe(&wanted, peer).await,
                Ask::Space(()) => self.space().await,
                Ask::Fabric(()) => {
                    let fabric = report::fabric(self.keyholder.endpoint(), self.began);
                    Answer { fabric: Some(fabric), ..Answer::default() }
                }
                Ask::ReadKeys(()) if is_owner(peer) => match self.keyholder.read_again().await {
                    Ok(()) => Answer::default(),
                    Err(error) => refuse(error),
                },
                _ => refuse("this is a question for ssid"),
            }
        })
    }

    fn serve(&self, connection: Connection) -> Option<Connection> {
        Some(connection)
    }
}

impl DataDesk {
    async fn stripe(&self, path: &[u8], peer: UCred) -> Answer {
        let Ok(path) = std::str::from_utf8(path) else { return refuse("the path is not UTF-8") };
        let striping = match self.client.getstripe(path, peer.uid(), peer.gid()).await {
            Ok(striping) => striping,
            Err(error) => return refuse(format!("/ssi/{path}: {error}")),
        };
        let layout = match striping {
            Striping::File(layout) => Layout {
                size: layout.stripe_size,
                count: layout.count(),
                nodes: layout.osts,
                directory: false,
            },
            Striping::Directory(pattern) => {
                let pattern = pattern.unwrap_or_default();
                let size = if pattern.stripe_size == 0 { STRIPE_BYTES_DEFAULT } else { pattern.stripe_size };
                let count = if pattern.stripe_count == 0 { u32::MAX } else { pattern.stripe_count };
                Layout { size, count, nodes: Vec::new(), directory: true }
            }
        };
        Answer { layout: Some(layout), ..Answer::default() }
    }

    async fn set_stripe(&self, wanted: &SetStripe, peer: UCred) -> Answer {
        let Ok(path) = std::str::from_utf8(&wanted.path) else { return refuse("the path is not UTF-8") };
        let start = match self.index_of(wanted.first) {
            Ok(start) => start,
            Err(why) => return refuse(why),
        };
        let count = if wanted.count == u32::MAX { 0 } else { wanted.count };
        let pattern = Pattern { stripe_size: wanted.size, stripe_count: count, start };
        if !pattern.is_valid() {
            return refuse(format!(
                "a stripe size of {} bytes: multiples of {STRIPE_BYTES_MIN} up to {STRIPE_BYTES_MAX} can be",
                wanted.size
            ));
        }
        match self.client.setstripe(path, pattern, peer.uid(), peer.gid()).await {
            Ok(()) => Answer::default(),
            Err(error) => refuse(format!("/ssi/{path}: {error}")),
        }
    }

    /// The place of a node in the ordered list of object servers, plus one; 0 for none.
    fn index_of(&self, node: u32) -> Result<u32, String> {
        if node == 0 {
            return Ok(0);
        }
        let view = self.views.borrow();
        let mut nodes: Vec<u32> = view.nodes.iter().filter(|row| row.is_alive()).map(|row| row.id).collect();
        nodes.sort_unstable();
        match nodes.iter().position(|id| *id == node) {
            Some(index) => Ok(index as u32 + 1),
            None => Err(format!("node {node} has no object server that is there")),
        }
    }

    async fn space(&self) -> Answer {
        let row = |server: ServerSpace| match server.space {
            Ok(space) => {
                Space { node: server.node.0, total: space.total, free: space.available, error: String::new() }
            }
            Err(error) => Space { node: server.node.0, total: 0, free: 0, error: error.to_string() },
        };
        Answer { space: self.client.df().await.into_iter().map(row).collect(), ..Answer::default() }
    }
}
