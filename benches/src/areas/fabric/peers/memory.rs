//! Memory alone: two cache lines that two cores toss to and fro, and a plain copy of 1 MiB.

use crate::Error;
use crate::areas::fabric::sample::{Laps, throughput};
use crate::areas::fabric::side::{finished, pin, warm};
use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Round trips that one look at the clock covers: it takes as long as a good part of one.
pub const BATCH: u32 = 16;
/// Round trips before the clock starts.
const WARM_UP: u64 = 100_000;
const MIB: usize = 1 << 20;

/// A word that has its cache line, and the line fetched with it, for itself.
#[repr(align(128))]
struct Line(AtomicU64);

/// A thread on the first core answers this one on the second, both spinning.
pub fn lines(count: u64) -> Result<(), Error> {
    let lines = Arc::new([Line(AtomicU64::new(0)), Line(AtomicU64::new(0))]);
    let last = WARM_UP + count;
    let theirs = lines.clone();
    let answering = std::thread::spawn(move || {
        let pinned = pin(0).map_err(|error| error.to_string());
        for turn in 1..=last {
            await_turn(&theirs[0], turn);
            theirs[1].0.store(turn, Ordering::Release);
        }
        pinned
    });
    let round = |turn: u64| {
        lines[0].0.store(turn, Ordering::Release);
        await_turn(&lines[1], turn);
    };
    (1..=WARM_UP).for_each(round);
    let before = warm()?;
    let mut laps = Laps::start(count as usize, BATCH);
    for turn in WARM_UP + 1..=last {
        round(turn);
        laps.lap();
    }
    finished(laps.sample()?, &before)?;
    Ok(answering.join().map_err(|_| "the answering thread panicked")??)
}

fn await_turn(line: &Line, turn: u64) {
    while line.0.load(Ordering::Acquire) != turn {
        spin_loop();
    }
}

/// Copies 1 MiB from one of `buffers` buffers to one of as many others, in turn, `mib` times.
pub fn copies(buffers: usize, mib: usize) -> Result<(), Error> {
    let make = |byte: u8| -> Vec<Vec<u8>> { (0..buffers).map(|_| vec![byte; MIB]).collect() };
    let (from, mut to) = (make(7), make(0));
    let mut copy = |k: usize| {
        to[k % buffers].copy_from_slice(&from[k % buffers]);
        black_box(&to[k % buffers]);
    };
    (0..buffers * 2).for_each(&mut copy);
    let before = warm()?;
    let begun = Instant::now();
    (0..mib).for_each(copy);
    finished(throughput(mib, begun), &before)
}
