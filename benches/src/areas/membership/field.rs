//! A local cluster whose nodes are ended and brought back, again and again.
//!
//! Invariant: between two runs every node is UP in the views of all.

use crate::Error;
use crate::areas::cluster::cluster;
use admin::wire::{NodeState, View};
use rustix::process::Signal;
use ssi_tests::faults::{Network, signal};
use ssi_tests::views::{Watch, is};
use ssi_tests::{Cluster, run, ssi_binary, wait_until};
use std::time::{Duration, Instant};

/// How long anything may take before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Nothing may change for so long before a run begins.
const QUIET: Duration = Duration::from_millis(300);

/// The cluster.
pub struct Field {
    cluster: Cluster,
    nodes: u32,
    networks: Vec<Network>,
    probes: u32,
}

impl Field {
    /// Starts it.
    pub fn start(nodes: u32) -> Result<Field, Error> {
        // Memory shared between the nodes would be a link that no `ip link` cuts.
        let cluster = cluster(nodes, &["--no-shm"])?;
        let networks = (1..=nodes).map(|k| cluster.network(k)).collect();
        Ok(Field { cluster, nodes, networks, probes: 0 })
    }

    /// Follows all nodes but one, when nothing moves any more.
    fn others(&self, victim: u32) -> Watch {
        let nodes = self.nodes;
        let mut watch = Watch::on(&self.cluster, (1..=nodes).filter(|k| *k != victim), PATIENCE);
        watch.wait("all nodes are UP", PATIENCE, |view| all_up(view, nodes));
        watch.listen(QUIET);
        watch.wait("all nodes are UP", PATIENCE, |view| all_up(view, nodes));
        watch
    }

    /// Microseconds from the death of a node's `ssid` until all others say STALLED, and whether it was the master's.
    pub fn daemon_killed(&mut self, victim: u32) -> (f64, bool) {
        let mut watch = self.others(victim);
        let master = watch.nodes[0].last().master == victim;
        // The keeper would have it back before the last node could tell.
        let unkept = self.cluster.unkept(victim);
        let ssid = self.cluster.process(victim, "ssid");
        let kill = || signal(&ssid, Signal::KILL);
        let took = watch.time("it is STALLED", PATIENCE, kill, |view| is(view, victim, NodeState::Stalled));
        drop(unkept);
        self.rest(&mut watch);
        (micros(took), master)
    }

    /// Microseconds from the death of all processes of a node until all others say DOWN.
    pub fn node_killed(&mut self, victim: u32) -> f64 {
        let mut watch = self.others(victim);
        let all = self.cluster.pids(victim);
        let kill = || signal(&all, Signal::KILL);
        let took = watch.time("it is DOWN", PATIENCE, kill, |view| is(view, victim, NodeState::Down));
        self.bring_back(victim);
        self.rest(&mut watch);
        micros(took)
    }

    /// Microseconds from the cut of a node's link until all others say DOWN.
    pub fn link_cut(&mut self, victim: u32) -> f64 {
        let mut watch = self.others(victim);
        let cut = || self.cluster.set_link(victim, false);
        let took = watch.time("it is DOWN", PATIENCE, cut, |view| is(view, victim, NodeState::Down));
        self.cluster.set_link(victim, true);
        self.rest(&mut watch);
        micros(took)
    }

    /// Microseconds from the death of all processes of the master's node until another has carried out a change: a machine
    /// joins, asked of a survivor with `ssi node join`, again and again until it is done.
    pub fn master_killed(&mut self) -> Result<f64, Error> {
        let master = self.others(0).nodes[0].last().master;
        let survivor = master % self.nodes + 1;
        self.probes += 1;
        let dir = self.cluster.dir.join(format!("probe{}", self.probes));
        let key = self.cluster.node_dir(survivor).join("key");
        let address = format!("10.77.0.{survivor}");
        let join = || {
            let mut join = self.cluster.inside(Some(&self.networks[survivor as usize - 1]));
            join.arg(ssi_binary()).arg("--dir").arg(&dir);
            join.args(["node", "join", &format!("{address}:7100"), "--cluster", "local", "--key"]).arg(&key);
            join.args(["--address", &address, "--port", "7300", "--name", "probe"]);
            run(join)
        };
        let all = self.cluster.pids(master);
        let begin = Instant::now();
        signal(&all, Signal::KILL);
        let mut joined = join();
        while joined.code != 0 && begin.elapsed() < PATIENCE {
            joined = join();
        }
        let took = begin.elapsed();
        let _ = std::fs::remove_dir_all(&dir);
        if joined.code != 0 {
            return Err(format!("nobody took a machine in: {}{}", joined.out, joined.err).into());
        }
        self.bring_back(master);
        self.others(0);
        Ok(micros(took))
    }

    /// How many (node, state) other than UP any node told within a length of time.
    pub fn alarms(&mut self, span: Duration) -> usize {
        let mut watch = self.others(0);
        watch.listen(span);
        let nodes = self.nodes;
        watch.troubles().into_iter().filter(|(node, _)| *node <= nodes).count()
    }

    /// Cores that one node uses while nothing is asked of it.
    pub fn idle_cores(&self, span: Duration) -> f64 {
        self.others(0);
        let pids: Vec<i32> = (1..=self.nodes).flat_map(|k| self.cluster.pids(k)).collect();
        let used = || pids.iter().map(|pid| ran_ns(*pid)).sum::<f64>();
        let before = used();
        let begin = Instant::now();
        std::thread::park_timeout(span);
        (used() - before) / 1e9 / begin.elapsed().as_secs_f64() / f64::from(self.nodes)
    }

    /// KiB of memory of one node, shared pages counted in proportion.
    pub fn memory_kib(&self) -> f64 {
        let pids = (1..=self.nodes).flat_map(|k| self.cluster.pids(k));
        pids.map(proportional_kib).sum::<f64>() / f64::from(self.nodes)
    }

    fn bring_back(&self, victim: u32) {
        wait_until("all of it has ended", PATIENCE, || self.cluster.pids(victim).is_empty());
        self.cluster.start_node(&self.networks[victim as usize - 1]);
    }

    /// Waits until all nodes are UP for all; checks that all told one table an epoch.
    fn rest(&self, watch: &mut Watch) {
        let nodes = self.nodes;
        watch.wait("all nodes are UP again", PATIENCE, |view| all_up(view, nodes));
        watch.check_agreement();
    }
}

/// Only the nodes themselves: a machine that joined and was never started stays DOWN.
fn all_up(view: &View, nodes: u32) -> bool {
    (1..=nodes).all(|k| is(view, k, NodeState::Up))
}

fn micros(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6
}

/// Nanoseconds that the threads of a process have run. (The ticks in /proc/PID/stat miss who runs for less than one.)
fn ran_ns(pid: i32) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let ran = |thread: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<f64>().ok()
    };
    threads.filter_map(ran).sum()
}

fn proportional_kib(pid: i32) -> f64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0.0)
}
