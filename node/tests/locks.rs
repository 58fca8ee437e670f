//! `ssi lock` and `ssi locks` beside a lock manager with one table: exit codes as flock(1) has them.

use dlm::server::{self, Single};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

/// What looks like a node's state directory, with a lock manager in a thread that ends with the test process.
struct Node(tempfile::TempDir);

impl Node {
    fn start() -> Node {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("node.toml"), "").unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        let socket = dir.path().join("run/dlm.sock");
        let (ready, is_ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let locks = Single::start(base::NodeId(1), dlm::Config::default()).unwrap();
                let listener = server::listen(&socket).unwrap();
                ready.send(()).unwrap();
                server::run(listener, locks).await;
            });
        });
        is_ready.recv().unwrap();
        Node(dir)
    }

    fn ssi(&self, line: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ssi"));
        command.env_remove("SSI_LOCK_TRANSACTION").arg("--dir").arg(self.0.path()).args(line);
        command
    }

    fn code(&self, line: &[&str]) -> i32 {
        self.ssi(line).stderr(Stdio::null()).stdout(Stdio::null()).status().unwrap().code().unwrap()
    }

    fn said(&self, line: &[&str]) -> String {
        String::from_utf8(self.ssi(line).output().unwrap().stdout).unwrap()
    }

    /// A command that holds a lock until its input ends.
    fn hold(&self, line: &[&str]) -> Holder {
        let script = ["sh", "-c", "echo held; read line"];
        let mut command = self.ssi(&[line, &script[..]].concat());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "held\n");
        Holder { input: child.stdin.take(), child }
    }
}

struct Holder {
    child: Child,
    input: Option<ChildStdin>,
}

impl Holder {
    fn end(mut self) {
        self.input.take().unwrap().write_all(b"\n").unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // The command reads the end of its input, and ends.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

#[test]
fn the_exit_code_is_the_commands() {
    let node = Node::start();
    assert_eq!(node.code(&["lock", "a", "sh", "-c", "exit 7"]), 7);
    assert_eq!(node.code(&["lock", "a", "-c", "kill -TERM $$"]), 128 + 15);
    assert_eq!(node.code(&["lock", "a", "/no/such/program"]), 69);
    assert_eq!(node.said(&["lock", "a", "echo", "-n", "done"]), "done");
}

#[test]
fn who_cannot_or_will_not_wait_is_told_by_the_exit_code() {
    let node = Node::start();
    let holder = node.hold(&["lock", "-s", "a"]);
    assert_eq!(node.code(&["lock", "-s", "-n", "a", "true"]), 0);
    assert_eq!(node.code(&["lock", "-n", "a", "true"]), 1);
    assert_eq!(node.code(&["lock", "-w", "0.02", "-E", "75", "a", "true"]), 75);
    assert_eq!(node.code(&["lock", "-n", "--mode", "cr", "a", "true"]), 0);
    holder.end();
    assert_eq!(node.code(&["lock", "-n", "a", "true"]), 0);
}

#[test]
fn a_lock_without_a_command_stays_until_it_is_dropped() {
    let node = Node::start();
    assert_eq!(node.code(&["lock", "a"]), 0);
    assert_eq!(node.code(&["lock", "-n", "a", "true"]), 1);
    let listed: serde_json::Value = serde_json::from_str(&node.said(&["locks", "--json"])).unwrap();
    assert_eq!((&listed[0]["state"], &listed[0]["name"]), (&"orphan".into(), &"a".into()));
    assert_eq!(node.code(&["lock", "-u", "a"]), 0);
    assert_eq!(node.code(&["lock", "-n", "a", "true"]), 0);
    assert_eq!(node.code(&["lock", "-u", "a"]), 1);
}

#[test]
fn of_two_commands_that_wait_for_each_other_one_gives_up() {
    let node = Node::start();
    let ssi = env!("CARGO_BIN_EXE_ssi");
    let dir = node.0.path().to_str().unwrap();
    let inner = |name: &'static str| format!("echo held; read line; {ssi} --dir {dir} lock {name} true");
    let mut commands = [("a", "b"), ("b", "a")].map(|(outer, second)| {
        let mut command = node.ssi(&["lock", outer, "-c", &inner(second)]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    });
    for command in &mut commands {
        let mut said = String::new();
        BufReader::new(command.stdout.take().unwrap()).read_line(&mut said).unwrap();
    }
    for command in &mut commands {
        command.stdin.take().unwrap().write_all(b"\n").unwrap();
    }
    let mut codes = commands.map(|mut command| command.wait().unwrap().code().unwrap());
    codes.sort_unstable();
    assert_eq!(codes, [0, 1]);
}
