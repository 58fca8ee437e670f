//! Many calls at once, and for long: nothing grows, and what is urgent is not behind what is bulk.

use crate::regions::patterned;
use crate::world::{
    ECHO, PRIORITIES, SOON, World, ask, eventually, message, on_every_provider, pattern, peer,
    resident_bytes, silent,
};
use fabric::{Error, Limits, Message, Priority, Rights, ServiceId};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

on_every_provider!(
    thousands_of_calls_are_in_flight,
    memory_stays_flat_under_many_calls,
    urgent_calls_pass_bulk_that_saturates,
    all_calls_of_a_node_fail_at_once_when_it_is_declared_down,
    calls_that_are_given_up_leave_their_slots,
    a_message_longer_than_the_window_goes_alone,
);

async fn thousands_of_calls_are_in_flight(world: World) {
    let (caller, _server) = world.pair().await;
    let calls = (0..40usize).map(|task| {
        let caller = caller.clone();
        tokio::spawn(async move {
            let calls = (0..100usize).map(|at| {
                let request =
                    Message { head: pattern(8 + at % 20, task * 100 + at), bulk: pattern(at % 300, at) };
                let call = caller.call(peer(2), ECHO, PRIORITIES[at % 4], request.clone(), SOON);
                async move { assert!(call.await.unwrap() == request, "the reply of another") }
            });
            futures_util::future::join_all(calls).await;
        })
    });
    for task in calls.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(caller.status().peers[0].in_flight, 0);
}

async fn memory_stays_flat_under_many_calls(world: World) {
    let (caller, _server) = world.pair().await;
    let calls = if std::env::var_os("SSI_TEST_LONG").is_some() { 100_000 } else { 10_000 };
    let round = async |count: usize| {
        let tasks = (0..16).map(|_| async {
            for at in 0..count / 16 {
                let request = Message {
                    head: pattern(64, at),
                    bulk: pattern(if at % 64 == 0 { 20_000 } else { 0 }, 1),
                };
                caller.call(peer(2), ECHO, PRIORITIES[at % 4], request, SOON).await.unwrap();
            }
        });
        futures_util::future::join_all(tasks).await;
    };
    round(calls / 4).await;
    let before = resident_bytes();
    round(calls).await;
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more after {calls} calls");
}

async fn urgent_calls_pass_bulk_that_saturates(world: World) {
    let (caller, server) = world.pair().await;
    let there = server.register(4 << 20).unwrap();
    let key = there.grant(peer(1), Rights::ALL).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let streams = (0..4).map(|_| {
        let (caller, over) = (caller.clone(), over.clone());
        tokio::spawn(async move {
            let here = patterned(&caller, 4 << 20, 1);
            while !over.load(SeqCst) {
                caller.write(&key, 0, &[here.span()], SOON).await.unwrap();
            }
        })
    });
    let streams: Vec<_> = streams.collect();
    let mut took = Vec::new();
    for _ in 0..50 {
        let begun = Instant::now();
        ask(&caller, b"urgent").await.unwrap();
        took.push(begun.elapsed());
    }
    over.store(true, SeqCst);
    for stream in streams {
        stream.await.unwrap();
    }
    took.sort_unstable();
    // No figure, only that it is not behind megabytes. (The first ones wait for the streams to make their memory.)
    assert!(took[25] < Duration::from_millis(50), "{took:?}");
}

async fn all_calls_of_a_node_fail_at_once_when_it_is_declared_down(world: World) {
    let (caller, server) = world.pair().await;
    let (never, asked) = silent();
    server.serve(ServiceId(101), never);
    let calls = (0..600).map(|at| {
        caller.call(peer(2), ServiceId(101), PRIORITIES[at % 4], message(b""), Duration::from_secs(3_600))
    });
    let there = server.register(1 << 20).unwrap();
    let declare = async {
        eventually("many are under way", || asked.load(SeqCst) == 600).await;
        caller.set_down(peer(2), true);
        Instant::now()
    };
    let (outcomes, declared) = tokio::join!(futures_util::future::join_all(calls), declare);
    assert!(declared.elapsed() < Duration::from_secs(5));
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(Error::NodeDown(down)) if *down == peer(2))));
    let key = there.grant(peer(1), Rights::ALL).unwrap();
    let here = patterned(&caller, 10, 1);
    let outcome = caller.write(&key, 0, &[here.span()], SOON).await;
    assert!(matches!(outcome, Err(Error::NodeDown(_))), "{outcome:?}");
    let sent = caller.send(peer(2), ECHO, Priority::Lock, message(b""), SOON);
    assert!(matches!(sent, Err(Error::NodeDown(_))), "{sent:?}");
}

async fn calls_that_are_given_up_leave_their_slots(world: World) {
    let world = World { limits: Limits { slots: [1; 4], ..Limits::default() }, ..world };
    let (caller, server) = world.pair().await;
    let (never, asked) = silent();
    server.serve(ServiceId(101), never);
    for round in 1..=5 {
        let call = caller.call(peer(2), ServiceId(101), Priority::Lock, message(b""), SOON);
        tokio::select! {
            outcome = call => panic!("nobody answers: {outcome:?}"),
            () = eventually("it is started", || asked.load(SeqCst) == round) => {}
        }
    }
}

async fn a_message_longer_than_the_window_goes_alone(world: World) {
    let world = World { limits: Limits { window_kib: [64; 4], ..Limits::default() }, ..world };
    let (caller, server) = world.pair().await;
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let there = (running.clone(), most.clone());
    let answer = crate::world::service(move |_, request: Message| {
        let (running, most) = there.clone();
        async move {
            most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
            tokio::task::yield_now().await;
            running.fetch_sub(1, SeqCst);
            request
        }
    });
    server.serve(ServiceId(101), answer);
    let request = Message { head: pattern(9, 1), bulk: pattern(1 << 20, 2) };
    let calls = (0..6).map(|_| caller.call(peer(2), ServiceId(101), Priority::Meta, request.clone(), SOON));
    for outcome in futures_util::future::join_all(calls).await {
        assert!(outcome.unwrap() == request);
    }
    assert_eq!(most.load(SeqCst), 1, "the window is full with one");
}
