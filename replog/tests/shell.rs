//! Logs on real sockets, disks and threads: endpoints on the loopback address of this machine.

use base::NodeId;
use bytes::Bytes;
use fabric::{ClusterKey, Endpoint, Peer, Role};
use replog::{Config, Error, Exchange, Handle, Index, Member, Origin, Refusal, Start, StateMachine, Voters};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const LOCALHOST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const PATIENCE: Duration = Duration::from_secs(20);
const LOG: u64 = 7;

/// Adds numbers; the state is the sum, and some ballast that makes snapshots of many pieces.
#[derive(Default)]
struct Sum(u64);

const BALLAST: usize = 700 << 10;

impl StateMachine for Sum {
    fn apply(&mut self, _index: Index, command: &[u8]) -> Bytes {
        self.0 += command.first().copied().map_or(0, u64::from);
        Bytes::copy_from_slice(&self.0.to_le_bytes())
    }

    fn snapshot(&mut self) -> Bytes {
        let mut bytes = vec![3; BALLAST];
        bytes.extend_from_slice(&self.0.to_le_bytes());
        bytes.into()
    }

    fn restore(&mut self, snapshot: Bytes) -> Result<(), String> {
        let (_, sum) = snapshot.split_last_chunk::<8>().ok_or("too short")?;
        self.0 = u64::from_le_bytes(*sum);
        (snapshot.len() == BALLAST + 8).then_some(()).ok_or("not as long as it was".into())
    }
}

/// Small logs, so that snapshots are made soon.
fn tune(config: &mut Config) {
    config.snapshot_after_bytes = 6_000;
    config.keep_bytes = 2_000;
}

struct Node {
    endpoint: Endpoint,
    exchange: Arc<Exchange>,
    dir: TempDir,
    handle: Option<Handle<Sum>>,
}

impl Node {
    fn handle(&self) -> &Handle<Sum> {
        self.handle.as_ref().unwrap()
    }

    fn id(&self) -> NodeId {
        self.endpoint.local().node
    }

    fn start(&mut self) {
        let node = self.id();
        let dir = self.dir.path().to_path_buf();
        let start = Start { log: LOG, node, dir, tune, on_thread_start: || {} };
        self.handle = Some(replog::start(start, self.exchange.clone(), Sum::default()).unwrap());
    }

    async fn stop(&mut self) {
        let Some(handle) = self.handle.take() else { return };
        handle.stop();
        let mut ended = handle.ended();
        tokio::time::timeout(PATIENCE, ended.wait_for(Option::is_some)).await.unwrap().unwrap();
    }
}

async fn node(id: u32) -> Node {
    let local = Peer { node: NodeId(id), role: Role::Control };
    let key = ClusterKey::from_bytes([3; 32]);
    let endpoint = Endpoint::bind(fabric::Config::new(local, LOCALHOST, key, "blue")).await.unwrap();
    let exchange = Exchange::new(endpoint.clone());
    Node { endpoint, exchange, dir: tempfile::tempdir().unwrap(), handle: None }
}

/// Some nodes that know one another; no log yet.
async fn nodes(count: u32) -> Vec<Node> {
    let mut nodes = Vec::new();
    for id in 1..=count {
        nodes.push(node(id).await);
    }
    for one in &nodes {
        for other in nodes.iter().filter(|other| other.id() != one.id()) {
            one.endpoint.set_address(other.endpoint.local(), other.endpoint.address());
            one.endpoint.keep_connected(other.endpoint.local());
        }
    }
    nodes
}

/// The first founds a log alone; the others join, and become voters.
async fn cluster(count: u32) -> Vec<Node> {
    let mut nodes = nodes(count).await;
    replog::create(nodes[0].dir.path(), NodeId(1), |me| Some(Voters::of([me]))).unwrap();
    for node in &nodes[1..] {
        replog::create(node.dir.path(), node.id(), |_| None).unwrap();
    }
    nodes.iter_mut().for_each(Node::start);
    leads(&nodes[0]).await;
    let voters: BTreeSet<Member> = nodes.iter().map(|node| node.handle().member()).collect();
    add(&nodes, 1).await;
    nodes[0].handle().change_voters(voters.clone(), BTreeSet::new()).await.unwrap();
    assert_eq!(nodes[0].handle().status().await.unwrap().voters, Voters { voters, ..Voters::default() });
    nodes
}

async fn leads(node: &Node) {
    let me = node.handle().member();
    let mut leadership = node.handle().leadership();
    let led = leadership.wait_for(|now| now.leader == Some(me));
    tokio::time::timeout(PATIENCE, led).await.unwrap().unwrap();
}

/// The node that leads, by the word of any of those that run.
async fn leader(nodes: &[Node]) -> &Node {
    let look = async {
        loop {
            for node in nodes.iter().filter(|node| node.handle.is_some()) {
                if node.handle().leadership().borrow().leader == Some(node.handle().member()) {
                    return node;
                }
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap()
}

async fn try_add(node: &Node, origin: Option<Origin>, number: u8) -> Result<u64, Error> {
    let outcome = node.handle().propose(origin, vec![number].into()).await?;
    Ok(u64::from_le_bytes(outcome.bytes[..].try_into().unwrap()))
}

/// Adds, at whoever leads, as often as it takes; the same request each time.
async fn add_once(nodes: &[Node], origin: Origin, number: u8) -> u64 {
    loop {
        match try_add(leader(nodes).await, Some(origin), number).await {
            Ok(sum) => return sum,
            Err(Error::Refused(_) | Error::Ended(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn add(nodes: &[Node], number: u8) -> u64 {
    try_add(leader(nodes).await, None, number).await.unwrap()
}

async fn read(node: &Node) -> Result<u64, Error> {
    node.handle().read(|sum| sum.0).await
}

/// Waits until this node has applied so much.
async fn has(node: &Node, sum: u64) {
    let look = async {
        while node.handle().look(|sum| sum.0).await.unwrap() != sum {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("{} never has {sum}", node.id()));
}

fn origin(sequence: u64) -> Origin {
    Origin { session: 1, slot: 0, sequence }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_agrees_with_itself_and_remembers() {
    let mut nodes = cluster(1).await;
    assert_eq!(add(&nodes, 5).await, 6);
    assert_eq!(read(&nodes[0]).await.unwrap(), 6);
    nodes[0].stop().await;
    nodes[0].start();
    leads(&nodes[0]).await;
    assert_eq!(read(&nodes[0]).await.unwrap(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_agree_lose_their_leader_and_forget_nothing() {
    let mut nodes = cluster(3).await;
    let sum = add_once(&nodes, origin(1), 10).await;
    for node in &nodes {
        has(node, sum).await;
    }
    let follower = nodes.iter().find(|node| node.id() != NodeId(1)).unwrap();
    let refused = read(follower).await;
    assert!(
        matches!(&refused, Err(Error::Refused(Refusal::NotLeader(Some(who)))) if who.node == NodeId(1)),
        "{refused:?}"
    );
    nodes[0].stop().await;
    // The same request again, to the next leader: its outcome is known, it is not carried out twice.
    assert_eq!(add_once(&nodes, origin(1), 10).await, sum);
    assert_eq!(add_once(&nodes, origin(2), 7).await, sum + 7);
    assert_eq!(read(leader(&nodes).await).await.unwrap(), sum + 7);
    nodes[0].start();
    has(&nodes[0], sum + 7).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over() {
    let nodes = cluster(3).await;
    let to = nodes[2].handle().member();
    nodes[0].handle().transfer(Some(to));
    leads(&nodes[2]).await;
    assert_eq!(add_once(&nodes, origin(1), 3).await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_voter_is_replaced_and_gets_a_snapshot_of_many_pieces() {
    let mut nodes = cluster(3).await;
    nodes[1].stop().await;
    nodes[1].dir = tempfile::tempdir().unwrap();
    let old = nodes[0].handle().voters().borrow().clone();
    for sequence in 1..=300 {
        add_once(&nodes, origin(sequence), 1).await;
    }
    let sum = add(&nodes, 1).await;
    let new = replog::create(nodes[1].dir.path(), nodes[1].id(), |_| None).unwrap();
    assert!(!old.voters.contains(&new));
    nodes[1].start();
    let voters: BTreeSet<Member> = nodes.iter().map(|node| node.handle().member()).collect();
    leader(&nodes).await.handle().change_voters(voters.clone(), BTreeSet::new()).await.unwrap();
    has(&nodes[1], sum).await;
    assert!(
        nodes[1].handle().status().await.unwrap().snapshot.stamp.index > Index(100),
        "it came by snapshot"
    );
    // Now it counts: with another away there is a majority with it.
    let away = nodes.iter().position(|node| node.id() == NodeId(3)).unwrap();
    nodes[away].stop().await;
    assert_eq!(add_once(&nodes, origin(301), 1).await, sum + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_damaged_or_missing_is_told_at_the_start() {
    let mut nodes = cluster(1).await;
    nodes[0].stop().await;
    let start = |dir: &Path| {
        let start = Start { log: LOG, node: NodeId(1), dir: dir.to_path_buf(), tune, on_thread_start: || {} };
        replog::start(start, nodes[0].exchange.clone(), Sum::default()).map(|_| ())
    };
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(start(empty.path()), Err(Error::NoStore)));
    std::fs::write(nodes[0].dir.path().join("identity"), b"nobody").unwrap();
    let error = start(nodes[0].dir.path()).unwrap_err().to_string();
    assert!(error.contains("identity of the replicated log is damaged"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_logs_share_an_endpoint_and_not_more() {
    let nodes = cluster(1).await;
    let dir = tempfile::tempdir().unwrap();
    replog::create(dir.path(), NodeId(1), |me| Some(Voters::of([me]))).unwrap();
    let other = Start { log: 8, node: NodeId(1), dir: dir.path().into(), tune, on_thread_start: || {} };
    let other = replog::start(other, nodes[0].exchange.clone(), Sum::default()).unwrap();
    let mut leadership = other.leadership();
    tokio::time::timeout(PATIENCE, leadership.wait_for(|now| now.leader.is_some())).await.unwrap().unwrap();
    other.propose(None, vec![40].into()).await.unwrap();
    assert_eq!(other.read(|sum| sum.0).await.unwrap(), 40);
    assert_eq!(read(&nodes[0]).await.unwrap(), 1);
    other.stop();
    let mut ended = other.ended();
    tokio::time::timeout(PATIENCE, ended.wait_for(Option::is_some)).await.unwrap().unwrap();
    assert!(matches!(other.propose(None, Bytes::new()).await, Err(Error::Ended(_))));
}
