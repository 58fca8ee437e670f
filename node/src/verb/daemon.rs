//! The internal verbs: the processes of a node.

use super::Outcome;
use crate::Error;
use crate::config::StateDir;
use crate::local::{Plan, member};
use clap::Args;
use std::path::Path;

/// `ssid` and `ssid --data`.
#[derive(Debug, Args)]
pub struct Daemon {
    /// The data daemon instead of the control daemon.
    #[arg(long)]
    data: bool,
}

/// A node of a local cluster, from its network on.
#[derive(Debug, Args)]
pub struct LocalNode {
    /// Its number.
    #[arg(long)]
    index: u32,
    /// The plan, JSON.
    #[arg(long)]
    plan: String,
}

impl Daemon {
    /// Runs until killed.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let state = StateDir(dir.map_or_else(super::node::default_state_dir, Path::to_path_buf));
        let _claim = crate::daemon::claim(&state, if self.data { "ssid-data" } else { "ssid" })?;
        if self.data {
            crate::daemon::data::run(state)?
        } else {
            crate::daemon::control::run(state)?
        }
        Ok(0)
    }
}

impl LocalNode {
    /// Runs until the node ends.
    pub fn run(self) -> Outcome {
        let plan: Plan = serde_json::from_str(&self.plan).map_err(Error::said)?;
        member::run(&plan, self.index)?;
        Ok(0)
    }
}
