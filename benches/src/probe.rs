//! What is timed, on whichever side: each probe prints one number.

use crate::Error;
use rustix::process::{Pid, getpid, test_kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};
use ssi_benches::blocks::quantile;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Runs the probe called `name` and prints its number.
pub fn run(name: &str, rest: &[&str]) -> Result<(), Error> {
    let value = match (name, rest) {
        ("time", [count, command @ ..]) if !command.is_empty() => time(count.parse()?, command)?,
        ("call", [call]) => per_call(call)?,
        ("kill", [pid]) => kill(pid.parse()?)?,
        ("files", [figure, dir]) => files(figure, Path::new(dir))?,
        _ => return Err(format!("no probe {name} {rest:?}").into()),
    };
    println!("{value}");
    Ok(())
}

/// Median wall time of a command, microseconds.
fn time(count: usize, command: &[&str]) -> Result<f64, Error> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        let status = Command::new(command[0]).args(&command[1..]).stdin(Stdio::null()).status()?;
        times.push(micros(start));
        if !status.success() {
            return Err(format!("{command:?}: {status}").into());
        }
    }
    Ok(median(times))
}

/// Mean time of one local system call, pinned to one core, microseconds.
fn per_call(call: &str) -> Result<f64, Error> {
    let mut cpus = CpuSet::new();
    cpus.set(std::thread::available_parallelism()?.get() - 1);
    sched_setaffinity(None, &cpus)?;
    let (rounds, once): (u32, fn()) = match call {
        "getpid" => (2_000_000, || {
            black_box(rustix::thread::gettid());
        }),
        "kill" => (1_000_000, || {
            let _ = black_box(test_kill_process(getpid()));
        }),
        "open" => (200_000, || drop(black_box(File::open("/etc/passwd")))),
        "fork" => (400, || {
            let _ = Command::new("/bin/true").status();
        }),
        _ => return Err(format!("no call {call}").into()),
    };
    let start = Instant::now();
    (0..rounds).for_each(|_| once());
    Ok(micros(start) / f64::from(rounds))
}

/// Median time of kill(pid, 0), microseconds.
fn kill(pid: i32) -> Result<f64, Error> {
    let pid = Pid::from_raw(pid).ok_or("pid 0")?;
    let mut times = Vec::new();
    for _ in 0..2_000 {
        let start = Instant::now();
        test_kill_process(pid)?;
        times.push(micros(start));
    }
    Ok(median(times))
}

const FILES: usize = 300;
const MIB: usize = 64;

/// Files a second, or MiB a second, in a directory of its own below `dir`.
fn files(figure: &str, dir: &Path) -> Result<f64, Error> {
    let dir = dir.join(format!("probe-{}", std::process::id()));
    fs::create_dir(&dir)?;
    let name = |k: usize| dir.join(format!("file{k}"));
    let create = || (0..FILES).try_for_each(|k| File::create(name(k)).map(drop));
    let (amount, start) = match figure {
        "create" => {
            let start = Instant::now();
            create()?;
            (FILES, start)
        }
        "stat" => {
            create()?;
            let start = Instant::now();
            (0..FILES).try_for_each(|k| fs::metadata(name(k)).map(drop))?;
            (FILES, start)
        }
        "unlink" => {
            create()?;
            let start = Instant::now();
            (0..FILES).try_for_each(|k| fs::remove_file(name(k)))?;
            (FILES, start)
        }
        "write1m" => {
            let start = Instant::now();
            write(&name(0))?;
            (MIB, start)
        }
        "read1m" => {
            write(&name(0))?;
            let (mut file, mut block) = (File::open(name(0))?, vec![0; 1 << 20]);
            let start = Instant::now();
            while file.read(&mut block)? > 0 {}
            (MIB, start)
        }
        _ => return Err(format!("no figure {figure}").into()),
    };
    let seconds = start.elapsed().as_secs_f64();
    fs::remove_dir_all(&dir)?;
    Ok(amount as f64 / seconds)
}

fn write(path: &Path) -> Result<(), Error> {
    let block = vec![7; 1 << 20];
    let mut file = File::create(path)?;
    (0..MIB).try_for_each(|_| file.write_all(&block))?;
    Ok(file.sync_all()?)
}

fn micros(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e6
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    quantile(&values, 0.5)
}
