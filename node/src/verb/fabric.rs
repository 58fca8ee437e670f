//! `ssi fabric`: what the links between the nodes do.

mod status;

use super::Outcome;
use clap::Subcommand;
use std::path::Path;

/// The fabric.
#[derive(Debug, Subcommand)]
pub enum Fabric {
    /// Show the links of this node's daemons: rails, rates, credits, and what was refused.
    Status(status::Status),
}

impl Fabric {
    /// Does it.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        match self {
            Fabric::Status(status) => status.run(dir),
        }
    }
}
