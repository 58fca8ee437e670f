//! ssi-local: makes the namespaces of a local cluster, starts its nodes, and takes everything away at the end.

use super::{Plan, Running, network, node_name, start_time};
use crate::admin::client::Client;
use crate::admin::wire::Ask;
use crate::config::{NodeConfig, StateDir};
use crate::error::Error;
use crate::keeper::Keeper;
use crate::sys::{self, Fork, Signals};
use membership::NodeState;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, wait, waitpid};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long the nodes may take until all are UP.
const UP_WITHIN: Duration = Duration::from_secs(30);
/// How long ssi-local may take to end everything when asked.
const DOWN_WITHIN: Duration = Duration::from_secs(20);

/// Holds a local cluster up: when the last copy of this goes, so does the cluster (unless it was detached).
pub struct Lifeline {
    _pipe: Option<OwnedFd>,
}

/// Makes a local cluster and returns when all its nodes are UP. With `tied` it ends when the returned [`Lifeline`]
/// is dropped, even by SIGKILL of this process; otherwise it stays until [`down`].
///
/// # Errors
/// What could not be made, with the end of the log of whatever failed.
pub fn up(plan: &Plan, tied: bool) -> Result<Lifeline, Error> {
    plan.check()?;
    if Running::find(&plan.dir).is_some() {
        let dir = plan.dir.display();
        return Err(Error::Said(format!(
            "a cluster runs in {dir} already: `ssi cluster down --dir {dir}` ends it"
        )));
    }
    std::fs::create_dir_all(&plan.dir).map_err(|source| Error::File { path: plan.dir.clone(), source })?;
    let (ready, told) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(Error::step("make a pipe"))?;
    let (alive, hold) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(Error::step("make a pipe"))?;
    match sys::fork().map_err(Error::step("fork"))? {
        Fork::Child => {
            drop((ready, hold));
            let code = child(plan, File::from(told), tied.then_some(alive));
            std::process::exit(code);
        }
        Fork::Parent(pid) => {
            drop((told, alive));
            let outcome = wait_ready(plan, File::from(ready));
            let _ = waitpid(Pid::from_raw(pid), WaitOptions::empty());
            if outcome.is_err() && Running::find(&plan.dir).is_none() {
                let _ = std::fs::remove_dir_all(&plan.dir);
            }
            outcome.map(|()| Lifeline { _pipe: tied.then_some(hold) })
        }
    }
}

/// Reads what ssi-local says: first its pid, then `ready` or what went wrong.
fn wait_ready(plan: &Plan, ready: File) -> Result<(), Error> {
    let mut lines = BufReader::new(ready).lines();
    let mut next = || lines.next().and_then(Result::ok);
    while let Some(line) = next() {
        if let Some(pid) = line.strip_prefix("pid ").and_then(|pid| pid.parse().ok()) {
            let start_time = start_time(pid).unwrap_or(0);
            Running { pid, start_time, plan: plan.clone() }.store()?;
        } else if line == "ready" {
            return Ok(());
        } else {
            return Err(Error::Said(line.replace('\t', "\n")));
        }
    }
    Err(Error::Said(format!(
        "the local cluster ended before it was ready; see {}",
        plan.dir.join("local.log").display()
    )))
}

/// The process between: enters the namespaces, and forks the one that is pid 1 in them.
fn child(plan: &Plan, mut told: File, lifeline: Option<OwnedFd>) -> i32 {
    sys::new_session();
    let outcome = enter_namespaces().and_then(|()| sys::fork().map_err(Error::step("fork")));
    match outcome {
        Err(error) => {
            let _ = writeln!(told, "{error}");
            1
        }
        Ok(Fork::Parent(pid)) => i32::from(writeln!(told, "pid {pid}").is_err()),
        Ok(Fork::Child) => {
            let code = Lab { plan: plan.clone(), told, lifeline }.run();
            std::process::exit(code)
        }
    }
}

fn enter_namespaces() -> Result<(), Error> {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let spaces = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWPID | libc::CLONE_NEWIPC;
    if uid == 0 {
        return sys::unshare(spaces).map_err(Error::step("make namespaces (is CAP_SYS_ADMIN there?)"));
    }
    let hint = "make a user namespace (as root, allow it: sysctl kernel.unprivileged_userns_clone=1 \
                user.max_user_namespaces=10000 kernel.apparmor_restrict_unprivileged_userns=0)";
    sys::unshare(libc::CLONE_NEWUSER).map_err(Error::step(hint))?;
    let write =
        |file: &str, text: String| std::fs::write(file, text).map_err(Error::step(format!("write {file}")));
    write("/proc/self/setgroups", "deny".into())?;
    write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    sys::unshare(spaces).map_err(Error::step("make namespaces"))
}

/// pid 1 of the local cluster.
struct Lab {
    plan: Plan,
    told: File,
    lifeline: Option<OwnedFd>,
}

impl Lab {
    fn run(mut self) -> i32 {
        sys::set_name(c"ssi-local");
        let code = match self.start() {
            Ok(signals) => {
                let _ = writeln!(self.told, "ready");
                self.hold(&signals);
                0
            }
            Err(error) => {
                let _ = writeln!(self.told, "{}", error.to_string().replace('\n', "\t"));
                1
            }
        };
        self.end();
        code
    }

    fn start(&mut self) -> Result<Signals, Error> {
        let signals = Signals::block(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP])
            .map_err(Error::step("block signals"))?;
        self.leave_the_terminal()?;
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
            .map_err(Error::step("make mounts private"))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("proc", "/proc", "proc", flags, None).map_err(Error::step("mount the cluster's own /proc"))?;
        network::make_bridge()?;
        for k in 1..=self.plan.nodes {
            self.start_node(k)?;
        }
        self.wait_until_up(&signals)?;
        Ok(signals)
    }

    fn leave_the_terminal(&self) -> Result<(), Error> {
        let log = File::options().create(true).append(true).open(self.plan.dir.join("local.log"));
        let log = log.map_err(Error::step("open local.log"))?;
        let null = File::open("/dev/null").map_err(Error::step("open /dev/null"))?;
        rustix::stdio::dup2_stdin(null).map_err(Error::step("redirect stdin"))?;
        rustix::stdio::dup2_stdout(&log).map_err(Error::step("redirect stdout"))?;
        rustix::stdio::dup2_stderr(&log).map_err(Error::step("redirect stderr"))
    }

    /// Starts the process that becomes node `k`'s keeper: in its own network namespace, it waits for its cable.
    fn start_node(&self, k: u32) -> Result<(), Error> {
        let state = self.plan.state(k);
        std::fs::create_dir_all(&state.0).map_err(Error::step("make the node's directory"))?;
        self.limit_store(&state)?;
        let log = File::options().create(true).append(true).open(state.log_file("keeper"));
        let log = log.map_err(Error::step("open the keeper's log"))?;
        let plan = serde_json::to_string(&self.plan).map_err(Error::said)?;
        let mut command = Command::new("/proc/self/exe");
        command.args(["local-node", "--index", &k.to_string(), "--plan", &plan]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        let mut child = sys::in_new_network(&mut command).spawn().map_err(Error::step("start a node"))?;
        network::plug_in(k, child.id())?;
        let mut go = child.stdin.take().expect("piped");
        go.write_all(b"go").map_err(Error::step("start a node"))
    }

    fn limit_store(&self, state: &StateDir) -> Result<(), Error> {
        if self.plan.ost_bytes == 0 {
            return Ok(());
        }
        let dir = state.0.join("ost");
        std::fs::create_dir_all(&dir).map_err(Error::step("make the object store"))?;
        let size = std::ffi::CString::new(format!("size={}", self.plan.ost_bytes)).expect("no zero byte");
        mount("ost", &dir, "tmpfs", MountFlags::empty(), size.as_c_str())
            .map_err(Error::step("mount the object store"))
    }

    fn wait_until_up(&mut self, signals: &Signals) -> Result<(), Error> {
        let until = Instant::now() + UP_WITHIN;
        let mut last = String::from("no ssid answered");
        while Instant::now() < until {
            match self.nodes_up() {
                Ok(up) if up == self.plan.nodes => return Ok(()),
                Ok(up) => last = format!("{up} of {} nodes were UP", self.plan.nodes),
                Err(error) => last = error.to_string(),
            }
            if self.wait(signals, Some(Duration::from_millis(10))) {
                return Err(Error::Said("told to end before the nodes were up".into()));
            }
        }
        Err(Error::Said(format!(
            "the nodes were not all UP within {} s: {last}\n{}",
            UP_WITHIN.as_secs(),
            self.logs()
        )))
    }

    /// Nodes that every node holds to be UP.
    fn nodes_up(&self) -> Result<u32, Error> {
        let mut least = u32::MAX;
        for k in 1..=self.plan.nodes {
            let answer = Client::connect(&self.plan.state(k).admin_socket())?.ask(Ask::Nodes(()))?;
            let view = answer.view.unwrap_or_default();
            let up = view.nodes.iter().filter(|node| node.state() == NodeState::Up).count();
            least = least.min(up as u32);
            Client::connect(&self.plan.state(k).data_socket())?;
        }
        Ok(least)
    }

    /// The last lines of every log, for an error message.
    fn logs(&self) -> String {
        let mut text = String::new();
        for k in 1..=self.plan.nodes {
            for process in ["keeper", "ssi-init", "ssid", "ssid-data"] {
                let log = std::fs::read_to_string(self.plan.state(k).log_file(process)).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                for line in &lines[lines.len().saturating_sub(3)..] {
                    text.push_str(&format!("{} {process}: {line}\n", node_name(k)));
                }
            }
        }
        text
    }

    /// Runs until somebody wants the cluster to end.
    fn hold(&self, signals: &Signals) {
        while !self.wait(signals, None) {}
    }

    /// Waits for events and reaps; true if the cluster shall end.
    fn wait(&self, signals: &Signals, timeout: Option<Duration>) -> bool {
        let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
        fds.extend(self.lifeline.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        let timeout = timeout.map(|t| Timespec { tv_sec: 0, tv_nsec: t.subsec_nanos().into() });
        let _ = poll(&mut fds, timeout.as_ref());
        let cut = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        let mut end = cut;
        while let Some(signal) = signals.take() {
            end |= signal != libc::SIGCHLD;
        }
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        end
    }

    /// Ends every process of the cluster and removes its directory.
    fn end(&self) {
        sys::kill_namespace();
        while wait(WaitOptions::empty()).is_ok() {}
        for k in 1..=self.plan.nodes {
            let _ =
                rustix::mount::unmount(self.plan.state(k).0.join("ost"), rustix::mount::UnmountFlags::DETACH);
        }
        let _ = std::fs::remove_dir_all(&self.plan.dir);
    }
}

/// What `ssi local-node` does: waits for the cable, becomes a member, becomes the keeper.
///
/// # Errors
/// What could not be done; ssi-local shows the log.
pub fn run_node(plan: &Plan, k: u32) -> Result<(), Error> {
    let mut go = [0; 2];
    std::io::stdin().read_exact(&mut go).map_err(Error::step("wait for the network"))?;
    network::set_address(k)?;
    let state = plan.state(k);
    let config = NodeConfig {
        cluster: "local".into(),
        id: 1,
        name: node_name(k),
        address: network::address(k),
        port: crate::config::PORT,
        pid_region: plan.pid_region,
        cpus: plan.cpus,
        memory_mib: crate::config::default_memory() / u64::from(plan.nodes),
        speed: 100,
        mount: "/ssi".into(),
        ost_dir: None,
        mdt_dir: None,
    };
    if k == 1 {
        crate::verb::cluster::make(&state, &config)?;
    } else {
        let seed = std::net::SocketAddr::new(network::address(1), crate::config::PORT);
        let key = wait_for_turn(plan, k)?;
        crate::verb::node::become_member(&state, config, seed, &key, UP_WITHIN)?;
    }
    Keeper::new(state)?.run()
}

/// The cluster's key, once the node before `k` is a member: so numbers follow names.
fn wait_for_turn(plan: &Plan, k: u32) -> Result<fabric::ClusterKey, Error> {
    let until = Instant::now() + UP_WITHIN;
    loop {
        match plan.state(k - 1).load().and_then(|_| plan.state(1).key()) {
            Ok(key) => return Ok(key),
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => {
                let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 5_000_000 }));
            }
        }
    }
}

/// Ends the local cluster in `dir`, waits until it is gone, and removes the directory.
///
/// # Errors
/// None runs there, or it does not end.
pub fn down(dir: &std::path::Path) -> Result<(), Error> {
    let Some(running) = Running::find(dir) else {
        return Err(Error::Said(format!("no local cluster runs in {}", dir.display())));
    };
    let pid = Pid::from_raw(running.pid).ok_or_else(|| Error::Said("cluster.json is damaged".into()))?;
    let fd = pidfd_open(pid, PidfdFlags::empty()).map_err(Error::step("find ssi-local"))?;
    for signal in [Signal::TERM, Signal::KILL] {
        let _ = pidfd_send_signal(&fd, signal);
        let limit = Timespec { tv_sec: DOWN_WITHIN.as_secs() as i64, tv_nsec: 0 };
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        if poll(&mut fds, Some(&limit)).is_ok_and(|n| n > 0) {
            let _ = std::fs::remove_dir_all(dir);
            return Ok(());
        }
    }
    Err(Error::Said(format!("ssi-local (pid {}) does not end", running.pid)))
}
