//! The simulations: production cores in virtual time, so many seeds of each, or one seed again.
//!
//! Invariant: a simulation of which no test ran has failed; the seed of a failure and the command that replays it are the last lines.

use std::time::{Duration, Instant};

use crate::args::Given;
use crate::error::Error;
use crate::place::cargo;
use crate::setup::{self, Purpose};
use crate::tally::Tally;

/// How long one crate's simulations may take.
const LIMIT: Duration = Duration::from_secs(6 * 3600);

/// A crate with a simulation.
struct Simulated {
    /// Its package.
    name: &'static str,
    /// What its variables begin with: `_SEED` is one seed, `_SEEDS` how many.
    prefix: &'static str,
    /// Of a large cluster: the test's place, and the variables for how many nodes and which seed.
    large: Option<(&'static str, &'static str, &'static str)>,
}

const ALL: [Simulated; 3] = [
    Simulated { name: "replog", prefix: "REPLOG", large: None },
    Simulated {
        name: "membership",
        prefix: "MEMBERSHIP",
        large: Some(("--test scale", "SCALE_NODES", "SCALE_SEED")),
    },
    Simulated {
        name: "dlm",
        prefix: "DLM",
        large: Some(("--lib sim::a_large_cluster", "DLM_NODES", "DLM_SEED")),
    },
];

/// The verb `sim`.
pub fn verb(given: &Given) -> Result<(), Error> {
    let crates = chosen(&given.operands)?;
    let seeds = given.number("seeds", 2_000, 1..=10_000_000)?;
    let nodes = given.value("nodes").map(|_| given.number("nodes", 3, 3..=100_000)).transpose()?;
    let seed = given.value("seed").map(|_| given.number("seed", 0, 0..=u32::MAX)).transpose()?;
    setup::ready_for(Purpose::Run)?;
    let mut failed = false;
    for simulated in crates {
        failed |= !simulate(simulated, seeds, nodes, seed)?;
    }
    if failed { Err(Error::TestsFailed) } else { Ok(()) }
}

fn chosen(operands: &[String]) -> Result<Vec<&'static Simulated>, Error> {
    let names: Vec<&str> = operands.iter().map(String::as_str).collect();
    if names.is_empty() || names == ["all"] {
        return Ok(ALL.iter().collect());
    }
    let find = |name: &&str| {
        let known = || format!("no simulation `{name}`; there are replog, membership, dlm, and all");
        ALL.iter().find(|simulated| simulated.name == *name).ok_or_else(|| Error::Usage(known()))
    };
    names.iter().map(find).collect()
}

/// Runs one crate's; one line, and more if it fails. True if all went well.
fn simulate(simulated: &Simulated, seeds: u32, nodes: Option<u32>, seed: Option<u32>) -> Result<bool, Error> {
    let Simulated { name, prefix, large } = simulated;
    let (place, mut variables) = match (nodes, large) {
        (None, _) => ("--lib sim::", vec![(format!("{prefix}_SEEDS"), seeds)]),
        (Some(nodes), Some((place, of_nodes, _))) => (*place, vec![((*of_nodes).to_owned(), nodes)]),
        (Some(_), None) => {
            println!("{name:<12} skipped: it has no large cluster; run it without --nodes");
            return Ok(true);
        }
    };
    if let Some(seed) = seed {
        let variable = match (nodes, large) {
            (Some(_), Some((_, _, of_seed))) => (*of_seed).to_owned(),
            _ => format!("{prefix}_SEED"),
        };
        variables.push((variable, seed));
    }
    let begin = Instant::now();
    let run = cargo(&format!("test --quiet --release --package {name} {place} -- --nocapture")).limit(LIMIT);
    let run = variables.iter().fold(run, |run, (name, value)| run.env(name, value.to_string()));
    let output = run.output()?;
    let text = output.all();
    let tally = Tally::of_libtest(&text).unwrap_or_else(|| Tally::broken(name, &text));
    let what = match (nodes, seed) {
        (Some(nodes), _) => format!("{nodes} nodes"),
        (None, Some(seed)) => format!("seed {seed}"),
        (None, None) => format!("{seeds} seeds of each"),
    };
    let is_good = tally.failed == 0 && tally.passed > 0;
    let word = if is_good { "ok" } else { "FAILED" };
    let took = begin.elapsed().as_secs_f32();
    println!("{name:<12} {word}: {} simulations, {what}, {took:.1} s", tally.passed + tally.failed);
    if !is_good {
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].iter().for_each(|line| println!("    {line}"));
        println!("    {}", replay(name, prefix, &text));
    } else if nodes.is_some() {
        text.lines().filter(|line| line.contains(" nodes")).for_each(|line| println!("    {line}"));
    }
    Ok(is_good)
}

/// How to see a failure again.
fn replay(name: &str, prefix: &str, text: &str) -> String {
    let seed = text.split("seed ").skip(1).find_map(|rest| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        let is_failure = rest[digits.len()..].starts_with(':');
        (is_failure && !digits.is_empty()).then_some(digits)
    });
    match seed {
        Some(seed) => {
            format!("seed {seed}; again: cargo xtask sim {name} --seed {seed} ({prefix}_SEED={seed})")
        }
        None => format!("it names no seed; again: cargo xtask sim {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_are_named_or_all() {
        let names = |line: &str| {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            chosen(&words).map(|found| found.iter().map(|one| one.name).collect::<Vec<_>>())
        };
        assert_eq!(names("").unwrap(), ["replog", "membership", "dlm"]);
        assert_eq!(names("all").unwrap(), ["replog", "membership", "dlm"]);
        assert_eq!(names("dlm").unwrap(), ["dlm"]);
        assert!(names("fuse").unwrap_err().to_string().contains("`fuse`"));
    }

    #[test]
    fn a_failure_says_how_to_see_it_again() {
        let text = "2 seeds, 3 grants\nseed 17: two masters\nDLM_SEED=17 replays it";
        assert!(replay("dlm", "DLM", text).contains("cargo xtask sim dlm --seed 17"));
        assert!(replay("dlm", "DLM", "panicked").contains("no seed"));
    }
}
