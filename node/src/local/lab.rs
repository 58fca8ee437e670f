//! ssi-local: makes the namespaces of a local cluster, starts its nodes, and takes everything away at the end.

use super::{LOG, Plan, Running, claim, clear, network, node_name, permission, start_time};
use crate::config::StateDir;
use crate::error::Error;
use crate::sys::{self, Fork, Signals};
use admin::Client;
use admin::wire::Ask;
use admin::wire::NodeState;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, wait, waitpid};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long the nodes may take until all are UP, and so much more for each: they join one after the other.
const UP_WITHIN: Duration = Duration::from_secs(30);
const UP_WITHIN_EACH: Duration = Duration::from_secs(2);
/// How long ssi-local may take to end everything when asked.
const DOWN_WITHIN: Duration = Duration::from_secs(20);

const OWN_PROC: &str = "mount the cluster's own /proc (a container runtime that hides parts of /proc forbids it: start \
                        the container with --privileged, or with an unmasked /proc)";

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
    permission::check_fuse()?;
    claim(&plan.dir)?;
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
            let mut running = None;
            let mut ready = BufReader::new(File::from(ready));
            let outcome = wait_ready(plan, &mut ready, &mut running);
            let _ = waitpid(Pid::from_raw(pid), WaitOptions::empty());
            if outcome.is_err() {
                // It ends by itself, or has; when we return, nothing is left.
                let _ = running.map(|running| end(&running));
                wait_closed(ready.get_ref());
                clear(&plan.dir);
            }
            outcome.map(|()| Lifeline { _pipe: tied.then_some(hold) })
        }
    }
}

/// Reads what ssi-local says: its pid, then `ready` or what went wrong.
fn wait_ready(plan: &Plan, ready: impl BufRead, running: &mut Option<Running>) -> Result<(), Error> {
    // What ssi-local says matters more than that it cannot be noted: it may have ended and cleaned up already.
    let mut noted = Ok(());
    for line in ready.lines().map_while(Result::ok) {
        if let Some(pid) = line.strip_prefix("pid ").and_then(|pid| pid.parse().ok()) {
            let found = Running { pid, start_time: start_time(pid).unwrap_or(0), plan: plan.clone() };
            noted = found.store();
            *running = Some(found);
        } else if line == "ready" {
            return noted;
        } else {
            return Err(Error::Said(line.replace('\t', "\n")));
        }
    }
    Err(Error::Said(format!(
        "the local cluster ended before it was ready; see {}",
        plan.dir.join(LOG).display()
    )))
}

/// Waits until nobody holds the other end any more: ssi-local is gone.
fn wait_closed(ready: &File) {
    let limit = Timespec { tv_sec: DOWN_WITHIN.as_secs() as i64, tv_nsec: 0 };
    while poll(&mut [PollFd::new(ready, PollFlags::IN)], Some(&limit)).is_ok_and(|n| n > 0) {
        if !rustix::io::read(ready, &mut [0; 256]).is_ok_and(|n| n > 0) {
            return;
        }
    }
}

/// The process between: enters the namespaces, and forks the one that is pid 1 in them.
fn child(plan: &Plan, mut told: File, lifeline: Option<OwnedFd>) -> i32 {
    sys::new_session();
    let outcome = permission::enter_namespaces().and_then(|()| sys::fork().map_err(Error::step("fork")));
    match outcome {
        Err(error) => {
            let _ = writeln!(told, "{error}");
            1
        }
        Ok(Fork::Parent(pid)) => i32::from(writeln!(told, "pid {pid}").is_err()),
        Ok(Fork::Child) => {
            let code =
                Lab { plan: plan.clone(), told: Some(told), lifeline, keepers: Vec::new(), lost: None }.run();
            std::process::exit(code)
        }
    }
}

/// pid 1 of the local cluster.
struct Lab {
    plan: Plan,
    /// To whom the start is reported, while it goes on.
    told: Option<File>,
    lifeline: Option<OwnedFd>,
    /// The keepers' pids, node 1 first.
    keepers: Vec<u32>,
    /// A node whose keeper has ended.
    lost: Option<u32>,
}

impl Lab {
    fn run(mut self) -> i32 {
        sys::set_name(c"ssi-local");
        let code = match self.start() {
            Ok(signals) => {
                // If nobody is told (^C), nobody would know of the cluster either: it ends.
                if self.say("ready") {
                    self.told = None;
                    self.hold(&signals);
                }
                0
            }
            Err(error) => {
                self.say(&error.to_string().replace('\n', "\t"));
                1
            }
        };
        self.end();
        code
    }

    /// False if nobody listens.
    fn say(&mut self, line: &str) -> bool {
        self.told.as_mut().is_some_and(|told| writeln!(told, "{line}").is_ok())
    }

    fn start(&mut self) -> Result<Signals, Error> {
        let signals = Signals::block(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP])
            .map_err(Error::step("block signals"))?;
        self.leave_the_terminal()?;
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
            .map_err(Error::step("make mounts private"))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("proc", "/proc", "proc", flags, None).map_err(Error::step(OWN_PROC))?;
        network::make_bridge()?;
        for k in 1..=self.plan.nodes {
            self.start_node(k)?;
        }
        self.wait_until_up(&signals)?;
        Ok(signals)
    }

    fn leave_the_terminal(&self) -> Result<(), Error> {
        let log = File::options().create(true).append(true).open(self.plan.dir.join(LOG));
        let log = log.map_err(Error::step("open local.log"))?;
        let null = File::open("/dev/null").map_err(Error::step("open /dev/null"))?;
        rustix::stdio::dup2_stdin(null).map_err(Error::step("redirect stdin"))?;
        rustix::stdio::dup2_stdout(&log).map_err(Error::step("redirect stdout"))?;
        rustix::stdio::dup2_stderr(&log).map_err(Error::step("redirect stderr"))
    }

    /// Starts the process that becomes node `k`'s keeper: in its own network namespace, it waits for its cable.
    fn start_node(&mut self, k: u32) -> Result<(), Error> {
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
        self.keepers.push(child.id());
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
        let within = UP_WITHIN + UP_WITHIN_EACH * self.plan.nodes;
        let until = Instant::now() + within;
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
            if let Some(k) = self.lost {
                return Err(Error::Said(format!("{} cannot start\n{}", node_name(k), self.log(k))));
            }
        }
        Err(Error::Said(format!(
            "the nodes were not all UP within {} s: {last}\n{}",
            within.as_secs(),
            (1..=self.plan.nodes).map(|k| self.log(k)).collect::<String>()
        )))
    }

    /// Nodes that every node holds to be UP. The first that does not see all of them is answer enough: asking
    /// the others too, again and again, would slow down the start that is waited for.
    fn nodes_up(&self) -> Result<u32, Error> {
        for k in 1..=self.plan.nodes {
            let answer = Client::connect(&self.plan.state(k).admin_socket())?.ask(Ask::Nodes(()))?;
            let view = answer.view.unwrap_or_default();
            let up = view.nodes.iter().filter(|node| node.state() == NodeState::Up).count() as u32;
            if up < self.plan.nodes {
                return Ok(up);
            }
            Client::connect(&self.plan.state(k).data_socket())?;
        }
        Ok(self.plan.nodes)
    }

    /// The last lines of a node's logs, for an error message.
    fn log(&self, k: u32) -> String {
        let mut text = String::new();
        for process in ["keeper", "ssid", "ssid-data"] {
            let log = std::fs::read_to_string(self.plan.state(k).log_file(process)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            for line in &lines[lines.len().saturating_sub(3)..] {
                text.push_str(&format!("{} {process}: {line}\n", node_name(k)));
            }
        }
        text
    }

    /// Runs until somebody wants the cluster to end.
    fn hold(&mut self, signals: &Signals) {
        while !self.wait(signals, None) {}
    }

    /// Waits for events and reaps; true if the cluster shall end.
    fn wait(&mut self, signals: &Signals, timeout: Option<Duration>) -> bool {
        let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
        fds.extend(self.lifeline.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        // An error is reported unasked: whoever waits for the start is gone.
        fds.extend(self.told.as_ref().map(|told| PollFd::new(told, PollFlags::empty())));
        let timeout = timeout.map(|t| Timespec { tv_sec: 0, tv_nsec: t.subsec_nanos().into() });
        let _ = poll(&mut fds, timeout.as_ref());
        let cut = fds[1..].iter().any(|fd| !fd.revents().is_empty());
        let mut end = cut;
        while let Some(signal) = signals.take() {
            end |= signal != libc::SIGCHLD;
        }
        while let Ok(Some((pid, _))) = wait(WaitOptions::NOHANG) {
            let keeper =
                self.keepers.iter().position(|keeper| Some(pid) == Pid::from_raw(keeper.cast_signed()));
            self.lost = self.lost.or(keeper.map(|at| at as u32 + 1));
        }
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
        clear(&self.plan.dir);
    }
}

/// Ends the local cluster in `dir`, waits until it is gone, and removes the directory.
///
/// # Errors
/// None runs there, or it does not end.
pub fn down(dir: &std::path::Path) -> Result<(), Error> {
    let running = Running::find(dir);
    let running =
        running.ok_or_else(|| Error::Said(format!("no local cluster runs in {}", dir.display())))?;
    end(&running)?;
    clear(dir);
    Ok(())
}

/// Ends ssi-local and waits until it is gone.
fn end(running: &Running) -> Result<(), Error> {
    let pid = Pid::from_raw(running.pid).ok_or_else(|| Error::Said("cluster.json is damaged".into()))?;
    let fd = pidfd_open(pid, PidfdFlags::empty()).map_err(Error::step("find ssi-local"))?;
    if start_time(running.pid) != Some(running.start_time) {
        return Ok(());
    }
    for signal in [Signal::TERM, Signal::KILL] {
        let _ = pidfd_send_signal(&fd, signal);
        let limit = Timespec { tv_sec: DOWN_WITHIN.as_secs() as i64, tv_nsec: 0 };
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        if poll(&mut fds, Some(&limit)).is_ok_and(|n| n > 0) {
            return Ok(());
        }
    }
    Err(Error::Said(format!("ssi-local (pid {}) does not end", running.pid)))
}
