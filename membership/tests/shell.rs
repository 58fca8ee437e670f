//! Membership on real sockets, disks and threads: three endpoints on the loopback address of this machine.

use base::{Incarnation, NodeId};
use fabric::{ClusterKey, Endpoint, Peer, Role};
use membership::fencing::device::ANY;
use membership::fencing::{Action, Device, Plan};
use membership::{Config, Ended, Error, Handle, Heartbeat, Membership, Node, NodeState, Timings, View};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;

#[path = "shell/tokens.rs"]
mod tokens;

const KEY: [u8; 32] = [3; 32];
const CLUSTER: &str = "blue";
const LOCALHOST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the supervisors send their heartbeats: every receiver in the test.
type Watchers = Arc<Mutex<Vec<SocketAddr>>>;

/// One running node; its supervisor is a task that only beats.
struct Running {
    handle: Handle,
    endpoint: Endpoint,
    supervisor: JoinHandle<()>,
}

impl Running {
    /// Ends everything of the node at once.
    async fn kill(self) {
        self.supervisor.abort();
        self.handle.stop();
        tokio::time::timeout(PATIENCE, self.handle.ended()).await.expect("its threads end");
        self.endpoint.close().await;
    }
}

async fn endpoint(node: u32, role: Role) -> Endpoint {
    let local = Peer { node: NodeId(node), role };
    let (key, cluster) = (ClusterKey::from_bytes(KEY), CLUSTER.to_string());
    Endpoint::bind(fabric::Config::new(local, LOCALHOST, key, cluster)).await.unwrap()
}

fn row(id: u32, incarnation: u64, control: SocketAddr, data: SocketAddr) -> Node {
    Node {
        id,
        name: format!("node{id}"),
        control_address: control.to_string(),
        data_address: data.to_string(),
        arch: "x86_64".into(),
        cpus: 2,
        memory_bytes: 1 << 30,
        speed: 100,
        state: NodeState::Up as i32,
        incarnation,
        ..Node::default()
    }
}

async fn beat(beat: Heartbeat, watchers: Watchers) {
    let socket = UdpSocket::bind(LOCALHOST).unwrap();
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    for sequence in 0.. {
        pace.tick().await;
        let datagram = Heartbeat { sequence, ..beat }.encode(&KEY, CLUSTER);
        for watcher in watchers.lock().unwrap().iter() {
            socket.send_to(&datagram, watcher).unwrap();
        }
    }
}

/// Starts a life of node `id` that has its table in `dir`; makes the cluster (node 1) or joins it by `seed` before.
async fn start(id: u32, life: u64, dir: &Path, seed: Option<SocketAddr>, watchers: &Watchers) -> Running {
    start_with(Plan::new(), id, life, dir, seed, watchers).await
}

/// The same, with a plan for those who are DOWN.
async fn start_with(
    fencing: Plan,
    id: u32,
    life: u64,
    dir: &Path,
    seed: Option<SocketAddr>,
    watchers: &Watchers,
) -> Running {
    let endpoint = endpoint(id, Role::Control).await;
    let heartbeats = UdpSocket::bind(LOCALHOST).unwrap();
    let local = row(id, life, endpoint.address(), heartbeats.local_addr().unwrap());
    watchers.lock().unwrap().push(heartbeats.local_addr().unwrap());
    if !dir.join("table").exists() {
        match seed {
            None => drop(membership::init_table(dir, CLUSTER, local.clone(), 16_384).unwrap()),
            Some(seed) => {
                let (given, view) = join(seed, local.clone()).await.unwrap();
                assert_eq!(given, NodeId(id));
                membership::persist_joined(dir, &view).unwrap();
            }
        }
    }
    let heartbeat = Heartbeat { node: NodeId(id), incarnation: Incarnation(life), sequence: 0 };
    let supervisor = tokio::spawn(beat(heartbeat, watchers.clone()));
    let config = Config {
        local,
        state_dir: dir.to_path_buf(),
        key: KEY,
        cluster: CLUSTER.into(),
        timings: Timings::default(),
        fencing,
        on_thread_start: || {},
    };
    let handle = Membership::start(config, endpoint.clone(), heartbeats).unwrap();
    Running { handle, endpoint, supervisor }
}

async fn join(seed: SocketAddr, wanted: Node) -> Result<(NodeId, View), Error> {
    let stranger = endpoint(0, Role::Control).await;
    let joined = membership::join(&stranger, seed, wanted, PATIENCE).await;
    stranger.close().await;
    joined
}

async fn wait_for(handle: &Handle, what: &str, wanted: impl FnMut(&Arc<View>) -> bool) -> Arc<View> {
    let mut views = handle.watch();
    let seen = tokio::time::timeout(PATIENCE, views.wait_for(wanted)).await.map(|view| view.unwrap().clone());
    seen.unwrap_or_else(|_| panic!("never {what}: {:?}", handle.view()))
}

fn states(view: &View) -> Vec<NodeState> {
    view.nodes.iter().map(Node::state).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_join_lose_one_and_get_it_back() {
    use NodeState::{Down, Stalled, Up};
    let dirs: Vec<TempDir> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let watchers = Watchers::default();
    let one = start(1, 10, dirs[0].path(), None, &watchers).await;
    wait_for(&one.handle, "up alone", |view| states(view) == [Up]).await;
    let seed = one.endpoint.address();
    let two = start(2, 10, dirs[1].path(), Some(seed), &watchers).await;
    wait_for(&one.handle, "up with two", |view| states(view) == [Up, Up]).await;
    // By the member that is not master: it passes the join on.
    let three = start(3, 10, dirs[2].path(), Some(two.endpoint.address()), &watchers).await;
    let mut views = Vec::new();
    for node in [&one, &two, &three] {
        views.push(wait_for(&node.handle, "up with three", |view| states(view) == [Up, Up, Up]).await);
    }
    assert_eq!(views[0], views[1]);
    assert_eq!(views[0], views[2]);
    let refused = join(seed, row(9, 1, seed, seed)).await;
    assert!(matches!(refused, Err(Error::Refused(why)) if why.contains("already has the address")));
    assert!(matches!(one.handle.remove(NodeId(3)).await, Err(Error::Refused(_))));

    two.handle.set_data_up(false);
    wait_for(&one.handle, "two stalled", |view| states(view) == [Up, Stalled, Up]).await;
    two.handle.set_data_up(true);
    wait_for(&one.handle, "two up again", |view| states(view) == [Up, Up, Up]).await;

    three.kill().await;
    for node in [&one, &two] {
        wait_for(&node.handle, "three down", |view| states(view) == [Up, Up, Down]).await;
    }
    // A later life, at another address, from its own table.
    let three = start(3, 11, dirs[2].path(), None, &watchers).await;
    let view = wait_for(&three.handle, "three back", |view| {
        states(view) == [Up, Up, Up] && view.nodes[2].incarnation == 11
    });
    assert_eq!(view.await.nodes[2].control_address, three.endpoint.address().to_string());

    // The master's end moves the mastership.
    assert!(tokio::time::timeout(PATIENCE, three.handle.lease().wait()).await.unwrap());
    let status = three.handle.status().await.unwrap();
    assert!(status.quorum && status.master == Some(NodeId(1)), "{status:?}");
    one.kill().await;
    wait_for(&two.handle, "one down", |view| states(view) == [Down, Up, Up] && view.master != 1).await;
    three.handle.leave().await.unwrap();
    assert!(matches!(three.handle.ended().await, Ended::Left));
    two.kill().await;
    three.kill().await;
    assert_eq!(membership::saved_view(dirs[1].path()).unwrap().cluster, CLUSTER);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_that_was_declared_down_is_told() {
    let dirs: Vec<TempDir> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let watchers = Watchers::default();
    let one = start(1, 10, dirs[0].path(), None, &watchers).await;
    let seed = one.endpoint.address();
    let two = start(2, 10, dirs[1].path(), Some(seed), &watchers).await;
    let three = start(3, 10, dirs[2].path(), Some(seed), &watchers).await;
    wait_for(&one.handle, "all up", |view| states(view) == [NodeState::Up; 3]).await;
    // Its supervisor falls silent while its ssid goes on.
    three.supervisor.abort();
    let ended = tokio::time::timeout(PATIENCE, three.handle.ended()).await.expect("it is told");
    assert!(matches!(ended, Ended::Evicted(view) if !view.node(NodeId(3)).unwrap().is_alive()));
    for node in [one, two, three] {
        node.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_data_daemon_follows_its_ssid() {
    let dirs: Vec<TempDir> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let watchers = Watchers::default();
    let one = start(1, 10, dirs[0].path(), None, &watchers).await;
    let data = endpoint(1, Role::Data).await;
    data.set_address(one.endpoint.local(), one.endpoint.address());
    let first = membership::saved_view(dirs[0].path()).unwrap();
    let mut views = membership::follow(data.clone(), one.endpoint.local(), first);
    let two = start(2, 10, dirs[1].path(), Some(one.endpoint.address()), &watchers).await;
    let both = views.wait_for(|view| states(view) == [NodeState::Up; 2]);
    tokio::time::timeout(PATIENCE, both).await.expect("it follows").unwrap();
    let known = data.status().peers.into_iter().find(|peer| peer.peer == two.endpoint.local()).unwrap();
    assert_eq!(known.address, Some(two.endpoint.address()));
    drop(views);
    data.close().await;
    one.kill().await;
    two.kill().await;
}

#[tokio::test]
async fn starting_without_a_table_or_twice_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = endpoint(1, Role::Control).await;
    let local = row(1, 10, endpoint.address(), endpoint.address());
    let config = Config {
        local: local.clone(),
        state_dir: dir.path().into(),
        key: KEY,
        cluster: CLUSTER.into(),
        timings: Timings::default(),
        fencing: Default::default(),
        on_thread_start: || {},
    };
    let socket = UdpSocket::bind(LOCALHOST).unwrap();
    let error = Membership::start(config, endpoint.clone(), socket).err().unwrap().to_string();
    assert!(error.contains("this machine is in no cluster yet"), "{error}");
    membership::init_table(dir.path(), CLUSTER, local.clone(), 16_384).unwrap();
    let error = membership::init_table(dir.path(), CLUSTER, local, 16_384).unwrap_err().to_string();
    assert!(error.contains("in a cluster already"), "{error}");
    endpoint.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_transitions_sees_each_once_and_the_lease_ends_with_the_quorum() {
    let dirs: Vec<TempDir> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let watchers = Watchers::default();
    let one = start(1, 10, dirs[0].path(), None, &watchers).await;
    let seed = one.endpoint.address();
    let mut early = one.handle.transitions(one.handle.view().epoch());
    let two = start(2, 10, dirs[1].path(), Some(seed), &watchers).await;
    let three = start(3, 10, dirs[2].path(), Some(seed), &watchers).await;
    let voters = |view: &Arc<View>| states(view) == [NodeState::Up; 3] && view.voters == [1, 2, 3];
    for node in [&one, &two, &three] {
        wait_for(&node.handle, "three voters", voters).await;
        assert!(tokio::time::timeout(PATIENCE, node.handle.lease().wait()).await.unwrap());
    }
    two.handle.rename(NodeId(3), "trois").await.unwrap();
    two.handle.drain(NodeId(3), true).await.unwrap();
    three.handle.set_info(NodeId(1), "rack", "7").await.unwrap();
    assert!(matches!(one.handle.set_voters(4).await, Err(Error::Refused(_))));
    assert!(matches!(two.handle.replace_voter(NodeId(3), NodeId(2)).await, Err(Error::Refused(_))));
    let last = wait_for(&one.handle, "described", |view| !view.nodes[0].info.is_empty()).await;
    assert!(last.nodes[2].drained && last.nodes[2].name == "trois");
    let mut number = early.seen().0;
    while number < last.epoch {
        let step = early.next().await.unwrap();
        assert_eq!((step.0.number, step.1.epoch), (number + 1, number + 1));
        number += 1;
    }
    // From another node, and from far back: the same steps.
    wait_for(&two.handle, "as far", |view| view.epoch >= last.epoch).await;
    let (mut here, mut there) =
        (one.handle.transitions(base::Epoch(1)), two.handle.transitions(base::Epoch(last.epoch - 1)));
    let first = there.next().await.unwrap();
    loop {
        let step = here.next().await.unwrap();
        if step.0.number == first.0.number {
            assert_eq!(step, first);
            break;
        }
    }
    // Two of three are gone: the third may not serve, and says so.
    let mut lease = one.handle.lease();
    assert!(lease.is_held());
    two.kill().await;
    three.kill().await;
    while tokio::time::timeout(PATIENCE, lease.changed()).await.unwrap() != Some(false) {}
    assert!(!lease.is_held() && !one.handle.status().await.unwrap().quorum);
    one.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_cluster_comes_back_from_its_disks() {
    let dirs: Vec<TempDir> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut epoch = 0;
    for life in [10, 11] {
        let watchers = Watchers::default();
        let one = start(1, life, dirs[0].path(), None, &watchers).await;
        let seed = (life == 10).then(|| one.endpoint.address());
        let two = start(2, life, dirs[1].path(), seed, &watchers).await;
        let three = start(3, life, dirs[2].path(), seed, &watchers).await;
        // Where the others are now they can only hear from one another: addresses are as good as fixed in earnest.
        for (node, other) in
            [(&one, &two), (&one, &three), (&two, &one), (&two, &three), (&three, &one), (&three, &two)]
        {
            node.endpoint.set_address(other.endpoint.local(), other.endpoint.address());
        }
        let up = |view: &Arc<View>| {
            states(view) == [NodeState::Up; 3]
                && view.voters.len() == 3
                && view.nodes.iter().all(|row| row.incarnation == life)
        };
        for node in [&one, &two, &three] {
            let view = wait_for(&node.handle, "all up in this life", up).await;
            assert!(view.epoch > epoch);
        }
        epoch = one.handle.view().epoch;
        for node in [one, two, three] {
            node.kill().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_down_is_fenced_by_its_agent() {
    let dirs: Vec<TempDir> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let said = dirs[0].path().join("said");
    let agent = dirs[0].path().join("agent");
    std::fs::write(&agent, format!("#!/bin/sh\ncat > {}\n", said.display())).unwrap();
    std::fs::set_permissions(&agent, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let device = Device {
        agent,
        action: Action::Off,
        timeout: Duration::from_secs(10),
        retries: 1,
        parameters: Default::default(),
    };
    let watchers = Watchers::default();
    let plan: Plan = [(ANY.into(), vec![vec![device]])].into();
    let one = start_with(plan, 1, 10, dirs[0].path(), None, &watchers).await;
    let two = start(2, 10, dirs[1].path(), Some(one.endpoint.address()), &watchers).await;
    wait_for(&one.handle, "both up", |view| states(view) == [NodeState::Up; 2]).await;
    two.kill().await;
    let fenced = [NodeState::Up, NodeState::Fenced];
    wait_for(&one.handle, "two fenced", |view| states(view) == fenced).await;
    assert_eq!(std::fs::read_to_string(said).unwrap(), "plug=node2\nnodename=node2\naction=off\n");
    let two = start(2, 11, dirs[1].path(), None, &watchers).await;
    wait_for(&one.handle, "two back", |view| states(view) == [NodeState::Up; 2]).await;
    one.kill().await;
    two.kill().await;
}
