//! `ssi addnode`, `ssi rmnode`, and what is changed about a node: drained, named, described.

use super::{Outcome, change, find_node, onnode, view};
use crate::Error;
use admin::wire::{DescribeWanted, DrainWanted, NodeState, Property, RenameWanted, View, Wish};
use admin::{Cluster, Place, State};
use clap::Args;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a node that is stopped by force may take.
const GONE_WITHIN: Duration = Duration::from_secs(30);
/// Changes looked at at once while waiting for that.
const PAGE: usize = 64;

/// Take a node out of the cluster for good.
#[derive(Debug, Args)]
#[command(
    after_help = "The node must be DOWN; with --force one that is alive is stopped first: every process of its view ends."
)]
pub struct Rmnode {
    /// Name or number of the node.
    node: String,
    /// Stop the node first if it is alive.
    #[arg(long)]
    force: bool,
}

/// A node, by name or number.
#[derive(Debug, Args)]
pub struct Named {
    /// Name or number of the node.
    node: String,
}

/// Another name.
#[derive(Debug, Args)]
pub struct Rename {
    /// Name or number of the node.
    node: String,
    /// Its new name.
    name: String,
}

/// Something to be written down.
#[derive(Debug, Args)]
#[command(after_help = "KEY= takes the key away. `ssi nodes --json` shows what is written down.")]
pub struct Describe {
    /// Name or number of the node.
    node: String,
    /// What.
    #[arg(required = true, value_name = "KEY=VALUE", value_parser = property)]
    properties: Vec<Property>,
}

fn property(text: &str) -> Result<Property, String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE is needed")?;
    Ok(Property { key: key.into(), value: value.into() })
}

impl Rmnode {
    /// Has the cluster forget it.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let place = Place::find(dir)?;
        let (table, local) = view(&place)?;
        let node = find_node(&table, &self.node)?;
        let alive = matches!(node.state(), NodeState::Up | NodeState::Stalled);
        if alive && node.id == local {
            return Err(Error::Said(
                "this is the node that is asked: ask another one, with --dir or from its view".into(),
            ));
        }
        if alive && !self.force {
            return Err(Error::Said(format!(
                "node {} ({}) is {}: stop it there with `ssi node stop`, or have it stopped with --force",
                node.id,
                node.name,
                node.state_name()
            )));
        }
        if alive {
            stop(&place, &table, node.id)?;
        }
        change(&place, Wish::Remove(node.id))?;
        println!("node {} ({}) is no longer in cluster {}", node.id, node.name, table.cluster);
        Ok(0)
    }
}

/// Has another node stop, and waits until the cluster knows it.
///
/// # Errors
/// It does not within half a minute.
pub fn stop(place: &Place, table: &View, node: u32) -> Result<(), Error> {
    let cluster = Cluster::at(place.clone());
    let mut position = cluster.membership()?.transition;
    // It ends under the command that stops it: how that ended tells nothing.
    let command = ["clusternode_setinfo", &node.to_string(), "GOINGDOWN"].map(Into::into).to_vec();
    let ran = onnode::try_on(place, table, node, command);
    let until = Instant::now() + GONE_WITHIN;
    loop {
        let state = cluster.node(node)?.state;
        if matches!(state, State::Down | State::Fenced) {
            return Ok(());
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let why = ran.err().map_or_else(String::new, |error| format!(": {error}"));
            return Err(Error::Said(format!(
                "node {node} is {} and does not stop{why}. Switch it off; it is DOWN a moment later and can be removed then",
                state.name()
            )));
        }
        let changes = cluster.wait(position, false, PAGE, Some(left))?;
        position = changes.last().map_or(position, |change| change.id);
    }
}

/// Gives a node no new work, or work again.
pub fn drain(named: &Named, drain: bool, dir: Option<&Path>) -> Outcome {
    let place = Place::find(dir)?;
    let (table, _) = view(&place)?;
    let node = find_node(&table, &named.node)?;
    change(&place, Wish::Drain(DrainWanted { node: node.id, drain }))?;
    let what = if drain { "gets no new work; what runs there goes on" } else { "gets work again" };
    println!("node {} ({}) {what}", node.id, node.name);
    Ok(0)
}

impl Rename {
    /// Gives a node another name.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let place = Place::find(dir)?;
        let (table, _) = view(&place)?;
        let node = find_node(&table, &self.node)?;
        change(&place, Wish::Rename(RenameWanted { node: node.id, name: self.name.clone() }))?;
        println!("node {} was {} and is {} now", node.id, node.name, self.name);
        Ok(0)
    }
}

impl Describe {
    /// Writes it down.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let place = Place::find(dir)?;
        let (table, _) = view(&place)?;
        let node = find_node(&table, &self.node)?.id;
        for property in self.properties {
            change(&place, Wish::Describe(DescribeWanted { node, property: Some(property) }))?;
        }
        Ok(0)
    }
}
