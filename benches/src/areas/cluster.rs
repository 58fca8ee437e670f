//! A local cluster to measure on, and how a probe is run on either side.

use super::own_path;
use crate::Error;
use ssi_tests::{Cluster, run};
use std::process::Command;

/// A local cluster to measure on, with further flags of `ssi cluster up`.
pub fn cluster(nodes: u32, flags: &[&str]) -> Result<Cluster, Error> {
    match ssi_tests::cannot_run() {
        Some(why) => Err(why.into()),
        None => Ok(Cluster::start(nodes, flags)),
    }
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
