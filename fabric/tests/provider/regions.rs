//! Registered memory: who may reach it, what arrives, and what never does.

use crate::relay::Relay;
use crate::world::{SOON, World, eventually, on_every_provider, pattern, peer};
use base::Prng;
use fabric::{Endpoint, Error, Region, RemoteKey, Rights, Span};

on_every_provider!(
    what_is_written_is_there_and_what_is_read_is_here,
    pieces_are_gathered_and_scattered,
    a_notifying_write_counts_one_arrival,
    a_key_is_good_for_its_peer_its_rights_and_its_region_only,
    a_revoked_or_dropped_region_is_reached_by_nobody,
    a_region_that_is_revoked_under_a_transfer_changes_no_more,
    an_endpoint_reaches_its_own_regions,
);

mod long {
    use super::a_long_transfer_arrives_whole;
    crate::world::on_grounds!([tcp, shm, driven_shm][a_long_transfer_arrives_whole]);
}

mod cut {
    use super::transfers_survive_cuts_and_arrive_once;
    crate::world::on_grounds!(
        [tcp, tcp_authenticated, tcp_uring, driven][transfers_survive_cuts_and_arrive_once]
    );
}

pub fn bytes_of(span: &Span) -> Vec<u8> {
    let mut bytes = vec![0; span.length()];
    span.copy_to(&mut bytes);
    bytes
}

/// A region of that length which holds the pattern of this seed.
pub fn patterned(endpoint: &Endpoint, length: usize, seed: usize) -> Region {
    let region = endpoint.register(length).expect("memory for a test");
    region.span().fill(&pattern(length, seed));
    region
}

async fn what_is_written_is_there_and_what_is_read_is_here(world: World) {
    let (caller, server) = world.pair().await;
    let there = server.register(3 << 20).unwrap();
    let key = there.grant(peer(1), Rights::ALL).unwrap();
    let key = RemoteKey::decode(&key.encode()).unwrap();
    for (seed, length) in [1, 100, 4_095, 4_096, 70_000, 1 << 20, (2 << 20) + 77].into_iter().enumerate() {
        let offset = seed * 1_000 + 3;
        let here = patterned(&caller, length, seed);
        caller.write(&key, offset as u64, &[here.span()], SOON).await.unwrap();
        let written = there.part(offset, length).unwrap();
        assert!(bytes_of(&written) == pattern(length, seed), "{length} bytes changed on the way there");
        written.fill(&pattern(length, seed + 100));
        caller.read(&key, offset as u64, &[here.span()], SOON).await.unwrap();
        assert!(
            bytes_of(&here.span()) == pattern(length, seed + 100),
            "{length} bytes changed on the way here"
        );
    }
    // Nothing is moved, and that is allowed.
    caller.write(&key, 7, &[], SOON).await.unwrap();
    caller.read(&key, 7, &[], SOON).await.unwrap();
}

async fn pieces_are_gathered_and_scattered(world: World) {
    let (caller, server) = world.pair().await;
    let there = server.register(400_000).unwrap();
    let key = there.grant(peer(1), Rights::ALL).unwrap();
    let (one, two) = (patterned(&caller, 300_000, 1), patterned(&caller, 300_000, 2));
    let cut = |region: &Region, at: usize, length: usize| region.part(at, length).unwrap();
    let pieces = [cut(&one, 7, 1), cut(&two, 100, 200_000), cut(&one, 50_000, 4_096), cut(&two, 0, 99)];
    caller.write(&key, 11, &pieces, SOON).await.unwrap();
    let whole: Vec<u8> = pieces.iter().flat_map(bytes_of).collect();
    assert!(bytes_of(&there.part(11, whole.len()).unwrap()) == whole);
    let back = caller.register(300_000).unwrap();
    let scattered = [cut(&back, 250_000, 9), cut(&back, 0, 204_000), cut(&back, 240_000, 187)];
    let length: usize = scattered.iter().map(Span::length).sum();
    caller.read(&key, 11, &scattered, SOON).await.unwrap();
    let read: Vec<u8> = scattered.iter().flat_map(bytes_of).collect();
    assert!(read == whole[..length]);
}

async fn a_notifying_write_counts_one_arrival(world: World) {
    let (caller, server) = world.pair().await;
    let there = server.register(1 << 20).unwrap();
    let key = there.grant(peer(1), Rights::ALL).unwrap();
    let here = patterned(&caller, 300_000, 5);
    assert_eq!(there.arrivals(), 0);
    let writes = (0..10u64).map(|n| {
        let pieces = [here.part(0, 1 + n as usize * 30_000).unwrap()];
        let (caller, key) = (caller.clone(), key);
        async move { caller.write_notify(&key, n, &pieces, SOON).await }
    });
    let (outcomes, ()) = tokio::join!(futures_util::future::join_all(writes), there.arrived(10));
    outcomes.into_iter().for_each(|outcome| outcome.unwrap());
    caller.write(&key, 0, &[here.span()], SOON).await.unwrap();
    assert_eq!(there.arrivals(), 10);
}

async fn a_key_is_good_for_its_peer_its_rights_and_its_region_only(world: World) {
    let (caller, server) = world.pair().await;
    let there = patterned(&server, 10_000, 9);
    let here = caller.register(20_000).unwrap();
    let key = there.grant(peer(1), Rights::ALL).unwrap();
    let read_only = there.grant(peer(1), Rights { read: true, write: false }).unwrap();
    let small = [here.part(0, 100).unwrap()];
    caller.read(&read_only, 0, &small, SOON).await.unwrap();
    let outcome = caller.write(&read_only, 0, &small, SOON).await;
    assert!(matches!(outcome, Err(Error::Denied { .. })), "{outcome:?}");
    let forged = RemoteKey { token: key.token ^ 1, ..key };
    let outcome = caller.read(&forged, 0, &small, SOON).await;
    assert!(matches!(outcome, Err(Error::Denied { .. })), "{outcome:?}");
    for (offset, length) in [(9_901, 100), (0, 10_001), (10_001, 1), (u64::MAX, 1), (u64::MAX - 50, 100)] {
        let pieces = [here.part(0, length).unwrap()];
        for outcome in
            [caller.write(&key, offset, &pieces, SOON).await, caller.read(&key, offset, &pieces, SOON).await]
        {
            assert!(matches!(outcome, Err(Error::OutOfBounds { .. })), "{offset}, {length}: {outcome:?}");
        }
    }
    // Another peer has got hold of the key.
    let thief = world.endpoint(3).await;
    thief.set_address(peer(2), server.address());
    let loot = thief.register(100).unwrap();
    for outcome in
        [thief.read(&key, 0, &[loot.span()], SOON).await, thief.write(&key, 0, &[loot.span()], SOON).await]
    {
        assert!(matches!(outcome, Err(Error::Denied { .. })), "{outcome:?}");
    }
    assert!(bytes_of(&loot.span()) == [0; 100] && bytes_of(&there.span()) == pattern(10_000, 9));
}

async fn a_revoked_or_dropped_region_is_reached_by_nobody(world: World) {
    let (caller, server) = world.pair().await;
    let there = patterned(&server, 10_000, 9);
    let here = caller.register(10_000).unwrap();
    let old = there.grant(peer(1), Rights::ALL).unwrap();
    caller.read(&old, 0, &[here.span()], SOON).await.unwrap();
    there.revoke();
    for outcome in
        [caller.write(&old, 0, &[here.span()], SOON).await, caller.read(&old, 0, &[here.span()], SOON).await]
    {
        assert!(matches!(outcome, Err(Error::Revoked { .. })), "{outcome:?}");
    }
    let new = there.grant(peer(1), Rights::ALL).unwrap();
    caller.write(&new, 0, &[here.part(0, 5).unwrap()], SOON).await.unwrap();
    let kept = there.span();
    drop(there);
    // Its memory serves another region by now, for which the key is not good.
    let next = patterned(&server, 10_000, 4);
    for key in [old, new] {
        let outcome = caller.write(&key, 0, &[here.span()], SOON).await;
        assert!(matches!(outcome, Err(Error::Revoked { .. } | Error::Denied { .. })), "{outcome:?}");
    }
    assert!(bytes_of(&next.span()) == pattern(10_000, 4));
    drop(kept);
}

async fn a_region_that_is_revoked_under_a_transfer_changes_no_more(world: World) {
    let (caller, server) = world.pair().await;
    let length = 8 << 20;
    let here = patterned(&caller, length, 1);
    for round in 0..6u64 {
        let there = server.register(length).unwrap();
        there.span().fill(&vec![0; length]);
        let key = there.grant(peer(1), Rights::ALL).unwrap();
        let pieces = [here.span()];
        let write = caller.write_notify(&key, 0, &pieces, SOON);
        let revoke = async {
            // As soon as a part of it is there.
            let first = there.part(round as usize * 300_000 + 1, 1).unwrap();
            eventually("the transfer begins", || bytes_of(&first) != [0]).await;
            there.revoke();
            bytes_of(&there.span())
        };
        let (outcome, frozen) = tokio::join!(write, revoke);
        assert!(matches!(outcome, Ok(()) | Err(Error::Revoked { .. })), "{outcome:?}");
        assert_eq!(there.arrivals(), u64::from(outcome.is_ok()));
        assert!(bytes_of(&there.span()) == frozen, "bytes came in after the revocation");
    }
}

async fn an_endpoint_reaches_its_own_regions(world: World) {
    let endpoint = world.endpoint(1).await;
    let (here, there) = (patterned(&endpoint, 5_000, 3), endpoint.register(9_000).unwrap());
    let key = there.grant(peer(1), Rights::ALL).unwrap();
    endpoint.write_notify(&key, 100, &[here.span()], SOON).await.unwrap();
    there.arrived(1).await;
    assert!(bytes_of(&there.part(100, 5_000).unwrap()) == pattern(5_000, 3));
    let outcome = endpoint.read(&key, 5_000, &[here.span()], SOON).await;
    assert!(matches!(outcome, Err(Error::OutOfBounds { .. })), "{outcome:?}");
    there.revoke();
    let outcome = endpoint.write(&key, 0, &[here.span()], SOON).await;
    assert!(matches!(outcome, Err(Error::Revoked { .. })), "{outcome:?}");
}

async fn a_long_transfer_arrives_whole(world: World) {
    let (caller, server) = world.pair().await;
    let length = 64 << 20;
    let (here, there) = (caller.register(length).unwrap(), server.register(length).unwrap());
    let mut prng = Prng::new(64);
    let block: Vec<u8> = (0..1 << 20).map(|_| prng.next_u64() as u8).collect();
    for (at, first) in (0..length).step_by(block.len()).zip(0u8..) {
        here.part(at, block.len()).unwrap().fill(&block);
        here.part(at, 1).unwrap().fill(&[first]);
    }
    let key = there.grant(peer(1), Rights::ALL).unwrap();
    caller.write(&key, 0, &[here.span()], SOON).await.unwrap();
    let written = bytes_of(&there.span());
    assert!(written == bytes_of(&here.span()));
    here.span().fill(&vec![0; length]);
    caller.read(&key, 0, &[here.span()], SOON).await.unwrap();
    assert!(bytes_of(&here.span()) == written);
}

async fn transfers_survive_cuts_and_arrive_once(world: World) {
    let (caller, server) = (world.endpoint(1).await, world.endpoint(2).await);
    let relay = Relay::to(server.address(), 21).await;
    caller.set_address(peer(2), relay.address);
    let (lengths, slot) = ([1_000, 30_000, 70_000, 150_000], 150_000);
    let there = server.register(slot * 6).unwrap();
    let key = there.grant(peer(1), Rights::ALL).unwrap();
    relay.spoil(500_000);
    for round in 0..12 {
        let transfers = (0..6).map(|at| {
            let (caller, length, seed) = (&caller, lengths[(at + round) % 4], at * 7 + round);
            async move {
                let (here, offset) = (patterned(caller, length, seed), (at * slot) as u64);
                caller.write_notify(&key, offset, &[here.span()], SOON).await.unwrap();
                here.span().fill(&vec![0; length]);
                caller.read(&key, offset, &[here.span()], SOON).await.unwrap();
                assert!(bytes_of(&here.span()) == pattern(length, seed), "{length} bytes changed on the way");
            }
        });
        futures_util::future::join_all(transfers).await;
        assert_eq!(there.arrivals(), (round as u64 + 1) * 6);
    }
    assert!(relay.connections() > 8, "{} connections: hardly any was cut", relay.connections());
}
