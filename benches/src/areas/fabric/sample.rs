//! What one block of one side tells: a few named numbers, and how they are taken.
//!
//! Invariant: nothing is allocated or printed between the first and the last lap.

use crate::{Error, allocations};
use rustix::time::{ClockId, clock_gettime};
use ssi_benches::Blocks;
use ssi_benches::blocks::quantile;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// Named numbers, written `name=value name=value`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample(BTreeMap<String, f64>);

impl Sample {
    /// With one more number, or this one in place of what it was.
    pub fn with(mut self, name: &str, value: f64) -> Sample {
        self.0.insert(name.to_owned(), value);
        self
    }

    /// Reads what [`Sample`] writes.
    pub fn parse(line: &str) -> Result<Sample, Error> {
        let number = |word: &str| {
            let (name, value) = word.split_once('=')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        let read: Option<_> = line.split_whitespace().map(number).collect();
        Ok(Sample(read.ok_or_else(|| format!("no sample: {line}"))?))
    }

    /// The number of this name.
    pub fn value(&self, name: &str) -> Result<f64, Error> {
        self.0.get(name).copied().ok_or_else(|| format!("no {name} in {self}").into())
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        f.write_str(&words.join(" "))
    }
}

/// One number of all blocks.
pub fn only(name: &str, blocks: &Blocks<Sample>) -> Result<Blocks, Error> {
    let of = |samples: &[Sample]| samples.iter().map(|sample| sample.value(name)).collect::<Result<_, _>>();
    Ok(Blocks { ours: of(&blocks.ours)?, peer: of(&blocks.peer)? })
}

/// What this process has used up so far: processor time in ns, requests for memory, and memory held now in KiB.
pub fn usage() -> Result<Sample, Error> {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let status = std::fs::read_to_string("/proc/self/status")?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let resident: f64 = resident.trim().trim_end_matches(" kB").parse()?;
    Ok(Sample::default()
        .with("cpu", time.tv_sec as f64 * 1e9 + time.tv_nsec as f64)
        .with("allocations", allocations::made() as f64)
        .with("rss", resident))
}

/// Times things that follow each other without a gap: one look at the clock for each batch of them.
pub struct Laps {
    batch: u32,
    done: u32,
    begun: Instant,
    last: Instant,
    times: Vec<Duration>,
}

impl Laps {
    /// Starts the clock; `count` things will be timed, `batch` of them at a time (their mean counts).
    pub fn start(count: usize, batch: u32) -> Laps {
        let mut times = vec![Duration::ZERO; count / batch as usize + 1];
        times.clear();
        let now = Instant::now();
        Laps { batch, done: 0, begun: now, last: now, times }
    }

    /// One thing is done.
    #[inline]
    pub fn lap(&mut self) {
        self.done += 1;
        if self.done.is_multiple_of(self.batch) {
            let now = Instant::now();
            if self.times.len() < self.times.capacity() {
                self.times.push(now - self.last);
            }
            self.last = now;
        }
    }

    /// What was done since the last lap is not timed.
    pub fn begin(&mut self) {
        self.last = Instant::now();
    }

    /// p50 and p99 of one thing in microseconds, how many there were, and how many a second.
    pub fn sample(self) -> Result<Sample, Error> {
        let seconds = self.begun.elapsed().as_secs_f64();
        let micros = |time: &Duration| time.as_secs_f64() * 1e6 / f64::from(self.batch);
        let mut sorted: Vec<f64> = self.times.iter().map(micros).collect();
        if sorted.is_empty() {
            return Err("nothing was timed".into());
        }
        sorted.sort_by(f64::total_cmp);
        Ok(Sample::default()
            .with("p50", quantile(&sorted, 0.5))
            .with("p99", quantile(&sorted, 0.99))
            .with("count", f64::from(self.done))
            .with("rate", f64::from(self.done) / seconds))
    }
}

/// A stretch of throughput: MiB a second.
pub fn throughput(mib: usize, begun: Instant) -> Sample {
    let rate = mib as f64 / begun.elapsed().as_secs_f64();
    Sample::default().with("mib", rate).with("count", mib as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_reads_back() {
        let sample = Sample::default().with("p50", 1.25).with("rate", 3e5);
        assert_eq!(Sample::parse(&sample.to_string()).unwrap(), sample);
        assert_eq!(sample.value("p50").unwrap(), 1.25);
        assert!(sample.value("p99").is_err() && Sample::parse("p50=fast").is_err());
    }

    #[test]
    fn laps_are_counted_and_timed_in_batches() {
        let mut laps = Laps::start(64, 16);
        (0..64).for_each(|_| laps.lap());
        assert_eq!(laps.times.len(), 4);
        assert_eq!(laps.sample().unwrap().value("count").unwrap(), 64.0);
        assert!(Laps::start(10, 1).sample().is_err());
    }
}
