//! The fabric's figures beside perftest's, between two nodes of the machine.
//!
//! Invariant: only what was built with all optimisations is measured; what cannot be measured is a failed test.

use std::time::Duration;

use super::one_test;
use crate::error::Error;
use crate::place;
use crate::tally::Tally;
use crate::vm::{Machine, Part, quoted};

/// How what is optimised is built: as for `bench`, or cargo would build again.
pub const BUILD: &str = "build --quiet --release --package node --package ssi-benches";

/// Measures and prints a line a figure: in time, where both ends look without pause, and in instructions, where they sleep (on one
/// processor who looks without pause looks for a whole slice of time).
pub fn measured(machine: &Machine, limit: Duration) -> Result<Tally, Error> {
    place::build(BUILD)?;
    println!("in time: noisy, for the processors are emulated");
    let mut all = taken(machine, "poll", limit)?;
    println!(
        "in instructions of the processor, the kernel's and all: 1 us is 1,000, 1 MiB/s is 1 MiB in 10^9"
    );
    all += taken(&machine.counting(), "sleep", limit)?;
    Ok(all)
}

fn taken(machine: &Machine, wait: &str, limit: Duration) -> Result<Tally, Error> {
    let program = place::target()?.join("release/ssi-benches");
    let line = format!("exec {} fabric-verbs {wait} rxe1a rxe2a", quoted(&program));
    let part = Part { title: format!("verbs beside perftest, {wait}"), line, limit };
    let print = &mut |_, line: &str| {
        if line.starts_with('#') || line.starts_with("fabric.") {
            println!("{line}");
        }
    };
    let outcomes = machine.run(std::slice::from_ref(&part), limit, print)?;
    Ok(outcomes.first().map_or_else(Tally::default, |outcome| one_test(&part, outcome)))
}
