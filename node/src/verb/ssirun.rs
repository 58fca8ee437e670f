//! `ssirun`: an MPI program, or any command, as a job of N ranks.

use super::{Outcome, view};
use crate::Error;
use admin::Place;
use admin::wire::{Ask, PlacementRequest};
use base::NodeId;
use clap::Args;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Run an MPI program (or any command) as a job of N ranks over the nodes of the cluster.
#[derive(Debug, Args)]
#[command(
    after_help = "mpiexec's one-dash spellings work as well: -n, -np, -ppn, -hosts, -wdir, -env, -prepend-rank."
)]
pub struct Ssirun {
    /// Ranks to start.
    #[arg(short, visible_alias = "np", long = "ranks", value_name = "N", default_value_t = 1)]
    n: u32,
    /// Ranks a node at most [default: as the load says].
    #[arg(long, visible_alias = "perhost", value_name = "P")]
    ppn: Option<u32>,
    /// Use these nodes only: names or numbers, separated by commas.
    #[arg(long, visible_alias = "host", value_delimiter = ',', value_name = "A,B")]
    hosts: Vec<String>,
    /// Working directory of the ranks [default: this one].
    #[arg(long, value_name = "DIR")]
    wdir: Option<PathBuf>,
    /// Set an environment variable of the ranks; may be given again.
    #[arg(long, num_args = 2, value_names = ["NAME", "VALUE"], action = clap::ArgAction::Append)]
    env: Vec<OsString>,
    /// Put the rank in front of each line of output.
    #[arg(short = 'l', long)]
    prepend_rank: bool,
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

/// How many values each of mpiexec's flags takes: what follows them is not the program.
const VALUES: [(&str, usize); 11] = [
    ("--ppn", 1),
    ("--hosts", 1),
    ("--host", 1),
    ("--wdir", 1),
    ("--env", 2),
    ("--np", 1),
    ("--perhost", 1),
    ("--ranks", 1),
    ("-n", 1),
    ("--dir", 1),
    ("--prepend-rank", 0),
];

/// Gives the one-dash flags of `flags` their second dash, up to the program's name.
pub fn double_dashes(line: Vec<OsString>, flags: &[&str]) -> Vec<OsString> {
    let mut out = Vec::with_capacity(line.len());
    let mut words = line.into_iter();
    out.extend(words.by_ref().take(2));
    while let Some(word) = words.next() {
        let text = word.to_str().unwrap_or_default();
        let known = flags.contains(&text);
        let flag = if known { OsString::from(format!("-{text}")) } else { word };
        if !flag.to_str().is_some_and(|flag| flag.starts_with('-')) {
            out.push(flag);
            break;
        }
        let values = VALUES.iter().find(|(name, _)| flag == *name).map_or(0, |(_, values)| *values);
        out.push(flag);
        out.extend(words.by_ref().take(values));
    }
    out.extend(words);
    out
}

impl Ssirun {
    /// Places the ranks, runs them, and ends with the job's exit code.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let place = Place::find(dir)?;
        let (table, _) = view(&place)?;
        let wanted =
            PlacementRequest { ranks: self.n, per_node: self.ppn.unwrap_or(0), hosts: self.hosts.clone() };
        let nodes = place.ask(Ask::Placement(wanted))?.nodes;
        let name = |id: u32| {
            table.nodes.iter().find(|row| row.id == id).map_or_else(String::new, |row| row.name.clone())
        };
        let placement = nodes.iter().map(|id| (NodeId(*id), name(*id))).collect();
        let pairs = self.env.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
        let options = launcher::Options {
            env: pairs.collect(),
            wdir: self.wdir,
            prepend_rank: self.prepend_rank,
            command: self.command,
        };
        let code = launcher::run(options, placement, &place.admin_socket());
        u8::try_from(code).map_err(|_| Error::Said(format!("the job ended with the impossible code {code}")))
    }
}
