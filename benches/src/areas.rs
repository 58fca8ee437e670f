//! What is measured, one file an area, and how a probe is run on either side.

pub mod fs;
pub mod launch;
pub mod pm;

use crate::Error;
use ssi_benches::{Blocks, Figure, Target, Unit};
use ssi_tests::{Cluster, run};
use std::process::Command;

/// A local cluster to measure on.
pub fn cluster(nodes: u32) -> Result<Cluster, Error> {
    match ssi_tests::cannot_run() {
        Some(why) => Err(why.into()),
        None => Ok(Cluster::start(nodes, &[])),
    }
}

/// Our own path, to be called again as a probe.
pub fn own_path() -> Result<String, Error> {
    Ok(std::env::current_exe()?.display().to_string())
}

/// The number that a command prints.
pub fn number(command: Command) -> Result<f64, Error> {
    let shown = format!("{command:?}");
    let ran = run(command);
    ran.out.trim().parse().map_err(|_| format!("{shown}: exit {}: {}{}", ran.code, ran.out, ran.err).into())
}

/// A probe on the host.
pub fn on_host(words: &[&str]) -> Result<f64, Error> {
    let mut command = Command::new(own_path()?);
    command.arg("probe").args(words);
    number(command)
}

/// A probe in the view of node `k`.
pub fn in_view(cluster: &Cluster, k: u32, words: &[&str]) -> Result<f64, Error> {
    let own = own_path()?;
    let mut all = vec![own.as_str(), "probe"];
    all.extend(words);
    number(cluster.command(k, &all))
}

/// Prints a figure and how far its blocks lie apart.
pub fn print(name: &str, blocks: &Blocks, peer: &str, unit: Unit, target: Target) {
    if let Some(figure) = Figure::of(name, blocks, peer, unit, target) {
        println!("{figure}   {}", figure.spread());
    }
}
