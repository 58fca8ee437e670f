//! `ssi fabric`: what the links between the nodes do.

mod dump;
mod status;

use super::Outcome;
use clap::Subcommand;
use std::path::Path;

/// The fabric.
#[derive(Debug, Subcommand)]
pub enum Fabric {
    /// Show the links of this node's daemons: rails, rates, credits, and what was refused.
    Status(status::Status),
    /// Show the fabric's frames in a capture of network traffic (pcap or pcapng).
    Dump(dump::Dump),
}

impl Fabric {
    /// Does it.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        match self {
            Fabric::Status(status) => status.run(dir),
            Fabric::Dump(dump) => dump.run(),
        }
    }
}
