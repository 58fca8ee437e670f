//! All tests, crate by crate, each crate with a budget of time.
//!
//! Invariant: the last line is `N passed, N failed, N skipped`, and it is the truth about every run before it; the whole
//! ends within [`ALL`] (not with `--long`).

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::args::Given;
use crate::error::Error;
use crate::lint;
use crate::place::{self, cargo, root};
use crate::run::{self, Run};
use crate::setup::{self, Purpose};
use crate::tally::Tally;
use crate::verbs;

/// How long everything may take: set-up, lint, build and tests.
const ALL: Duration = Duration::from_secs(38 * 60);
/// How often `--long` repeats every test.
const LONG_ROUNDS: usize = 20;
/// A crate that has used its budget this many times over is ended.
const PATIENCE: u32 = 3;
/// What the soaks, storms and simulations of a crate may take beside that in the first of the rounds, which has them at full length.
const LONG_PATIENCE: Duration = Duration::from_secs(45 * 60);

/// The packages in the order of their floors, and how many seconds their tests should take on two cores.
const BUDGETS: &[(&str, u64)] = &[
    ("base", 10),
    ("fabric", 90),
    ("fuse", 20),
    ("admin", 10),
    ("libssi", 20),
    ("replog", 45),
    ("membership", 45),
    ("dlm", 75),
    ("libdlm_lt", 10),
    ("libdlm", 30),
    ("lustre-like-fs", 60),
    ("pm", 90),
    ("loadlevel", 15),
    ("launcher", 45),
    ("node", 60),
    ("ssi-tests", 300),
    ("ssi-benches", 10),
    ("xtask", 15),
];
/// The examples in documentation, all crates together.
const DOC_BUDGET: u64 = 60;

/// The fabric's tests on Soft-RoCE, with the machine that they run in.
const VERBS_BUDGET: u64 = 220;

/// The verb `test`.
pub fn verb(given: &Given) -> Result<(), Error> {
    let begin = Instant::now();
    setup::ready_for(Purpose::Run)?;
    if !given.has("no-lint") {
        if lint::is_possible() {
            lint::verb(given)?;
        } else {
            println!(
                "lint: skipped: rustfmt or clippy is not installed (rustup component add rustfmt clippy)"
            );
        }
    }
    let lint_took = begin.elapsed();
    let built = place::build("build --quiet --workspace --all-targets")?;
    let runner = Runner::new(given)?;
    println!("build {:.1} s (set-up and lint {:.1} s)", built.as_secs_f32(), lint_took.as_secs_f32());

    let tests_begin = Instant::now();
    let deadline = if runner.long { None } else { Some(begin + ALL) };
    let all = runner.run_all(deadline)?;
    for (name, reason) in &all.reasons {
        println!("skipped: {name}: {reason}");
    }
    let (tests, whole) = (tests_begin.elapsed().as_secs_f32(), begin.elapsed().as_secs_f32());
    println!(
        "build {:.1} s, tests {tests:.1} s, all {whole:.1} s of {} s",
        built.as_secs_f32(),
        ALL.as_secs()
    );
    println!("{}", all.line());
    if all.failed == 0 { Ok(()) } else { Err(Error::TestsFailed) }
}

/// One run of a package's tests.
#[derive(Clone, Copy)]
struct Round {
    /// It is ended after that.
    limit: Duration,
    /// Soaks, storms and simulations at their full length.
    long: bool,
}

/// Runs the tests of one package at a time, with nextest if it is there.
struct Runner {
    /// Test programs by package folder, for the standard runner; `None`: nextest runs them.
    programs: Option<Vec<(PathBuf, PathBuf)>>,
    filters: Vec<String>,
    long: bool,
}

impl Runner {
    fn new(given: &Given) -> Result<Self, Error> {
        let nextest = cargo("nextest --version").checked().is_ok();
        let programs = if nextest { None } else { Some(test_programs()?) };
        Ok(Self { programs, filters: given.operands.clone(), long: given.has("long") })
    }

    fn run_all(&self, deadline: Option<Instant>) -> Result<Tally, Error> {
        println!(
            "{:<16} {:>7} {:>8} {:>7} {:>7} {:>7}",
            "crate", "budget", "used", "passed", "failed", "skipped"
        );
        let mut all = Tally::default();
        for &(package, budget) in BUDGETS {
            let rounds = if self.long { LONG_ROUNDS } else { 1 };
            all += self.row(package, budget, rounds, deadline, |round| self.package(package, round))?;
        }
        if verbs::is_there() {
            let once = |round: Round| verbs::conformance(&self.filters, round.long, round.limit);
            all += self.row("verbs in a VM", VERBS_BUDGET, 1, deadline, once)?;
        }
        // Each is compiled anew in every round; they do nothing that could go well once and wrong another time.
        all += self.row("doc examples", DOC_BUDGET, 1, deadline, |round| self.doc_examples(round))?;
        Ok(all)
    }

    /// One row of the table, and under it what failed.
    fn row(
        &self,
        name: &str,
        budget: u64,
        rounds: usize,
        deadline: Option<Instant>,
        once: impl Fn(Round) -> Result<Tally, Error>,
    ) -> Result<Tally, Error> {
        let begin = Instant::now();
        let mut tally = Tally::default();
        for round in 0..rounds {
            let long = self.long && round == 0;
            let more = if long { LONG_PATIENCE } else { Duration::ZERO };
            let patience = Duration::from_secs(budget) * PATIENCE + more;
            let left =
                deadline.map_or(patience, |deadline| deadline.saturating_duration_since(Instant::now()));
            tally += once(Round { limit: left.min(patience), long })?;
        }
        let used = begin.elapsed().as_secs_f64();
        let over = if used > (budget * rounds as u64) as f64 { "  over its budget" } else { "" };
        let (passed, failed, skipped) = (tally.passed, tally.failed, tally.skipped);
        println!(
            "{name:<16} {:>5} s {used:>6.1} s {passed:>7} {failed:>7} {skipped:>7}{over}",
            budget * rounds as u64
        );
        print_failures(&tally, rounds);
        Ok(tally)
    }

    fn package(&self, package: &str, round: Round) -> Result<Tally, Error> {
        let Some(programs) = &self.programs else { return self.nextest(package, round) };
        let folder = root().join(package.strip_prefix("ssi-").unwrap_or(package));
        let mut tally = Tally::default();
        for (_, program) in programs.iter().filter(|(of, _)| *of == folder) {
            let run = Run::new([program]).args(["--show-output"]).args(&self.filters).directory(&folder);
            let run = run.env("CARGO_MANIFEST_DIR", &folder);
            tally += self.counted(run, round, Tally::of_libtest)?;
        }
        Ok(tally)
    }

    fn nextest(&self, package: &str, round: Round) -> Result<Tally, Error> {
        // Always the whole workspace, filtered: with `-p` cargo would build again, with other features.
        let run = cargo("nextest run --workspace --no-fail-fast --no-tests=pass --color=never");
        let run = run.args([
            "--success-output=immediate",
            "--failure-output=immediate",
            "--final-status-level=none",
        ]);
        let run = run.args(["-E", &format!("package(={package})")]).args(&self.filters);
        self.counted(run, round, Tally::of_nextest)
    }

    fn doc_examples(&self, round: Round) -> Result<Tally, Error> {
        let run = cargo("test --quiet --workspace --doc --").args(&self.filters);
        self.counted(run, round, Tally::of_libtest)
    }

    /// Runs and counts; a run that shows no result or is not over in time counts as one failure.
    fn counted(&self, run: Run, round: Round, count: fn(&str) -> Option<Tally>) -> Result<Tally, Error> {
        // The second is how many cases a fuzzer tries.
        let run = if round.long { run.env("SSI_TEST_LONG", "1").env("PROPTEST_CASES", "20000") } else { run };
        let mut running = run.start()?;
        let outcome = running.wait(round.limit);
        let text = running.text();
        let counted = count(&text);
        match (outcome, counted) {
            (Err(error @ Error::Command { .. }), counted) => {
                let mut tally = counted.unwrap_or_default();
                tally += Tally::broken(&run.shown(), &error.to_string());
                Ok(tally)
            }
            (Err(error), _) => Err(error),
            (Ok(status), Some(tally)) if status.success() || tally.failed > 0 => Ok(tally),
            (Ok(status), _) => Ok(Tally::broken(&run.shown(), &format!("{text}\n{}", run::ended(status)))),
        }
    }
}

/// Builds the test programs; gives the folder of the package and the path of each.
fn test_programs() -> Result<Vec<(PathBuf, PathBuf)>, Error> {
    println!("test: cargo-nextest is not installed; the standard runner takes its place");
    let run = cargo("test --quiet --workspace --no-run --message-format=json").limit(ALL);
    let told = run.checked()?.text();
    Ok(told.lines().filter_map(test_program).collect())
}

/// One line of cargo's JSON, if it tells of a test program: the folder of its package and its path.
pub fn test_program(line: &str) -> Option<(PathBuf, PathBuf)> {
    let is_test =
        line.contains(r#""reason":"compiler-artifact""#) && line.contains(r#""test":true},"features""#);
    let manifest = PathBuf::from(json_text(line, "manifest_path")?);
    let program = PathBuf::from(json_text(line, "executable")?);
    is_test.then(|| (manifest.with_file_name("").components().collect(), program))
}

/// The value of a field that holds a text; texts with escapes in them are not paths that we know.
fn json_text<'a>(line: &'a str, field: &str) -> Option<&'a str> {
    let rest = line.split_once(&format!(r#""{field}":""#))?.1;
    rest.split_once('"').map(|(value, _)| value).filter(|value| !value.contains('\\'))
}

/// The failed tests: each with the end of its output, or after many rounds how often it failed.
fn print_failures(tally: &Tally, rounds: usize) {
    const SHOWN_LINES_MAX: usize = 60;
    let mut told: Vec<&str> = Vec::new();
    for (name, output) in &tally.failures {
        if told.contains(&name.as_str()) {
            continue;
        }
        told.push(name);
        let times = tally.failures.iter().filter(|(other, _)| other == name).count();
        match rounds {
            1 => println!("  FAILED {name}"),
            _ => println!("  FAILED {name}: {times} of {rounds} rounds; the first:"),
        }
        let lines: Vec<&str> = output.trim_end().lines().collect();
        let first = lines.len().saturating_sub(SHOWN_LINES_MAX);
        lines[first..].iter().for_each(|line| println!("    {line}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_has_a_budget_and_all_fit_into_the_time() {
        let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
        let members = manifest.split_once("members = [").unwrap().1.split_once(']').unwrap().0;
        let folders: Vec<&str> =
            members.split(['"', ',', '\n']).map(str::trim).filter(|word| !word.is_empty()).collect();
        let known: Vec<&str> =
            BUDGETS.iter().map(|(name, _)| name.strip_prefix("ssi-").unwrap_or(name)).collect();
        assert_eq!(folders, known);
        let sum: u64 = BUDGETS.iter().map(|(_, budget)| budget).sum();
        assert!(sum + DOC_BUDGET + VERBS_BUDGET <= ALL.as_secs() - 180, "three minutes are for the build");
    }

    #[test]
    fn test_programs_are_found_in_cargos_messages() {
        let test = concat!(
            r#"{"reason":"compiler-artifact","package_id":"x","manifest_path":"/r/pm/Cargo.toml","target":{"test":true},"#,
            r#""profile":{"opt_level":"0","test":true},"features":[],"executable":"/t/deps/pm-1","fresh":false}"#
        );
        assert_eq!(test_program(test), Some((PathBuf::from("/r/pm"), PathBuf::from("/t/deps/pm-1"))));
        let program = test.replace(r#""0","test":true"#, r#""0","test":false"#);
        assert_eq!(test_program(&program), None);
        assert_eq!(test_program(&test.replace(r#""/t/deps/pm-1""#, "null")), None);
    }

    fn runner(long: bool) -> Runner {
        Runner { programs: None, filters: Vec::new(), long }
    }

    fn count(run: Run, limit: Duration) -> Tally {
        runner(false).counted(run, Round { limit, long: false }, Tally::of_libtest).unwrap()
    }

    #[test]
    fn a_run_without_a_result_has_failed() {
        assert_eq!(count(Run::new(["sh", "-c", "exit 101"]), ALL).failed, 1);
        let quiet_lie = "echo 'test result: ok. 3 passed; 0 failed; 0 ignored'; kill -9 $$";
        assert_eq!(count(Run::new(["sh", "-c", quiet_lie]), ALL).failed, 1);
        let good = "echo 'test result: ok. 3 passed; 0 failed; 0 ignored'";
        assert_eq!(count(Run::new(["sh", "-c", good]), ALL).line(), "3 passed, 0 failed, 0 skipped");
    }

    #[test]
    fn a_run_that_is_not_over_in_time_has_failed() {
        let tally = count(Run::line("sleep 100"), Duration::from_millis(100));
        assert_eq!(tally.failed, 1);
        assert!(tally.failures[0].1.contains("not finished"), "{:?}", tally.failures);
    }

    #[test]
    fn long_tests_know_that_they_are_long() {
        let say = Run::new(["sh", "-c", "echo \"test result: ok. ${SSI_TEST_LONG:-0} passed; 0 failed\""]);
        let round = Round { limit: ALL, long: true };
        assert_eq!(runner(true).counted(say, round, Tally::of_libtest).unwrap().passed, 1);
    }
}
