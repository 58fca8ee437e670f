//! Tests with real agents: shell scripts that obey, refuse, hang, shout, and are missing.

use super::super::device::tests::device;
use super::*;
use crate::fencing::Fencer;
use base::{Incarnation, NodeId, Time};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

fn script(dir: &Path, name: &str, body: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

async fn ran(body: &str, timeout_ms: u64) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let agent = script(dir.path(), "agent", body);
    let device = Device { timeout: Duration::from_millis(timeout_ms), ..device(agent.to_str().unwrap()) };
    run(&device, Action::Off, "node2").await
}

/// True if the process ends within some seconds, or has ended. (Killed it is at once; to die takes it a moment.)
fn ends(pid: &str) -> bool {
    let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
    let Ok(process) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
        return true;
    };
    let mut watched = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
    rustix::event::poll(&mut watched, Some(&limit)) == Ok(1)
}

#[tokio::test]
async fn an_agent_gets_its_parameters_and_says_by_its_code_how_it_went() {
    let report = ran("cat; exit 0", 10_000).await;
    assert_eq!(report.result(), Ok(()));
    assert_eq!(report.words, "ip=10.0.0.9\npassword=secret\nplug=7\nnodename=node2\naction=off");
    let report = ran("cat > /dev/null; echo no such plug >&2; exit 1", 10_000).await;
    assert_eq!(report.result(), Err("exit code 1 (no such plug)".into()));
    assert_eq!(report.power(), None);
    let report = ran("exit 2", 10_000).await;
    assert_eq!(report.power(), Some(false));
    assert_eq!(ran("kill -9 $$", 10_000).await.result(), Err("it was killed".into()));
}

#[tokio::test]
async fn an_agent_that_hangs_is_killed_with_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let body = format!(
        "sleep 600 & echo $! > {p}.new; echo $$ >> {p}.new; mv {p}.new {p}; wait",
        p = pids.display()
    );
    let agent = script(dir.path(), "agent", &body);
    let device = Device { timeout: Duration::from_millis(700), ..device(agent.to_str().unwrap()) };
    let began = Instant::now();
    let report = run(&device, Action::Off, "node2").await;
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(report.result().unwrap_err().contains("did not end"));
    let pids = std::fs::read_to_string(pids).unwrap();
    assert_eq!(pids.lines().count(), 2);
    for pid in pids.lines() {
        assert!(ends(pid), "{pid}");
    }
}

#[tokio::test]
async fn an_agent_that_leaves_a_child_with_its_pipe_does_not_hold_us_up() {
    let began = Instant::now();
    let report = ran("sleep 600 & exit 0", 30_000).await;
    assert_eq!(report.result(), Ok(()));
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn an_agent_that_shouts_neither_blocks_nor_fills_the_memory() {
    let report = ran("head -c 3000000 /dev/zero | tr '\\0' x; exit 0", 30_000).await;
    assert_eq!((report.result(), report.words.len()), (Ok(()), OUTPUT_BYTES_MAX));
}

#[tokio::test]
async fn a_missing_agent_is_a_clear_failure() {
    let report = run(&device("/nowhere/fence_none"), Action::Off, "node2").await;
    assert!(report.result().unwrap_err().starts_with("it cannot be started: No such file"));
}

#[tokio::test]
async fn a_fencer_goes_through_its_levels_with_real_agents() {
    let dir = tempfile::tempdir().unwrap();
    let bad = script(dir.path(), "bad", "exit 1");
    let good = script(dir.path(), "good", "grep -q nodename=node2 && exit 0; exit 1");
    let levels =
        ["/nowhere/none", bad.to_str().unwrap(), good.to_str().unwrap()].map(|agent| vec![device(agent)]);
    let mut fencer = Fencer::new([("node2".to_owned(), levels.to_vec())].into());
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let mut crew = Crew::new(sender);
    let mut event = Event::Fence { node: NodeId(2), name: "node2".into(), life: Incarnation(3) };
    let mut runs = 0;
    let by = loop {
        let mut effects = Vec::new();
        fencer.handle(Time(1), event, &mut effects);
        effects.iter().for_each(|effect| crew.carry_out(effect));
        runs += effects.iter().filter(|effect| matches!(effect, Effect::Run { .. })).count();
        if let Some(Effect::Fenced { by, .. }) = effects.pop() {
            break by;
        }
        event = receiver.recv().await.unwrap();
    };
    assert_eq!(runs, 5, "two levels twice each, then the good one");
    assert_eq!(by, good.display().to_string());
}

#[tokio::test]
async fn a_run_that_is_given_up_leaves_no_process() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    let agent = script(dir.path(), "agent", &format!("echo $$ > {}; sleep 600", fifo.display()));
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let mut crew = Crew::new(sender);
    let run = RunId(1);
    crew.carry_out(&Effect::Run { run, name: "node2".into(), device: device(agent.to_str().unwrap()) });
    let pid = tokio::task::spawn_blocking(move || std::fs::read_to_string(fifo)).await;
    let pid = pid.unwrap().unwrap().trim().to_owned();
    crew.carry_out(&Effect::Kill(run));
    drop(crew);
    assert!(receiver.recv().await.is_none(), "nobody speaks any more: the task has ended");
    assert!(ends(&pid), "{pid}");
}
