//! Links under stress: a killed process, and a server that comes and goes under many impatient callers.

use crate::world::{ECHO, SOON, World, ask, eventually, message, next_event, peer, service};
use base::Prng;
use fabric::{Endpoint, Error, LinkEvent, Message, Priority};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const CHILD: &str = "FABRIC_TEST_IS_THE_OTHER_PROCESS";

/// Another process, gone when the test is.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Other {
    /// This program once more, as node 2, and where it listens.
    fn start() -> (Other, SocketAddr) {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(program);
        command.args(["--exact", "storm::the_other_process", "--nocapture"]).env(CHILD, "1");
        let mut other = Other(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
        let lines = BufReader::new(other.0.stdout.take().unwrap()).lines();
        let address =
            lines.map_while(Result::ok).find_map(|line| line.split("address=").nth(1)?.parse().ok());
        (other, address.expect("the other process says where it listens"))
    }
}

/// Does nothing, unless it is the other process: then it serves until its standard input closes (its parent is gone).
#[tokio::test]
async fn the_other_process() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let server = World::default().endpoint(2).await;
    server.serve(ECHO, service(|_, request| async move { request }));
    println!("address={}", server.address());
    tokio::task::spawn_blocking(|| std::io::stdin().lines().count()).await.unwrap();
}

#[tokio::test]
async fn the_death_of_a_process_is_known_within_100_ms() {
    let caller = World::default().endpoint(1).await;
    let mut events = caller.links();
    caller.keep_connected(peer(2));
    let (mut other, address) = tokio::task::spawn_blocking(Other::start).await.unwrap();
    caller.set_address(peer(2), address);
    assert_eq!(next_event(&mut events).await, LinkEvent::Connected(peer(2)));
    ask(&caller, b"alive").await.unwrap();
    let killed = Instant::now();
    other.0.kill().unwrap();
    assert_eq!(next_event(&mut events).await, LinkEvent::Lost(peer(2)));
    assert!(killed.elapsed() < Duration::from_millis(100), "{:?}", killed.elapsed());
}

/// One caller: many calls of many kinds, some of them given up. Each reply must be its own.
async fn call_on(caller: Endpoint, seed: u64) {
    let mut prng = Prng::new(seed);
    for n in 0..60u64 {
        let head = [seed.to_le_bytes(), n.to_le_bytes()].concat();
        let bulk = vec![n as u8; prng.below(150_000) as usize];
        let request = Message { head: head.into(), bulk: bulk.into() };
        let priority =
            [Priority::Control, Priority::Lock, Priority::Meta, Priority::Data][prng.below(4) as usize];
        let deadline = Duration::from_millis(if prng.one_in(8) { prng.below(3) } else { 5_000 });
        let call = caller.call(peer(2), ECHO, priority, request.clone(), deadline);
        let patience = if prng.one_in(8) { Duration::from_micros(prng.below(900)) } else { SOON };
        match tokio::time::timeout(patience, call).await {
            Ok(Ok(reply)) => assert!(reply == request, "a caller got the reply of another"),
            Ok(Err(
                Error::Unreachable { .. } | Error::Deadline { .. } | Error::Busy(_) | Error::NodeDown(_),
            )) => {
                tokio::task::yield_now().await;
            }
            Ok(Err(other)) => panic!("{other}"),
            Err(_given_up) => {}
        }
    }
}

async fn echo(world: &World) -> Endpoint {
    let server = world.endpoint(2).await;
    let answer = service(|_, request| async move {
        // Half of the requests are answered by a task of their own.
        if request.head.first().is_some_and(|first| first % 2 == 0) {
            tokio::task::yield_now().await;
        }
        request
    });
    server.serve(ECHO, answer);
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_ends_and_no_reply_goes_astray_while_the_server_comes_and_goes() {
    let world = World::default();
    let caller = world.endpoint(1).await;
    caller.keep_connected(peer(2));
    let callers: Vec<_> = (0..24).map(|seed| tokio::spawn(call_on(caller.clone(), seed))).collect();
    for round in 0..12u32 {
        let server = echo(&world).await;
        caller.set_address(peer(2), server.address());
        // A server lives until it has been asked a few times, or nobody is left who asks.
        let before = caller.status().peers[0].calls;
        let asked =
            || caller.status().peers[0].calls > before + 40 || callers.iter().all(|call| call.is_finished());
        eventually("it is asked", asked).await;
        caller.set_down(peer(2), round % 3 == 0);
        caller.set_down(peer(2), false);
        server.close().await;
    }
    let server = echo(&world).await;
    caller.set_address(peer(2), server.address());
    for caller in callers {
        caller.await.unwrap();
    }
    eventually("nothing is in flight", || caller.status().peers[0].in_flight == 0).await;
    assert_eq!(ask(&caller, b"calm").await.unwrap(), message(b"calm"));
    caller.close().await;
    server.close().await;
}
