//! The real `ssi-init` in namespaces of its own, with the test in the role of `ssid`.

#[path = "init/node.rs"]
mod node;
#[path = "init/shadows.rs"]
mod shadows;

use node::{Daemon, Node, Wish, is_root, pause, shell, spec, task};
use pm::sys::notify::{Listener, Response};
use pm::wire::init::{Heartbeat, Report, Request};
use pm::wire::{
    CHANNEL, Credentials, Limit, Mark, Piece, STDIN, STDOUT, Signal, Stdio, TaskSpec, WindowSize,
};
use std::net::UdpSocket;
use std::time::Instant;

macro_rules! node_or_skip {
    ($wish:expr) => {
        match Node::start($wish) {
            Some(node) => node,
            None => return,
        }
    };
}
pub(crate) use node_or_skip;

#[test]
fn how_a_task_ends_comes_back_exactly() {
    let node = node_or_skip!(Wish::default());
    let mut daemon = node.daemon();
    assert_eq!(daemon.run(1, spec(&["true"])).0, 0);
    assert_eq!(daemon.run(2, spec(&["false"])).0, 1 << 8);
    assert_eq!(daemon.run(3, shell("kill -SEGV $$")).0, 11);
    assert_eq!(daemon.run(4, shell("exit 77")).0, 77 << 8);
    let scratch = tempfile::tempdir().unwrap();
    let cwd = scratch.path().to_str().unwrap().as_bytes().to_vec();
    let limits = vec![Limit { resource: 4, soft: u64::MAX, hard: u64::MAX }];
    let dumping = daemon.run(5, TaskSpec { cwd, limits, ..shell("kill -QUIT $$") }).0;
    assert!(dumping == 3 | 0x80 || dumping == 3, "{dumping:#x}: with the core bit where cores are allowed");
}

#[test]
fn the_first_pid_is_the_first_of_the_home_region() {
    let node = node_or_skip!(Wish::default());
    let started = node.daemon().spawn(1, spec(&["true"])).unwrap();
    assert_eq!((started.pid, started.node), (16_384, 1));
    assert!(started.start_time > 0);
}

#[test]
fn what_cannot_be_started_says_why() {
    let node = node_or_skip!(Wish::default());
    let mut daemon = node.daemon();
    let failed = daemon.spawn(1, spec(&["no-such-program"])).unwrap_err();
    assert_eq!((failed.errno, failed.what.as_str()), (2, "exec no-such-program"));
    let failed = daemon.spawn(2, spec(&["/etc/passwd"])).unwrap_err();
    assert_eq!((failed.errno, failed.what.as_str()), (13, "exec /etc/passwd"));
    let failed = daemon.spawn(3, TaskSpec { cwd: b"/nowhere".to_vec(), ..spec(&["true"]) }).unwrap_err();
    assert_eq!((failed.errno, failed.what.as_str()), (2, "chdir /nowhere"));
    let failed = daemon.spawn(4, TaskSpec::default()).unwrap_err();
    assert_eq!(failed.errno, 2);
}

#[test]
fn a_task_inherits_what_its_caller_has() {
    let node = node_or_skip!(Wish::default());
    let mut daemon = node.daemon();
    let limits = vec![
        Limit { resource: 7, soft: 100, hard: 200 },
        Limit { resource: 3, soft: 1 << 20, hard: 1 << 21 },
    ];
    let script = "umask; pwd; ulimit -n; ulimit -s; hostname; kill -TERM $$; echo ignored; cat /proc/self/stat | cut -d' ' -f5; echo $$";
    let wanted = TaskSpec { umask: 0o27, limits, ignored_signals: 1 << 14, ..shell(script) };
    let (status, output) = daemon.run(1, wanted);
    assert_eq!(status, 0, "{output}");
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..6], ["0027", "/tmp", "100", "1024", "testnode", "ignored"]);
    assert_eq!(lines[6], lines[7], "it leads a process group of its own");
}

#[test]
fn another_user_is_another_user() {
    if !is_root() {
        return eprintln!("skipped: only root may become somebody else");
    }
    let node = node_or_skip!(Wish::default());
    let mut daemon = node.daemon();
    let credentials = Some(Credentials { uid: 4242, gid: 4343, groups: vec![4444] });
    let (_, output) =
        daemon.run(1, TaskSpec { credentials, ..shell("id -u; id -g; id -G; echo again > /dev/stdout") });
    assert_eq!(output, "4242\n4343\n4343 4444\nagain\n");
}

#[test]
fn bytes_go_through_a_task_whole_across_daemons() {
    let node = node_or_skip!(Wish::default());
    let mut first = node.daemon();
    first.spawn(1, spec(&["cat"])).unwrap();
    let data: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
    for (n, chunk) in data[..100_000].chunks(32_000).enumerate() {
        let piece = Piece { stream: STDIN, offset: n as u64 * 32_000, data: chunk.to_vec(), end: false };
        first.ask(Some(task(1)), Request::Input(piece));
    }
    assert!(!first.piece(1, STDOUT).data.is_empty(), "read, but not acknowledged");
    drop(first);
    let mut second = node.daemon();
    let accepted = second.wait_for(|message| match &message.report {
        Some(Report::Task(state)) => Some(state.accepted.clone()),
        _ => None,
    });
    assert_eq!(accepted[0].stream, STDIN);
    let from = accepted[0].offset as usize;
    for (n, chunk) in data[from..].chunks(32_000).enumerate() {
        let offset = (from + n * 32_000) as u64;
        let piece = Piece {
            stream: STDIN,
            offset,
            data: chunk.to_vec(),
            end: offset as usize + chunk.len() == data.len(),
        };
        second.ask(Some(task(1)), Request::Input(piece));
    }
    assert!(second.output(1, STDOUT, 0) == data);
    assert!(second.change(1).ended);
    drop(second);
    let mut third = node.daemon();
    let change = third.wait_for(|message| match &message.report {
        Some(Report::Task(state)) => state.change.clone(),
        _ => None,
    });
    assert_eq!((change.ended, change.wait_status), (true, 0), "an end is told until it is forgotten");
    third.ask(Some(task(1)), Request::Forget(()));
    drop(third);
    let mut fourth = node.daemon();
    assert_eq!(fourth.run(2, spec(&["true"])).0, 0);
}

#[test]
fn a_task_that_nobody_listens_to_waits() {
    let node = node_or_skip!(Wish::default());
    let mut daemon = node.daemon();
    daemon.spawn(1, shell("head -c 2000000 /dev/zero; echo done >&2")).unwrap();
    let mut got = 0;
    while got < base::limits::STREAM_WINDOW_BYTES {
        got += daemon.piece(1, STDOUT).data.len();
    }
    assert_eq!(got, base::limits::STREAM_WINDOW_BYTES, "exactly one window without an acknowledgement");
    daemon.ask(Some(task(1)), Request::Acknowledge(Mark { stream: STDOUT, offset: got as u64 }));
    assert_eq!(daemon.output(1, STDOUT, got as u64).len() + got, 2_000_000);
    assert_eq!(daemon.change(1).wait_status, 0);
}

#[test]
fn a_terminal_is_a_terminal() {
    let node = node_or_skip!(Wish::default());
    let mut daemon = node.daemon();
    let wanted = TaskSpec {
        stdio: Stdio::Pty as i32,
        rows: 33,
        columns: 99,
        ..shell("tty >/dev/tty; stty size; read x; stty size; cat")
    };
    daemon.spawn(1, wanted).unwrap();
    let mut shown = String::new();
    while !shown.contains("33 99\r\n") {
        shown += &daemon.line(1, STDOUT);
    }
    assert!(shown.contains("/dev/pts/"), "{shown:?}");
    daemon.ask(Some(task(1)), Request::Resize(WindowSize { rows: 44, columns: 111 }));
    daemon.ask(
        Some(task(1)),
        Request::Input(Piece { stream: STDIN, offset: 0, data: b"go\n".to_vec(), end: true }),
    );
    let rest = String::from_utf8(daemon.output(1, STDOUT, shown.len() as u64)).unwrap();
    assert!(rest.contains("44 111"), "{rest:?}");
    assert_eq!(daemon.change(1).wait_status, 0, "^D ends cat");
}

#[test]
fn a_task_on_a_terminal_is_suspended_by_the_key_for_it() {
    let node = node_or_skip!(Wish::default());
    let mut daemon = node.daemon();
    let wanted = TaskSpec { stdio: Stdio::Pty as i32, ..shell("echo ready; exec sleep 1000") };
    daemon.spawn(1, wanted).unwrap();
    daemon.line(1, STDOUT);
    let key = Piece { stream: STDIN, offset: 0, data: vec![0x1a], end: false };
    daemon.ask(Some(task(1)), Request::Input(key.clone()));
    assert_eq!(daemon.change(1).wait_status, 0x137f);
    daemon.ask(Some(task(1)), Request::Input(key));
    let wake = Signal { number: libc::SIGCONT as u32, privileged: true, ..Signal::default() };
    daemon.ask(Some(task(1)), Request::Signal(wake));
    assert_eq!(
        daemon.change(1).wait_status,
        0xffff,
        "the same key again, after a reconnection, is no new one"
    );
}

#[test]
fn merged_streams_keep_their_order_and_a_channel_speaks_both_ways() {
    let node = node_or_skip!(Wish::default());
    let mut daemon = node.daemon();
    let script = "echo one; echo two >&2; echo three; read x <&$PMI_FD; echo got $x >&$PMI_FD";
    let wanted = TaskSpec { stdio: Stdio::Merged as i32, channel_env: "PMI_FD".into(), ..shell(script) };
    daemon.spawn(1, wanted).unwrap();
    let ping = Piece { stream: CHANNEL, offset: 0, data: b"ping\n".to_vec(), end: false };
    daemon.ask(Some(task(1)), Request::Input(ping));
    assert_eq!(daemon.output(1, CHANNEL, 0), b"got ping\n");
    assert_eq!(daemon.output(1, STDOUT, 0), b"one\ntwo\nthree\n");
}

#[test]
fn a_pid_can_be_kept_and_is_never_given_twice() {
    let node = node_or_skip!(Wish::default());
    let mut daemon = node.daemon();
    let kept = TaskSpec { keep_pid: 50_123, ..spec(&["sleep", "1000"]) };
    assert_eq!(daemon.spawn(1, kept.clone()).unwrap().pid, 50_123);
    let failed = daemon.spawn(2, kept).unwrap_err();
    assert_eq!((failed.errno, failed.what.as_str()), (17, "start a process with pid 50123"));
    assert_eq!(daemon.spawn(3, spec(&["true"])).unwrap().pid, 16_384, "the cursor stays at home");
}

#[test]
fn a_full_region_overflows_into_the_node_local_one_and_comes_back() {
    let node = node_or_skip!(Wish { region: 512, ..Wish::default() });
    let mut daemon = node.daemon();
    let script = "n=0; while [ $n -lt 600 ]; do sleep 1000 >/dev/null & echo $!; n=$((n+1)); done";
    let (status, output) = daemon.run(1, shell(script));
    let mut pids: Vec<u32> = output.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!((status, pids.len()), (0, 600));
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 600, "none twice");
    assert!(pids.iter().all(|pid| (300..1024).contains(pid)));
    assert!(pids.iter().filter(|pid| **pid >= 512).count() > 450, "the home region first");
}

#[test]
fn a_signal_is_judged_like_a_local_one() {
    let node = node_or_skip!(Wish::default());
    let mut daemon = node.daemon();
    let started = daemon.spawn(1, spec(&["sleep", "1000"])).unwrap();
    let target = started.pid as i32;
    let order = Signal { target, sender: 40_000, sender_uid: 1000, sender_euid: 1000, ..Signal::default() };
    assert_eq!(daemon.signal(order.clone()), libc::EPERM as u32);
    let by_root = Signal { sender_euid: 0, ..order.clone() };
    assert_eq!(daemon.signal(by_root.clone()), 0, "0 only checks");
    assert_eq!(daemon.signal(Signal { target: 30_000, ..by_root.clone() }), libc::ESRCH as u32);
    assert_eq!(daemon.signal(Signal { start_time: 1, ..by_root.clone() }), libc::ESRCH as u32);
    assert_eq!(daemon.signal(Signal { number: 65, ..by_root.clone() }), libc::EINVAL as u32);
    assert_eq!(daemon.signal(Signal { target: -target, ..order.clone() }), libc::EPERM as u32);
    assert_eq!(daemon.signal(Signal { target: -30_000, ..by_root.clone() }), libc::ESRCH as u32);
    for (number, status) in [(libc::SIGTSTP, 0x147f), (libc::SIGCONT, 0xffff)] {
        assert_eq!(daemon.signal(Signal { number: number as u32, ..by_root.clone() }), 0);
        assert_eq!(daemon.change(1).wait_status, status);
    }
    let start_time = started.start_time;
    assert_eq!(daemon.signal(Signal { target: -target, number: 15, start_time, ..by_root }), 0);
    let change = daemon.change(1);
    assert_eq!((change.wait_status, change.ended), (15, true));
}

#[test]
fn a_foreign_kill_is_trapped_and_gets_the_answer() {
    let node = node_or_skip!(Wish::default());
    let mut daemon = node.daemon();
    let listener = Listener::from(daemon.descriptors[0].try_clone().unwrap());
    listener.wake_up_synchronously();
    daemon.spawn(1, shell("kill -TERM 50000; echo $?; kill -0 $$; echo $?")).unwrap();
    let taken = listener.receive().unwrap().unwrap();
    assert_eq!((taken.args[0], taken.args[1], i64::from(taken.nr)), (50_000, 15, libc::SYS_kill));
    assert!(listener.is_valid(taken.id).unwrap());
    assert!(listener.respond(taken.id, Response::Errno(libc::ESRCH)).unwrap());
    assert!(!listener.is_valid(taken.id).unwrap());
    assert_eq!(daemon.output(1, STDOUT, 0), b"1\n0\n");
}

#[test]
fn a_trapped_call_outlives_the_daemon_that_took_it() {
    let node = node_or_skip!(Wish::default());
    let mut first = node.daemon();
    first.spawn(1, shell("kill -TERM 50000; echo $?")).unwrap();
    let taken = Listener::from(first.descriptors.remove(0)).receive().unwrap().unwrap();
    let entry = pm::sys::ledger::Entry { id: taken.id, nr: taken.nr, pid: taken.pid, args: taken.args };
    pm::sys::ledger::Ledger::open(first.descriptors.remove(2)).unwrap().record(&entry).unwrap();
    drop(first);
    let mut second = node.daemon();
    let ledger = pm::sys::ledger::Ledger::open(second.descriptors.remove(3)).unwrap();
    let listener = Listener::from(second.descriptors.remove(0));
    for entry in ledger.pending().unwrap() {
        listener.respond(entry.id, Response::Value(0)).unwrap();
    }
    assert_eq!(second.output(1, STDOUT, 0), b"0\n");
}

#[test]
fn hearts_beat_without_a_daemon() {
    let node = node_or_skip!(Wish::default());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(node::DEADLINE)).unwrap();
    let mut daemon = node.daemon();
    let watchers = vec![socket.local_addr().unwrap().to_string()];
    daemon.ask(None, Request::Heartbeat(Heartbeat { watchers, interval_ms: 10, node: 1 }));
    let mut last = 0;
    for n in 0..10 {
        let mut datagram = [0; 512];
        let length = socket.recv(&mut datagram).unwrap();
        let beat = membership::Heartbeat::decode(&datagram[..length], &node::KEY, "test").unwrap();
        assert!(beat.sequence > last && beat.incarnation.0 == 5);
        last = beat.sequence;
        if n == 2 {
            daemon = Daemon::connect(&node.config.init_socket, true);
        }
    }
    drop(daemon);
}

#[test]
fn forgetting_a_running_task_ends_all_of_it() {
    let node = node_or_skip!(Wish::default());
    let mut daemon = node.daemon();
    daemon.spawn(1, shell("sleep 1000 & echo $!; wait")).unwrap();
    let grandchild: i32 = daemon.line(1, STDOUT).trim().parse().unwrap();
    let check = Signal { target: grandchild, privileged: true, ..Signal::default() };
    assert_eq!(daemon.signal(check.clone()), 0);
    daemon.ask(Some(task(1)), Request::Forget(()));
    let start = Instant::now();
    while daemon.signal(check.clone()) != libc::ESRCH as u32 {
        assert!(start.elapsed() < node::DEADLINE);
        pause();
    }
}

#[test]
fn shutdown_ends_the_view() {
    let mut node = node_or_skip!(Wish::default());
    let mut daemon = node.daemon();
    daemon.spawn(1, spec(&["sleep", "1000"])).unwrap();
    daemon.ask(None, Request::Shutdown(()));
    assert_eq!(node.ended(), Some(0));
}

fn look_around(wish: Wish) {
    let node = node_or_skip!(wish);
    let mut daemon = node.daemon();
    let script = "readlink /run/ssi/admin.sock /run/ssi/bin/onnode; test -x /run/ssi/bin/ssi && echo exec; \
                  ls -A /dev/shm | wc -l; stat -f -c %T /run; cat /run/ssi/localproc/sys/kernel/pid_max; \
                  test -d /usr/bin && test -e /dev/null && echo tree";
    let (status, output) = daemon.run(1, shell(script));
    assert_eq!(output, "admin/admin.sock\nssi\nexec\n0\ntmpfs\n32768\ntree\n");
    assert_eq!(status, 0);
}

#[test]
fn the_view_is_put_together() {
    look_around(Wish::default());
}

#[test]
fn the_view_is_put_together_in_a_user_namespace() {
    look_around(Wish { user_namespace: true, ..Wish::default() });
}

#[test]
fn fuse_stands_at_proc_and_ssi_and_localview_sees_behind() {
    look_at_mounts(Wish { fuse: true, ..Wish::default() });
}

#[test]
fn fuse_stands_in_a_user_namespace_as_well() {
    look_at_mounts(Wish { fuse: true, user_namespace: true, ..Wish::default() });
}

fn look_at_mounts(wish: Wish) {
    let node = node_or_skip!(wish);
    let mut daemon = node.daemon();
    let data = Daemon::connect(&node.config.init_socket, true);
    assert_eq!((daemon.descriptors.len(), data.descriptors.len()), (4, 1));
    let (_, mounts) = daemon.run(1, spec(&["cat", "/run/ssi/localproc/1/mountinfo"]));
    assert!(mounts.contains(" /proc ") && mounts.contains(" - fuse ssi-proc "), "{mounts}");
    assert!(mounts.contains(" /ssi ") && mounts.contains(" - fuse ssi "), "{mounts}");
    let local = TaskSpec { local_view: true, ..spec(&["cat", "/proc/1/comm"]) };
    assert_eq!(daemon.run(2, local), (0, "ssi-init\n".into()));
    assert_ne!(
        daemon.signal(Signal { target: 1, number: 15, privileged: true, sender: 9, ..Signal::default() }),
        libc::EPERM as u32
    );
    // One that waits for the FUSE that nobody serves ends with the view.
    daemon.spawn(3, spec(&["ls", "/ssi"])).unwrap();
    daemon.ask(None, Request::Shutdown(()));
    let mut node = node;
    assert_eq!(node.ended(), Some(0));
}
