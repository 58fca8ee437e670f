//! The verbs for real: the fabric's tests, and the figures of others, on Soft-RoCE in a virtual machine.
//!
//! Invariant: a machine that cannot do this says why and skips it; whatever else goes wrong is a failure.

mod figures;
mod main_job;
mod suite;

use std::time::{Duration, Instant};

use crate::args::Given;
use crate::error::Error;
use crate::place::root;
use crate::setup::{self, Purpose};
use crate::tally::Tally;
use crate::vm::{Machine, Outcome, Part, quoted};
use suite::Suite;

/// How long the machine may run for the tests.
const TESTS_LIMIT: Duration = Duration::from_secs(240);
/// How long it may run for storms and soaks.
const LONG_LIMIT: Duration = Duration::from_secs(45 * 60);
/// Of a limit: what booting and ending may take, so that what hangs inside is ended, and told, inside.
const BOOT_LIMIT: Duration = Duration::from_secs(40);
/// How long it may run for the figures beside, in time and in instructions each.
const FIGURES_LIMIT: Duration = Duration::from_secs(400);
/// How long a command of a person may run.
const COMMAND_LIMIT: Duration = Duration::from_secs(600);
/// Two talk; the third is whom they do not talk to.
const NODES: u32 = 3;
const NODES_MAX: u32 = 8;
/// What the tests are called as a whole.
const WHOLE: &str = "verbs in a virtual machine";

/// The verb `test-verbs`.
pub fn verb(given: &Given) -> Result<(), Error> {
    let nodes = given.number("nodes", NODES, 2..=NODES_MAX)?;
    let long = given.has("long");
    let machine = match machine(nodes)? {
        Ok(machine) => machine,
        Err(why) => {
            println!("skipped: test-verbs: {why}");
            println!("{}", skipped(WHOLE, &why).line());
            return Ok(());
        }
    };
    let machine = if given.has("count") { machine.counting() } else { machine };
    if !given.operands.is_empty() {
        return command(&machine, &given.operands);
    }
    let begin = Instant::now();
    // Only what tells of a test: the rest is shown again where it matters.
    let print = &mut |line: &str| {
        if line.starts_with("test ") && !line.starts_with("test result:") {
            println!("{line}");
        }
    };
    let mut all = tests(&machine, &[], long, TESTS_LIMIT, print)?;
    if given.has("bench") {
        all += figures::measured(&machine, FIGURES_LIMIT)?;
    }
    for (name, reason) in &all.reasons {
        println!("skipped: {name}: {reason}");
    }
    for (name, output) in &all.failures {
        println!("FAILED {name}");
        output.lines().for_each(|line| println!("    {line}"));
    }
    println!("all {:.1} s ({})", begin.elapsed().as_secs_f32(), machine.accelerator());
    println!("{}", all.line());
    if all.failed == 0 { Ok(()) } else { Err(Error::TestsFailed) }
}

/// The tests that `filters` choose, as a part of a greater run, which prints what failed and what was skipped.
pub fn conformance(filters: &[String], long: bool, limit: Duration) -> Result<Tally, Error> {
    if !filters.is_empty() && Suite::built(filters, long)?.is_empty() {
        return Ok(Tally::default());
    }
    match machine(NODES) {
        Ok(Ok(machine)) => tests(&machine, filters, long, limit, &mut |_| {}),
        Ok(Err(why)) => Ok(skipped(WHOLE, &why)),
        Err(error) => broken(error),
    }
}

/// True if there is something of the fabric to test.
pub fn is_there() -> bool {
    suite::is_there()
}

/// A machine, or why there can be none here.
fn machine(nodes: u32) -> Result<Result<Machine, String>, Error> {
    if !cfg!(target_arch = "x86_64") {
        return Ok(Err(format!("the emulated machine is an x86-64, and this is {}", std::env::consts::ARCH)));
    }
    match setup::packages_for(Purpose::Verbs).and_then(|()| Machine::ready(nodes)) {
        Ok(machine) => Ok(Ok(machine)),
        Err(Error::Missing(why)) => Ok(Err(why.lines().map(str::trim).collect::<Vec<_>>().join("; "))),
        Err(error) => Err(error),
    }
}

fn skipped(name: &str, why: &str) -> Tally {
    Tally { skipped: 1, reasons: [(name.to_owned(), why.to_owned())].into(), ..Tally::default() }
}

/// What went wrong as a whole is one failure, but an interruption stays one.
fn broken(error: Error) -> Result<Tally, Error> {
    if error.is_interruption() { Err(error) } else { Ok(Tally::broken(WHOLE, &error.to_string())) }
}

/// Boots once and runs every test.
fn tests(
    machine: &Machine,
    filters: &[String],
    long: bool,
    limit: Duration,
    print: &mut dyn FnMut(&str),
) -> Result<Tally, Error> {
    let suite = Suite::built(filters, long)?;
    let limit = if long { LONG_LIMIT } else { limit.min(TESTS_LIMIT) };
    let parts = suite.parts(long, limit.saturating_sub(BOOT_LIMIT));
    let outcomes = match machine.run(&parts, limit, &mut |_, line| print(line)) {
        Ok(outcomes) => outcomes,
        Err(error) => return broken(error),
    };
    Ok(suite.counted(&parts, &outcomes))
}

/// Runs what a person asks for.
fn command(machine: &Machine, words: &[String]) -> Result<(), Error> {
    let here = std::env::current_dir().unwrap_or_else(|_| root());
    let line: Vec<String> = words.iter().map(quoted).collect();
    // One word is a line for the shell; several are a command and its arguments.
    let line = if words.len() == 1 { words[0].clone() } else { line.join(" ") };
    let line = format!("cd {} 2> /dev/null || cd /\n{line}", quoted(&here));
    let part = Part { title: words.join(" "), line, limit: COMMAND_LIMIT };
    let outcomes = machine.run(&[part], COMMAND_LIMIT, &mut |_, line| println!("{line}"))?;
    match outcomes.first().and_then(|outcome| outcome.code) {
        Some(0) => Ok(()),
        code => {
            let why = format!("in the machine: {}", ended(code));
            Err(Error::Command { why, command: words.join(" "), output: "(see above)".to_owned() })
        }
    }
}

/// How a part ended, in words.
fn ended(code: Option<i32>) -> String {
    match code {
        Some(137) => "was not over in time, or was killed".to_owned(),
        Some(code) => format!("ended with exit code {code}"),
        None => "the machine ended before it".to_owned(),
    }
}

/// A part that is one test: it passes with exit code 0.
fn one_test(part: &Part, outcome: &Outcome) -> Tally {
    match outcome.code {
        Some(0) => Tally { passed: 1, ..Tally::default() },
        code => Tally::broken(&part.title, &format!("{}{}", outcome.text, ended(code))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_did_not_end_well_has_failed() {
        let part = Part { title: "ping".into(), line: String::new(), limit: TESTS_LIMIT };
        let count = |code| one_test(&part, &Outcome { text: "said\n".into(), code }).failures;
        assert!(count(Some(0)).is_empty());
        assert_eq!(count(Some(3)), [("ping".to_owned(), "said\nended with exit code 3".to_owned())]);
        assert!(count(None)[0].1.contains("the machine ended"));
    }
}
