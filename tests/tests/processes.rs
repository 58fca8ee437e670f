//! One pid space: unmodified programs, seen and signalled from every node, and what they inherit.

use ssi_tests::{cluster, wait_until};
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn exit_codes_and_deaths_come_back_exactly() {
    let cluster = cluster!(2);
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)] {
        assert_eq!(cluster.on(1, &["onnode", "2", "sh", "-c", script]).code, code, "{script}");
    }
    let unknown = cluster.on(1, &["onnode", "2", "no-such-command"]);
    assert_eq!(unknown.code, 127);
    assert!(unknown.err.contains("no-such-command") && unknown.err.contains("node2"), "{}", unknown.err);
    let not_executable = cluster.on(1, &["onnode", "2", "/etc/passwd"]);
    assert_eq!(not_executable.code, 126, "{}", not_executable.err);
}

#[test]
fn a_command_can_signal_itself_as_soon_as_it_runs() {
    let cluster = cluster!(2);
    // What starts on node 2 under an id of node 1 is known there by its process before it is known by the news of it.
    let script =
        "for i in $(seq 40); do onnode 2 sh -c 'kill -USR1 $$'; echo $?; done 2>/dev/null | sort | uniq -c";
    assert_eq!(cluster.ok(1, script).split_whitespace().collect::<Vec<_>>(), ["40", "138"]);
}

#[test]
fn the_core_dump_bit_comes_back() {
    let cluster = cluster!(2);
    let out = cluster.ok(
        1,
        r#"cd $(mktemp -d); ulimit -c unlimited
        /usr/bin/python3 - <<'E'
import os, signal
def status(limit):
    pid = os.fork()
    if pid == 0:
        os.execvp("onnode", ["onnode", "2", "sh", "-c", f"cd $(mktemp -d); ulimit -c {limit}; kill -SEGV $$"])
    status = os.waitpid(pid, 0)[1]
    return os.WTERMSIG(status), os.WCOREDUMP(status)
print(status("unlimited"), status("0"))
E"#,
    );
    assert_eq!(out, "(11, True) (11, False)");
}

#[test]
fn a_command_inherits_what_its_caller_has() {
    let cluster = cluster!(2);
    let script = "pwd; umask; echo $COLOUR; ulimit -n; id -u; hostname";
    let out = cluster
        .ok(1, &format!("cd /usr; umask 027; export COLOUR=green; ulimit -n 321; onnode 2 sh -c '{script}'"));
    assert_eq!(out, "/usr\n0027\ngreen\n321\n0\nnode2");
}

#[test]
fn a_command_runs_as_its_caller() {
    let cluster = cluster!(2);
    if !rustix::process::geteuid().is_root() {
        println!("skipped: other users need root");
        return;
    }
    let out = cluster.ok(1, "setpriv --reuid 1234 --regid 2345 --groups 77,88 onnode 2 id");
    assert!(
        out.contains("uid=1234") && out.contains("gid=2345") && out.contains("77") && out.contains("88"),
        "{out}"
    );
}

#[test]
fn pipes_carry_every_byte_both_ways() {
    let cluster = cluster!(2);
    let sum = "head -c 3000000 /dev/urandom > data; sha256sum < data; onnode 2 cat < data | sha256sum";
    let out = cluster.ok(1, &format!("cd $(mktemp -d); {sum}; rm data"));
    let sums: Vec<&str> = out.lines().collect();
    assert_eq!(sums.len(), 2);
    assert_eq!(sums[0], sums[1]);
    assert_eq!(cluster.on(1, &["onnode", "2", "sh", "-c", "echo out; echo err >&2"]).err, "err\n");
    let merged = cluster.ok(1, "onnode 2 sh -c 'for i in 1 2 3; do echo out$i; echo err$i >&2; done' 2>&1");
    assert_eq!(merged, "out1\nerr1\nout2\nerr2\nout3\nerr3");
}

#[test]
fn an_interactive_command_has_a_terminal_of_the_right_size() {
    let cluster = cluster!(2);
    let session = r#"stty rows 33 cols 99; onnode 2 sh -c 'tty; stty size; test -t 0 && echo terminal'"#;
    let out =
        cluster.ok(1, &format!("script -qec \"{}\" /dev/null </dev/null", session.replace('"', "\\\"")));
    assert!(out.contains("/dev/pts/") && out.contains("33 99") && out.contains("terminal"), "{out}");
}

#[test]
fn a_foreign_kill_has_the_errno_of_a_local_one() {
    let cluster = cluster!(2);
    let mut command = cluster.command(2, &["bash", "-c", "echo $$; exec sleep 100"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let pid = BufReader::new(child.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    let kill = |who: &str, target: &str, signal: i32| {
        let program = format!(
            "import os\ntry:\n os.kill({target}, {signal}); print(0)\nexcept OSError as e: print(e.errno)"
        );
        cluster.ok(1, &format!("{who} /usr/bin/python3 -c '{program}'"))
    };
    assert_eq!(kill("", &pid, 0), "0");
    let free: u32 = pid.parse::<u32>().unwrap() + 5_000;
    assert_eq!(kill("", &free.to_string(), 0), "3", "ESRCH");
    assert_eq!(kill("", &pid, 99), "22", "EINVAL");
    if rustix::process::geteuid().is_root() {
        assert_eq!(kill("setpriv --reuid 1234 --clear-groups", &pid, 15), "1", "EPERM");
    } else {
        println!("skipped: EPERM needs another user, and that needs root");
    }
    assert_eq!(kill("", &pid, 15), "0");
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(child.wait().unwrap().signal(), Some(15));
}

#[test]
fn every_node_sees_every_process_once_under_one_pid() {
    let cluster = cluster!(3);
    let mut children = Vec::new();
    let mut pids = Vec::new();
    for k in 1..=3 {
        let mut command = cluster.command(k, &["bash", "-c", "echo $$; exec -a marker-process sleep 100"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let pid = BufReader::new(child.stdout.take().unwrap()).lines().next().unwrap().unwrap();
        pids.push(pid.parse::<u32>().unwrap());
        children.push(child);
    }
    for asked in 1..=3 {
        wait_until("ps shows all three", PATIENCE, || {
            let out =
                cluster.ok(asked, "ps -eo pid,args | grep '[m]arker-process' | awk '{print $1}' | sort -n");
            let seen: Vec<u32> = out.lines().map(|line| line.parse().unwrap()).collect();
            seen == pids
        });
        for (k, pid) in (1..=3).zip(&pids) {
            assert_eq!(cluster.ok(asked, &format!("where_pid {pid}")), k.to_string());
        }
    }
    let pid = pids[0];
    assert_eq!(cluster.ok(3, "pgrep -f '^marker-process'").lines().count(), 3);
    assert!(cluster.ok(2, &format!("tr '\\0' ' ' < /proc/{pid}/cmdline")).contains("marker-process"));
    assert_eq!(cluster.ok(1, "localview pgrep -fc '^marker-process'"), "1");
    cluster.ok(3, &format!("kill {} {} {}", pids[0], pids[1], pids[2]));
    for mut child in children {
        child.wait().unwrap();
    }
}

#[test]
fn usual_programs_work_in_the_view() {
    let cluster = cluster!(2);
    for script in [
        "ps -ef >/dev/null && ps aux >/dev/null",
        "top -b -n 1 | grep -q Tasks",
        "free | grep -q Mem",
        "uptime",
        "cat <(echo substitution) | grep -q substitution",
        "readlink /proc/self/exe | grep -q readlink",
        "grep -q Name /proc/self/status",
        "test -e /proc/$$/fd/0",
        "cat /proc/meminfo /proc/cpuinfo /proc/mounts >/dev/null",
        "test $(cat /proc/sys/kernel/hostname) = node1",
    ] {
        cluster.ok(1, script);
    }
}

#[test]
fn onall_runs_everywhere_and_tells_the_worst_exit_code() {
    let cluster = cluster!(3);
    let mut names: Vec<String> = cluster.ok(1, "onall hostname").lines().map(str::to_owned).collect();
    names.sort();
    assert_eq!(names, ["node1", "node2", "node3"]);
    assert_eq!(cluster.sh(2, "onall sh -c 'test $(hostname) = node3 && exit 4; exit 0'").code, 4);
    assert!(cluster.ok(1, "onall -l hostname").contains("node2: node2"));
}

#[test]
fn wrong_input_is_told_clearly() {
    let cluster = cluster!(2);
    let nobody = cluster.sh(1, "onnode 9 true");
    assert_ne!(nobody.code, 0);
    assert!(nobody.err.contains('9') && nobody.err.contains("node1"), "{}", nobody.err);
    let missing = cluster.sh(1, "cd /; onnode 2 sh -c 'cd /nowhere' ; mkdir /tmp/gone.$$; cd /tmp/gone.$$; rmdir /tmp/gone.$$; onnode 2 true");
    assert_ne!(missing.code, 0);
    assert_eq!(cluster.sh(1, "where_pid 999999").code, 1);
    assert_ne!(cluster.sh(1, "onnode").code, 0);
    assert_ne!(cluster.sh(1, "ssi frobnicate").code, 0);
}

#[test]
fn no_process_is_left_when_the_command_that_started_it_is_killed() {
    let cluster = cluster!(2);
    let mut command = cluster.command(1, &["onnode", "2", "sh", "-c", "echo $$; exec sleep 1000"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let pid = BufReader::new(child.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    let _ = child.stdin.take().unwrap().write_all(b"x");
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the command is gone", PATIENCE, || cluster.sh(2, &format!("kill -0 {pid}")).code != 0);
}
