//! Endpoints whose links devices carry.

use crate::ends::{
    Ends, PRIORITIES, SILENT, SOON, Silent, ask, carriers, endpoint, eventually, frames, links, message,
    over_devices, peer, run,
};
use crate::world::pattern;
use fabric::session::Lane;
use fabric::{
    Endpoint, Error, LinkEvent, LinkStatus, Priority, Provider, RailState, Region, RemoteKey, Rights, Span,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[test]
fn calls_of_every_priority_go_over_devices() {
    run(1, async |Ends { near, .. }: Ends| {
        over_devices(&near).await;
        let before = frames(&near, Provider::Tcp);
        for round in 0..20_u8 {
            for priority in PRIORITIES {
                let asked = message(&[round; 24], vec![round; 40]);
                let begun = Instant::now();
                assert_eq!(ask(&near, priority, asked.clone()).await.unwrap(), asked);
                if round == 19 {
                    println!("64 B at {priority:?}: {:?}", begun.elapsed());
                }
            }
        }
        assert_eq!(frames(&near, Provider::Tcp), before, "nothing went over TCP");
    });
}

#[test]
fn messages_of_every_size_come_whole() {
    run(1, async |Ends { near, .. }: Ends| {
        over_devices(&near).await;
        for length in [0, 1, 63, 200, 2047, 8111, 8160, 8161, 16_300, 100_003, 262_144, 262_145, 4 << 20] {
            for priority in [fabric::Priority::Lock, fabric::Priority::Data] {
                let asked = message(&pattern(length as u64, length.min(5000)), pattern(7, length));
                let answer = ask(&near, priority, asked.clone()).await.unwrap();
                assert!(answer == asked, "{length} bytes at {priority:?}");
            }
        }
    });
}

/// A region of the far end, and what the near end may do there.
fn region(far: &Endpoint, length: usize, rights: Rights) -> (Region, RemoteKey) {
    let region = far.register(length).unwrap();
    let key = region.grant(peer(1), rights).unwrap();
    (region, key)
}

fn bytes(span: &Span) -> Vec<u8> {
    let mut bytes = vec![0; span.length()];
    span.copy_to(&mut bytes);
    bytes
}

#[test]
fn writes_and_reads_of_regions_are_the_devices_own() {
    run(1, async |Ends { near, far, .. }: Ends| {
        over_devices(&near).await;
        let whole = (3 << 20) + 5;
        let (there, key) = region(&far, whole, Rights::ALL);
        assert!(key.devices[0].is_some(), "a device knows the region");
        let here = near.register(2 * whole).unwrap();
        here.part(0, whole).unwrap().fill(&pattern(1, whole));
        let tcp = frames(&near, Provider::Tcp);
        for length in [1, 8, 4096, 8192, 1 << 20, whole] {
            let before = frames(&near, Provider::Verbs);
            let parts =
                [here.part(0, length / 3).unwrap(), here.part(length / 3, length - length / 3).unwrap()];
            let begun = Instant::now();
            near.write(&key, 0, &parts, SOON).await.unwrap();
            let written = begun.elapsed();
            assert!(bytes(&there.part(0, length).unwrap()) == pattern(1, length));
            let back = here.part(whole, length).unwrap();
            back.fill(&vec![0; length]);
            let begun = Instant::now();
            near.read(&key, 0, std::slice::from_ref(&back), SOON).await.unwrap();
            println!("{length} bytes: written in {written:?}, read in {:?}", begun.elapsed());
            assert!(bytes(&back) == pattern(1, length));
            // Two parts of at most 1 MiB each to write, one to read: each an operation that was posted and is done.
            let operations =
                [length / 3, length - length / 3, length].map(|part| part.div_ceil(1 << 20) as u64);
            let operations: u64 = operations.iter().sum();
            let after = frames(&near, Provider::Verbs);
            assert_eq!((after.0 - before.0, after.1 - before.1), (operations, operations));
        }
        assert_eq!(frames(&near, Provider::Tcp), tcp, "nothing went over TCP");
    });
}

#[test]
fn a_notifying_write_is_counted_when_its_bytes_are_there() {
    run(1, async |Ends { near, far, .. }: Ends| {
        over_devices(&near).await;
        let (there, key) = region(&far, 100_000, Rights::ALL);
        let here = near.register(100_000).unwrap();
        for count in 1..=10 {
            here.span().fill(&pattern(count, 100_000));
            near.write_notify(&key, 0, &[here.span()], SOON).await.unwrap();
            there.arrived(count).await;
            assert_eq!(there.arrivals(), count);
            assert!(bytes(&there.span()) == pattern(count, 100_000));
        }
    });
}

#[test]
fn a_key_allows_only_what_was_granted_and_nothing_once_it_is_revoked() {
    run(1, async |Ends { near, far, .. }: Ends| {
        over_devices(&near).await;
        let (there, key) = region(&far, 10_000, Rights::ALL);
        let here = near.register(10_000).unwrap();
        here.span().fill(&[7; 10_000]);
        near.write(&key, 0, &[here.span()], SOON).await.unwrap();
        there.revoke();
        here.span().fill(&[9; 10_000]);
        for write in [true, false] {
            let late = match write {
                true => near.write(&key, 0, &[here.span()], SOON).await,
                false => near.read(&key, 0, &[here.span()], SOON).await,
            };
            assert!(matches!(late, Err(Error::Revoked { .. })), "{late:?}");
            assert_eq!(bytes(&there.span()), [7; 10_000]);
        }
        // The refused operation took its link along: another one is made, and serves a new key.
        over_devices(&near).await;
        let key = there.grant(peer(1), Rights { read: true, write: false }).unwrap();
        near.read(&key, 0, &[here.span()], SOON).await.unwrap();
        assert_eq!(bytes(&here.span()), [7; 10_000]);
        let denied = near.write(&key, 0, &[here.span()], SOON).await;
        assert!(matches!(denied, Err(Error::Denied { .. })), "{denied:?}");
        // A key that lies about its rights: the device holds to what was granted.
        let forged = RemoteKey { rights: Rights::ALL, ..key };
        here.span().fill(&[1; 10_000]);
        let denied = near.write(&forged, 0, &[here.span()], SOON).await;
        assert!(matches!(denied, Err(Error::Denied { .. })), "{denied:?}");
        assert_eq!(bytes(&there.span()), [7; 10_000]);
    });
}

#[test]
fn a_region_that_is_dropped_and_made_again_does_not_know_its_old_keys() {
    run(1, async |Ends { near, far, .. }: Ends| {
        over_devices(&near).await;
        let here = near.register(5000).unwrap();
        for _ in 0..3 {
            let (there, key) = region(&far, 5000, Rights::ALL);
            near.write(&key, 0, &[here.span()], SOON).await.unwrap();
            drop(there);
            let (again, _) = region(&far, 5000, Rights::ALL);
            again.span().fill(&[3; 5000]);
            let late = near.write(&key, 0, &[here.span()], SOON).await;
            assert!(matches!(late, Err(Error::Revoked { .. })), "{late:?}");
            assert_eq!(bytes(&again.span()), [3; 5000]);
            over_devices(&near).await;
        }
    });
}

/// Runs a command of the machine that may pull cables: the virtual one.
fn cable(rail: &str, state: &str) -> bool {
    if std::env::var_os("SSI_VERBS_VM").is_none() {
        println!("skipped: no cable may be pulled here");
        return false;
    }
    let port = format!("p1{rail}");
    let done = std::process::Command::new("ip").args(["link", "set", &port, state]).status();
    assert!(done.expect("there is ip").success());
    true
}

/// Plugs it in again, also when the test fails.
struct Cable(&'static str);

impl Drop for Cable {
    fn drop(&mut self) {
        cable(self.0, "up");
    }
}

#[test]
fn a_rail_that_fails_loses_no_call_and_comes_back() {
    run(1, async |Ends { near, far, .. }: Ends| {
        over_devices(&near).await;
        let (there, key) = region(&far, 1 << 20, Rights::ALL);
        let here = near.register(1 << 20).unwrap();
        here.span().fill(&pattern(5, 1 << 20));
        for round in 0..2_u8 {
            if !cable("a", "down") {
                return;
            }
            let _cable = Cable("a");
            let begun = Instant::now();
            for at in 0..20_u8 {
                let asked = message(&[round, at], vec![at; 3000]);
                let priority = PRIORITIES[usize::from(at % 4)];
                assert_eq!(ask(&near, priority, asked.clone()).await.unwrap(), asked);
            }
            near.write(&key, 0, &[here.span()], SOON).await.unwrap();
            assert!(bytes(&there.span()) == pattern(5, 1 << 20));
            println!("without the rail: {:?}", begun.elapsed());
            eventually("TCP carries the calls", async || carriers(&near) == [Provider::Tcp; 2]).await;
            cable("a", "up");
            let begun = Instant::now();
            eventually("devices carry the calls again", async || carriers(&near) == [Provider::Verbs; 2])
                .await;
            println!("it is back after {:?}", begun.elapsed());
            here.span().fill(&vec![round; 1 << 20]);
            near.write(&key, 0, &[here.span()], SOON).await.unwrap();
            assert!(bytes(&there.span()) == vec![round; 1 << 20]);
            here.span().fill(&pattern(5, 1 << 20));
        }
    });
}

#[test]
fn two_rails_share_bulk_and_stand_in_for_each_other() {
    run(2, async |Ends { near, far, .. }: Ends| {
        over_devices(&near).await;
        let ups = async || {
            let up = |link: &&LinkStatus| matches!(link.state, RailState::Bulk | RailState::Calls);
            links(&near).iter().filter(up).filter(|link| link.provider == Provider::Verbs).count()
        };
        eventually("all four links are up", async || ups().await == 4).await;
        let (there, key) = region(&far, 8 << 20, Rights::ALL);
        assert!(key.devices.iter().all(Option::is_some), "both devices know the region");
        let here = near.register(8 << 20).unwrap();
        here.span().fill(&pattern(6, 8 << 20));
        near.write(&key, 0, &[here.span()], SOON).await.unwrap();
        assert!(bytes(&there.span()) == pattern(6, 8 << 20));
        let bulk = |link: &LinkStatus| link.lane == Lane::Bulk && link.provider == Provider::Verbs;
        let sent: Vec<u64> =
            links(&near).iter().filter(|link| bulk(link)).map(|link| link.traffic.bytes_sent).collect();
        println!("bytes on each rail: {sent:?}");
        assert!(sent.iter().all(|bytes| *bytes >= 1 << 20), "both rails carry bulk");
        if !cable("a", "down") {
            return;
        }
        let _cable = Cable("a");
        for at in 0..20_u8 {
            let asked = message(&[at], vec![at; 3000]);
            assert_eq!(ask(&near, PRIORITIES[usize::from(at % 4)], asked.clone()).await.unwrap(), asked);
        }
        eventually("one rail is left", async || ups().await == 2).await;
        assert_eq!(carriers(&near), [Provider::Verbs; 2], "the other rail's devices stand in");
        there.span().fill(&vec![0; 8 << 20]);
        near.write(&key, 0, &[here.span()], SOON).await.unwrap();
        assert!(bytes(&there.span()) == pattern(6, 8 << 20));
        cable("a", "up");
        eventually("both rails are up", async || ups().await == 4).await;
    });
}

#[test]
fn a_peer_that_is_declared_down_fails_calls_at_once() {
    run(1, async |Ends { near, far, .. }: Ends| {
        over_devices(&near).await;
        far.serve(SILENT, Arc::new(Silent));
        let call = near.call(peer(2), SILENT, Priority::Meta, message(b"?", Vec::new()), SOON);
        let down = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            near.set_down(peer(2), true);
            Instant::now()
        };
        let (outcome, since) = tokio::join!(call, down);
        assert!(matches!(outcome, Err(Error::NodeDown(_))), "{outcome:?}");
        assert!(since.elapsed() < Duration::from_secs(5));
        near.set_down(peer(2), false);
        over_devices(&near).await;
    });
}

#[test]
fn a_peer_that_begins_anew_is_found_again() {
    run(1, async |Ends { near, far, rails }: Ends| {
        over_devices(&near).await;
        let mut events = near.links();
        far.close().await;
        let lost = tokio::time::timeout(SOON, events.recv()).await.expect("its end is noticed").unwrap();
        assert_eq!(lost, LinkEvent::Lost(peer(2)));
        let again = endpoint(2, &rails, 1).await;
        near.set_address(peer(2), again.address());
        over_devices(&near).await;
        let (there, key) = region(&again, 5000, Rights::ALL);
        let here = near.register(5000).unwrap();
        here.span().fill(&[4; 5000]);
        near.write(&key, 0, &[here.span()], SOON).await.unwrap();
        assert_eq!(bytes(&there.span()), [4; 5000]);
        again.close().await;
    });
}

#[test]
fn a_key_is_no_good_in_the_hands_of_another_peer() {
    run(1, async |Ends { near, far, rails }: Ends| {
        over_devices(&near).await;
        let (there, key) = region(&far, 10_000, Rights::ALL);
        there.span().fill(&pattern(9, 10_000));
        for round in 0..10 {
            let thief = endpoint(3, &rails, 0).await;
            thief.set_address(peer(2), far.address());
            if round % 2 == 0 {
                over_devices(&thief).await;
            }
            let loot = thief.register(100).unwrap();
            for write in [false, true] {
                let outcome = match write {
                    true => thief.write(&key, 0, &[loot.span()], SOON).await,
                    false => thief.read(&key, 0, &[loot.span()], SOON).await,
                };
                let denied = matches!(outcome, Err(Error::Denied { .. }));
                assert!(denied, "round {round}, write {write}: {outcome:?}, {:#?}", thief.status());
            }
            assert_eq!(bytes(&loot.span()), [0; 100]);
            thief.close().await;
        }
        assert!(bytes(&there.span()) == pattern(9, 10_000));
    });
}
