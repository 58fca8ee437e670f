//! Calls, as every provider must carry them. The tests know endpoints only, no sockets.

use crate::world::{
    ECHO, PRIORITIES, SOON, World, ask, eventually, message, on_every_provider, pattern, peer, service,
};
use bytes::Bytes;
use fabric::{Error, Message, Priority, Refusal, ServiceId, Stage};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

on_every_provider!(
    a_call_is_answered_at_every_priority,
    it_works_on_several_threads_with_many_callers,
    a_service_learns_who_asks,
    bulk_of_every_size_arrives_whole_both_ways,
    a_message_longer_than_any_may_be_is_not_sent,
    a_deadline_ends_a_call_and_nothing_else,
    a_caller_that_goes_away_costs_nothing,
    a_panic_of_a_service_stays_its_own,
    a_call_to_itself_needs_no_connection,
    a_joining_node_calls_an_address,
);

async fn a_call_is_answered_at_every_priority(world: World) {
    let (caller, server) = world.pair().await;
    let before = caller.status().peers[0].calls;
    for priority in PRIORITIES {
        let reply = caller.call(peer(2), ECHO, priority, message(b"hello"), SOON).await.unwrap();
        assert_eq!(reply, message(b"hello"));
    }
    let status = caller.status();
    assert_eq!((status.peers[0].calls, status.peers[0].in_flight), (before + 4, 0));
    assert!(
        status.peers[0].connected && status.peers[0].bytes_sent > 0 && status.peers[0].bytes_received > 0
    );
    caller.close().await;
    server.close().await;
}

async fn it_works_on_several_threads_with_many_callers(world: World) {
    let (caller, server) = world.pair().await;
    let calls = (0..500usize).map(|n| {
        let caller = caller.clone();
        tokio::spawn(async move {
            let request = Message { head: pattern(n % 90, n), bulk: pattern((n % 7) * 9_000, n) };
            let reply = caller.call(peer(2), ECHO, PRIORITIES[n % 4], request.clone(), SOON).await.unwrap();
            assert!(reply == request, "caller {n} got the reply of another");
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    server.close().await;
    caller.close().await;
}

async fn a_service_learns_who_asks(world: World) {
    let (caller, server) = world.pair().await;
    server.serve(ECHO, service(|from, _| async move { message(&from.node.0.to_le_bytes()) }));
    assert_eq!(ask(&caller, b"").await.unwrap(), message(&[1, 0, 0, 0]));
}

async fn bulk_of_every_size_arrives_whole_both_ways(world: World) {
    let (caller, _server) = world.pair().await;
    for bytes in [1, 8_191, 8_193, 65_500, 65_519, 65_520, 1 << 20, 4 << 20] {
        let request = Message { head: pattern(bytes.min(70_000), 1), bulk: pattern(bytes, 2) };
        let reply = caller.call(peer(2), ECHO, Priority::Data, request.clone(), SOON).await.unwrap();
        assert!(reply == request, "{bytes} bytes of bulk changed on the way");
    }
}

async fn a_message_longer_than_any_may_be_is_not_sent(world: World) {
    let (caller, server) = world.pair().await;
    let request = Message { head: Bytes::new(), bulk: vec![0; (4 << 20) + 1].into() };
    let error = caller.call(peer(2), ECHO, Priority::Data, request.clone(), SOON).await.unwrap_err();
    assert!(matches!(error, Error::TooLong { part: "bulk", .. }), "{error}");
    // A service that answers too much is at fault, and the connection survives it.
    server.serve(ServiceId(101), service(move |_, _| std::future::ready(request.clone())));
    let error =
        caller.call(peer(2), ServiceId(101), Priority::Control, message(b""), SOON).await.unwrap_err();
    assert!(matches!(error, Error::Refused { why: Refusal::Crashed, .. }), "{error}");
    ask(&caller, b"still there").await.unwrap();
}

async fn a_deadline_ends_a_call_and_nothing_else(world: World) {
    let (caller, server) = world.pair().await;
    server.serve(ServiceId(101), service(|_, _| std::future::pending()));
    let started = Instant::now();
    let short = Duration::from_millis(50);
    let error =
        caller.call(peer(2), ServiceId(101), Priority::Control, message(b""), short).await.unwrap_err();
    assert!(matches!(error, Error::Deadline { stage: Stage::Reply, .. }), "{error}");
    assert!(started.elapsed() >= short && started.elapsed() < SOON);
    ask(&caller, b"still there").await.unwrap();
    assert_eq!(caller.status().peers[0].in_flight, 0);
}

async fn a_caller_that_goes_away_costs_nothing(world: World) {
    let (caller, server) = world.pair().await;
    let gate = Arc::new(Semaphore::new(0));
    let (started, opened) = (Arc::new(AtomicUsize::new(0)), gate.clone());
    let count = started.clone();
    server.serve(
        ServiceId(101),
        service(move |_, request| {
            count.fetch_add(1, SeqCst);
            let gate = opened.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                request
            }
        }),
    );
    let abandoned = caller.call(peer(2), ServiceId(101), Priority::Control, message(b"a"), SOON);
    tokio::select! {
        _ = abandoned => panic!("nobody opened the gate"),
        () = eventually("the request is started", || started.load(SeqCst) == 1) => {}
    }
    assert_eq!(caller.status().peers[0].in_flight, 0);
    gate.add_permits(2);
    let reply = caller.call(peer(2), ServiceId(101), Priority::Control, message(b"b"), SOON).await;
    assert_eq!(reply.unwrap(), message(b"b"));
}

async fn a_panic_of_a_service_stays_its_own(world: World) {
    let (caller, server) = world.pair().await;
    server.serve(
        ServiceId(101),
        service(|_, _| -> std::future::Ready<Message> { panic!("on purpose, at once") }),
    );
    server.serve(
        ServiceId(102),
        service(|_, _| async {
            tokio::task::yield_now().await;
            panic!("on purpose, later")
        }),
    );
    for crashing in [101, 102] {
        let outcome = caller.call(peer(2), ServiceId(crashing), Priority::Control, message(b""), SOON).await;
        assert!(matches!(outcome, Err(Error::Refused { why: Refusal::Crashed, .. })), "{outcome:?}");
    }
    ask(&caller, b"still there").await.unwrap();
    let outcome = caller.call(peer(2), ServiceId(999), Priority::Control, message(b""), SOON).await;
    assert!(matches!(outcome, Err(Error::Refused { why: Refusal::NoService, .. })), "{outcome:?}");
}

async fn a_call_to_itself_needs_no_connection(world: World) {
    let endpoint = world.endpoint(1).await;
    endpoint.serve(ECHO, service(|_, request| async move { request }));
    endpoint.serve(ServiceId(101), service(|_, _| std::future::pending()));
    let reply = endpoint.call(peer(1), ECHO, Priority::Lock, message(b"me"), SOON).await.unwrap();
    assert_eq!(reply, message(b"me"));
    let short = Duration::from_millis(20);
    let late = endpoint.call(peer(1), ServiceId(101), Priority::Lock, message(b""), short).await;
    assert!(matches!(late, Err(Error::Deadline { .. })));
    assert_eq!(endpoint.status().accepted, 0);
    endpoint.close().await;
    assert!(matches!(
        endpoint.call(peer(1), ECHO, Priority::Lock, message(b""), SOON).await,
        Err(Error::Closed)
    ));
}

async fn a_joining_node_calls_an_address(world: World) {
    let (joiner, server) = (world.endpoint(0).await, world.endpoint(2).await);
    server.serve(ECHO, service(|from, _| async move { message(&from.node.0.to_le_bytes()) }));
    let reply =
        joiner.call_address(server.address(), ECHO, Priority::Control, message(b""), SOON).await.unwrap();
    assert_eq!(reply, message(&[0; 4]));
    eventually("its connection is gone", || server.status().accepted == 0).await;
}
