//! Shadows: what reaches one goes to its task, what its task does happens to it, its parent sees nothing else.

use crate::node::{Daemon, Node, Wish, spec, task};
use crate::node_or_skip;
use pm::wire::init::{Report, Request, Shadow};
use pm::wire::{Change, Piece, STDIN, STDOUT, Signal, TaskId};

/// The task whose shadow the child of task 1 is.
const REMOTE: u32 = 9;

/// The shadow's parent prints its child's pid and every change of it.
fn with_shadow(daemon: &mut Daemon, child: &[&str]) -> i32 {
    daemon.spawn(1, spec(&[&[env!("CARGO_BIN_EXE_pm-test-init"), "--parent"], child].concat())).unwrap();
    let pid: i32 = daemon.line(1, STDOUT).trim().parse().unwrap();
    daemon.ask(Some(task(REMOTE)), Request::Shadow(Shadow { pid: pid as u32, ..Shadow::default() }));
    pid
}

fn mirror(daemon: &mut Daemon, wait_status: u32, ended: bool) {
    let change = Some(Change { wait_status, ended, ..Change::default() });
    daemon.ask(Some(task(REMOTE)), Request::Shadow(Shadow { change, ..Shadow::default() }));
}

fn seen_by_parent(daemon: &mut Daemon) -> u32 {
    daemon.line(1, STDOUT).trim().parse().unwrap()
}

fn send(daemon: &mut Daemon, target: i32, number: i32) {
    let signal = Signal {
        target,
        number: number as u32,
        sender: 777,
        sender_uid: 0,
        privileged: true,
        ..Signal::default()
    };
    assert_eq!(daemon.signal(signal), 0);
}

fn reported(daemon: &mut Daemon) -> (u32, u32) {
    daemon.wait_for(|message| match &message.report {
        Some(Report::ShadowSignal(signal)) => Some((signal.number, signal.sender)),
        _ => None,
    })
}

fn gone(daemon: &mut Daemon) -> u32 {
    daemon.wait_for(|message| match message.report {
        Some(Report::ShadowGone(status)) => Some(status),
        _ => None,
    })
}

#[test]
fn signals_to_a_shadow_are_told_and_do_not_touch_it() {
    let node = node_or_skip!(Wish::default());
    let mut daemon = node.daemon();
    let pid = with_shadow(&mut daemon, &["sleep", "1000"]);
    for number in [libc::SIGTERM, libc::SIGSTOP, libc::SIGINT, libc::SIGUSR1] {
        send(&mut daemon, pid, number);
        assert_eq!(reported(&mut daemon), (number as u32, 777));
    }
    send(&mut daemon, pid, libc::SIGKILL);
    assert_eq!(gone(&mut daemon), 9);
    assert_eq!(seen_by_parent(&mut daemon), 9);
}

#[test]
fn a_shadow_stops_goes_on_and_ends_with_its_task() {
    let node = node_or_skip!(Wish::default());
    let mut daemon = node.daemon();
    let pid = with_shadow(&mut daemon, &["sleep", "1000"]);
    mirror(&mut daemon, 0x137f, false);
    assert_eq!(seen_by_parent(&mut daemon), 0x137f);
    mirror(&mut daemon, 0xffff, false);
    assert_eq!(seen_by_parent(&mut daemon), 0xffff);
    mirror(&mut daemon, 0x137f, false);
    assert_eq!(seen_by_parent(&mut daemon), 0x137f);
    send(&mut daemon, pid, libc::SIGCONT);
    assert_eq!(reported(&mut daemon), (libc::SIGCONT as u32, 777));
    assert_eq!(seen_by_parent(&mut daemon), 0xffff);
    mirror(&mut daemon, 0x147f, false);
    assert_eq!(seen_by_parent(&mut daemon), 0x147f, "it stops by the very signal of its task");
    mirror(&mut daemon, 15, true);
    assert_eq!(seen_by_parent(&mut daemon), 0xffff, "woken, to end itself");
    send(&mut daemon, pid, libc::SIGTERM);
    assert_eq!(seen_by_parent(&mut daemon), 15);
    assert_eq!(gone(&mut daemon), 15);
}

fn ends_itself_as_its_task(wait_status: u32, signal: &str) {
    let node = node_or_skip!(Wish::default());
    let mut daemon = node.daemon();
    // What a command does when it learns how its task ended.
    let script = format!("cd /run/ssi/cores && read x && kill -{signal} $$");
    let pid = with_shadow(&mut daemon, &["sh", "-c", &script]);
    send(&mut daemon, pid, libc::SIGTERM);
    assert_eq!(reported(&mut daemon).0, 15);
    mirror(&mut daemon, wait_status, true);
    let go = Piece { stream: STDIN, offset: 0, data: b"go\n".to_vec(), end: true };
    daemon.ask(Some(task(1)), Request::Input(go));
    assert_eq!(seen_by_parent(&mut daemon), wait_status);
    assert_eq!(gone(&mut daemon), wait_status);
    let left = daemon.run(2, spec(&["ls", "-A", "/run/ssi/cores"]));
    assert_eq!(left, (0, String::new()), "no core file is left");
}

#[test]
fn a_shadow_dumps_core_exactly_when_its_task_did() {
    ends_itself_as_its_task(libc::SIGQUIT as u32, "QUIT");
    // Where cores go to a program, whether the bit comes is up to that program.
    if !std::fs::read("/proc/sys/kernel/core_pattern").is_ok_and(|pattern| pattern.starts_with(b"|")) {
        ends_itself_as_its_task(libc::SIGQUIT as u32 | 0x80, "QUIT");
    }
}

#[test]
fn a_shadow_dies_by_sigkill_as_its_task_did() {
    ends_itself_as_its_task(libc::SIGKILL as u32, "KILL");
}

#[test]
fn a_process_that_is_not_there_cannot_be_a_shadow() {
    let node = node_or_skip!(Wish::default());
    let mut daemon = node.daemon();
    daemon.ask(Some(task(REMOTE)), Request::Shadow(Shadow { pid: 31_000, ..Shadow::default() }));
    assert_eq!(gone(&mut daemon), 0);
}

#[test]
fn another_users_process_cannot_be_a_shadow() {
    let node = node_or_skip!(Wish::default());
    let mut daemon = node.daemon();
    daemon.spawn(1, spec(&["sh", "-c", "echo $$; exec sleep 1000"])).unwrap();
    let pid: u32 = daemon.line(1, STDOUT).trim().parse().unwrap();
    let strangers = TaskId { uid: 54_321, ..task(REMOTE) };
    daemon.ask(Some(strangers), Request::Shadow(Shadow { pid, ..Shadow::default() }));
    assert_eq!(gone(&mut daemon), 0, "refused");
    send(&mut daemon, pid as i32, libc::SIGTERM);
    assert_eq!(daemon.change(1).wait_status, 15, "its signals are its own");
}
