//! `ssi nodes`: the cluster table.

use super::{Outcome, human, print_json, print_table};
use admin::Place;
use admin::wire::Ask;
use clap::Args;
use admin::wire::{Node, View};
use std::path::Path;

/// List the nodes.
#[derive(Debug, Args)]
pub struct Nodes {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Nodes {
    /// Asks and prints.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let answer = Place::find(dir)?.ask(Ask::Nodes(()))?;
        let view = answer.view.unwrap_or_default();
        if self.json {
            return print_json(&as_json(&view, answer.quorum, answer.local));
        }
        let quorum =
            if answer.quorum { "" } else { "  NO QUORUM: nothing can change until a majority is back" };
        println!("cluster {}  epoch {}  master {}{quorum}", view.cluster, view.epoch, view.master);
        let rows: Vec<Vec<String>> = view.nodes.iter().map(|node| row(node, &view)).collect();
        print_table(&["ID", "NAME", "STATE", "ADDRESS", "ARCH", "CPUS", "MEMORY", "PIDS"], &rows);
        Ok(0)
    }
}

fn state(node: &Node) -> String {
    format!("{:?}", node.state()).to_uppercase()
}

fn row(node: &Node, view: &View) -> Vec<String> {
    let home = view.regions().home(node.node_id());
    vec![
        node.id.to_string(),
        node.name.clone(),
        state(node),
        node.control_address.clone(),
        node.arch.clone(),
        node.cpus.to_string(),
        human(node.memory_bytes),
        format!("{}-{}", home.start, home.end - 1),
    ]
}

fn as_json(view: &View, quorum: bool, local: u32) -> serde_json::Value {
    let node = |node: &Node| {
        let home = view.regions().home(node.node_id());
        serde_json::json!({
            "id": node.id, "name": node.name, "state": state(node), "address": node.control_address,
            "data_address": node.data_address, "arch": node.arch, "cpus": node.cpus, "speed": node.speed,
            "memory_bytes": node.memory_bytes, "pid_first": home.start, "pid_last": home.end - 1,
            "incarnation": node.incarnation,
        })
    };
    serde_json::json!({
        "cluster": view.cluster, "epoch": view.epoch, "master": view.master, "quorum": quorum, "local": local,
        "nodes": view.nodes.iter().map(node).collect::<Vec<_>>(),
    })
}
