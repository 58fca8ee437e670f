//! `where_pid`: on which node a process runs.

use super::{Outcome, print_json, view};
use admin::Place;
use admin::wire::Ask;
use clap::Args;
use std::path::Path;

/// Print the number of the node on which each process runs.
#[derive(Debug, Args)]
pub struct WherePid {
    /// Process ids.
    #[arg(required = true)]
    pids: Vec<u32>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Print the node's name beside its number.
    #[arg(long, short)]
    name: bool,
}

impl WherePid {
    /// Asks for each and prints. Exit code 1 if one of them is no process.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let place = Place::find(dir)?;
        let (table, _) = view(&place)?;
        let mut found = Vec::new();
        for pid in &self.pids {
            let node = place.ask(Ask::WherePid(*pid))?.nodes.first().copied();
            found.push((*pid, node));
        }
        if self.json {
            let rows = found.iter().map(|(pid, node)| serde_json::json!({"pid": pid, "node": node}));
            print_json(&serde_json::Value::Array(rows.collect()))?;
        }
        for (pid, node) in &found {
            match node {
                Some(node) if !self.json => {
                    let name =
                        table.nodes.iter().find(|row| row.id == *node).map_or("", |row| row.name.as_str());
                    println!("{node}{}", if self.name { format!(" {name}") } else { String::new() });
                }
                Some(_) => {}
                None => eprintln!("where_pid: {pid}: no such process"),
            }
        }
        Ok(u8::from(found.iter().any(|(_, node)| node.is_none())))
    }
}
