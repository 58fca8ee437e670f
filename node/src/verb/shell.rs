//! `ssi shell`: into the cluster, from the host or from one node to another.

use super::onnode::run_on;
use super::{Outcome, find_node, view};
use admin::Place;
use clap::Args;
use std::ffi::OsString;
use std::path::Path;

/// Open a shell, or run a command, inside the cluster.
#[derive(Debug, Args)]
pub struct Shell {
    /// Name or number of the node [default: the one we ask].
    #[arg(long, short)]
    node: Option<String>,
    /// The command and its arguments [default: $SHELL].
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

impl Shell {
    /// Runs it with this terminal, or these pipes, as its own.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let place = Place::find(dir)?;
        let (table, local) = view(&place)?;
        let node = match &self.node {
            Some(name) => find_node(&table, name)?.id,
            None => local,
        };
        let command = if self.command.is_empty() {
            vec![std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into())]
        } else {
            self.command
        };
        run_on("ssi shell", &place, &table, node, command, false, false)
    }
}
