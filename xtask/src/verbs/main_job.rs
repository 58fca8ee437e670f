//! The main job over verbs: a cluster of real nodes in the machine, each with its own devices, and what people do with it.
//!
//! Invariant: whether verbs carried it is what the nodes' own `ssi fabric status` says.

use std::time::Duration;

use crate::error::Error;
use crate::place::{self, root};
use crate::run::Run;
use crate::setup::{self, Purpose};
use crate::vm::{Part, quoted};

/// What it is called as a test.
pub const TITLE: &str = "vm the main job over verbs: files, processes, an MPI job";
const SCRIPT: &str = include_str!("main_job.sh");
/// A minute on an idle machine.
const LIMIT: Duration = Duration::from_secs(480);

/// Builds `ssi` and, on the host, the MPI program.
///
/// # Errors
/// `Missing` if there is no MPICH; nothing else is optional.
pub fn part() -> Result<Part, Error> {
    setup::packages_for(Purpose::Run)?;
    // Nodes that are not optimised miss each other's heartbeats in an emulated machine.
    place::build(super::figures::BUILD)?;
    let target = place::target()?;
    let (ssi, heat) = (target.join("release/ssi"), target.join("verbs-vm/heat"));
    let source = root().join("examples/heat/heat.c");
    Run::new(["mpicc.mpich", "-O2", "-o"]).args([&heat, &source]).args(["-lm"]).checked()?;
    let line = format!("SSI={}\nHEAT={}\n{SCRIPT}", quoted(&ssi), quoted(&heat));
    Ok(Part { title: TITLE.to_owned(), line, limit: LIMIT })
}
