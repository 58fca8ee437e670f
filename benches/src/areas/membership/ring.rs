//! The peer: corosync on nodes that are namespaces on a bridge, as ours are.
//!
//! Invariant: nothing of the host's own corosync is touched: each node has its own /run, /dev/shm and state; every process
//! dies with us, and with the last of them the network.

use crate::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// How long it may take to form a membership.
const PATIENCE: Duration = Duration::from_secs(60);
/// The daemon, where Debian has it.
const DAEMON: &str = "/usr/sbin/corosync";

/// What corosync says in the log when a membership is ready: `[QUORUM] Members[2]: 1 2`.
struct Formed {
    node: usize,
    at: Instant,
    members: Vec<usize>,
}

/// The nodes.
pub struct Ring {
    hub: Child,
    nodes: Vec<Option<Child>>,
    last: Vec<Vec<usize>>,
    formed: Receiver<Formed>,
    tell: Sender<Formed>,
    dir: tempfile::TempDir,
}

impl Ring {
    /// Starts it; returns when all nodes have formed one membership.
    pub fn start(nodes: usize) -> Result<Ring, Error> {
        if !rustix::process::geteuid().is_root() {
            return Err("corosync runs as root only: measure as root".into());
        }
        let bridge = "ip link set lo up && ip link add br0 type bridge && ip link set br0 up && echo up && exec sleep infinity";
        let mut hub = namespaces(&["-n"], bridge).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(hub.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let (tell, formed) = channel();
        let dir = tempfile::tempdir()?;
        let none = || (0..nodes).map(|_| None).collect();
        let mut ring = Ring { hub, nodes: none(), last: vec![Vec::new(); nodes], formed, tell, dir };
        if line != "up\n" {
            return Err("no bridge could be made for corosync".into());
        }
        std::fs::write(ring.dir.path().join("corosync.conf"), ring.config())?;
        for k in 1..=nodes {
            ring.start_node(k)?;
        }
        ring.wait(&all(nodes), &all(nodes))?;
        Ok(ring)
    }

    /// Its configuration: the package's, with the nodes in it and the log on standard error.
    pub fn config(&self) -> String {
        let node = |k: usize| {
            format!("  node {{\n    name: node{k}\n    nodeid: {k}\n    ring0_addr: 10.78.0.{k}\n  }}\n")
        };
        let nodes: String = (1..=self.nodes.len()).map(node).collect();
        format!(
            "totem {{\n  version: 2\n  cluster_name: debian\n  crypto_cipher: none\n  crypto_hash: none\n}}\nlogging {{\n  to_stderr: yes\n  \
             to_logfile: no\n  to_syslog: no\n}}\nquorum {{\n  provider: corosync_votequorum\n}}\nnodelist {{\n{nodes}}}\n"
        )
    }

    /// How a node is started.
    pub fn shown(&self) -> String {
        format!("{DAEMON} -f -c corosync.conf")
    }

    /// Microseconds from SIGKILL of one node's daemon until all others have formed a membership without it.
    pub fn node_killed(&mut self, victim: usize) -> Result<f64, Error> {
        let begin = Instant::now();
        if let Some(mut child) = self.nodes[victim - 1].take() {
            child.kill()?;
            child.wait()?;
        }
        let took = self.lost(victim, begin)?;
        self.start_node(victim)?;
        self.wait(&all(self.nodes.len()), &all(self.nodes.len()))?;
        Ok(took)
    }

    /// Microseconds from the cut of one node's link until all others have formed a membership without it.
    pub fn link_cut(&mut self, victim: usize) -> Result<f64, Error> {
        let begin = Instant::now();
        self.on_bridge(&format!("ip link set v{victim} down"))?;
        let took = self.lost(victim, begin)?;
        self.on_bridge(&format!("ip link set v{victim} up"))?;
        self.wait(&all(self.nodes.len()), &all(self.nodes.len()))?;
        Ok(took)
    }

    fn lost(&mut self, victim: usize, begin: Instant) -> Result<f64, Error> {
        let others: Vec<usize> = all(self.nodes.len()).into_iter().filter(|k| *k != victim).collect();
        Ok((self.wait(&others, &others)? - begin).as_secs_f64() * 1e6)
    }

    /// Waits until all of `who` have formed the membership `members`; the moment at which the last of them said so.
    fn wait(&mut self, who: &[usize], members: &[usize]) -> Result<Instant, Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let formed = self.formed.recv_timeout(left);
            let formed = formed.map_err(|_| format!("corosync did not form {members:?}: {:?}", self.last))?;
            self.last[formed.node - 1] = formed.members;
            if who.iter().all(|k| self.last[*k - 1] == members) {
                return Ok(formed.at);
            }
        }
    }

    fn start_node(&mut self, k: usize) -> Result<(), Error> {
        let config = self.dir.path().join("corosync.conf").display().to_string();
        let private = "for d in /run /dev/shm /var/lib/corosync /var/log/corosync; do mount -t tmpfs node $d || exit 1; done";
        let network =
            format!("ip link set lo up && ip addr add 10.78.0.{k}/24 dev eth0 && ip link set eth0 up");
        let script =
            format!("echo ready >&2; read go && {private} && {network} && exec {DAEMON} -f -c {config}");
        let mut command = namespaces(&["-n", "-m", "-i", "-u"], &script);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let mut log = BufReader::new(child.stderr.take().ok_or("no log")?);
        let mut go = child.stdin.take().ok_or("no input")?;
        let pid = child.id();
        self.last[k - 1].clear();
        self.nodes[k - 1] = Some(child);
        // It is in its namespaces once it says something.
        let mut line = String::new();
        log.read_line(&mut line)?;
        let plug = format!(
            "ip link del v{k} 2>/dev/null; ip link add v{k} type veth peer name eth0 netns {pid} && ip link set v{k} master br0 up"
        );
        self.on_bridge(&plug)?;
        writeln!(go, "go")?;
        let tell = self.tell.clone();
        std::thread::spawn(move || listen(k, log, &tell));
        Ok(())
    }

    fn on_bridge(&self, script: &str) -> Result<(), Error> {
        let hub = self.hub.id().to_string();
        let status = Command::new("nsenter").args(["-t", &hub, "-n", "--", "sh", "-c", script]).status()?;
        if status.success() { Ok(()) } else { Err(format!("{script}: {status}").into()) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().flatten().chain([&mut self.hub]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn all(nodes: usize) -> Vec<usize> {
    (1..=nodes).collect()
}

/// A shell script in new namespaces, that ends with us.
fn namespaces(kinds: &[&str], script: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare"]).args(kinds).args(["--", "sh", "-c", script]);
    command
}

/// Reads a node's log to its end and tells every membership in it.
fn listen(node: usize, log: BufReader<ChildStderr>, tell: &Sender<Formed>) {
    for line in log.lines().map_while(Result::ok) {
        if let Some(members) = members(&line) {
            // Whoever measured may have ended.
            let _ = tell.send(Formed { node, at: Instant::now(), members });
        }
    }
}

/// The members in a line of the log, if it tells of a membership that is ready.
fn members(line: &str) -> Option<Vec<usize>> {
    let (_, list) = line.split_once("[QUORUM] Members[")?.1.split_once("]: ")?;
    list.split_whitespace().map(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::members;

    #[test]
    fn members_are_read_from_the_log() {
        let line = "Nov 29 09:27:14 notice  [QUORUM] Members[2]: 1 2";
        assert_eq!(members(line), Some(vec![1, 2]));
        assert_eq!(
            members("Nov 29 09:27:14 notice  [TOTEM ] A new membership (1.11) was formed. Members left: 3"),
            None
        );
        assert_eq!(members("notice  [QUORUM] Members[1]: x"), None);
    }
}
