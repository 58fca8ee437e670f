//! `ssi cluster rekey`: another key for the cluster, while everything runs.

use crate::Error;
use crate::config::read_key;
use crate::verb::Outcome;
use admin::Place;
use admin::wire::{Ask, Rekey as Wanted};
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the whole change may take.
const CHANGED_WITHIN: Duration = Duration::from_secs(60);

/// Another key.
#[derive(Debug, Args)]
pub struct Rekey {
    /// File with the new key, 64 hexadecimal digits [default: a new one is made].
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl Rekey {
    /// Asks, and says who has the new key and who has not.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let key = self.key_file.as_deref().map(read_key).transpose()?;
        let key = key.map(|key| key.as_bytes().to_vec()).unwrap_or_default();
        let answer = Place::find(dir)?.ask_within(Ask::Rekey(Wanted { key }), CHANGED_WITHIN)?;
        let view = answer.view.ok_or_else(|| Error::Said("ssid did not say which nodes there are".into()))?;
        println!(
            "the key of cluster {} is changed on {} nodes; nothing was interrupted",
            view.cluster,
            answer.nodes.len()
        );
        let behind: Vec<&str> = view
            .nodes
            .iter()
            .filter(|node| !answer.nodes.contains(&node.id))
            .map(|node| node.name.as_str())
            .collect();
        if !behind.is_empty() {
            println!(
                "not there, and so without the new key: {}. Copy the file `key` from the state directory of another node into theirs before \
                 they start.",
                behind.join(", ")
            );
        }
        Ok(0)
    }
}
