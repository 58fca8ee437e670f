//! What a test run printed, counted: of nextest and of the standard test runner.
//!
//! Invariant: a test is counted once, as passed, failed or skipped. A test that passes but prints a line
//! `skipped: why` has proved nothing: it counts as skipped. A run that tells no result has failed.

use std::collections::BTreeMap;
use std::ops::AddAssign;

/// The outcome of some test runs.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
    /// Tests that did not run, or said that they could not.
    pub skipped: usize,
    /// Name and output of each failed test.
    pub failures: Vec<(String, String)>,
    /// Name and reason of each test that skipped itself.
    pub reasons: BTreeMap<String, String>,
}

impl AddAssign<Tally> for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
        self.reasons.extend(other.reasons);
    }
}

impl Tally {
    /// The line that ends every run of the tests.
    pub fn line(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }

    /// A run that went wrong as a whole.
    pub fn broken(name: &str, output: &str) -> Self {
        Self { failed: 1, failures: vec![(name.to_owned(), output.to_owned())], ..Self::default() }
    }

    /// Counts what nextest printed. `None`: there is no result in it.
    pub fn of_nextest(text: &str) -> Option<Self> {
        let summary = text.lines().rev().find_map(|line| line.trim_start().strip_prefix("Summary ["))?;
        let counts = summary.split_once(']')?.1;
        let (run, rest) = counts.split_once(" tests run:").or(counts.split_once(" test run:"))?;
        // "12/30 tests run": the other 18 were given up.
        let all: usize = run.trim().rsplit('/').next()?.parse().ok()?;
        let passed = number_before(rest, "passed").unwrap_or(0);
        let mut tally = Self { passed, failed: all.saturating_sub(passed), ..Self::default() };
        for (header, body) in nextest_sections(text) {
            tally.note(header.name, &body, header.failed);
        }
        Some(tally)
    }

    /// Counts what the standard test runner printed. `None`: there is no result in it.
    pub fn of_libtest(text: &str) -> Option<Self> {
        let results: Vec<&str> = text.lines().filter(|line| line.starts_with("test result: ")).collect();
        if results.is_empty() {
            return None;
        }
        let sum = |what: &str| results.iter().filter_map(|line| number_before(line, what)).sum();
        let mut tally =
            Self { passed: sum("passed"), failed: sum("failed"), skipped: sum("ignored"), ..Self::default() };
        let failed: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"))
            .map(str::trim)
            .collect();
        for (name, body) in libtest_sections(text) {
            tally.note(name, &body, failed.contains(&name));
        }
        Some(tally)
    }

    /// Takes in what one test printed.
    fn note(&mut self, name: &str, body: &str, failed: bool) {
        if failed {
            self.failures.push((name.to_owned(), body.to_owned()));
            return;
        }
        let Some(reason) = body.lines().find_map(|line| line.trim_start().strip_prefix("skipped: ")) else {
            return;
        };
        if self.reasons.insert(name.to_owned(), reason.trim().to_owned()).is_none() {
            self.passed = self.passed.saturating_sub(1);
            self.skipped += 1;
        }
    }
}

/// The number that stands directly before a word: 3 in `.. 3 passed (1 slow), ..`.
fn number_before(text: &str, word: &str) -> Option<usize> {
    let words: Vec<&str> = text.split([' ', ',', ';', '(', ')']).filter(|part| !part.is_empty()).collect();
    let at = words.iter().position(|part| *part == word)?;
    words[at.checked_sub(1)?].parse().ok()
}

struct Header<'a> {
    name: &'a str,
    failed: bool,
}

/// `        FAIL [   0.155s] (11/24) xtask::bin/xtask lint::tests::x`
fn nextest_header(line: &str) -> Option<Header<'_>> {
    let (status, rest) = line.trim_start().split_once(" [")?;
    let known = !status.is_empty()
        && status.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '-');
    // These tell of a test that still runs.
    if !known || ["SLOW", "TERMINATING", "START", "RETRY"].contains(&status) {
        return None;
    }
    let (time, rest) = rest.split_once("] ")?;
    if !time.ends_with('s') {
        return None;
    }
    let name = rest.trim_start();
    let name = name.strip_prefix('(').and_then(|name| name.split_once(") ")).map_or(name, |(_, name)| name);
    Some(Header { name, failed: !["PASS", "LEAK", "FLAKY"].contains(&status) })
}

fn nextest_sections(text: &str) -> Vec<(Header<'_>, String)> {
    let mut sections: Vec<(Header<'_>, String)> = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("Summary [") {
            break;
        }
        if let Some(header) = nextest_header(line) {
            sections.push((header, String::new()));
        } else if let Some((_, body)) = sections.last_mut() {
            body.push_str(line);
            body.push('\n');
        }
    }
    sections
}

/// `---- name stdout ----`, then what it printed, up to the next list or section.
fn libtest_sections(text: &str) -> Vec<(&str, String)> {
    let mut sections: Vec<(&str, String)> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let title = line.strip_prefix("---- ").and_then(|line| line.strip_suffix(" stdout ----"));
        if let Some(name) = title {
            sections.push((name, String::new()));
            inside = true;
        } else if ["failures:", "successes:"].contains(&line) || line.starts_with("test result: ") {
            inside = false;
        } else if let (true, Some((_, body))) = (inside, sections.last_mut()) {
            body.push_str(line);
            body.push('\n');
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEXTEST: &str = "
    Starting 4 tests across 1 binary (30 tests skipped)
        PASS [   0.005s] (1/4) base limits::one
  stdout ───

    running 1 test
    skipped: no user namespaces
    test limits::one ... ok

        SLOW [> 60.000s] (───) base limits::two
        FAIL [   0.155s] (2/4) base limits::two
  stderr ───
    panicked: bad
        PASS [   0.005s] (3/4) base limits::three
     SIGABRT [   0.005s] (4/4) base limits::four
────────────
     Summary [   0.300s] 4 tests run: 2 passed (1 slow), 1 failed, 1 timed out, 30 skipped
";

    #[test]
    fn nextest_is_counted() {
        let tally = Tally::of_nextest(NEXTEST).unwrap();
        assert_eq!(tally.line(), "1 passed, 2 failed, 1 skipped");
        let names: Vec<_> = tally.failures.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["base limits::two", "base limits::four"]);
        assert!(tally.failures[0].1.contains("panicked: bad"));
        assert_eq!(tally.reasons["base limits::one"], "no user namespaces");
    }

    #[test]
    fn a_run_of_no_tests_is_a_result() {
        let text = "     Summary [   0.000s] 0 tests run: 0 passed, 12 skipped\n";
        assert_eq!(Tally::of_nextest(text).unwrap().line(), "0 passed, 0 failed, 0 skipped");
    }

    #[test]
    fn tests_that_were_given_up_have_failed() {
        let text = "  Summary [ 1.000s] 2/5 tests run: 2 passed, 9 skipped\n";
        assert_eq!(Tally::of_nextest(text).unwrap().failed, 3);
        let text = "  Summary [ 1.000s] 1 test run: 1 passed, 9 skipped\n";
        assert_eq!(Tally::of_nextest(text).unwrap().passed, 1);
    }

    const LIBTEST: &str = "
running 3 tests
test a::works ... ok
test a::cannot ... ok
test a::breaks ... FAILED

successes:

---- a::cannot stdout ----
skipped: needs root

successes:
    a::works

failures:

---- a::breaks stdout ----
assertion failed

failures:
    a::breaks

test result: FAILED. 2 passed; 1 failed; 4 ignored; 0 measured; 7 filtered out; finished in 0.23s
";

    #[test]
    fn the_standard_runner_is_counted() {
        let tally = Tally::of_libtest(LIBTEST).unwrap();
        assert_eq!(tally.line(), "1 passed, 1 failed, 5 skipped");
        assert_eq!(tally.failures, [("a::breaks".to_owned(), "assertion failed\n\n".to_owned())]);
        let twice = Tally::of_libtest(&format!("{LIBTEST}{}", LIBTEST.replace("a::", "b::"))).unwrap();
        assert_eq!(twice.line(), "2 passed, 2 failed, 10 skipped");
    }

    #[test]
    fn a_run_that_tells_nothing_is_no_result() {
        assert!(Tally::of_nextest("error: could not compile").is_none());
        assert!(Tally::of_libtest("Segmentation fault").is_none());
    }
}
