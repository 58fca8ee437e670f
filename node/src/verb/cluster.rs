//! `ssi cluster`: make a cluster, start and end a local one, change its key, see and choose who decides.

mod rekey;
mod status;

use super::Outcome;
use crate::Error;
use crate::config::{self, NodeConfig, StateDir};
use crate::local::{self, Plan, lab};
use clap::{Args, Subcommand};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Make, start and end clusters; see how this one is.
#[derive(Debug, Args)]
pub struct Cluster {
    /// What to do [default: status].
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// Clusters.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show the cluster in a few lines: name, epoch, master, voters, quorum.
    Status(status::Status),
    /// Show the voters, have another number of them, or replace one.
    Voters(status::Voters),
    /// Make a new cluster with this machine as node 1 (start it with `ssi node start`).
    Init(Init),
    /// Start a local cluster: N nodes on this machine, each in its own network namespace. Returns when all are UP.
    Up(Up),
    /// End the local cluster and remove everything it made.
    Down,
    /// Change the cluster's key on every node while it runs; also completes a change that was interrupted.
    Rekey(rekey::Rekey),
}

/// How this machine takes part in a cluster.
#[derive(Clone, Debug, Args)]
pub struct Machine {
    /// The address that the other nodes reach this machine by.
    #[arg(long)]
    pub address: IpAddr,
    /// Port of ssid; ssid --data takes the next one.
    #[arg(long, default_value_t = config::PORT)]
    pub port: u16,
    /// The node's name [default: the host name].
    #[arg(long)]
    pub name: Option<String>,
    /// Cores to give to the cluster [default: all].
    #[arg(long)]
    pub cpus: Option<u32>,
    /// Memory to give to the cluster, MiB [default: all].
    #[arg(long)]
    pub memory_mib: Option<u64>,
    /// Relative speed of a core; 100 is the reference.
    #[arg(long, default_value_t = 100)]
    pub speed: u32,
    /// Further addresses of this machine, one for each further network: its rails.
    #[arg(long = "rail", value_name = "ADDRESS")]
    pub rails: Vec<IpAddr>,
    /// How TCP connections to other nodes are protected; "authenticated" (not encrypted) is for networks that nobody else can touch.
    #[arg(long, value_enum, default_value_t)]
    pub security: config::Security,
}

/// A new cluster.
#[derive(Debug, Args)]
pub struct Init {
    /// The cluster's name.
    #[arg(long, default_value = "ssi")]
    cluster: String,
    /// Ids in each home region of the pid space: a power of two.
    #[arg(long, default_value_t = config::PID_REGION)]
    pid_region: u32,
    #[command(flatten)]
    machine: Machine,
}

/// A local cluster.
#[derive(Debug, Args)]
pub struct Up {
    /// How many nodes.
    #[arg(long, short, default_value_t = 3)]
    nodes: u32,
    /// Ids in each home region of the pid space: a power of two.
    #[arg(long, default_value_t = config::PID_REGION)]
    pid_region: u32,
    /// Cores that each node says it has [default: all of this machine's].
    #[arg(long)]
    cpus: Option<u32>,
    /// Size limit of each node's object store, MiB (it is kept in memory then) [default: none].
    #[arg(long)]
    ost_mib: Option<u64>,
    /// The nodes share no memory, though they could: all goes over the network.
    #[arg(long)]
    no_shm: bool,
    /// How TCP connections between the nodes are protected.
    #[arg(long, value_enum, default_value_t)]
    security: config::Security,
    /// Stay in the foreground; end the cluster at the end of standard input, on ^C, or when killed.
    #[arg(long)]
    foreground: bool,
}

impl Machine {
    /// The configuration of this machine as node `id` of `cluster`.
    pub fn config(&self, cluster: &str, id: u32, pid_region: u32) -> NodeConfig {
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        NodeConfig {
            cluster: cluster.into(),
            id,
            name: self.name.clone().unwrap_or_else(host),
            address: self.address,
            port: self.port,
            pid_region,
            cpus: self.cpus.unwrap_or_else(config::default_cpus),
            memory_mib: self.memory_mib.unwrap_or_else(config::default_memory),
            speed: self.speed,
            mount: "/ssi".into(),
            ost_dir: None,
            mdt_dir: None,
            rails: self.rails.clone(),
            security: self.security,
            providers: config::all_providers(),
            shm_dir: None,
            watchdog: None,
            fence: Vec::new(),
        }
    }
}

/// Makes a new cluster in `state` with this machine as its only node: a key, the configuration, the first view.
///
/// # Errors
/// Bad values, a state directory that holds a node already, a file that cannot be written.
pub fn make(state: &StateDir, config: &NodeConfig) -> Result<(), Error> {
    config.check()?;
    super::node::claim(state)?;
    let key = fabric::ClusterKey::generate().map_err(Error::said)?;
    crate::daemon::membership::first_table(state, config)?;
    state.store(config)?;
    // The key comes last: who waits for it (a local cluster's other nodes) finds the rest in place.
    state.store_key(&key)
}

impl Cluster {
    /// Does it.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        match self.verb.unwrap_or_else(|| Verb::Status(status::Status::default())) {
            Verb::Status(status) => status.run(dir),
            Verb::Voters(voters) => voters.run(dir),
            Verb::Init(init) => {
                let state = StateDir(dir.map_or_else(super::node::default_state_dir, Path::to_path_buf));
                make(&state, &init.machine.config(&init.cluster, 1, init.pid_region))?;
                println!("cluster {} is made; its key is {}", init.cluster, state.key_file().display());
                println!("start node 1:      ssi node start --dir {}", state.0.display());
                println!(
                    "join a machine:    copy the key there, then: ssi node join {}:{} --key KEYFILE --address ADDRESS",
                    init.machine.address, init.machine.port
                );
                Ok(0)
            }
            Verb::Rekey(rekey) => rekey.run(dir),
            Verb::Up(up) => up.run(dir.map_or_else(local::default_dir, Path::to_path_buf)),
            Verb::Down => {
                let dir = dir.map_or_else(local::default_dir, Path::to_path_buf);
                lab::down(&dir)?;
                println!("the cluster in {} has ended", dir.display());
                Ok(0)
            }
        }
    }
}

impl Up {
    fn run(self, dir: PathBuf) -> Outcome {
        let dir = std::path::absolute(dir).map_err(Error::step("find the working directory"))?;
        let plan = Plan {
            dir: dir.clone(),
            nodes: self.nodes,
            pid_region: self.pid_region,
            cpus: self.cpus.unwrap_or_else(config::default_cpus),
            ost_bytes: self.ost_mib.unwrap_or(0) << 20,
            shm: !self.no_shm,
            security: self.security,
        };
        let lifeline = lab::up(&plan, self.foreground)?;
        println!("{} nodes are UP in {}", self.nodes, dir.display());
        if !self.foreground {
            println!(
                "enter it:  ssi shell --node 1 --dir {0}\nend it:    ssi cluster down --dir {0}",
                dir.display()
            );
            return Ok(0);
        }
        wait_for_the_end()?;
        drop(lifeline);
        // The lifeline is cut: ssi-local ends everything by itself. Wait until it has.
        let _ = lab::down(&dir);
        Ok(0)
    }
}

/// Returns at the end of standard input, or on SIGINT, SIGTERM or SIGHUP.
fn wait_for_the_end() -> Result<(), Error> {
    use rustix::event::{PollFd, PollFlags, poll};
    let signals = crate::sys::Signals::block(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP])
        .map_err(Error::step("block signals"))?;
    let stdin = std::io::stdin();
    let mut buffer = [0; 256];
    loop {
        let mut fds = [PollFd::new(&signals, PollFlags::IN), PollFd::new(&stdin, PollFlags::IN)];
        let _ = poll(&mut fds, None);
        let readable = !fds[1].revents().is_empty();
        if signals.take().is_some() || (readable && rustix::io::read(&stdin, &mut buffer).unwrap_or(0) == 0) {
            return Ok(());
        }
    }
}
