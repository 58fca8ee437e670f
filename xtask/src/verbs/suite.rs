//! Which tests run in the machine, and what they say.
//!
//! Invariant: every test of the program `verbs`, and of the fabric's other test programs those with "verbs" in their
//! name; each is counted once. What takes an emulated machine long waits for `--long`, or to be asked for by name; so does the main job.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::{ended, main_job, one_test, skipped};
use crate::error::Error;
use crate::place::{self, cargo, root};
use crate::run::Run;
use crate::tally::Tally;
use crate::test::test_program;
use crate::vm::{Outcome, Part, quoted};

/// The package, and the test program of which every test is about verbs.
const PACKAGE: &str = "fabric";
const PROGRAM: &str = "verbs";
/// Parts of the names of tests that take an emulated machine long.
const LONG_NAMES: [&str; 3] = ["driven_verbs::", "load::", "flow::"];
/// To tell what was built already, behind another build of somebody else.
const BUILD_LIMIT: Duration = Duration::from_secs(300);

/// The machine itself first: if these fail, no test of ours can pass.
const SOUND: [(&str, &str); 2] = [
    (
        "vm every cable has a device that is up",
        "rdma link; test $(rdma link | grep -c 'state ACTIVE') = $((SSI_VERBS_NODES * 2))",
    ),
    ("vm two nodes play ping-pong", PING_PONG),
];
/// The client asks again until the server is there.
const PING_PONG: &str = "ibv_rc_pingpong -d rxe1a -g 1 -n 200 & server=$!
until ibv_rc_pingpong -d rxe2a -g 1 -n 200 127.0.0.1; do kill -0 $server || exit 1; done
wait $server";

/// A test program and those of its tests that were chosen.
#[derive(Debug, PartialEq, Eq)]
struct Program {
    path: PathBuf,
    tests: Vec<String>,
}

/// The chosen tests.
pub struct Suite {
    programs: Vec<Program>,
    main_job: MainJob,
}

/// Whether the main job is run too.
enum MainJob {
    /// Nobody asked for it.
    Not,
    /// As the last part.
    Last(Box<Part>),
    /// Something is missing here.
    Skipped(String),
}

impl MainJob {
    fn chosen(filters: &[String], long: bool) -> Result<Self, Error> {
        let is_meant = |filter: &String| main_job::TITLE.contains(filter.as_str());
        if !(filters.is_empty() && long || filters.iter().any(is_meant)) {
            return Ok(MainJob::Not);
        }
        match main_job::part() {
            Ok(part) => Ok(MainJob::Last(Box::new(part))),
            Err(Error::Missing(why)) => Ok(MainJob::Skipped(why)),
            Err(error) => Err(error),
        }
    }
}

/// True if the fabric has a test program for verbs.
pub fn is_there() -> bool {
    program_names().iter().any(|name| name == PROGRAM)
}

/// The names of the fabric's test programs, by cargo's own rule.
fn program_names() -> Vec<String> {
    let entries = fs::read_dir(root().join(PACKAGE).join("tests")).into_iter().flatten().flatten();
    let name = |path: PathBuf| {
        let is_program = path.extension().is_some_and(|end| end == "rs") || path.join("main.rs").exists();
        is_program.then(|| path.file_stem()?.to_str().map(str::to_owned)).flatten()
    };
    let mut names: Vec<String> = entries.filter_map(|entry| name(entry.path())).collect();
    names.sort_unstable();
    names
}

impl Suite {
    /// Builds the test programs and asks them for their tests.
    pub fn built(filters: &[String], long: bool) -> Result<Self, Error> {
        if !is_there() {
            return Ok(Self { programs: Vec::new(), main_job: MainJob::Not });
        }
        // Always the whole workspace: with `-p` cargo would build again, with other features.
        let names: String = program_names().iter().map(|name| format!(" --test {name}")).collect();
        let words = format!("test --quiet --workspace --no-run{names}");
        place::build(&words)?;
        let told = cargo(&words).args(["--message-format=json"]).limit(BUILD_LIMIT).checked()?.text();
        let folder = root().join(PACKAGE);
        let found = told.lines().filter_map(test_program).filter(|(of, _)| *of == folder);
        let mut programs = Vec::new();
        for (_, path) in found {
            let list =
                Run::new([&path]).args(["--list", "--format=terse"]).directory(&folder).checked()?.text();
            let tests = chosen(&list, is_all_about_verbs(&path), long, filters);
            if !tests.is_empty() {
                programs.push(Program { path, tests });
            }
        }
        Ok(Self { programs, main_job: MainJob::chosen(filters, long)? })
    }

    /// True if no test was chosen.
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty() && matches!(self.main_job, MainJob::Not)
    }

    /// What the machine is to run.
    pub fn parts(&self, long: bool, limit: Duration) -> Vec<Part> {
        let folder = quoted(root().join(PACKAGE));
        let long = if long { "SSI_TEST_LONG=1 " } else { "" };
        let sound = SOUND.iter().map(|(title, line)| Part {
            title: (*title).to_owned(),
            line: (*line).to_owned(),
            limit,
        });
        let programs = self.programs.iter().map(|program| Part {
            title: program.path.display().to_string(),
            line: format!(
                "cd {folder} && CARGO_MANIFEST_DIR={folder} RUST_BACKTRACE=1 {long}exec {} --test-threads=1 --show-output --exact {}",
                quoted(&program.path),
                program.tests.iter().map(quoted).collect::<Vec<_>>().join(" ")
            ),
            limit,
        });
        let main_job = match &self.main_job {
            MainJob::Last(part) => Some(Part::clone(part)),
            MainJob::Not | MainJob::Skipped(_) => None,
        };
        sound.chain(programs).chain(main_job).collect()
    }

    /// Counts what came of it.
    pub fn counted(&self, parts: &[Part], outcomes: &[Outcome]) -> Tally {
        let mut all = Tally::default();
        for (at, (part, outcome)) in parts.iter().zip(outcomes).enumerate() {
            let is_program = (SOUND.len()..SOUND.len() + self.programs.len()).contains(&at);
            all += if is_program { many_tests(part, outcome) } else { one_test(part, outcome) };
        }
        if let MainJob::Skipped(why) = &self.main_job {
            all += skipped(main_job::TITLE, why);
        }
        all
    }
}

/// A part that runs a test program.
fn many_tests(part: &Part, outcome: &Outcome) -> Tally {
    match (outcome.code, Tally::of_libtest(&outcome.text)) {
        (Some(0), Some(tally)) => tally,
        (Some(_), Some(tally)) if tally.failed > 0 => tally,
        (code, _) => Tally::broken(&part.title, &format!("{}{}", outcome.text, ended(code))),
    }
}

/// `verbs-0123456789abcdef`
fn is_all_about_verbs(path: &std::path::Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.rsplit_once('-'));
    name.is_some_and(|(name, _)| name == PROGRAM)
}

/// The chosen of a list with lines `name: test`.
fn chosen(list: &str, all: bool, long: bool, filters: &[String]) -> Vec<String> {
    let is_short = |name: &str| !LONG_NAMES.iter().any(|part| name.contains(part));
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    names
        .filter(|name| all || name.contains(PROGRAM))
        .filter(|name| all || long || !filters.is_empty() || is_short(name))
        .filter(|name| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str())))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str =
        "ports::up: test\nverbs::reads: test\nbench: benchmark\ntcp::reads: test\nload::verbs::storm: test\n";

    #[test]
    fn of_other_programs_only_what_names_verbs_is_chosen() {
        assert_eq!(chosen(LIST, false, false, &[]), ["verbs::reads"]);
        assert_eq!(
            chosen(LIST, true, false, &[]),
            ["ports::up", "verbs::reads", "tcp::reads", "load::verbs::storm"]
        );
        assert_eq!(chosen(LIST, true, false, &["reads".into(), "x".into()]), ["verbs::reads", "tcp::reads"]);
        assert_eq!(chosen(LIST, false, true, &[]), ["verbs::reads", "load::verbs::storm"]);
        assert_eq!(chosen(LIST, false, false, &["storm".into()]), ["load::verbs::storm"]);
        assert!(is_all_about_verbs("/t/deps/verbs-0123".as_ref()));
        assert!(!is_all_about_verbs("/t/deps/provider-0123".as_ref()));
    }

    #[test]
    fn a_test_program_that_tells_no_result_has_failed() {
        let programs = vec![Program { path: "/t/verbs-1".into(), tests: vec!["a::b".into()] }];
        let suite = Suite { programs, main_job: MainJob::Not };
        let parts = suite.parts(true, Duration::from_secs(60));
        assert!(parts[2].line.contains("SSI_TEST_LONG=1 exec '/t/verbs-1'"), "{}", parts[2].line);
        assert!(parts[2].line.ends_with("--exact 'a::b'"), "{}", parts[2].line);
        let good = |text: &str| Outcome { text: text.to_owned(), code: Some(0) };
        let mut outcomes = vec![good(""), good(""), good("test result: ok. 3 passed; 0 failed; 0 ignored\n")];
        assert_eq!(suite.counted(&parts, &outcomes).line(), "5 passed, 0 failed, 0 skipped");
        outcomes[2].code = None;
        assert_eq!(suite.counted(&parts, &outcomes).line(), "2 passed, 1 failed, 0 skipped");
        outcomes[2] = good("nothing");
        assert_eq!(suite.counted(&parts, &outcomes).failed, 1);
    }

    #[test]
    fn the_main_job_is_the_last_part_and_one_test() {
        let part = Part { title: main_job::TITLE.into(), line: "true".into(), limit: Duration::from_secs(1) };
        let suite = |main_job| Suite { programs: Vec::new(), main_job };
        let last = suite(MainJob::Last(Box::new(part)));
        let parts = last.parts(true, Duration::from_secs(60));
        assert_eq!(parts[2].title, main_job::TITLE);
        let outcome = |code| Outcome { text: String::new(), code: Some(code) };
        let outcomes = |code| [outcome(0), outcome(0), outcome(code)];
        assert_eq!(last.counted(&parts, &outcomes(0)).passed, 3);
        assert_eq!(last.counted(&parts, &outcomes(1)).failures[0].0, main_job::TITLE);
        let without = suite(MainJob::Skipped("no MPICH".into()));
        assert_eq!(without.counted(&[], &[]).line(), "0 passed, 0 failed, 1 skipped");
    }
}
