//! Two endpoints on two RDMA devices, in one process.

use base::NodeId;
use fabric::verbs::Device;
use fabric::{
    ClusterKey, Config, Endpoint, Error, LinkStatus, Message, Peer, Priority, Provider, RailState, Reply,
    Role, Service, ServiceId,
};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The end of every wait: an emulated machine is slow.
pub const SOON: Duration = Duration::from_secs(30);
pub const ECHO: ServiceId = ServiceId(100);
pub const SILENT: ServiceId = ServiceId(101);
pub const PRIORITIES: [Priority; 4] = [Priority::Control, Priority::Lock, Priority::Meta, Priority::Data];

pub fn peer(node: u32) -> Peer {
    Peer { node: NodeId(node), role: Role::Data }
}

/// Answers with what it is asked.
struct Echo;

impl Service for Echo {
    fn handle(self: Arc<Self>, _: Peer, request: Message) -> Reply {
        Reply::Now(request)
    }
}

/// Never answers.
pub struct Silent;

impl Service for Silent {
    fn handle(self: Arc<Self>, _: Peer, _: Message) -> Reply {
        Reply::later(std::future::pending())
    }
}

/// The addresses of two devices on each of `rails` networks: for each rail those of both nodes. Without them the test says so.
pub fn rails(count: usize) -> Option<Vec<[IpAddr; 2]>> {
    let names = Device::names().unwrap_or_default();
    let devices: Vec<_> = names.iter().filter_map(|name| Device::open(name).ok()).collect();
    let all = devices.iter().filter_map(|device| device.addresses().ok()).flatten();
    let mut ips: Vec<IpAddr> = all.filter_map(|address| address.ip()).filter(IpAddr::is_ipv4).collect();
    ips.sort_unstable();
    ips.dedup();
    let pairs = ips.windows(2).filter(|pair| network(pair[0]) == network(pair[1]));
    let mut rails: Vec<[IpAddr; 2]> = Vec::new();
    for pair in pairs {
        if rails.iter().all(|known| network(known[0]) != network(pair[0])) {
            rails.push([pair[0], pair[1]]);
        }
    }
    rails.truncate(count);
    if rails.len() < count {
        assert!(std::env::var_os("SSI_VERBS_VM").is_none(), "the virtual machine has rails");
        println!("skipped: no two RDMA devices on each of {count} networks");
        return None;
    }
    Some(rails)
}

fn network(ip: IpAddr) -> Option<[u8; 3]> {
    match ip {
        IpAddr::V4(ip) => Some([ip.octets()[0], ip.octets()[1], ip.octets()[2]]),
        IpAddr::V6(_) => None,
    }
}

/// Two endpoints, on so many rails.
pub struct Ends {
    pub near: Endpoint,
    pub far: Endpoint,
    pub rails: Vec<[IpAddr; 2]>,
}

/// Runs a test with two endpoints, of which the near one knows the far one's first address.
pub fn run<F: Future<Output = ()>>(count: usize, test: impl FnOnce(Ends) -> F) {
    let Some(rails) = rails(count) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime needs threads only").block_on(async {
        let (near, far) = (endpoint(1, &rails, 0).await, endpoint(2, &rails, 1).await);
        near.set_address(peer(2), far.address());
        test(Ends { near: near.clone(), far: far.clone(), rails }).await;
        near.close().await;
        far.close().await;
    });
}

/// The endpoint of a node, which has the addresses of this column.
pub async fn endpoint(node: u32, rails: &[[IpAddr; 2]], column: usize) -> Endpoint {
    let mut addresses = rails.iter().map(|rail| SocketAddr::new(rail[column], 0));
    let first = addresses.next().expect("there is a rail");
    let mut config = Config::new(peer(node), first, ClusterKey::from_bytes([7; 32]), "blue");
    config.rails = addresses.collect();
    let endpoint = Endpoint::bind(config).await.expect("there is a free port");
    endpoint.serve(ECHO, Arc::new(Echo));
    endpoint
}

pub fn message(head: &[u8], bulk: Vec<u8>) -> Message {
    Message { head: head.to_vec().into(), bulk: bulk.into() }
}

/// The ways to node 2.
pub fn links(near: &Endpoint) -> Vec<LinkStatus> {
    let status = near.status();
    status.peers.into_iter().filter(|known| known.peer == peer(2)).flat_map(|known| known.links).collect()
}

/// What carries the calls to node 2, for each lane that is up.
pub fn carriers(near: &Endpoint) -> Vec<Provider> {
    let calls = links(near).into_iter().filter(|link| link.state == RailState::Calls);
    calls.map(|link| link.provider).collect()
}

/// Frames that this provider has sent to node 2 and received from there.
pub fn frames(near: &Endpoint, provider: Provider) -> (u64, u64) {
    let meant = links(near).into_iter().filter(|link| link.provider == provider);
    meant.fold((0, 0), |(sent, received), link| {
        (sent + link.traffic.frames_sent, received + link.traffic.frames_received)
    })
}

/// Asks node 2.
pub async fn ask(near: &Endpoint, priority: Priority, request: Message) -> Result<Message, Error> {
    near.call(peer(2), ECHO, priority, request, SOON).await
}

/// Asks until both lanes' calls go over devices.
pub async fn over_devices(near: &Endpoint) {
    eventually("devices carry the calls", async || {
        for priority in [Priority::Control, Priority::Data] {
            ask(near, priority, Message::default()).await.expect("a call is answered");
        }
        carriers(near) == [Provider::Verbs; 2]
    })
    .await;
}

/// Waits until a condition holds that no event tells.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !condition().await {
        assert!(Instant::now() < end, "{what} does not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
