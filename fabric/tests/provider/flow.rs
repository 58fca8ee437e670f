//! Order, credits and limits, as every provider must keep them.

use crate::world::{ECHO, SOON, World, ask, eventually, message, on_every_provider, pattern, peer, service};
use bytes::Bytes;
use fabric::{Error, Limits, Message, Priority, ServiceId};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::Semaphore;

on_every_provider!(
    requests_of_a_priority_are_started_in_the_order_in_which_they_were_sent,
    calls_in_flight_are_bounded_and_the_rest_waits_its_turn,
    a_slow_receiver_stops_its_senders_and_nothing_else,
    replies_that_nobody_reads_in_time_do_not_stop_the_server,
    one_way_messages_that_nobody_takes_are_refused_at_last,
);

async fn requests_of_a_priority_are_started_in_the_order_in_which_they_were_sent(world: World) {
    let (caller, server) = world.pair().await;
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
                for _ in 0..number % 3 {
                    tokio::task::yield_now().await;
                }
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

async fn calls_in_flight_are_bounded_and_the_rest_waits_its_turn(world: World) {
    let world = World { limits: Limits { slots: [4; 4], ..Limits::default() }, ..world };
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

async fn a_slow_receiver_stops_its_senders_and_nothing_else(world: World) {
    let world = World { limits: Limits { slots: [2; 4], ..Limits::default() }, ..world };
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

async fn replies_that_nobody_reads_in_time_do_not_stop_the_server(world: World) {
    let world = World { limits: Limits { window_kib: [9 << 10; 4], ..Limits::default() }, ..world };
    let (caller, server) = world.pair().await;
    let long = Message { head: Bytes::new(), bulk: pattern(4 << 20, 3) };
    let answer = long.clone();
    server.serve(ServiceId(101), service(move |_, _| std::future::ready(answer.clone())));
    let calls =
        (0..12).map(|_| caller.call(peer(2), ServiceId(101), Priority::Data, Message::default(), SOON));
    for outcome in futures_util::future::join_all(calls).await {
        assert!(outcome.unwrap() == long);
    }
}

async fn one_way_messages_that_nobody_takes_are_refused_at_last(world: World) {
    let world = World { limits: Limits { slots: [2; 4], calls_waiting: 50, ..Limits::default() }, ..world };
    let (caller, server) = world.pair().await;
    let (gate, started) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let there = (gate.clone(), started.clone());
    server.serve(
        ServiceId(101),
        service(move |_, request| {
            let (gate, started) = there.clone();
            async move {
                started.fetch_add(1, SeqCst);
                gate.acquire().await.unwrap().forget();
                request
            }
        }),
    );
    // Something that waits holds its channel up: its reply is missing.
    let calls = (0..4).map(|_| caller.call(peer(2), ServiceId(101), Priority::Data, message(b""), SOON));
    let send = async {
        eventually("two are being served", || started.load(SeqCst) == 2).await;
        let send = || caller.send(peer(2), ServiceId(101), Priority::Data, message(b""), SOON);
        let sent = (0..1_000).map_while(|_| send().ok()).count();
        assert!(sent <= 60, "{sent} were taken and wait");
        assert!(matches!(send(), Err(Error::Busy(_))));
        gate.add_permits(sent + 4);
        eventually("all that were taken are served", || started.load(SeqCst) == sent + 4).await;
    };
    let (outcomes, ()) = tokio::join!(futures_util::future::join_all(calls), send);
    assert!(outcomes.iter().all(Result::is_ok));
}
