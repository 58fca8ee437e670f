//! What befalls nodes: pauses, one-way cuts, a full disk, a lost one; and starting a node again whose processes have all ended.

use crate::{Cluster, Ran, run, ssi_binary};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The network of a node, held: it would be gone with the node's last process.
pub struct Network {
    /// Whose it is.
    pub node: u32,
    file: File,
}

/// Processes of the host that keep every core busy for as long as this lives.
pub struct Load(Vec<Child>);

impl Load {
    /// So many for each core.
    ///
    /// # Panics
    /// If there is no shell.
    pub fn of(per_core: usize) -> Load {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let spin = || Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn();
        Load((0..cores * per_core).map(|_| spin().expect("a shell")).collect())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Sends a signal to processes of the host; one that is gone is none.
pub fn signal(pids: &[i32], signal: Signal) {
    for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
        let _ = kill_process(pid, signal);
    }
}

/// A node whose keeper is paused: a daemon of it that dies stays away until this goes.
pub struct Unkept {
    keeper: Vec<i32>,
}

impl Drop for Unkept {
    fn drop(&mut self) {
        signal(&self.keeper, Signal::CONT);
    }
}

impl Cluster {
    /// Pauses the keeper of node `k`.
    pub fn unkept(&self, k: u32) -> Unkept {
        let keeper = self.process(k, "ssi-keeper");
        signal(&keeper, Signal::STOP);
        Unkept { keeper }
    }

    /// Host pids of all processes of node `k`.
    pub fn pids(&self, k: u32) -> Vec<i32> {
        self.processes(k).into_iter().map(|(pid, _)| pid).collect()
    }

    /// Holds the network of node `k`.
    ///
    /// # Panics
    /// If the node has no processes.
    pub fn network(&self, k: u32) -> Network {
        let pid = *self.process(k, "ssi-keeper").first().expect("the node runs");
        Network { node: k, file: File::open(format!("/proc/{pid}/ns/net")).expect("its network") }
    }

    /// A command on the machine that the cluster is: with ssi-local's mounts, and if given in the network of a node.
    pub fn inside(&self, network: Option<&Network>) -> Command {
        use std::os::fd::AsRawFd;
        let mut enter = Command::new("nsenter");
        enter.args(["-t", &self.local_pid().to_string(), "-m", "-p", "-i"]);
        match network {
            Some(network) => {
                let (own, fd) = (std::process::id(), network.file.as_raw_fd());
                enter.arg(format!("--net=/proc/{own}/fd/{fd}"));
            }
            None => {
                enter.arg("-n");
            }
        }
        if !rustix::process::geteuid().is_root() {
            // We are root there already, and nobody may set groups there.
            enter.args(["-U", "--preserve-credentials"]);
        }
        enter.arg("--").stdin(Stdio::null());
        enter
    }

    /// As [`Cluster::inside`], a shell script that must exit 0; what it printed.
    ///
    /// # Panics
    /// If it fails.
    pub fn inside_ok(&self, network: Option<&Network>, script: &str) -> String {
        let ran = self.inside_sh(network, script);
        assert_eq!(ran.code, 0, "{script}\n{}{}", ran.out, ran.err);
        ran.out
    }

    /// As [`Cluster::inside`], a shell script.
    pub fn inside_sh(&self, network: Option<&Network>, script: &str) -> Ran {
        let mut command = self.inside(network);
        command.args(["sh", "-c", script]);
        run(command)
    }

    /// One more machine at the cluster's bridge, with the address of node `k` and nothing on it; it goes when its last process ends.
    ///
    /// # Panics
    /// If unshare(1) or ip(8) refuse.
    pub fn plug_in(&self, k: u32) -> Network {
        let mut command = self.inside(None);
        command.args(["unshare", "-n", "sh", "-c", "echo $$; exec cat"]);
        let mut holder =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("nsenter starts");
        let mut pid = String::new();
        let mut said = BufReader::new(holder.stdout.take().expect("piped"));
        said.read_line(&mut pid).expect("it says its pid");
        let children = format!("/proc/{0}/task/{0}/children", holder.id());
        let host_pid = std::fs::read_to_string(children).expect("nsenter has a child");
        let file = File::open(format!("/proc/{}/ns/net", host_pid.trim())).expect("its network");
        let pid = pid.trim();
        self.inside_ok(
            None,
            &format!(
                "ip link add v{k} type veth peer name eth0 netns {pid} && ip link set v{k} master br0 up"
            ),
        );
        let network = Network { node: k, file };
        self.inside_ok(
            Some(&network),
            &format!("ip link set lo up && ip addr add 10.77.0.{k}/24 dev eth0 && ip link set eth0 up"),
        );
        drop(holder.stdin.take());
        holder.wait().expect("it ends with its input");
        network
    }

    /// Starts a node again whose processes have all ended, as `ssi node start` on its machine would.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start_node(&self, network: &Network) {
        self.start_node_of(network, &ssi_binary());
    }

    /// As [`Cluster::start_node`], from another copy of the binary.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start_node_of(&self, network: &Network, binary: &Path) {
        let dir = self.node_dir(network.node);
        let mut command = self.inside(Some(network));
        command.arg(binary).args(["node", "start", "--dir"]).arg(&dir);
        let log = File::options().create(true).append(true).open(dir.join("keeper.log"));
        command.stdout(Stdio::null()).stderr(log.map_or(Stdio::null(), Stdio::from));
        let child = command.spawn().expect("nsenter starts");
        self.restarted.lock().expect("no panic").push(child);
    }

    /// What node `k` sends to `to` (an address or a network) is lost on the way, or is not any more; what comes to it arrives.
    ///
    /// # Panics
    /// If ip(8) refuses.
    pub fn set_deaf(&self, network: &Network, to: &str, deaf: bool) {
        let verb = if deaf { "add" } else { "del" };
        self.inside_ok(Some(network), &format!("ip route {verb} blackhole {to}"));
    }
}
