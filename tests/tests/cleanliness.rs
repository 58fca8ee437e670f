//! Nothing outlives a cluster.

use ssi_tests::{cannot_run, kill, run, ssi_binary, wait_until};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

fn mentions(dir: &Path) -> Vec<String> {
    let dir = dir.display().to_string();
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let command = |pid: &str| {
        String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default())
            .replace('\0', " ")
    };
    let pids = pids
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.parse::<u32>().is_ok());
    let ours = std::process::id().to_string();
    let mut found: Vec<String> =
        pids.filter(|pid| *pid != ours).map(|pid| command(&pid)).filter(|line| line.contains(&dir)).collect();
    found.extend(
        std::fs::read_to_string("/proc/mounts")
            .unwrap()
            .lines()
            .filter(|line| line.contains(&dir))
            .map(str::to_owned),
    );
    found
}

/// Ends a cluster that nothing else holds, if the test has not come so far.
struct Down<'a>(&'a Path);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        let mut ssi = Command::new(ssi_binary());
        ssi.args(["cluster", "down", "--dir"]).arg(self.0);
        run(ssi);
    }
}

#[test]
fn cluster_down_leaves_nothing() {
    if let Some(why) = cannot_run() {
        println!("{why}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let ssi = |words: &[&str]| {
        let mut ssi = Command::new(ssi_binary());
        ssi.args(words).arg("--dir").arg(dir.path());
        run(ssi)
    };
    let _guard = Down(dir.path());
    let up = ssi(&["cluster", "up", "--nodes", "2"]);
    assert_eq!(up.code, 0, "{}", up.err);
    let down = ssi(&["cluster", "down"]);
    assert_eq!(down.code, 0, "{}", down.err);
    wait_until("nothing is left", PATIENCE, || mentions(dir.path()).is_empty());
    assert!(!dir.path().exists());
    assert_eq!(ssi(&["cluster", "down"]).code, 1, "there is none any more");
}

#[test]
fn a_cluster_in_the_foreground_ends_with_whoever_held_it_even_by_sigkill() {
    if let Some(why) = cannot_run() {
        println!("{why}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut ssi = Command::new(ssi_binary());
    ssi.args(["cluster", "up", "--nodes", "1", "--foreground", "--dir"]).arg(dir.path());
    let mut child = ssi.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
        .unwrap();
    assert!(line.contains("UP"), "{line}");
    kill(child.id() as i32);
    child.wait().unwrap();
    wait_until("nothing is left", PATIENCE, || mentions(dir.path()).is_empty() && !dir.path().exists());
}

#[test]
fn a_directory_that_is_not_empty_is_refused_and_left_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let precious = dir.path().join("precious");
    std::fs::write(&precious, "work of years").unwrap();
    let mut ssi = Command::new(ssi_binary());
    ssi.args(["cluster", "up", "--nodes", "1", "--dir"]).arg(dir.path());
    let ran = run(ssi);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("not empty"), "{}", ran.err);
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "work of years");
}

#[test]
fn an_up_that_is_broken_off_leaves_nothing() {
    if let Some(why) = cannot_run() {
        println!("{why}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut ssi = Command::new(ssi_binary());
    ssi.args(["cluster", "up", "--nodes", "2", "--dir"]).arg(dir.path());
    let mut child = ssi.stdout(Stdio::null()).spawn().unwrap();
    wait_until("it has begun", PATIENCE, || dir.path().join("node1/node.toml").exists());
    kill(child.id() as i32);
    child.wait().unwrap();
    wait_until("nothing is left", PATIENCE, || mentions(dir.path()).is_empty() && !dir.path().exists());
}
