//! `loads` and `fastnode`: what the nodes do, and which one does least.

use super::{Outcome, human, print_json, print_table};
use admin::Place;
use admin::wire::{Ask, Load};
use clap::Args;
use std::path::Path;

/// Show the load of every node: what the processes of the cluster use there.
#[derive(Debug, Args)]
pub struct Loads {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Print the number of the least loaded node.
#[derive(Debug, Args)]
pub struct Fastnode {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Loads {
    /// Asks and prints.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let answer = Place::find(dir)?.ask(Ask::Loads(()))?;
        if self.json {
            return print_json(&serde_json::Value::Array(answer.loads.iter().map(as_json).collect()));
        }
        let rows: Vec<Vec<String>> = answer.loads.iter().map(row).collect();
        print_table(&["NODE", "LOAD", "CPUS", "RUNNABLE", "SPEED", "MEMORY", "OF", "AGE"], &rows);
        Ok(0)
    }
}

fn row(load: &Load) -> Vec<String> {
    vec![
        load.node.to_string(),
        format!("{:.2}", f64::from(load.busy_permille) * f64::from(load.cpus) / 1000.0),
        load.cpus.to_string(),
        load.runnable.to_string(),
        load.speed.to_string(),
        human(load.memory_used),
        human(load.memory_total),
        format!("{}ms", load.age_ms),
    ]
}

fn as_json(load: &Load) -> serde_json::Value {
    serde_json::json!({
        "node": load.node, "busy_permille": load.busy_permille, "cpus": load.cpus, "speed": load.speed,
        "runnable": load.runnable, "memory_used": load.memory_used, "memory_total": load.memory_total,
        "age_ms": load.age_ms, "cost": load.cost,
    })
}

impl Fastnode {
    /// Asks and prints.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let node = fastest(&Place::find(dir)?)?;
        if self.json {
            return print_json(&serde_json::json!({ "node": node }));
        }
        println!("{node}");
        Ok(0)
    }
}

/// The least loaded node.
///
/// # Errors
/// No daemon, or no node is UP.
pub fn fastest(place: &Place) -> Result<u32, crate::Error> {
    let answer = place.ask(Ask::Loads(()))?;
    if answer.fastest == 0 {
        return Err(crate::Error::Said("no node is UP".into()));
    }
    Ok(answer.fastest)
}
