//! The shell commands of the cluster API, under the names of OpenSSI's: thin shells over `admin::Cluster`, as libssi is.
//!
//! Exit codes, all alike: 0, yes or done; 1, no (not UP, no such transition yet); 2, it cannot be told or was refused.

use super::transitions::{as_json, line};
use super::{Outcome, find_node, membership, print_json, view};
use crate::Error;
use admin::{Cluster, NodeInfo, Place, State, TransId, Which};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::path::Path;
use std::time::Duration;

/// "It cannot be told, or was refused."
const REFUSED: u8 = 2;

/// Print the cluster's name.
#[derive(Debug, Args)]
pub struct ClusterName {}

/// Print the numbers of the nodes that are UP.
#[derive(Debug, Args)]
pub struct ClusterMembership {
    /// Print the transition that made it so in place of the nodes: what comes after it is new.
    #[arg(long, short)]
    transition: bool,
    /// Print JSON: both.
    #[arg(long)]
    json: bool,
}

/// Print the number of this node.
#[derive(Debug, Args)]
pub struct ClusternodeNum {}

/// Print whether a node is UP.
#[derive(Debug, Args)]
#[command(
    after_help = "Prints 1 and exits 0 if it is UP; prints 0 and exits 1 if it is not; exits 2 if there is no such node."
)]
pub struct ClusternodeAvail {
    /// Name or number of the node.
    node: String,
}

/// Print what there is to know of a node.
#[derive(Debug, Args)]
pub struct ClusternodeInfo {
    /// Name or number of the node [default: this one].
    node: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Ask for another state of a node.
#[derive(Debug, Args)]
#[command(
    after_help = "SHUTDOWN drains a node that is UP (no new work, what runs there goes on), UP gives a drained one work again, GOINGDOWN stops it. Exits 0 when the \
cluster has agreed, 2 if it refuses."
)]
pub struct ClusternodeSetinfo {
    /// Name or number of the node.
    node: String,
    /// SHUTDOWN, UP or GOINGDOWN.
    #[arg(value_parser = state)]
    state: State,
}

/// Print the next transition by which a node becomes UP or no longer is.
#[derive(Debug, Args)]
#[command(
    after_help = "Prints what `ssi transitions` prints. Exits 0; 1 if there is none (in time); 2 if those after ID are no longer kept."
)]
pub struct ClusterTransition {
    /// After which one [default: the oldest; with --wait: the present].
    id: Option<TransId>,
    #[command(flatten)]
    how: How,
}

/// Print any transition, in relation to another.
#[derive(Debug, Args)]
#[command(
    after_help = "Prints what `ssi transitions` prints. Exits 0; 1 if there is none (in time); 2 if those after ID are no longer kept."
)]
pub struct ClusterDetailedtransition {
    /// Which one.
    #[arg(long, short = 'w', value_enum, default_value_t = WhichName::Next)]
    which: WhichName,
    /// In relation to which [default: the oldest; with --wait: the present].
    id: Option<TransId>,
    #[command(flatten)]
    how: How,
}

/// How a transition is asked for.
#[derive(Debug, Args)]
pub struct How {
    /// Wait for it, for so many seconds [default: for ever].
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true)]
    wait: Option<Option<u32>>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Which transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WhichName {
    /// The one named.
    This,
    /// The one after it.
    Next,
    /// The one before it.
    Previous,
    /// The oldest that is kept.
    First,
    /// The newest.
    Last,
}

fn state(text: &str) -> Result<State, String> {
    State::of_name(text)
        .filter(|state| *state != State::None)
        .ok_or_else(|| format!("{text:?} is no state of a node"))
}

/// Prints why not, as the command called `name`.
fn refused(name: &str, outcome: Outcome) -> Outcome {
    outcome.or_else(|error| {
        eprintln!("{name}: {error}");
        Ok(REFUSED)
    })
}

fn cluster(dir: Option<&Path>) -> Result<Cluster, Error> {
    Ok(Cluster::at(Place::find(dir)?))
}

impl ClusterName {
    /// Asks and prints.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        refused("cluster_name", print(cluster(dir).and_then(|cluster| Ok(cluster.name()?))))
    }
}

impl ClusternodeNum {
    /// Asks and prints.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        refused("clusternode_num", print(cluster(dir).and_then(|cluster| Ok(cluster.number()?))))
    }
}

fn print(value: Result<impl std::fmt::Display, Error>) -> Outcome {
    println!("{}", value?);
    Ok(0)
}

impl ClusterMembership {
    /// Asks and prints.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let tell = || {
            let membership = cluster(dir)?.membership()?;
            if self.json {
                let id = membership.transition;
                return print_json(&json!({
                    "up": membership.up, "transition": id.number(), "transid": id.0,
                }));
            }
            let up: Vec<String> = membership.up.iter().map(u32::to_string).collect();
            print(Ok(if self.transition { membership.transition.to_string() } else { up.join(" ") }))
        };
        refused("cluster_membership", tell())
    }
}

impl ClusternodeAvail {
    /// Asks and prints.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let tell = || {
            let place = Place::find(dir)?;
            let (table, _) = view(&place)?;
            let up = Cluster::at(place).is_up(find_node(&table, &self.node)?.id)?;
            println!("{}", u8::from(up));
            Ok(u8::from(!up))
        };
        refused("clusternode_avail", tell())
    }
}

impl ClusternodeInfo {
    /// Asks and prints.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let tell = || {
            let place = Place::find(dir)?;
            let (table, local) = view(&place)?;
            let id = match &self.node {
                Some(name) => find_node(&table, name)?.id,
                None => local,
            };
            let node = Cluster::at(place).node(id)?;
            if self.json { print_json(&info_json(&node)) } else { print(Ok(info_text(&node))) }
        };
        refused("clusternode_info", tell())
    }
}

fn info_json(node: &NodeInfo) -> serde_json::Value {
    let row = &node.row;
    json!({
        "node": row.id, "name": row.name, "state": node.state.name(), "transition": node.transition.number(),
        "local": node.local, "master": node.master, "voter": row.voter, "drained": row.draining, "cpus": row.cpus,
        "cpu_power": row.speed, "memory_bytes": row.memory_bytes, "life": row.incarnation, "address": row.control_address,
    })
}

fn info_text(node: &NodeInfo) -> String {
    let row = &node.row;
    let flags =
        [(node.local, "local"), (node.master, "master"), (row.voter, "voter"), (row.draining, "drained")];
    let flags: Vec<&str> = flags.into_iter().filter(|(is, _)| *is).map(|(_, word)| word).collect();
    format!(
        "node       {}\nname       {}\nstate      {}\nflags      {}\ncpus       {}\ncpu_power  {}\nmemory     {}\naddress    {}\nlife       {}\n\
         transition {}",
        row.id,
        row.name,
        node.state.name(),
        flags.join(","),
        row.cpus,
        row.speed,
        row.memory_bytes,
        row.control_address,
        row.incarnation,
        node.transition
    )
}

impl ClusternodeSetinfo {
    /// Has the cluster decide.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let ask = || {
            let place = Place::find(dir)?;
            let (table, local) = view(&place)?;
            let node = find_node(&table, &self.node)?.id;
            if self.state == State::GoingDown && node != local {
                membership::stop(&place, &table, node)?;
            } else {
                Cluster::at(place).set_state(node, self.state)?;
            }
            Ok(0)
        };
        refused("clusternode_setinfo", ask())
    }
}

impl ClusterTransition {
    /// Asks and prints.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        refused("cluster_transition", self.how.show(dir, self.id, WhichName::Next, true))
    }
}

impl ClusterDetailedtransition {
    /// Asks and prints.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        refused("cluster_detailedtransition", self.how.show(dir, self.id, self.which, false))
    }
}

impl How {
    fn show(&self, dir: Option<&Path>, id: Option<TransId>, which: WhichName, simple: bool) -> Outcome {
        let place = Place::find(dir)?;
        let (table, _) = view(&place)?;
        let cluster = Cluster::at(place);
        let found = match (self.wait, which) {
            (Some(wait), WhichName::Next) => {
                let id = id.map_or_else(|| cluster.membership().map(|now| now.transition), Ok)?;
                let limit = wait.map(|seconds| Duration::from_secs(seconds.into()));
                cluster.wait(id, simple, 1, limit)?.pop()
            }
            (Some(_), _) => return Err(Error::Said("--wait waits for the next one only".into())),
            (None, WhichName::Next) if simple => cluster.next_simple(id.unwrap_or_default())?,
            (None, which) => match cluster.transition(which.meant(), id.unwrap_or_default()) {
                Err(admin::Error::NoTransition) => None,
                found => Some(found?),
            },
        };
        let Some(found) = found else { return Ok(1) };
        if self.json {
            return print_json(&as_json(&found));
        }
        print(Ok(line(&found, &table)))
    }
}

impl WhichName {
    fn meant(self) -> Which {
        match self {
            WhichName::This => Which::This,
            WhichName::Next => Which::Next,
            WhichName::Previous => Which::Previous,
            WhichName::First => Which::First,
            WhichName::Last => Which::Last,
        }
    }
}
