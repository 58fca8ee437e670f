//! What every provider must do. The tests know endpoints only, no sockets: the next provider runs them as they are.

use crate::world::{ECHO, SOON, World, ask, eventually, message, next_event, peer, service};
use bytes::Bytes;
use fabric::{Error, Limits, LinkEvent, Message, Priority, Refusal, ServiceId, Stage};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

const PRIORITIES: [Priority; 4] = [Priority::Control, Priority::Lock, Priority::Meta, Priority::Data];

/// Bytes that no shift or swap leaves unnoticed.
fn pattern(bytes: usize, seed: usize) -> Bytes {
    (0..bytes).map(|at| ((at * 31 + at / 251 + seed) % 256) as u8).collect::<Vec<u8>>().into()
}

#[tokio::test]
async fn a_call_is_answered_at_every_priority() {
    let (caller, server) = World::default().pair().await;
    for priority in PRIORITIES {
        let reply = caller.call(peer(2), ECHO, priority, message(b"hello"), SOON).await.unwrap();
        assert_eq!(reply, message(b"hello"));
    }
    let status = caller.status();
    assert_eq!((status.peers[0].calls, status.peers[0].in_flight), (4, 0));
    assert!(
        status.peers[0].connected && status.peers[0].bytes_sent > 0 && status.peers[0].bytes_received > 0
    );
    caller.close().await;
    server.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_works_on_several_threads_with_many_callers() {
    let (caller, server) = World::default().pair().await;
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

#[tokio::test]
async fn a_service_learns_who_asks() {
    let (caller, server) = World::default().pair().await;
    server.serve(ECHO, service(|from, _| async move { message(&from.node.0.to_le_bytes()) }));
    assert_eq!(ask(&caller, b"").await.unwrap(), message(&[1, 0, 0, 0]));
}

#[tokio::test]
async fn bulk_of_every_size_arrives_whole_both_ways() {
    let (caller, _server) = World::default().pair().await;
    for bytes in [1, 8_191, 8_193, 65_500, 65_519, 65_520, 1 << 20, 4 << 20] {
        let request = Message { head: pattern(bytes.min(70_000), 1), bulk: pattern(bytes, 2) };
        let reply = caller.call(peer(2), ECHO, Priority::Data, request.clone(), SOON).await.unwrap();
        assert!(reply == request, "{bytes} bytes of bulk changed on the way");
    }
}

#[tokio::test]
async fn a_message_longer_than_any_may_be_is_not_sent() {
    let (caller, server) = World::default().pair().await;
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

#[tokio::test]
async fn a_deadline_ends_a_call_and_nothing_else() {
    let (caller, server) = World::default().pair().await;
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

#[tokio::test]
async fn a_caller_that_goes_away_costs_nothing() {
    let (caller, server) = World::default().pair().await;
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

#[tokio::test]
async fn a_node_that_is_declared_down_fails_its_calls_at_once() {
    let (caller, server) = World::default().pair().await;
    server.serve(ServiceId(101), service(|_, _| std::future::pending()));
    let call = caller.call(peer(2), ServiceId(101), Priority::Meta, message(b""), SOON);
    let declare = async {
        eventually("the call is under way", || caller.status().peers[0].in_flight == 1).await;
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

#[tokio::test]
async fn a_peer_that_was_restarted_is_found_again() {
    let world = World::default();
    let (caller, server) = world.pair().await;
    let mut events = caller.links();
    caller.keep_connected(peer(2));
    assert_eq!(next_event(&mut events).await, LinkEvent::Connected(peer(2)));
    let address = server.address();
    server.close().await;
    assert_eq!(next_event(&mut events).await, LinkEvent::Lost(peer(2)));
    assert!(matches!(ask(&caller, b"").await, Err(Error::Unreachable { .. })));
    let mut config = world.config(2);
    config.listen = address;
    let server = fabric::Endpoint::bind(config).await.unwrap();
    server.serve(ECHO, service(|_, request| async move { request }));
    assert_eq!(next_event(&mut events).await, LinkEvent::Connected(peer(2)));
    ask(&caller, b"again").await.unwrap();
}

#[tokio::test]
async fn calls_under_way_fail_when_the_connection_breaks() {
    let (caller, server) = World::default().pair().await;
    server.serve(ServiceId(101), service(|_, _| std::future::pending()));
    let call = caller.call(peer(2), ServiceId(101), Priority::Control, message(b""), SOON);
    let cut = async {
        eventually("the call is under way", || server.status().accepted == 1).await;
        server.close().await;
    };
    let (outcome, ()) = tokio::join!(call, cut);
    assert!(matches!(outcome, Err(Error::Unreachable { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_kept_link_comes_up_when_the_address_becomes_known() {
    let world = World::default();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_a_priority_are_started_in_the_order_in_which_they_were_sent() {
    let (caller, server) = World::default().pair().await;
    let seen: Arc<Mutex<Vec<u32>>> = Arc::default();
    let seen_there = seen.clone();
    server.serve(
        ECHO,
        service(move |_, request| {
            let seen = seen_there.clone();
            async move {
                let number = u32::from_le_bytes(request.head[..4].try_into().unwrap());
                seen.lock().push(number);
                // Ends in another order than it starts.
                tokio::time::sleep(Duration::from_millis(u64::from(number % 3))).await;
                request
            }
        }),
    );
    let calls = (0u32..300).map(|number| {
        let request = Message {
            head: number.to_le_bytes().to_vec().into(),
            bulk: pattern((number as usize % 5) * 20_000, 0),
        };
        caller.call(peer(2), ECHO, Priority::Data, request, SOON)
    });
    for outcome in futures_util::future::join_all(calls).await {
        outcome.unwrap();
    }
    assert_eq!(*seen.lock(), (0..300).collect::<Vec<u32>>());
}

#[tokio::test]
async fn calls_in_flight_are_bounded_and_the_rest_waits_its_turn() {
    let world = World { limits: Limits { slots: [4; 4], ..Limits::default() }, ..World::default() };
    let (caller, server) = world.pair().await;
    let (gate, running, most) =
        (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let there = (gate.clone(), running.clone(), most.clone());
    server.serve(
        ECHO,
        service(move |_, request| {
            let (gate, running, most) = there.clone();
            async move {
                most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                gate.acquire().await.unwrap().forget();
                running.fetch_sub(1, SeqCst);
                request
            }
        }),
    );
    let calls = futures_util::future::join_all((0..20).map(|_| ask(&caller, b"")));
    let observe = async {
        eventually("four requests run", || running.load(SeqCst) == 4).await;
        let late =
            caller.call(peer(2), ECHO, Priority::Control, message(b""), Duration::from_millis(20)).await;
        assert!(matches!(late, Err(Error::Busy(_))), "{late:?}");
        gate.add_permits(20);
    };
    let (outcomes, ()) = tokio::join!(calls, observe);
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(most.load(SeqCst), 4);
}

#[tokio::test]
async fn a_slow_receiver_stops_its_senders_and_nothing_else() {
    let world = World { limits: Limits { slots: [2; 4], ..Limits::default() }, ..World::default() };
    let (caller, server) = world.pair().await;
    let (gate, started) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let there = (gate.clone(), started.clone());
    server.serve(
        ServiceId(101),
        service(move |_, _| {
            let (gate, started) = there.clone();
            started.fetch_add(1, SeqCst);
            async move {
                gate.acquire().await.unwrap().forget();
                Message::default()
            }
        }),
    );
    let bulk = Message { head: Bytes::new(), bulk: pattern(1 << 20, 0) };
    let calls = (0..48).map(|_| caller.call(peer(2), ServiceId(101), Priority::Data, bulk.clone(), SOON));
    let observe = async {
        eventually("two requests run", || started.load(SeqCst) == 2).await;
        // The bulk lane is stuffed: control calls do not notice.
        for _ in 0..20 {
            ask(&caller, b"urgent").await.unwrap();
        }
        assert_eq!(started.load(SeqCst), 2);
        gate.add_permits(48);
    };
    let (outcomes, ()) = tokio::join!(futures_util::future::join_all(calls), observe);
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

#[tokio::test]
async fn replies_that_nobody_reads_in_time_do_not_stop_the_server() {
    let world = World { limits: Limits { window_kib: [9 << 10; 4], ..Limits::default() }, ..World::default() };
    let (caller, server) = world.pair().await;
    server.serve(
        ServiceId(101),
        service(|_, _| async { Message { head: Bytes::new(), bulk: pattern(4 << 20, 3) } }),
    );
    let calls =
        (0..12).map(|_| caller.call(peer(2), ServiceId(101), Priority::Data, Message::default(), SOON));
    for outcome in futures_util::future::join_all(calls).await {
        assert!(outcome.unwrap().bulk == pattern(4 << 20, 3));
    }
}

#[tokio::test]
async fn a_panic_of_a_service_stays_its_own() {
    let (caller, server) = World::default().pair().await;
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

#[tokio::test]
async fn a_call_to_itself_needs_no_connection() {
    let endpoint = World::default().endpoint(1).await;
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

#[tokio::test]
async fn a_joining_node_calls_an_address() {
    let world = World::default();
    let (joiner, server) = (world.endpoint(0).await, world.endpoint(2).await);
    server.serve(ECHO, service(|from, _| async move { message(&from.node.0.to_le_bytes()) }));
    let reply =
        joiner.call_address(server.address(), ECHO, Priority::Control, message(b""), SOON).await.unwrap();
    assert_eq!(reply, message(&[0; 4]));
    eventually("its connection is gone", || server.status().accepted == 0).await;
}

#[tokio::test]
async fn somebody_else_at_the_peers_address_is_not_the_peer() {
    let world = World::default();
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

#[tokio::test]
async fn closing_ends_calls_and_leaves_no_socket() {
    let (caller, server) = World::default().pair().await;
    server.serve(ServiceId(101), service(|_, _| std::future::pending()));
    let call = caller.call(peer(2), ServiceId(101), Priority::Control, message(b""), SOON);
    let close = async {
        eventually("the call is under way", || server.status().accepted == 1).await;
        caller.close().await;
    };
    let (outcome, ()) = tokio::join!(call, close);
    assert!(matches!(outcome, Err(Error::Closed)), "{outcome:?}");
    eventually("the other end notices", || server.status().accepted == 0).await;
    let address = server.address();
    server.close().await;
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_dropped_endpoint_is_a_closed_one() {
    let (caller, server) = World::default().pair().await;
    ask(&caller, b"").await.unwrap();
    drop(caller);
    eventually("the other end notices", || server.status().accepted == 0).await;
}
