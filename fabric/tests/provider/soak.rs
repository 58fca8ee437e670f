//! Calls, one-way messages and transfers under all kinds of weather, for long: 10 minutes with SSI_TEST_LONG, two seconds without.
//!
//! Two callers ask two servers, over two relayed rails of TCP, and over shared memory whose links end again and again. No call may be lost,
//! doubled or answered to the wrong caller, and memory stays flat.

use crate::ledger::{Kind, Ledger};
use crate::regions::{bytes_of, patterned};
use crate::relay::Relay;
use crate::world::{ECHO, SOON, World, eventually, on_grounds, pattern, peer, resident_bytes};
use base::Prng;
use fabric::{Endpoint, Rights};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

on_grounds!([tcp, tcp_authenticated, tcp_uring, shm, driven][nothing_is_lost_doubled_or_led_astray]);

/// How much more memory a run may hold at its end than after its first tenth: books and buffers of the test itself included.
const GROWTH_BYTES_MAX: usize = 48 << 20;

fn length() -> Duration {
    Duration::from_secs(if std::env::var_os("SSI_TEST_LONG").is_some() { 600 } else { 2 })
}

/// What one run shares.
struct Run {
    end: Instant,
    over: AtomicBool,
    done: AtomicU64,
}

impl Run {
    fn goes_on(&self) -> bool {
        Instant::now() < self.end
    }
}

/// One task's calls and one-way messages. Some are given up.
async fn ask(run: Arc<Run>, caller: Endpoint, ledgers: Arc<Vec<Arc<Ledger>>>, seed: u64) {
    let mut prng = Prng::new(seed);
    while run.goes_on() {
        let which = prng.below(ledgers.len() as u64) as usize;
        let (ledger, server) = (&ledgers[which], peer(2 + which as u32));
        let kind = Kind::any(&mut prng, 60_000);
        if prng.one_in(6) {
            ledger.send(&caller, server, kind, SOON).unwrap();
        } else if prng.one_in(10) {
            let patience = Duration::from_micros(prng.below(3_000));
            let call = ledger.call(&caller, server, kind, SOON);
            if let Ok(outcome) = tokio::time::timeout(patience, call).await {
                outcome.unwrap();
            }
        } else {
            ledger.call(&caller, server, kind, SOON).await.unwrap();
        }
        run.done.fetch_add(1, SeqCst);
        if prng.one_in(16) {
            // One-way messages alone would never let others have their turn.
            tokio::task::yield_now().await;
        }
    }
}

/// One task's transfers into and out of a region of its own.
async fn transfer(run: Arc<Run>, caller: Endpoint, server: Endpoint, seed: u64) {
    let mut prng = Prng::new(seed);
    let there = server.register(200_000).unwrap();
    let key = there.grant(caller.local(), Rights::ALL).unwrap();
    let mut notified = 0;
    while run.goes_on() {
        let (length, seed) = (1 + prng.below(150_000) as usize, prng.next_u64() as usize % 1_000);
        let offset = prng.below(50_000);
        let here = patterned(&caller, length, seed);
        caller.write_notify(&key, offset, &[here.span()], SOON).await.unwrap();
        notified += 1;
        assert_eq!(there.arrivals(), notified);
        here.span().fill(&vec![0; length]);
        caller.read(&key, offset, &[here.span()], SOON).await.unwrap();
        let (read, right) = (bytes_of(&here.span()), pattern(length, seed));
        if read != right {
            let written = bytes_of(&there.part(offset as usize, length).expect("it was written")) == right;
            let wrong: Vec<usize> = (0..length).filter(|at| read[*at] != right[*at]).collect();
            let (first, last, values) =
                (wrong[0], wrong[wrong.len() - 1], &read[wrong[0]..][..8.min(length - wrong[0])]);
            panic!(
                "{} of {length} bytes changed on the way {}, {first} to {last}, to {values:?}: transfer {notified}",
                wrong.len(),
                if written { "here" } else { "there" },
            );
        }
        run.done.fetch_add(1, SeqCst);
    }
}

/// Rails fail and come back, stand still, and are left for others, whenever some work has been done.
async fn weather(run: Arc<Run>, caller: Endpoint, rails: Vec<[Relay; 2]>, seed: u64) {
    let mut prng = Prng::new(seed);
    while run.goes_on() {
        let (before, pause) = (run.done.load(SeqCst), 20 + prng.below(60));
        eventually("work goes on", || !run.goes_on() || run.done.load(SeqCst) > before + pause).await;
        let which = prng.below(rails.len() as u64) as usize;
        let relays = &rails[which];
        let relay = &relays[prng.below(2) as usize];
        match prng.below(5) {
            0 => relay.cut(),
            1 => {
                relay.hold(true);
                tokio::time::sleep(Duration::from_millis(prng.below(20))).await;
                relay.hold(false);
            }
            2 => {
                relay.close(true);
                tokio::time::sleep(Duration::from_millis(prng.below(40))).await;
                relay.close(false);
            }
            3 => relay.spoil(if prng.one_in(2) { 0 } else { 400_000 + prng.below(2_000_000) }),
            // All links end, those over shared memory too.
            _ => {
                let addresses = [relays[0].address, relays[1].address];
                caller.set_addresses(peer(2 + which as u32), &addresses[..1]);
                caller.set_addresses(peer(2 + which as u32), &addresses);
                caller.set_addresses(peer(2 + which as u32), &addresses[1..]);
                caller.set_addresses(peer(2 + which as u32), &addresses);
            }
        }
    }
    for relay in rails.iter().flatten() {
        relay.spoil(0);
    }
    // The relays must outlive what still passes.
    eventually("the work ends", || run.over.load(SeqCst)).await;
}

async fn nothing_is_lost_doubled_or_led_astray(world: World) {
    let run = Arc::new(Run {
        end: Instant::now() + length(),
        over: AtomicBool::new(false),
        done: AtomicU64::new(0),
    });
    let servers = [world.endpoint(2).await, world.endpoint(3).await];
    let (mut tasks, mut skies, mut books, mut kept) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (at, node) in [(0u64, 11), (1, 12)] {
        let caller = world.endpoint(node).await;
        let ledgers: Arc<Vec<Arc<Ledger>>> = Arc::new(vec![Arc::default(), Arc::default()]);
        let mut rails = Vec::new();
        for (which, server) in servers.iter().enumerate() {
            let seed = at * 10 + which as u64;
            let relays =
                [Relay::to(server.address(), seed).await, Relay::to(server.address(), seed + 5).await];
            caller.set_addresses(server.local(), &[relays[0].address, relays[1].address]);
            rails.push(relays);
        }
        books.push((caller, ledgers, rails));
    }
    for (which, server) in servers.iter().enumerate() {
        // One book for each caller.
        let services: Vec<_> =
            books.iter().map(|(caller, ledgers, _)| (caller.local(), ledgers[which].service())).collect();
        server.serve(ECHO, crate::ledger::by_caller(services));
    }
    for (at, (caller, ledgers, rails)) in (0..).zip(books) {
        for seed in 0..6 {
            tasks.push(tokio::spawn(ask(run.clone(), caller.clone(), ledgers.clone(), seed + at * 100)));
        }
        for (seed, server) in (50..).zip(&servers) {
            tasks.push(tokio::spawn(transfer(run.clone(), caller.clone(), server.clone(), seed + at * 100)));
        }
        skies.push(tokio::spawn(weather(run.clone(), caller.clone(), rails, at)));
        kept.push(ledgers);
    }
    // By then all buffers have grown as far as they do.
    let _ = tokio::time::timeout(length() / 10, std::future::pending::<()>()).await;
    let before = resident_bytes();
    for task in tasks {
        task.await.unwrap();
    }
    for ledgers in &kept {
        for ledger in ledgers.iter() {
            eventually("one-way messages arrive", || ledger.is_settled()).await;
            ledger.check();
        }
    }
    run.over.store(true, SeqCst);
    for sky in skies {
        sky.await.unwrap();
    }
    let grown = resident_bytes().saturating_sub(before);
    println!("{} pieces of work, {grown} bytes more", run.done.load(SeqCst));
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes more");
}
