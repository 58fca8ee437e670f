//! A C program made with our header and linked to our library sees what a daemon tells it.

#[path = "support/daemon.rs"]
mod daemon;

use admin::wire::{Cause, State};
use daemon::{Daemon, change};
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

/// The compiled program, and our library under the name that it looks for.
struct Bench {
    dir: tempfile::TempDir,
}

fn crate_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The library that cargo has built for this test.
fn built() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let library = test.with_file_name("libssi.so");
    assert!(library.exists(), "cargo has built no {}", library.display());
    library
}

impl Bench {
    /// `None`, with the reason said, if there is no compiler.
    fn make() -> Option<Bench> {
        if Command::new("gcc").arg("--version").output().is_err() {
            eprintln!("skipped: gcc is not there");
            return None;
        }
        let bench = Bench { dir: tempfile::tempdir().unwrap() };
        for name in ["libssi.so", "libssi.so.1"] {
            std::os::unix::fs::symlink(built(), bench.dir.path().join(name)).unwrap();
        }
        let mut gcc = bench.compiler("gcc", &["-Wall", "-Wextra", "-Werror", "-pedantic"]);
        gcc.arg("-o").arg(bench.program()).arg("-L").arg(bench.dir.path()).arg("-lssi");
        let made = gcc.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Some(bench)
    }

    fn compiler(&self, name: &str, flags: &[&str]) -> Command {
        let mut compiler = Command::new(name);
        compiler.args(flags).arg("-I").arg(crate_dir().join("include"));
        compiler.arg(crate_dir().join("tests/program.c"));
        compiler
    }

    fn program(&self) -> PathBuf {
        self.dir.path().join("program")
    }

    fn command(&self, what: &str, dir: &Path) -> Command {
        let mut command = Command::new(self.program());
        command.arg(what).env("LD_LIBRARY_PATH", self.dir.path()).env("SSI_DIR", dir);
        command
    }

    fn run(&self, what: &str, dir: &Path) -> Output {
        let ended = self.command(what, dir).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{what}: {:?} {said}", ended.status);
        ended
    }
}

/// A program that waits, and goes with the test.
struct Waiting {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Waiting {
    fn start(bench: &Bench, what: &str, daemon: &Daemon) -> Waiting {
        let mut child = bench.command(what, daemon.dir()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut waiting = Waiting { child, lines };
        assert_eq!(waiting.line(), "ready");
        waiting
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("it says more").unwrap()
    }

    fn end(mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

macro_rules! scenarios {
    ($($name:ident: $what:literal;)*) => {$(
        #[test]
        fn $name() {
            if let Some(bench) = Bench::make() {
                bench.run($what, Daemon::start().dir());
            }
        }
    )*};
}

scenarios! {
    the_table_is_told: "facts";
    errors_are_those_of_the_manual: "refusals";
    a_signal_interrupts_a_wait: "signal";
}

#[test]
fn outside_of_a_cluster_there_is_none() {
    let Some(bench) = Bench::make() else { return };
    bench.run("nowhere", tempfile::tempdir().unwrap().path());
    bench.run("away", Daemon::away().dir());
}

#[test]
fn a_node_is_drained_and_stopped_by_its_state() {
    let Some(bench) = Bench::make() else { return };
    let daemon = Daemon::start();
    bench.run("drain", daemon.dir());
    let wishes = daemon.wishes();
    assert_eq!(wishes.len(), 3, "{wishes:?}");
    assert!(wishes[0].contains("node: 1, drain: true"), "{wishes:?}");
    assert!(wishes[1].contains("node: 5, drain: false"), "{wishes:?}");
    assert!(wishes[2].contains("Stop"), "{wishes:?}");
}

#[test]
fn the_history_is_read_forwards_and_backwards() {
    let Some(bench) = Bench::make() else { return };
    let told = String::from_utf8(bench.run("history", Daemon::start().dir()).stdout).unwrap();
    let (simple, rest) = told.split_once("detailed\n").unwrap();
    let (detailed, back) = rest.split_once("back\n").unwrap();
    let expected = "3.65535 node 3 1->3 why 2 text 3\n\
                    4.65535 node 3 3->9 why 3 text 3\n\
                    5.65535 node 0 0->0 why 11 text 0\n\
                    6.1 node 3 9->8 why 4 text 3\n\
                    6.65535 node 5 8->3 why 2 text 5\n\
                    7.65535 node 5 3->4 why 9 text 5\n";
    assert_eq!(detailed, expected);
    let mut reversed: Vec<&str> = back.lines().collect();
    reversed.reverse();
    assert_eq!(reversed, expected.lines().collect::<Vec<_>>());
    let up = |line: &&str| line.contains("->3 ") || line.contains(" 3->");
    assert_eq!(simple.lines().collect::<Vec<_>>(), expected.lines().filter(up).collect::<Vec<_>>());
    assert_eq!(simple.lines().count(), 4);
}

#[test]
fn a_waiter_is_told_everything_in_order() {
    let Some(bench) = Bench::make() else { return };
    let daemon = Daemon::start();
    let mut waiting = Waiting::start(&bench, "wait", &daemon);
    daemon.push(vec![change(1, State::Up, State::Down, Cause::Failed)]);
    assert_eq!(waiting.line(), "8.65535 node 1 3->8 why 4 text 1");
    // Five at once, for a program that has room for three.
    daemon.push((1..=5).map(|node| change(node, State::Up, State::Stalled, Cause::Stalled)).collect());
    daemon.push(vec![change(99, State::None, State::NeverUp, Cause::Joined)]);
    for node in 1..=4 {
        assert_eq!(waiting.line(), format!("9.{node} node {node} 3->9 why 3 text {node}"));
    }
    assert_eq!(waiting.line(), "9.65535 node 5 3->9 why 3 text 5");
    assert_eq!(waiting.line(), "10.65535 node 99 0->1 why 1 text 99");
    waiting.end();
}

#[test]
fn a_waiter_for_simple_changes_is_told_no_others() {
    let Some(bench) = Bench::make() else { return };
    let daemon = Daemon::start();
    let mut waiting = Waiting::start(&bench, "wait-simple", &daemon);
    daemon.push(vec![change(1, State::Down, State::Fenced, Cause::Fenced)]);
    daemon.push(vec![change(0, State::None, State::None, Cause::Voters)]);
    daemon.push(vec![change(99, State::Down, State::Up, Cause::Started)]);
    assert_eq!(waiting.line(), "10.65535 node 99 8->3 why 2 text 99");
    waiting.end();
}

#[test]
fn a_waiter_misses_nothing_when_the_daemon_is_restarted() {
    let Some(bench) = Bench::make() else { return };
    let daemon = Daemon::start();
    let mut waiting = Waiting::start(&bench, "wait", &daemon);
    daemon.wait_for_a_waiter();
    daemon.vanish();
    daemon.push(vec![change(1, State::Up, State::Down, Cause::Failed)]);
    daemon.push(vec![change(1, State::Down, State::Up, Cause::Started)]);
    daemon.push(vec![change(99, State::None, State::NeverUp, Cause::Joined)]);
    daemon.listen();
    assert_eq!(waiting.line(), "8.65535 node 1 3->8 why 4 text 1");
    assert_eq!(waiting.line(), "9.65535 node 1 8->3 why 2 text 1");
    assert_eq!(waiting.line(), "10.65535 node 99 0->1 why 1 text 99");
    waiting.end();
}

/// The names that the header declares.
fn declared() -> Vec<String> {
    let header = std::fs::read_to_string(crate_dir().join("include/ssi/cluster.h")).unwrap();
    let function = |line: &str| {
        let name = line.split('(').next()?.rsplit([' ', '*']).next()?;
        let is_one =
            line.contains('(') && !line.starts_with(['#', ' ', '/', '\t']) && name.starts_with("cluster");
        is_one.then(|| name.to_owned())
    };
    let mut names: Vec<String> = header.lines().filter_map(function).collect();
    names.sort();
    names
}

#[test]
fn the_library_has_what_the_header_declares_and_nothing_else() {
    let Ok(listed) = Command::new("nm").args(["-D", "--defined-only"]).arg(built()).output() else {
        return eprintln!("skipped: nm is not there");
    };
    let text = String::from_utf8(listed.stdout).unwrap();
    let mut names: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    names.sort_unstable();
    assert_eq!(names, declared());
    let dynamic = Command::new("readelf").arg("-d").arg(built()).output().unwrap();
    assert!(String::from_utf8_lossy(&dynamic.stdout).contains("libssi.so.1"));
}

#[test]
fn every_function_has_a_page_in_the_manual() {
    let overview = std::fs::read_to_string(crate_dir().join("man/libssi.7")).unwrap();
    for name in declared() {
        let path = crate_dir().join(format!("man/{name}.3"));
        let page =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(page.contains(&format!(".TH {} 3 ", name.to_uppercase())), "{name}");
        for part in ["NAME", "SYNOPSIS", "DESCRIPTION", "\"RETURN VALUE\"", "\"SEE ALSO\""] {
            assert!(page.contains(&format!("\n.SH {part}\n")), "{name}: {part}");
        }
        assert!(overview.contains(&format!("{name}\\fP(3)")), "libssi(7) does not name {name}");
    }
}

#[test]
fn the_header_is_good_for_cpp() {
    let Some(bench) = Bench::make() else { return };
    if Command::new("g++").arg("--version").output().is_err() {
        return eprintln!("skipped: g++ is not there");
    }
    let made = bench.compiler("g++", &["-x", "c++", "-Wall", "-Werror", "-fsyntax-only"]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
