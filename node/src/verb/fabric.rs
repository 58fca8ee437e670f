//! `ssi fabric`: what the links between the nodes do.

use super::{Outcome, human, print_json, print_table};
use crate::admin::client::Place;
use crate::admin::wire::{Ask, Link};
use clap::Subcommand;
use std::path::Path;

/// The fabric.
#[derive(Debug, Subcommand)]
pub enum Fabric {
    /// Show the links of this node and what was refused.
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

impl Fabric {
    /// Asks and prints.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let Fabric::Status { json } = self;
        let answer = Place::find(dir)?.ask(Ask::Fabric(()))?;
        if json {
            let link = |link: &Link| {
                serde_json::json!({"peer": link.peer, "address": link.address, "state": link.state,
                    "in_flight": link.in_flight, "calls": link.calls, "sent": link.sent, "received": link.received})
            };
            let refused = answer.refused.iter().map(|r| (r.cause.clone(), r.count.into()));
            return print_json(&serde_json::json!({
                "links": answer.links.iter().map(link).collect::<Vec<_>>(),
                "refused": refused.collect::<serde_json::Map<_, _>>(),
            }));
        }
        let rows: Vec<Vec<String>> = answer.links.iter().map(row).collect();
        print_table(&["PEER", "ADDRESS", "STATE", "IN FLIGHT", "CALLS", "SENT", "RECEIVED"], &rows);
        for refused in answer.refused.iter().filter(|refused| refused.count > 0) {
            println!("refused: {} ({})", refused.count, refused.cause);
        }
        Ok(0)
    }
}

fn row(link: &Link) -> Vec<String> {
    vec![
        link.peer.clone(),
        link.address.clone(),
        link.state.clone(),
        link.in_flight.to_string(),
        link.calls.to_string(),
        human(link.sent),
        human(link.received),
    ]
}
