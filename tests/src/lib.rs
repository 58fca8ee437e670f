//! A real local cluster for tests: real daemons, namespaces, mounts; nothing of it outlives the test.
//!
//! The cluster runs in the foreground with a pipe as its lifeline: when the test ends, passes, panics or is killed,
//! the pipe closes and ssi-local takes everything away.

pub mod faults;
pub mod views;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long a single command of a test may take.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);

/// A local cluster that lives as long as this value.
pub struct Cluster {
    /// Its state directory.
    pub dir: PathBuf,
    foreground: Child,
    lifeline: Option<ChildStdin>,
    /// What holds nodes that were started again.
    restarted: Mutex<Vec<Child>>,
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// Exit code as a shell gives it: 128 + n for death by signal n.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// The `ssi` binary under test: built beside the test binaries.
pub fn ssi_binary() -> PathBuf {
    // We are target/PROFILE/NAME or target/PROFILE/deps/NAME.
    let own = std::env::current_exe().expect("a test has a path");
    let mut beside = own.ancestors().skip(1).take(2).map(|dir| dir.join("ssi"));
    beside.find(|path| path.exists()).expect("`ssi` is built first: cargo build -p node")
}

/// `Some(why)` if this machine cannot run a local cluster; the test then prints it and passes as skipped.
pub fn cannot_run() -> Option<String> {
    let fuse = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    if let Err(error) = fuse {
        return Some(format!("skipped: /dev/fuse: {error}"));
    }
    if rustix::process::geteuid().is_root() {
        return None;
    }
    let spaces = Command::new("unshare").args(["-Urnmpf", "true"]).output();
    match spaces {
        Ok(output) if output.status.success() => None,
        _ => Some("skipped: this user may not make user namespaces".into()),
    }
}

/// Starts a cluster of `$n` nodes, or returns from the test (saying why) where none can run.
#[macro_export]
macro_rules! cluster {
    ($nodes:expr $(, $flag:expr)*) => {
        match $crate::cannot_run() {
            Some(why) => {
                println!("{why}");
                return;
            }
            None => $crate::Cluster::start($nodes, &[$($flag),*]),
        }
    };
}

impl Cluster {
    /// Starts `nodes` nodes with further flags of `ssi cluster up`; returns when all are UP.
    pub fn start(nodes: u32, flags: &[&str]) -> Cluster {
        Cluster::start_of(&ssi_binary(), nodes, flags)
    }

    /// As [`Cluster::start`], from a copy of the binary.
    pub fn start_of(binary: &Path, nodes: u32, flags: &[&str]) -> Cluster {
        let dir = tempfile::Builder::new().prefix("ssi-t").tempdir().expect("a temporary directory").keep();
        let mut command = Command::new(binary);
        command.args(["cluster", "up", "--foreground", "--nodes", &nodes.to_string()]).args(flags);
        // The same tests with and without memory shared between the nodes.
        let off = std::env::var_os("SSI_TEST_SHM").is_some_and(|choice| choice == "off");
        if off && !flags.contains(&"--no-shm") {
            command.arg("--no-shm");
        }
        command.arg("--dir").arg(&dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut foreground = command.spawn().expect("ssi starts");
        let lifeline = foreground.stdin.take();
        let mut line = String::new();
        let mut out = BufReader::new(foreground.stdout.take().expect("piped"));
        out.read_line(&mut line).expect("ssi says something");
        let mut cluster = Cluster { dir, foreground, lifeline, restarted: Mutex::default() };
        if !line.contains("UP") {
            let mut why = String::new();
            let _ = cluster.foreground.stderr.take().expect("piped").read_to_string(&mut why);
            panic!("the cluster did not start: {line}{why}");
        }
        cluster
    }

    /// Runs a command in the view of node `k`.
    pub fn on<S: AsRef<OsStr>>(&self, k: u32, command: &[S]) -> Ran {
        run(self.command(k, command))
    }

    /// Runs a shell script in the view of node `k`.
    pub fn sh(&self, k: u32, script: &str) -> Ran {
        self.on(k, &["bash", "-c", script])
    }

    /// As [`Cluster::sh`]; the script must exit 0. Gives what it printed, without the last newline.
    pub fn ok(&self, k: u32, script: &str) -> String {
        let ran = self.sh(k, script);
        assert_eq!(ran.code, 0, "on node {k}: {script}\n{}{}", ran.out, ran.err);
        ran.out.trim_end_matches('\n').to_owned()
    }

    /// The command that runs `command` in the view of node `k`, for a test that wants to hold it.
    pub fn command<S: AsRef<OsStr>>(&self, k: u32, command: &[S]) -> Command {
        let mut ssi = self.ssi();
        ssi.args(["shell", "--node", &k.to_string(), "--"]).args(command).stdin(Stdio::null());
        ssi
    }

    /// `ssi`, pointed at this cluster.
    pub fn ssi(&self) -> Command {
        let mut ssi = Command::new(ssi_binary());
        ssi.env("SSI_DIR", &self.dir);
        ssi
    }

    /// `ssi`, asking node `k`.
    pub fn ssi_on(&self, k: u32) -> Command {
        let mut ssi = Command::new(ssi_binary());
        ssi.env("SSI_DIR", self.node_dir(k));
        ssi
    }

    /// State directory of node `k`.
    pub fn node_dir(&self, k: u32) -> PathBuf {
        self.dir.join(format!("node{k}"))
    }

    /// The state of node `k` as node `asked` sees it.
    pub fn state(&self, asked: u32, k: u32) -> String {
        self.row(asked, k)["state"].as_str().unwrap_or("unknown").to_owned()
    }

    /// The life (incarnation) of node `k` as node `asked` sees it; 0 if it does not.
    pub fn life(&self, asked: u32, k: u32) -> u64 {
        self.row(asked, k)["incarnation"].as_u64().unwrap_or(0)
    }

    /// The row of node `k` in the table of node `asked`.
    fn row(&self, asked: u32, k: u32) -> serde_json::Value {
        let mut ssi = self.ssi_on(asked);
        ssi.args(["nodes", "--json"]);
        let table: serde_json::Value = serde_json::from_str(&run(ssi).out).unwrap_or_default();
        let nodes = table["nodes"].as_array().cloned().unwrap_or_default();
        nodes.into_iter().find(|row| row["id"] == k).unwrap_or_default()
    }

    /// Waits until node `asked` sees node `k` in `state`; gives how long it took.
    pub fn wait_state(&self, asked: u32, k: u32, state: &str, limit: Duration) -> Duration {
        let start = Instant::now();
        wait_until(&format!("node {asked} sees node {k} {state}"), limit, || self.state(asked, k) == state);
        start.elapsed()
    }

    /// Host pid of ssi-local.
    pub fn local_pid(&self) -> u32 {
        let text = std::fs::read_to_string(self.dir.join("cluster.json")).expect("cluster.json");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        json["pid"].as_u64().expect("a pid") as u32
    }

    /// Host pids of every process of node `k`: keeper, daemons, and all of its view. They share its network namespace.
    pub fn processes(&self, k: u32) -> Vec<(i32, String)> {
        let keeper = all_processes().into_iter().find(|(pid, name)| {
            let line = command_line(*pid);
            let of_this =
                line.contains(&self.dir.display().to_string()) && line.contains(&format!("--index {k} "));
            // One that was started again names its own directory.
            let again = line.trim_end().ends_with(&self.node_dir(k).display().to_string());
            name == "ssi-keeper" && (of_this || again)
        });
        let Some((keeper, _)) = keeper else { return Vec::new() };
        let Some(network) = network_of(keeper) else { return Vec::new() };
        all_processes().into_iter().filter(|(pid, _)| network_of(*pid).as_ref() == Some(&network)).collect()
    }

    /// Host pids of node `k`'s processes called `name` (`ssid`, `ssid-data`, `ssi-init`).
    pub fn process(&self, k: u32, name: &str) -> Vec<i32> {
        self.processes(k).into_iter().filter(|(_, n)| n == name).map(|(pid, _)| pid).collect()
    }

    /// SIGKILL for every process of node `k` at once.
    pub fn kill_node(&self, k: u32) {
        for (pid, _) in self.processes(k) {
            kill(pid);
        }
    }

    /// Cuts (`up` false) or mends the cable of node `k`.
    pub fn set_link(&self, k: u32, up: bool) {
        let state = if up { "up" } else { "down" };
        let ran = run({
            let mut enter = Command::new("nsenter");
            enter.args(["-t", &self.local_pid().to_string(), "-n"]);
            if !rustix::process::geteuid().is_root() {
                // We are root there already, and nobody may set groups there.
                enter.args(["-U", "--preserve-credentials"]);
            }
            enter.args(["ip", "link", "set", &format!("v{k}"), state]);
            enter
        });
        assert_eq!(ran.code, 0, "{}", ran.err);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        }
        drop(self.lifeline.take());
        let _ = self.foreground.wait();
        for child in self.restarted.get_mut().into_iter().flatten() {
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Cluster {
    fn print_logs(&self) {
        let nodes = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        for node in nodes.filter(|entry| entry.path().is_dir()) {
            let logs = std::fs::read_dir(node.path()).into_iter().flatten().flatten();
            for log in logs.filter(|entry| entry.path().extension().is_some_and(|e| e == "log")) {
                let text = std::fs::read_to_string(log.path()).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                println!("--- {}", log.path().display());
                lines[lines.len().saturating_sub(20)..].iter().for_each(|line| println!("{line}"));
            }
        }
    }
}

/// Runs a command to its end, with a bound.
pub fn run(mut command: Command) -> Ran {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the command starts");
    let pid = child.id() as i32;
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        if ended.recv_timeout(COMMAND_WITHIN) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            kill(pid);
        }
    });
    let output = child.wait_with_output().expect("the command ends");
    drop(done);
    let _ = watch.join();
    Ran::of(&output)
}

impl Ran {
    /// From what the standard library gives.
    pub fn of(output: &Output) -> Ran {
        use std::os::unix::process::ExitStatusExt;
        let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { code, out: text(&output.stdout), err: text(&output.stderr) }
    }
}

/// Waits until something is so; panics when it takes longer than `limit`.
pub fn wait_until(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        let pause = rustix::time::Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
        let _ = rustix::thread::nanosleep(&pause);
    }
}

/// SIGKILL for one process of the host.
pub fn kill(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

fn all_processes() -> Vec<(i32, String)> {
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let name = |pid| Some(std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned());
    pids.filter_map(|pid| Some((pid, name(pid)?))).collect()
}

fn network_of(pid: i32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()
}

fn command_line(pid: i32) -> String {
    let bytes = std::fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}
