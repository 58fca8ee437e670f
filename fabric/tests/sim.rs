//! The simulated network: real endpoints in virtual time, the same run for the same seed, exact under faults.

use base::NodeId;
use base::time::Time;
use fabric::sim::{Faults, Network};
use fabric::{
    ClusterKey, Config, Endpoint, Error, LinkEvent, Message, Peer, Priority, Reply, Rights, Role, Service,
    ServiceId,
};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const ECHO: ServiceId = ServiceId(100);
const SOON: Duration = Duration::from_secs(10);

fn peer(node: u32) -> Peer {
    Peer { node: NodeId(node), role: Role::Control }
}

fn address(node: u32) -> SocketAddr {
    SocketAddr::from(([10, 0, (node >> 8) as u8, node as u8], 7_000))
}

fn endpoint(network: &Network, node: u32) -> Endpoint {
    let config = Config::new(peer(node), address(node), ClusterKey::from_bytes([7; 32]), "sim");
    network.endpoint(config).unwrap()
}

/// Counts each request by its number, and answers with it.
struct Ledger(Mutex<Vec<u64>>);

impl Service for Ledger {
    fn handle(self: Arc<Self>, _: Peer, request: Message) -> Reply {
        let number = u64::from_le_bytes(request.head[..8].try_into().unwrap());
        self.0.lock().push(number);
        Reply::Now(request)
    }
}

fn pair(network: &Network) -> (Endpoint, Endpoint, Arc<Ledger>) {
    let (caller, server) = (endpoint(network, 1), endpoint(network, 2));
    let ledger = Arc::new(Ledger(Mutex::default()));
    server.serve(ECHO, ledger.clone());
    caller.set_address(peer(2), address(2));
    (caller, server, ledger)
}

fn request(number: u64, bulk: usize) -> Message {
    Message { head: number.to_le_bytes().to_vec().into(), bulk: vec![number as u8; bulk].into() }
}

/// Many calls at once on one channel; when the last is answered.
fn storm(seed: u64, cut_one_in: u64) -> (Vec<u64>, Time) {
    let network = Network::new(seed, Faults { cut_one_in, ..Faults::default() });
    let (caller, _server, ledger) = pair(&network);
    let calls = (0..200u64).map(|number| {
        let request = request(number, (number as usize % 5) * 150_000);
        let caller = caller.clone();
        async move {
            let reply = caller.call(peer(2), ECHO, Priority::Data, request.clone(), SOON).await.unwrap();
            assert!(reply == request, "call {number} got the reply of another");
        }
    });
    network.run(futures_util::future::join_all(calls)).expect("all are answered");
    (std::mem::take(&mut *ledger.0.lock()), network.now())
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_one_another() {
    let (one, again, other) = (storm(1, 50), storm(1, 50), storm(2, 50));
    assert_eq!(one, again);
    assert_ne!(one.1, other.1);
}

#[test]
fn calls_are_carried_out_once_and_in_order_while_links_break_under_them() {
    let seeds = if std::env::var_os("SSI_TEST_LONG").is_some() { 500 } else { 20 };
    for seed in 0..seeds {
        let (started, _) = storm(seed, 40);
        assert_eq!(started, (0..200).collect::<Vec<u64>>(), "seed {seed}");
    }
}

#[test]
fn transfers_are_exact_while_links_break_under_them() {
    for seed in 0..20 {
        let network = Network::new(seed, Faults { cut_one_in: 30, ..Faults::default() });
        let (caller, server, _) = pair(&network);
        let (ours, theirs) = (caller.register(3_000_000).unwrap(), server.register(3_000_000).unwrap());
        let bytes: Vec<u8> = (0..3_000_000u32).map(|at| (at % 251) as u8).collect();
        ours.span().fill(&bytes);
        let key = theirs.grant(peer(1), Rights::ALL).unwrap();
        let work = async {
            for round in 1..=5 {
                caller.write_notify(&key, 0, &[ours.span()], SOON).await.unwrap();
                theirs.arrived(round).await;
                assert_eq!(theirs.arrivals(), round);
            }
            theirs.revoke();
            let late = caller.write(&key, 0, &[ours.span()], SOON).await;
            assert!(matches!(late, Err(Error::Revoked { .. })), "{late:?}");
        };
        network.run(work).expect("it ends");
        let mut out = vec![0; 3_000_000];
        theirs.span().copy_to(&mut out);
        assert!(out == bytes, "seed {seed}");
    }
}

#[test]
fn who_is_parted_is_lost_and_found_again() {
    let network = Network::new(3, Faults::default());
    let (caller, _server, _ledger) = pair(&network);
    let mut events = caller.links();
    caller.keep_connected(peer(2));
    let story = async {
        assert_eq!(events.recv().await.unwrap(), LinkEvent::Connected(peer(2)));
        network.part(address(1), address(2));
        assert_eq!(events.recv().await.unwrap(), LinkEvent::Lost(peer(2)));
        let parted = caller.call(peer(2), ECHO, Priority::Control, request(1, 0), SOON).await;
        assert!(matches!(parted, Err(Error::Deadline { .. })), "{parted:?}");
        network.sleep(Duration::from_secs(3_600)).await;
        network.join(address(1), address(2));
        assert_eq!(events.recv().await.unwrap(), LinkEvent::Connected(peer(2)));
        caller.call(peer(2), ECHO, Priority::Control, request(2, 0), SOON).await.unwrap();
    };
    network.run(story).expect("it ends");
    assert!(network.now() >= Time(3_600_000_000_000), "an hour has passed, at no cost");
}

#[test]
fn nobody_at_an_address_is_unreachable_and_a_deadline_is_kept() {
    let network = Network::new(4, Faults::default());
    let (caller, server, _) = pair(&network);
    struct Never;
    impl Service for Never {
        fn handle(self: Arc<Self>, _: Peer, _: Message) -> Reply {
            Reply::later(std::future::pending())
        }
    }
    server.serve(ServiceId(101), Arc::new(Never));
    caller.set_address(peer(3), address(3));
    let story = async {
        let nobody = caller.call(peer(3), ECHO, Priority::Control, request(1, 0), SOON).await;
        assert!(matches!(nobody, Err(Error::Unreachable { .. })), "{nobody:?}");
        let begun = network.now();
        let late = caller.call(peer(2), ServiceId(101), Priority::Control, request(1, 0), SOON).await;
        assert!(matches!(late, Err(Error::Deadline { .. })), "{late:?}");
        assert_eq!(network.now().since(begun), SOON, "to the nanosecond");
    };
    network.run(story).expect("it ends");
}

#[test]
fn a_broadcast_reaches_hundreds() {
    let network = Network::new(5, Faults::default());
    let ledger = Arc::new(Ledger(Mutex::default()));
    let crowd: Vec<Endpoint> = (1..=200).map(|node| endpoint(&network, node)).collect();
    for one in &crowd {
        one.serve(ECHO, ledger.clone());
        crowd.iter().for_each(|other| one.set_address(other.local(), other.address()));
    }
    let peers: Vec<Peer> = crowd.iter().map(Endpoint::local).collect();
    let asked = crowd[0].broadcast(&peers, ECHO, Priority::Control, request(9, 0), SOON);
    let outcomes = network.run(asked).expect("it ends");
    assert!(outcomes.len() == 200 && outcomes.iter().all(|(_, outcome)| outcome.is_ok()));
    assert_eq!(ledger.0.lock().len(), 200);
    // Three hops down and up, not two hundred.
    assert!(network.now() < Time(1_000_000), "{:?}", network.now());
}
