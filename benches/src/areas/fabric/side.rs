//! One side of a figure: a process of this very binary that serves or drives, as a rule pinned to a core.
//!
//! Owns what a side and its parent say to each other, a line each: a server tells where it is reached (`at ..`), answers `mark`
//! with what it has used so far, and ends when its input does. A driver says `warm`, waits for `go` and tells its sample.
//!
//! Invariant: a side never outlives its parent, whose end closes the pipe.

use super::sample::{Sample, usage};
use super::{ours, peers};
use crate::{Error, allocations};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::io::{BufRead, Write};

/// Asks for what was used so far.
pub const MARK: &str = "mark";
/// Starts the measurement.
pub const GO: &str = "go";
/// As [`GO`] and [`MARK`]; requests for memory are counted from here on.
pub const COUNT: &str = "count";

/// In place of a core: whichever.
pub const ANY_CORE: &str = "any";

/// Becomes a side: `CORE NAME WORDS..`.
pub fn run(words: &[&str]) -> Result<(), Error> {
    let [core, name, rest @ ..] = words else { return Err("side CORE NAME ..".into()) };
    if *core != ANY_CORE {
        pin(core.parse()?)?;
    }
    match (*name, rest) {
        ("tcp.serve", [how]) => peers::tcp::serve(how),
        ("tcp.drive", [how, count, at]) => peers::tcp::drive(how, count.parse()?, at),
        ("stream.serve", []) => peers::stream::serve(),
        ("stream.drive", [mib, at]) => peers::stream::drive(mib.parse()?, at),
        ("grpc.serve", []) => peers::grpc::serve(),
        ("grpc.drive", [count, outstanding, at]) => {
            peers::grpc::drive(count.parse()?, outstanding.parse()?, at)
        }
        ("futex.serve", []) => peers::futex::serve(),
        ("futex.drive", [count, pid, file]) => peers::futex::drive(count.parse()?, pid, file),
        ("lines.drive", [count]) => peers::memory::lines(count.parse()?),
        ("copy.drive", [buffers, mib]) => peers::memory::copies(buffers.parse()?, mib.parse()?),
        (_, rest) if ["dlm.", "etcd.", "mutex."].iter().any(|area| name.starts_with(area)) => {
            crate::areas::dlm::run_side(name, rest)
        }
        (_, rest) if name.starts_with("ours.") => ours::run(name, rest),
        _ => Err(format!("no side {name} {rest:?}").into()),
    }
}

/// Keeps this thread, and those that it starts, on one core.
pub fn pin(core: usize) -> Result<(), Error> {
    let mut cpus = CpuSet::new();
    cpus.set(core);
    sched_setaffinity(None, &cpus).map_err(|error| format!("core {core} is not ours: {error}").into())
}

/// A server tells where it is reached; from now on a thread of its own answers the parent.
pub fn serving(at: &str) -> Result<(), Error> {
    say(&format!("at {at}"))?;
    std::thread::spawn(|| {
        let mut line = String::new();
        while matches!(std::io::stdin().lock().read_line(&mut line), Ok(1..)) {
            if line.trim() == COUNT {
                allocations::count();
            }
            let told = usage().and_then(|usage| say(&usage.to_string()));
            if told.is_err() {
                break;
            }
            line.clear();
        }
        std::process::exit(0);
    });
    Ok(())
}

/// A server whose driver is gone still answers the parent.
pub fn rest() -> Result<(), Error> {
    loop {
        std::thread::park();
    }
}

/// A driver is warm: waits for the parent's word and tells what was used until then.
pub fn warm() -> Result<Sample, Error> {
    say("warm")?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    match line.trim() {
        GO => {}
        COUNT => allocations::count(),
        other => return Err(format!("the parent said `{other}`").into()),
    }
    usage()
}

/// A driver has finished: tells its sample, with what it used since it was warm.
pub fn finished(sample: Sample, before: &Sample) -> Result<(), Error> {
    let after = usage()?;
    let mut all = sample;
    for name in ["cpu", "allocations", "rss"] {
        all = all.with(name, after.value(name)? - before.value(name)?);
    }
    say(&all.to_string())
}

fn say(line: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
