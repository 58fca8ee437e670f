//! `ssi cluster status` and `ssi cluster voters`: who decides, and whether anything can be decided.

use crate::Error;
use crate::verb::nodes::leave_to_serve;
use crate::verb::{Outcome, change, find_node, print_json, view};
use admin::Place;
use admin::wire::{Ask, NodeState, ReplaceWanted, View, Wish};
use clap::Args;
use serde_json::json;
use std::path::Path;

/// The cluster in a few lines.
#[derive(Debug, Args, Default)]
#[command(after_help = "Exit code: 0 if there is a quorum, 1 if there is none.")]
pub struct Status {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Voters.
#[derive(Debug, Args)]
#[command(
    after_help = "Voters keep the log of the cluster table; a majority of them must be there for anything to change. The cluster chooses and replaces \
them by itself; with a COUNT it has so many, with --replace OLD NEW one is put in the place of another."
)]
pub struct Voters {
    /// Have so many nodes vote: 1, 3, 5 or 7.
    #[arg(conflicts_with = "replace")]
    count: Option<u32>,
    /// Have NEW vote in the place of OLD (names or numbers).
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"])]
    replace: Option<Vec<String>>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn voters(view: &View) -> Vec<u32> {
    view.nodes.iter().filter(|node| node.voter).map(|node| node.id).collect()
}

fn named(view: &View, ids: &[u32]) -> String {
    let named: Vec<String> = ids.iter().map(|id| format!("{} ({id})", view.name_of(*id))).collect();
    named.join(", ")
}

impl Status {
    /// Asks and prints.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let answer = Place::find(dir)?.ask(Ask::Nodes(()))?;
        let view =
            answer.view.clone().ok_or_else(|| Error::Said("ssid has no view yet; ask again".into()))?;
        let count = |state| view.nodes.iter().filter(|node| node.state() == state).count();
        let states = [NodeState::Up, NodeState::Stalled, NodeState::Down, NodeState::Fenced].map(count);
        let drained = view.nodes.iter().filter(|node| node.draining).count();
        let voters = voters(&view);
        let code = u8::from(!answer.quorum);
        if self.json {
            print_json(&json!({
                "cluster": view.cluster, "epoch": view.epoch, "master": view.master, "quorum": answer.quorum,
                "lease_ms": answer.lease_ms, "voters": voters, "voters_wanted": view.voters_wanted, "local": answer.local,
                "up": states[0], "stalled": states[1], "down": states[2], "fenced": states[3], "drained": drained,
            }))?;
            return Ok(code);
        }
        println!("cluster   {}", view.cluster);
        println!("epoch     {}", view.epoch);
        println!("master    {}", named(&view, &[view.master]));
        println!("voters    {} (wanted: {})", named(&view, &voters), view.voters_wanted);
        println!("quorum    {}", if answer.quorum { "yes" } else { "NO" });
        println!("this node {}, {}", view.name_of(answer.local), leave_to_serve(&answer));
        let [up, stalled, down, fenced] = states;
        println!("nodes     {up} UP, {stalled} STALLED, {down} DOWN, {fenced} FENCED; {drained} drained");
        Ok(code)
    }
}

impl Voters {
    /// Shows them, or has them changed.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let place = Place::find(dir)?;
        let (table, _) = view(&place)?;
        if let Some(names) = &self.replace {
            let (old, new) = (find_node(&table, &names[0])?.id, find_node(&table, &names[1])?.id);
            change(&place, Wish::ReplaceVoter(ReplaceWanted { old, new }))?;
        } else if let Some(count) = self.count {
            change(&place, Wish::Voters(count))?;
        }
        let (table, _) = view(&place)?;
        let voters = voters(&table);
        if self.json {
            return print_json(&json!({ "voters": voters, "voters_wanted": table.voters_wanted }));
        }
        println!("voters {} (wanted: {})", named(&table, &voters), table.voters_wanted);
        Ok(0)
    }
}
