//! Peers that are down, gone, somewhere else or closed: what their callers are told, whatever the provider.

use crate::world::{
    ECHO, SOON, World, ask, eventually, message, next_event, on_every_provider, peer, service, silent,
};
use fabric::{Error, LinkEvent, Priority, Refusal, ServiceId};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

on_every_provider!(
    a_node_that_is_declared_down_fails_its_calls_at_once,
    a_peer_that_was_restarted_is_found_again,
    calls_under_way_fail_when_the_connection_breaks,
    a_kept_link_comes_up_when_the_address_becomes_known,
    somebody_else_at_the_peers_address_is_not_the_peer,
    closing_ends_calls_and_leaves_no_socket,
    a_dropped_endpoint_is_a_closed_one,
);

async fn a_node_that_is_declared_down_fails_its_calls_at_once(world: World) {
    let (caller, server) = world.pair().await;
    let (never, asked) = silent();
    server.serve(ServiceId(101), never);
    let call = caller.call(peer(2), ServiceId(101), Priority::Meta, message(b""), SOON);
    let declare = async {
        eventually("the call is under way", || asked.load(SeqCst) == 1).await;
        caller.set_down(peer(2), true);
        Instant::now()
    };
    let (outcome, declared) = tokio::join!(call, declare);
    assert!(matches!(outcome, Err(Error::NodeDown(down)) if down == peer(2)));
    assert!(declared.elapsed() < Duration::from_secs(1));
    assert!(matches!(ask(&caller, b"").await, Err(Error::NodeDown(_))));
    caller.set_down(peer(2), false);
    ask(&caller, b"back").await.unwrap();
}

async fn a_peer_that_was_restarted_is_found_again(world: World) {
    let (caller, server) = (world.endpoint(1).await, world.endpoint(2).await);
    let mut events = caller.links();
    caller.keep_connected(peer(2));
    caller.set_address(peer(2), server.address());
    assert_eq!(next_event(&mut events).await, LinkEvent::Connected(peer(2)));
    let address = server.address();
    server.close().await;
    assert_eq!(next_event(&mut events).await, LinkEvent::Lost(peer(2)));
    assert!(matches!(ask(&caller, b"").await, Err(Error::Unreachable { .. })));
    let mut config = world.config(2);
    config.listen = address;
    let server = world.bind(config).await;
    server.serve(ECHO, service(|_, request| async move { request }));
    assert_eq!(next_event(&mut events).await, LinkEvent::Connected(peer(2)));
    ask(&caller, b"again").await.unwrap();
}

async fn calls_under_way_fail_when_the_connection_breaks(world: World) {
    let (caller, server) = world.pair().await;
    let (never, asked) = silent();
    server.serve(ServiceId(101), never);
    let call = caller.call(peer(2), ServiceId(101), Priority::Control, message(b""), SOON);
    let cut = async {
        eventually("the call is under way", || asked.load(SeqCst) == 1).await;
        server.close().await;
    };
    let (outcome, ()) = tokio::join!(call, cut);
    assert!(matches!(outcome, Err(Error::Unreachable { .. })), "{outcome:?}");
}

async fn a_kept_link_comes_up_when_the_address_becomes_known(world: World) {
    let (caller, server) = (world.endpoint(1).await, world.endpoint(2).await);
    let mut events = caller.links();
    caller.keep_connected(peer(2));
    assert!(matches!(ask(&caller, b"").await, Err(Error::Unreachable { .. })));
    caller.set_address(peer(2), server.address());
    assert_eq!(next_event(&mut events).await, LinkEvent::Connected(peer(2)));
    caller.set_down(peer(2), true);
    assert_eq!(next_event(&mut events).await, LinkEvent::Lost(peer(2)));
    caller.set_down(peer(2), false);
    assert_eq!(next_event(&mut events).await, LinkEvent::Connected(peer(2)));
    caller.forget(peer(2));
    assert_eq!(next_event(&mut events).await, LinkEvent::Lost(peer(2)));
    assert!(caller.status().peers.is_empty());
    eventually("the other end notices", || server.status().accepted == 0).await;
}

async fn somebody_else_at_the_peers_address_is_not_the_peer(world: World) {
    let (caller, other) = (world.endpoint(1).await, world.endpoint(3).await);
    caller.set_address(peer(2), other.address());
    let outcome = ask(&caller, b"").await;
    assert!(matches!(outcome, Err(Error::Refused { why: Refusal::WrongPeer, .. })), "{outcome:?}");
    // The table is put right.
    let right = world.endpoint(2).await;
    right.serve(ECHO, service(|_, request| async move { request }));
    caller.set_address(peer(2), right.address());
    ask(&caller, b"").await.unwrap();
}

async fn closing_ends_calls_and_leaves_no_socket(world: World) {
    let (caller, server) = world.pair().await;
    let (never, asked) = silent();
    server.serve(ServiceId(101), never);
    let call = caller.call(peer(2), ServiceId(101), Priority::Control, message(b""), SOON);
    let close = async {
        eventually("the call is under way", || asked.load(SeqCst) == 1).await;
        caller.close().await;
    };
    let (outcome, ()) = tokio::join!(call, close);
    assert!(matches!(outcome, Err(Error::Closed)), "{outcome:?}");
    eventually("the other end notices", || server.status().accepted == 0).await;
    let address = server.address();
    server.close().await;
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens any more");
}

async fn a_dropped_endpoint_is_a_closed_one(world: World) {
    if world.ground.is_driven() {
        return println!("skipped: whoever drives an endpoint holds it");
    }
    let (caller, server) = world.pair().await;
    ask(&caller, b"").await.unwrap();
    drop(caller);
    eventually("the other end notices", || server.status().accepted == 0).await;
}
