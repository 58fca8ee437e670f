//! `ssi config check`.

use super::Outcome;
use crate::config::StateDir;
use clap::Subcommand;
use std::path::PathBuf;

/// Configuration.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Say whether `node.toml` in a state directory is well-formed and its values can be.
    Check {
        /// The state directory.
        directory: PathBuf,
    },
}

impl Config {
    /// Reads and judges.
    pub fn run(self) -> Outcome {
        let Config::Check { directory } = self;
        let config = StateDir(directory).load()?;
        println!(
            "ok: node {} ({}) of cluster {} at {}",
            config.id,
            config.name,
            config.cluster,
            config.control_address()
        );
        Ok(0)
    }
}
