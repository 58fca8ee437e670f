//! Several rails between two nodes: all carry bulk, one that fails loses nothing, and takes part again when it is back.

use crate::ledger::{Kind, Ledger};
use crate::regions::{bytes_of, patterned};
use crate::relay::Relay;
use crate::world::{ECHO, SOON, World, eventually, on_grounds, pattern, peer};
use fabric::session::Lane;
use fabric::{Endpoint, LinkStatus, Priority, RailState, Rights};
use std::sync::Arc;

on_grounds!([tcp, tcp_authenticated, tcp_uring, driven] [
    a_peer_tells_its_rails_and_all_carry_bulk,
    a_rail_that_fails_loses_nothing_and_comes_back,
    calls_of_a_lane_keep_to_one_rail,
]);

/// What the ways to node 2 do in this lane.
fn links(caller: &Endpoint, lane: Lane) -> Vec<LinkStatus> {
    let status = caller.status();
    let links = status.peers.into_iter().filter(|known| known.peer == peer(2)).flat_map(|known| known.links);
    links.filter(|link| link.lane == lane).collect()
}

fn up(caller: &Endpoint, lane: Lane) -> usize {
    let carries = |link: &LinkStatus| matches!(link.state, RailState::Calls | RailState::Bulk);
    links(caller, lane).iter().filter(|link| carries(link)).count()
}

async fn a_peer_tells_its_rails_and_all_carry_bulk(world: World) {
    let mut config = world.config(2);
    config.rails = vec!["127.0.0.2:0".parse().unwrap()];
    let (caller, server) = (world.endpoint(1).await, world.bind(config).await);
    caller.set_address(peer(2), server.address());
    let (here, there) = (patterned(&caller, 16 << 20, 1), server.register(16 << 20).unwrap());
    let key = there.grant(peer(1), Rights::ALL).unwrap();
    caller.write(&key, 0, &[here.part(0, 10).unwrap()], SOON).await.unwrap();
    eventually("both rails are up", || up(&caller, Lane::Bulk) == 2).await;
    caller.write(&key, 0, &[here.span()], SOON).await.unwrap();
    assert!(bytes_of(&there.span()) == pattern(16 << 20, 1));
    caller.read(&key, 0, &[here.span()], SOON).await.unwrap();
    for link in links(&caller, Lane::Bulk) {
        let traffic = link.traffic;
        assert!(traffic.bytes_sent > 1 << 18 && traffic.bytes_received > 1 << 18, "{link:?}");
    }
}

/// A caller that knows two rails to one server, with a relay on each.
async fn two_rails(world: &World) -> (Endpoint, Endpoint, [Relay; 2], Arc<Ledger>) {
    let (caller, server) = (world.endpoint(1).await, world.endpoint(2).await);
    let ledger: Arc<Ledger> = Arc::default();
    server.serve(ECHO, ledger.service());
    let relays = [Relay::to(server.address(), 1).await, Relay::to(server.address(), 2).await];
    caller.set_addresses(peer(2), &[relays[0].address, relays[1].address]);
    (caller, server, relays, ledger)
}

async fn a_rail_that_fails_loses_nothing_and_comes_back(world: World) {
    let (caller, server, relays, ledger) = two_rails(&world).await;
    caller.keep_connected(peer(2));
    let there = server.register(4 << 20).unwrap();
    let key = there.grant(peer(1), Rights::ALL).unwrap();
    let here = patterned(&caller, 4 << 20, 3);
    for round in 0..6 {
        let [failing, staying] = [&relays[round % 2], &relays[(round + 1) % 2]];
        let calls = (0..60).map(|at| {
            let priority = [Priority::Control, Priority::Lock, Priority::Meta, Priority::Data][at % 4];
            let kind = Kind { priority, bulk: at * 500, reply: at * 300 };
            ledger.call(&caller, peer(2), kind, SOON)
        });
        let before = relays.iter().map(Relay::bytes).sum::<u64>();
        let pieces = [here.span()];
        let transfer = caller.write_notify(&key, 0, &pieces, SOON);
        let weather = async {
            eventually("it is under way", || relays.iter().map(Relay::bytes).sum::<u64>() > before + 200_000)
                .await;
            failing.close(true);
        };
        let (outcomes, transfer, ()) = tokio::join!(futures_util::future::join_all(calls), transfer, weather);
        outcomes.into_iter().for_each(|outcome| outcome.unwrap());
        transfer.unwrap();
        assert_eq!(there.arrivals(), round as u64 + 1);
        // Everything goes over the rail that is left.
        let place = staying.address.to_string();
        eventually("calls have switched", || {
            let urgent = links(&caller, Lane::Urgent);
            urgent.iter().all(|link| (link.state == RailState::Calls) == (link.place == place))
        })
        .await;
        failing.close(false);
        eventually("it is back", || up(&caller, Lane::Urgent) == 2).await;
        caller.write(&key, 0, &[here.span()], SOON).await.unwrap();
        eventually("it is back for bulk", || up(&caller, Lane::Bulk) == 2).await;
    }
    assert!(bytes_of(&there.span()) == pattern(4 << 20, 3));
    ledger.check();
}

async fn calls_of_a_lane_keep_to_one_rail(world: World) {
    let (caller, _server, relays, ledger) = two_rails(&world).await;
    let kind = Kind { priority: Priority::Lock, bulk: 10, reply: 10 };
    ledger.call(&caller, peer(2), kind, SOON).await.unwrap();
    eventually("both rails are up", || up(&caller, Lane::Urgent) == 2).await;
    let before: Vec<u64> = relays.iter().map(Relay::bytes).collect();
    for _ in 0..100 {
        ledger.call(&caller, peer(2), kind, SOON).await.unwrap();
    }
    let mut carried: Vec<u64> =
        relays.iter().zip(before).map(|(relay, before)| relay.bytes() - before).collect();
    carried.sort_unstable();
    // The other one may still have been saying hello.
    assert!(carried[0] < 1_000 && carried[1] > 10_000, "{carried:?}");
    ledger.check();
}
