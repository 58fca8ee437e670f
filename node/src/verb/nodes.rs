//! `ssi nodes`: the cluster table.

use super::{Outcome, human, print_json, print_table};
use admin::Place;
use admin::wire::{Answer, Ask, Node, View};
use clap::Args;
use std::path::Path;

/// A longer lease is one of a node that need ask nobody.
const LEASE_MS_MAX: u64 = 86_400_000;

/// List the nodes.
#[derive(Debug, Args)]
#[command(
    after_help = "STATE: UP, works; STALLED, a daemon is away and its processes live; DOWN, gone; FENCED, gone and shut out; drained, gets no \
new work. ROLE: master, decides; voter, its log counts; mds, has the filesystem's metadata; * is the node that was asked."
)]
pub struct Nodes {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Nodes {
    /// Asks and prints.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let answer = Place::find(dir)?.ask(Ask::Nodes(()))?;
        let view = answer.view.clone().unwrap_or_default();
        if self.json {
            return print_json(&as_json(&view, &answer));
        }
        println!(
            "cluster {}  epoch {}  master {}  {}",
            view.cluster,
            view.epoch,
            view.master,
            leave_to_serve(&answer)
        );
        let rows: Vec<Vec<String>> = view.nodes.iter().map(|node| row(node, &view, answer.local)).collect();
        print_table(&["ID", "NAME", "STATE", "ROLE", "ADDRESS", "ARCH", "CPUS", "MEMORY", "PIDS"], &rows);
        Ok(0)
    }
}

/// Whether the node that was asked may serve, in words.
pub fn leave_to_serve(answer: &Answer) -> String {
    match answer.quorum {
        false => "NO QUORUM: nothing can change until a majority is back".into(),
        true if answer.lease_ms > LEASE_MS_MAX => "lease without end: the only voter".into(),
        true => format!("lease {:.1} s", answer.lease_ms as f64 / 1000.0),
    }
}

/// The state of a node for people.
pub fn state(node: &Node) -> String {
    format!("{}{}", node.state_name(), if node.draining { " drained" } else { "" })
}

fn role(node: &Node, view: &View, local: u32) -> String {
    let roles = [
        (view.master == node.id, "master"),
        (node.voter, "voter"),
        (view.mds == node.id, "mds"),
        (local == node.id, "*"),
    ];
    let words: Vec<&str> = roles.into_iter().filter(|(is, _)| *is).map(|(_, word)| word).collect();
    if words.is_empty() { "-".into() } else { words.join(",") }
}

fn row(node: &Node, view: &View, local: u32) -> Vec<String> {
    let home = view.regions().home(node.node_id());
    vec![
        node.id.to_string(),
        node.name.clone(),
        state(node),
        role(node, view, local),
        node.control_address.clone(),
        node.arch.clone(),
        node.cpus.to_string(),
        human(node.memory_bytes),
        format!("{}-{}", home.start, home.end - 1),
    ]
}

fn as_json(view: &View, answer: &Answer) -> serde_json::Value {
    let node = |node: &Node| {
        let home = view.regions().home(node.node_id());
        let info: serde_json::Map<_, _> =
            node.info.iter().map(|p| (p.key.clone(), serde_json::Value::from(p.value.clone()))).collect();
        serde_json::json!({
            "id": node.id, "name": node.name, "state": node.state_name(), "address": node.control_address,
            "data_address": node.data_address, "arch": node.arch, "cpus": node.cpus, "speed": node.speed,
            "memory_bytes": node.memory_bytes, "pid_first": home.start, "pid_last": home.end - 1,
            "incarnation": node.incarnation, "drained": node.draining, "voter": node.voter,
            "master": view.master == node.id, "info": info,
        })
    };
    serde_json::json!({
        "cluster": view.cluster, "epoch": view.epoch, "master": view.master, "quorum": answer.quorum, "local": answer.local,
        "voters_wanted": view.voters_wanted,
        "nodes": view.nodes.iter().map(node).collect::<Vec<_>>(),
    })
}
