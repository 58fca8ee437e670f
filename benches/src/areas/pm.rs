//! Processes: what the view costs a local system call, and what a foreign kill takes.

use super::cluster::{cluster, in_view, on_host};
use super::print;
use crate::Error;
use ssi_benches::{Figure, Target, Unit, alternate};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

const BLOCKS: usize = 9;

/// Measures and prints.
pub fn run() -> Result<(), Error> {
    let cluster = cluster(2, &[])?;
    for (call, limit) in [("getpid", 1.25), ("kill", 1.25), ("open", 1.1), ("fork", 1.05)] {
        let probe = ["call", call];
        let blocks = alternate(BLOCKS, || in_view(&cluster, 1, &probe), || on_host(&probe))?;
        print(&format!("pm.syscall.{call}"), &blocks, "outside", Unit::Micros, Target::AtMost(limit));
    }
    let mut target = cluster.command(2, &["sh", "-c", "echo $$; exec sleep 1000"]);
    let mut target = target.stdout(Stdio::piped()).spawn()?;
    let mut pid = String::new();
    BufReader::new(target.stdout.take().ok_or("no output")?).read_line(&mut pid)?;
    let values: Result<Vec<f64>, Error> =
        (0..BLOCKS).map(|_| in_view(&cluster, 1, &["kill", pid.trim()])).collect();
    target.kill()?;
    target.wait()?;
    if let Some(figure) = Figure::alone("pm.kill.remote.p50", &values?, Unit::Micros) {
        println!("{figure}   {}", figure.spread());
    }
    Ok(())
}
