//! `ssi node`: a machine becomes a node, starts, stops.

use super::Outcome;
use super::cluster::Machine;
use super::membership::{Describe, Named, Rename, drain};
use crate::Error;
use crate::config::{NodeConfig, StateDir, read_key};
use crate::keeper::Keeper;
use admin::Place;
use admin::wire::Ask;
use clap::{Args, Subcommand};
use membership::token::Token;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long joining may take.
const JOIN_WITHIN: Duration = Duration::from_secs(10);

/// How long joining with a token may take: it names several members, of which some may be away.
const ENTER_WITHIN: Duration = Duration::from_secs(20);

/// So much of standard input is read for a token.
const INPUT_BYTES_MAX: u64 = 4_096;

/// How long a node's processes may take to end.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// Nodes.
#[derive(Debug, Subcommand)]
pub enum Node {
    /// Make this machine a member of a cluster (start it with `ssi node start`).
    Join(Join),
    /// Run this machine's node in the foreground until it is stopped.
    Start,
    /// Stop this machine's node: every process of its view ends.
    Stop,
    /// Give a node no new work; what runs there goes on.
    Drain(Named),
    /// Give a drained node work again.
    Undrain(Named),
    /// Give a node another name; its number stays.
    Rename(Rename),
    /// Write something down about a node: KEY=VALUE.
    Describe(Describe),
}

/// A machine that joins.
#[derive(Debug, Args)]
pub struct Join {
    /// Address and port of a node that is UP; not with --token, which knows them.
    #[arg(required_unless_present = "token", requires = "key")]
    seed: Option<SocketAddr>,
    /// Join token, as `ssi addnode` prints it; "-" reads it from standard input, where no other user sees it.
    #[arg(long, conflicts_with_all = ["seed", "key", "cluster"])]
    token: Option<String>,
    /// File with the cluster key.
    #[arg(long, requires = "seed")]
    key: Option<PathBuf>,
    /// The cluster's name.
    #[arg(long, default_value = "ssi")]
    cluster: String,
    #[command(flatten)]
    machine: Machine,
}

pub use admin::default_state_dir;

/// Makes the state directory; it must not hold a node yet.
///
/// # Errors
/// It does, or it cannot be made.
pub fn claim(state: &StateDir) -> Result<(), Error> {
    if state.config_file().exists() {
        return Err(Error::Said(format!(
            "{} exists: this machine is a node already",
            state.config_file().display()
        )));
    }
    std::fs::create_dir_all(&state.0).map_err(|source| Error::File { path: state.0.clone(), source })
}

/// Joins the cluster that the node at `seed` is a member of, and writes the state directory. `config.id` is set
/// by the cluster.
///
/// # Errors
/// Wrong key, no such cluster, a name in use, no answer within `limit`.
pub fn become_member(
    state: &StateDir,
    config: NodeConfig,
    seed: SocketAddr,
    key: &fabric::ClusterKey,
    limit: Duration,
) -> Result<u32, Error> {
    config.check()?;
    claim(state)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Error::step("start a runtime"))?;
    let config = runtime.block_on(crate::daemon::membership::join(state, config, seed, key, limit))?;
    config.check()?;
    state.store_key(key)?;
    state.store(&config)?;
    Ok(config.id)
}

/// As [`become_member`], with a join token in place of address and key.
fn enter(state: &StateDir, config: NodeConfig, token: &Token, limit: Duration) -> Result<u32, Error> {
    config.check()?;
    claim(state)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Error::step("start a runtime"))?;
    let entered = runtime.block_on(crate::daemon::membership::enter(state, config, token, limit));
    let (config, key) = entered?;
    config.check()?;
    state.store_key(&key)?;
    state.store(&config)?;
    Ok(config.id)
}

/// The token that was given, or (`-`) that standard input holds.
fn token(given: &str) -> Result<Token, Error> {
    let mut text = given.to_owned();
    if given == "-" {
        text.clear();
        let mut input = std::io::stdin().take(INPUT_BYTES_MAX);
        input.read_to_string(&mut text).map_err(Error::step("read the token"))?;
    }
    Token::parse(&text).map_err(Error::said)
}

impl Join {
    /// Makes this machine a member; its number.
    fn run(self, state: &StateDir) -> Result<u32, Error> {
        let config = |cluster: &str| self.machine.config(cluster, 1, crate::config::PID_REGION);
        if let Some(given) = &self.token {
            let token = token(given)?;
            return enter(state, config(&token.cluster), &token, ENTER_WITHIN);
        }
        let (Some(seed), Some(key)) = (self.seed, &self.key) else {
            return Err(Error::Said("either --token, or an address and --key".into()));
        };
        become_member(state, config(&self.cluster), seed, &read_key(key)?, JOIN_WITHIN)
    }
}

impl Node {
    /// Does it.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let state = StateDir(dir.map_or_else(default_state_dir, Path::to_path_buf));
        match self {
            Node::Join(join) => {
                let id = join.run(&state)?;
                println!("this machine is node {id}; start it: ssi node start --dir {}", state.0.display());
            }
            Node::Start => Keeper::new(state)?.run()?,
            Node::Stop => {
                let asked = Place { run_dir: state.run_dir(), in_view: false }.ask(Ask::Stop(()));
                // ssid may have ended before its answer was written: then nobody listens there any more.
                let ended = std::os::unix::net::UnixStream::connect(state.admin_socket()).is_err();
                if let Err(error) = asked
                    && (!ended || matches!(error, admin::Error::NoDaemon { .. }))
                {
                    return Err(error.into());
                }
                crate::keeper::wait_until_free(&state, STOP_WITHIN)?;
            }
            Node::Drain(named) => return drain(&named, true, dir),
            Node::Undrain(named) => return drain(&named, false, dir),
            Node::Rename(rename) => return rename.run(dir),
            Node::Describe(describe) => return describe.run(dir),
        }
        Ok(0)
    }
}
