//! Who does not belong to the cluster is refused, counted, and costs nobody else anything.

use crate::world::{ECHO, SOON, World, ask, eventually, message, peer, service};
use fabric::{Endpoint, Error, Limits, Priority, Refusal, Refusals};
use proptest::prelude::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Calls node 2 from an endpoint of another world.
async fn intrude(world: World, server: &Endpoint) -> Error {
    let intruder = world.endpoint(5).await;
    intruder.set_address(peer(2), server.address());
    intruder.call(peer(2), ECHO, Priority::Control, message(b"let me in"), SOON).await.unwrap_err()
}

fn hasty() -> World {
    World {
        limits: Limits { handshake: Duration::from_millis(100), ..Limits::default() },
        ..World::default()
    }
}

/// Sends bytes and waits until the other end hangs up.
fn throw(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    // The other end may hang up at any byte.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
}

#[tokio::test]
async fn another_key_is_refused_and_both_ends_know_why() {
    let (caller, server) = World::default().pair().await;
    let error = intrude(World { key: 8, ..World::default() }, &server).await;
    assert!(matches!(error, Error::Refused { why: Refusal::WrongKey, .. }), "{error}");
    assert_eq!(server.status().refused, Refusals { wrong_key: 1, ..Refusals::default() });
    ask(&caller, b"the others are served").await.unwrap();
}

#[tokio::test]
async fn another_cluster_is_refused_even_with_the_same_key() {
    let (caller, server) = World::default().pair().await;
    let error = intrude(World { cluster: "red", ..World::default() }, &server).await;
    assert!(matches!(error, Error::Refused { why: Refusal::WrongCluster, .. }), "{error}");
    assert_eq!(server.status().refused, Refusals { wrong_cluster: 1, ..Refusals::default() });
    ask(&caller, b"the others are served").await.unwrap();
}

#[tokio::test]
async fn garbage_and_strangers_are_counted_apart() {
    let (caller, server) = World::default().pair().await;
    let address = server.address();
    tokio::task::spawn_blocking(move || {
        throw(address, b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n");
        throw(address, b"");
        throw(address, b"SSIFAB\r\n and then no more");
    })
    .await
    .unwrap();
    eventually("all are counted", || server.status().refused.total() == 3).await;
    let refused = server.status().refused;
    assert_eq!((refused.stranger, refused.garbage), (2, 1), "{refused:?}");
    ask(&caller, b"the others are served").await.unwrap();
}

#[tokio::test]
async fn who_says_nothing_is_sent_away_in_time() {
    let (caller, server) = hasty().pair().await;
    let silent = TcpStream::connect(server.address()).unwrap();
    eventually("it is refused", || server.status().refused.too_slow == 1).await;
    assert_eq!(server.status().half_open, 0);
    ask(&caller, b"the others are served").await.unwrap();
    drop(silent);
}

#[tokio::test]
async fn a_crowd_that_says_nothing_keeps_nobody_out() {
    let world = World { limits: Limits { half_open: 8, ..Limits::default() }, ..World::default() };
    let (caller, server) = world.pair().await;
    let crowd: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    eventually("the crowd is there", || server.status().refused.crowded >= 92).await;
    assert!(server.status().half_open <= 8);
    ask(&caller, b"the others are served").await.unwrap();
    drop(crowd);
}

#[tokio::test]
async fn a_peer_that_accepts_and_says_nothing_is_unreachable() {
    let caller = hasty().endpoint(1).await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    caller.set_address(peer(2), silent.local_addr().unwrap());
    assert!(matches!(ask(&caller, b"").await, Err(Error::Unreachable { .. })));
}

#[tokio::test]
async fn a_recorded_connection_is_worth_nothing() {
    let (caller, server) = hasty().pair().await;
    server.serve(ECHO, service(|_, request| async move { request }));
    // Somebody between the two records what the caller says.
    let relay = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    caller.set_address(peer(2), relay.local_addr().unwrap());
    let recording = async {
        let (mut ours, _) = relay.accept().await.unwrap();
        let mut theirs = tokio::net::TcpStream::connect(server.address()).await.unwrap();
        let mut record = Vec::new();
        let mut answers = vec![0; 4_096];
        let mut said = vec![0; 4_096];
        loop {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            tokio::select! {
                n = ours.read(&mut said) => match n.unwrap_or(0) {
                    0 => return record,
                    n => {
                        record.extend_from_slice(&said[..n]);
                        theirs.write_all(&said[..n]).await.unwrap();
                    }
                },
                n = theirs.read(&mut answers) => {
                    let n = n.unwrap();
                    ours.write_all(&answers[..n]).await.unwrap();
                }
            }
        }
    };
    let calling = async {
        ask(&caller, b"pay 100").await.unwrap();
        caller.close().await;
    };
    let (record, ()) = tokio::join!(recording, calling);
    eventually("the caller is gone", || server.status().accepted == 0).await;
    let address = server.address();
    tokio::task::spawn_blocking(move || throw(address, &record)).await.unwrap();
    eventually("it is refused", || server.status().refused.total() == 1).await;
    assert_eq!(server.status().refused.garbage, 1, "its first record does not open");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn no_stream_of_bytes_hurts_an_endpoint(
        honest_start in 0usize..3, bytes in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (caller, server) = hasty().pair().await;
            let mut stream = match honest_start {
                0 => Vec::new(),
                1 => b"SSIFAB\r\n\x01\0\x01\0\0\0\0\0".to_vec(),
                _ => b"SSIFAB\r\n".to_vec(),
            };
            stream.extend_from_slice(&bytes);
            let address = server.address();
            tokio::task::spawn_blocking(move || throw(address, &stream)).await.unwrap();
            eventually("it is refused", || server.status().refused.total() == 1).await;
            ask(&caller, b"the others are served").await.unwrap();
            caller.close().await;
            server.close().await;
        });
    }
}
