//! The way to shared memory: TCP first, which tells the way; then calls switch over, and back when it is gone.

use crate::ground::Ground;
use crate::ledger::{Kind, Ledger};
use crate::world::{
    ECHO, SOON, World, ask, carrying, eventually, message, on_grounds, over_shm, peer, run, service,
};
use fabric::{Priority, Provider, RailState};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

on_grounds!([shm, driven_shm] [
    the_first_link_is_tcp_and_tells_the_way,
    what_waits_for_a_slot_goes_when_a_better_way_has_come_up_meanwhile,
    calls_go_on_over_tcp_where_the_way_is_blocked,
    garbage_at_the_local_socket_is_refused,
    links_that_end_under_calls_lose_nothing,
    nothing_is_left_in_the_directory,
]);

async fn the_first_link_is_tcp_and_tells_the_way(world: World) {
    let (caller, server) = (world.endpoint(1).await, world.endpoint(2).await);
    server.serve(ECHO, service(|_, request| async move { request }));
    caller.set_address(peer(2), server.address());
    assert!(caller.status().peers[0].links.iter().all(|link| link.provider == Provider::Tcp));
    over_shm(&caller).await;
    let before = caller.status();
    for priority in crate::world::PRIORITIES {
        caller.call(peer(2), ECHO, priority, message(b"by shared memory"), SOON).await.unwrap();
    }
    let after = caller.status();
    for (link, before) in after.peers[0].links.iter().zip(&before.peers[0].links) {
        let frames = link.traffic.frames_sent - before.traffic.frames_sent;
        match link.provider {
            Provider::Shm => assert!(link.state == RailState::Calls && frames >= 2, "{link:?}"),
            _ => assert!(link.state != RailState::Calls && frames == 0, "{link:?}"),
        }
    }
}

/// The replies that made room came over TCP, and only the links that they came by were filled again: what waited for the new home of
/// the calls waited for ever.
async fn what_waits_for_a_slot_goes_when_a_better_way_has_come_up_meanwhile(world: World) {
    let (caller, server) = (world.endpoint(1).await, world.endpoint(2).await);
    let (open, gate) = tokio::sync::watch::channel(false);
    server.serve(
        ECHO,
        service(move |_, request| {
            let mut gate = gate.clone();
            async move {
                gate.wait_for(|open| *open).await.unwrap();
                request
            }
        }),
    );
    caller.set_address(peer(2), server.address());
    // More than the channel has slots (256), begun before any link is up.
    let calls = (0..600).map(|_| {
        let caller = caller.clone();
        tokio::spawn(async move { caller.call(peer(2), ECHO, Priority::Data, message(b"x"), SOON).await })
    });
    let calls: Vec<_> = calls.collect();
    eventually("shared memory carries", || carrying(&caller, Provider::Shm) > 0).await;
    open.send_replace(true);
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

async fn calls_go_on_over_tcp_where_the_way_is_blocked(world: World) {
    let (caller, server) = (world.endpoint(1).await, world.endpoint(2).await);
    server.serve(ECHO, service(|_, request| async move { request }));
    for entry in std::fs::read_dir(world.path()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    caller.set_address(peer(2), server.address());
    for priority in crate::world::PRIORITIES {
        caller.call(peer(2), ECHO, priority, message(b"by TCP"), SOON).await.unwrap();
    }
    assert_eq!(carrying(&caller, Provider::Tcp), 2);
}

async fn garbage_at_the_local_socket_is_refused(world: World) {
    let (caller, server) = world.pair().await;
    let sockets: Vec<_> =
        std::fs::read_dir(world.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(sockets.len(), 2);
    tokio::task::spawn_blocking(move || {
        for socket in sockets {
            let mut stream = UnixStream::connect(socket).unwrap();
            stream.write_all(&[0x5a; 400]).unwrap();
            // It hangs up, after a refusal or at once.
            let _ = stream.read_to_end(&mut Vec::new());
        }
    })
    .await
    .unwrap();
    eventually("it is counted", || server.status().refused.total() == 1).await;
    ask(&caller, b"the others are served").await.unwrap();
}

async fn links_that_end_under_calls_lose_nothing(world: World) {
    let (caller, server) = (world.endpoint(1).await, world.endpoint(2).await);
    let ledger: Arc<Ledger> = Arc::default();
    server.serve(ECHO, ledger.service());
    // A second address of the same server: to change between them ends all links.
    let relay = crate::relay::Relay::to(server.address(), 5).await;
    for round in 0..10 {
        caller.set_address(peer(2), if round % 2 == 0 { server.address() } else { relay.address });
        let calls = (0..40).map(|at| {
            let priority = crate::world::PRIORITIES[at % 4];
            ledger.call(&caller, peer(2), Kind { priority, bulk: at * 900, reply: at * 2_000 }, SOON)
        });
        let swap = async {
            eventually("shared memory carries", || carrying(&caller, Provider::Shm) > 0).await;
            caller.set_address(peer(2), if round % 2 == 0 { relay.address } else { server.address() });
        };
        let (outcomes, ()) = tokio::join!(futures_util::future::join_all(calls), swap);
        outcomes.into_iter().for_each(|outcome| outcome.unwrap());
    }
    ledger.check();
}

async fn nothing_is_left_in_the_directory(world: World) {
    let (caller, server) = world.pair().await;
    caller.close().await;
    server.close().await;
    assert_eq!(std::fs::read_dir(world.path()).unwrap().count(), 0);
}

#[test]
fn a_world_of_shared_memory_leaves_no_directory() {
    let mut path = std::path::PathBuf::new();
    run(Ground::Shm.name(), |world| {
        path = world.path().to_owned();
        async move { drop(world.pair().await) }
    });
    assert!(!path.exists());
}
