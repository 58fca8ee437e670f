//! A program made with Debian's header and linked to Debian's library runs with ours in its place; so does Debian's own `dlm_tool`.

use base::NodeId;
use dlm::Config;
use dlm::client::SOCKET_VARIABLE;
use dlm::server::{self, Single};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, OnceLock};

const HEADER: &str = "/usr/include/libdlm.h";

/// The compiled programs, and our libraries under the names that programs look for.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    /// `None`, with the reason said, if something is missing here.
    fn get() -> Option<&'static Bench> {
        static BENCH: OnceLock<Option<Bench>> = OnceLock::new();
        BENCH.get_or_init(Bench::make).as_ref()
    }

    fn make() -> Option<Bench> {
        if !Path::new(HEADER).exists() {
            eprintln!("skipped: {HEADER} is not there (package libdlm-dev)");
            return None;
        }
        if Command::new("gcc").arg("--version").output().is_err() {
            eprintln!("skipped: gcc is not there");
            return None;
        }
        let bench = Bench { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(bench.libraries()).unwrap();
        for name in ["libdlm", "libdlm_lt"] {
            let link = bench.libraries().join(format!("{name}.so.3"));
            std::os::unix::fs::symlink(built(name), link).unwrap();
        }
        bench.compile("threaded", &["-D_REENTRANT", "-pthread"], "-ldlm");
        bench.compile("light", &[], "-ldlm_lt");
        Some(bench)
    }

    fn libraries(&self) -> PathBuf {
        self.dir.path().join("lib")
    }

    fn compile(&self, name: &str, flags: &[&str], library: &str) {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/program.c");
        let mut gcc = Command::new("gcc");
        gcc.args(["-Wall", "-Werror", "-O1", "-o"]).arg(self.dir.path().join(name)).arg(source);
        let made = gcc.args(flags).arg(library).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    fn command(&self, program: &Path, node: &Node) -> Command {
        let mut command = Command::new(program);
        command.env("LD_LIBRARY_PATH", self.libraries()).env(SOCKET_VARIABLE, &node.socket);
        command
    }

    fn program(&self, name: &str, what: &str, node: &Node) -> Command {
        let mut command = self.command(&self.dir.path().join(name), node);
        command.arg(what);
        command
    }

    fn run(&self, name: &str, what: &str) {
        let ended = self.program(name, what, &Node::start()).output().unwrap();
        assert!(ended.status.success(), "{name} {what}: {:?} {}", ended.status, errors(&ended));
    }
}

fn errors(ended: &Output) -> String {
    String::from_utf8_lossy(&ended.stderr).into_owned()
}

/// The library that cargo has built for this test.
fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let library = test.with_file_name(format!("lib{name}.so"));
    assert!(library.exists(), "cargo has built no {}", library.display());
    library
}

/// A lock manager with one table, in a thread that ends with the test.
struct Node {
    _dir: tempfile::TempDir,
    socket: PathBuf,
    stop: Arc<tokio::sync::Notify>,
}

impl Node {
    fn start() -> Node {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("dlm.sock");
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (path, stop) = (socket.clone(), Arc::new(tokio::sync::Notify::new()));
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let locks = Single::start(NodeId(1), Config::default()).unwrap();
                let listener = server::listen(&path).unwrap();
                ready.send(()).unwrap();
                tokio::select! {
                    () = server::run(listener, locks) => {}
                    () = stopped.notified() => {}
                }
            });
        });
        is_ready.recv().unwrap();
        Node { _dir: dir, socket, stop }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

/// A process that is gone with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

macro_rules! scenarios {
    ($($name:ident: $program:literal $what:literal;)*) => {$(
        #[test]
        fn $name() {
            if let Some(bench) = Bench::get() {
                bench.run($program, $what);
            }
        }
    )*};
}

scenarios! {
    callbacks_come_through_dispatch_and_values_travel: "threaded" "callbacks";
    callbacks_come_through_dispatch_in_the_light_library: "light" "callbacks";
    errors_are_those_of_the_manual: "threaded" "refusals";
    errors_are_those_of_the_manual_in_the_light_library: "light" "refusals";
    calls_that_wait_work_without_a_thread: "light" "waits";
    lockspaces_are_made_shared_and_released: "threaded" "spaces";
    the_versions_are_told: "light" "versions";
    callbacks_come_in_a_thread_and_resources_are_locked: "threaded" "threads";
}

#[test]
fn the_next_holder_learns_that_the_last_one_died() {
    let Some(bench) = Bench::get() else { return };
    let node = Node::start();
    let mut holder = bench.program("threaded", "hold", &node);
    let mut holder = Killed(holder.stdout(Stdio::piped()).spawn().unwrap());
    let mut said = BufReader::new(holder.0.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "held");
    let mut heir = bench.program("light", "inherit", &node);
    let mut heir = Killed(heir.stderr(Stdio::piped()).spawn().unwrap());
    // The heir waits by now, or the holder would not have been called.
    assert_eq!(said.next().unwrap().unwrap(), "called");
    holder.0.kill().unwrap();
    let mut why = String::new();
    std::io::Read::read_to_string(&mut heir.0.stderr.take().unwrap(), &mut why).unwrap();
    assert!(heir.0.wait().unwrap().success(), "{why}");
}

#[test]
fn dlm_tool_joins_and_leaves_a_lockspace() {
    let Some(bench) = Bench::get() else { return };
    let places = ["/usr/sbin/dlm_tool", "/sbin/dlm_tool"];
    let Some(tool) = places.iter().map(Path::new).find(|tool| tool.exists()) else {
        return eprintln!("skipped: dlm_tool is not there (package dlm-controld)");
    };
    let node = Node::start();
    let run = |words: &[&str]| bench.command(tool, &node).args(words).output().unwrap();
    let joined = run(&["join", "films"]);
    assert!(joined.status.success(), "{}", errors(&joined));
    assert!(!run(&["-e", "1", "join", "films"]).status.success());
    let left = run(&["leave", "films"]);
    assert!(left.status.success(), "{}", errors(&left));
    assert!(!run(&["leave", "films"]).status.success());
    let both = run(&["joinleave", "films"]);
    assert!(both.status.success(), "{}", errors(&both));
}

/// The functions of a shared library, by name.
fn functions(library: &Path) -> Option<Vec<String>> {
    let listed = Command::new("nm").args(["-D", "--defined-only"]).arg(library).output().ok()?;
    let text = String::from_utf8(listed.stdout).ok()?;
    let names = text.lines().filter_map(|line| line.split_whitespace().nth(2));
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort();
    Some(names)
}

#[test]
fn our_libraries_have_every_function_of_debians_and_no_other() {
    for (name, ours) in [("libdlm.so", "libdlm"), ("libdlm_lt.so", "libdlm_lt")] {
        let debians = Path::new("/usr/lib/x86_64-linux-gnu").join(name);
        if !debians.exists() {
            return eprintln!("skipped: {} is not there", debians.display());
        }
        let Some(wanted) = functions(&debians) else { return eprintln!("skipped: nm is not there") };
        assert_eq!(functions(&built(ours)).unwrap(), wanted);
    }
}
