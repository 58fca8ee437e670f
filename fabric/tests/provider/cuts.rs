//! Exactly once, in order, to the right caller: over a network that cuts, delays, swallows and closes.

use crate::ledger::{Kind, Ledger};
use crate::relay::Relay;
use crate::world::{ECHO, SOON, World, ask, eventually, message, on_grounds, peer, service, silent};
use base::Prng;
use fabric::{Endpoint, Error, Limits, Priority, ServiceId};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

on_grounds!([tcp, tcp_authenticated, tcp_uring, tcp_ipv6, driven] [
    every_request_is_carried_out_once_however_links_are_cut,
    links_that_die_in_their_handshake_lose_nothing,
    a_network_that_stands_still_loses_nothing,
    what_was_sent_to_a_former_life_fails_and_the_rest_succeeds,
    a_connection_that_is_refused_fails_calls_at_once,
]);

/// A caller and a server with a relay between them, and the book of what is asked.
async fn relayed(world: &World, seed: u64) -> (Endpoint, Endpoint, Relay, Arc<Ledger>) {
    let (caller, server) = (world.endpoint(1).await, world.endpoint(2).await);
    let ledger: Arc<Ledger> = Arc::default();
    server.serve(ECHO, ledger.service());
    let relay = Relay::to(server.address(), seed).await;
    caller.set_address(peer(2), relay.address);
    (caller, server, relay, ledger)
}

/// One caller's requests of many kinds, a part of them one-way, a part given up.
async fn work(caller: Endpoint, ledger: Arc<Ledger>, seed: u64, count: usize, bytes_max: u64) {
    let mut prng = Prng::new(seed);
    for _ in 0..count {
        let kind = Kind::any(&mut prng, bytes_max);
        if prng.one_in(5) {
            ledger.send(&caller, peer(2), kind, SOON).unwrap();
        } else if prng.one_in(8) {
            let call = ledger.call(&caller, peer(2), kind, SOON);
            let patience = Duration::from_micros(prng.below(2_000));
            if let Ok(outcome) = tokio::time::timeout(patience, call).await {
                outcome.unwrap();
            }
        } else {
            ledger.call(&caller, peer(2), kind, SOON).await.unwrap();
        }
    }
}

async fn work_of_many(caller: &Endpoint, ledger: &Arc<Ledger>, tasks: u64, count: usize, bytes_max: u64) {
    let tasks =
        (0..tasks).map(|seed| tokio::spawn(work(caller.clone(), ledger.clone(), seed, count, bytes_max)));
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

async fn every_request_is_carried_out_once_however_links_are_cut(world: World) {
    let (caller, server, relay, ledger) = relayed(&world, 11).await;
    relay.spoil(150_000);
    work_of_many(&caller, &ledger, 12, 40, 100_000).await;
    relay.spoil(0);
    eventually("one-way messages arrive", || ledger.is_settled()).await;
    ledger.check();
    assert!(relay.connections() > 8, "{} connections: hardly any was cut", relay.connections());
    eventually("nothing is in flight", || caller.status().peers[0].in_flight == 0).await;
    caller.close().await;
    server.close().await;
}

async fn links_that_die_in_their_handshake_lose_nothing(world: World) {
    let limits = Limits { reconnect_max: Duration::from_millis(20), ..Limits::default() };
    let (caller, _server, relay, ledger) = relayed(&World { limits, ..world.clone() }, 12).await;
    ledger
        .call(&caller, peer(2), Kind { priority: Priority::Control, bulk: 0, reply: 0 }, SOON)
        .await
        .unwrap();
    relay.cut();
    relay.spoil(500);
    work_of_many(&caller, &ledger, 6, 6, 60).await;
    relay.spoil(0);
    eventually("one-way messages arrive", || ledger.is_settled()).await;
    ledger.check();
}

async fn a_network_that_stands_still_loses_nothing(world: World) {
    let (caller, _server, relay, ledger) = relayed(&world, 13).await;
    let kind = Kind { priority: Priority::Meta, bulk: 100, reply: 5_000 };
    ledger.call(&caller, peer(2), kind, SOON).await.unwrap();
    relay.hold(true);
    let calls = (0..50).map(|_| ledger.call(&caller, peer(2), kind, SOON));
    let short = Duration::from_millis(20);
    let weather = async {
        // Others run out of time meanwhile.
        let late = ledger.call(&caller, peer(2), kind, short).await;
        assert!(matches!(late, Err(Error::Deadline { .. } | Error::Busy(_))), "{late:?}");
        relay.hold(false);
        ledger.call(&caller, peer(2), kind, SOON).await.unwrap();
        relay.hold(true);
        relay.cut();
        relay.hold(false);
    };
    let (outcomes, ()) = tokio::join!(futures_util::future::join_all(calls), weather);
    outcomes.into_iter().for_each(|outcome| outcome.unwrap());
    ledger.call(&caller, peer(2), kind, SOON).await.unwrap();
    ledger.check();
}

async fn what_was_sent_to_a_former_life_fails_and_the_rest_succeeds(world: World) {
    let world = World { limits: Limits { slots: [4; 4], ..Limits::default() }, ..world };
    let (caller, server, relay, _) = relayed(&world, 14).await;
    let (never, asked) = silent();
    server.serve(ServiceId(101), never);
    let call = |channel| caller.call(peer(2), ServiceId(101), channel, message(b"x"), SOON);
    let sent = futures_util::future::join_all((0..4).map(|_| call(Priority::Lock)));
    let unsent = async {
        eventually("four requests run", || asked.load(SeqCst) == 4).await;
        let unsent = futures_util::future::join_all((0..6).map(|_| call(Priority::Lock)));
        let other = futures_util::future::join_all((0..3).map(|_| call(Priority::Data)));
        let weather = async {
            tokio::task::yield_now().await;
            relay.close(true);
            server.close().await;
            let next = world.endpoint(2).await;
            next.serve(ServiceId(101), service(|_, request| async move { request }));
            relay.lead_to(next.address());
            relay.close(false);
            next
        };
        tokio::join!(unsent, other, weather)
    };
    let (sent, (unsent, _other, _next)) = tokio::join!(sent, unsent);
    for outcome in sent {
        assert!(matches!(outcome, Err(Error::Unreachable { .. })), "{outcome:?}");
    }
    for outcome in unsent {
        assert_eq!(outcome.unwrap(), message(b"x"));
    }
}

async fn a_connection_that_is_refused_fails_calls_at_once(world: World) {
    let (caller, server, relay, ledger) = relayed(&world, 15).await;
    let (never, asked) = silent();
    server.serve(ServiceId(101), never);
    let calls = (0..40).map(|at| {
        let channel = if at % 2 == 0 { Priority::Control } else { Priority::Data };
        caller.call(peer(2), ServiceId(101), channel, message(b""), SOON)
    });
    let weather = async {
        eventually("all are under way", || asked.load(SeqCst) == 40).await;
        drop(relay);
    };
    let (outcomes, ()) = tokio::join!(futures_util::future::join_all(calls), weather);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(Error::Unreachable { .. }))), "{outcomes:?}");
    caller.set_address(peer(2), server.address());
    server.serve(ECHO, service(|_, request| async move { request }));
    ask(&caller, b"another session").await.unwrap();
    ledger.check();
}
