//! `onnode`, `fast`, `onall`, `localview`: a command somewhere else, as if it ran here.

use super::{Outcome, find_node, loads, view};
use crate::Error;
use admin::Place;
use admin::wire::{NodeState, View};
use clap::Args;
use pm::client::{Everywhere, Foreground, everywhere, foreground};
use pm::wire::TaskSpec;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// Run a command on one node. It keeps this command's pid: `onnode 2 sleep 9 &` is `$!` on node 2.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: the command's; 128 + n in a shell if signal n ended it (onnode ends by the same \
signal); 127 command not found, 126 not executable, 255 the node is gone or could not be reached."
)]
pub struct Onnode {
    /// Name or number of the node.
    pub node: String,
    /// The command and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub command: Vec<OsString>,
}

/// Run a command on the least loaded node.
#[derive(Debug, Args)]
pub struct Fast {
    /// The command and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

/// Run a command on every node that is UP.
#[derive(Debug, Args)]
pub struct Onall {
    /// Put the node's name in front of each line.
    #[arg(long, short = 'l')]
    label: bool,
    /// The command and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

/// Run a command that sees this node's own /proc only.
#[derive(Debug, Args)]
pub struct Localview {
    /// The command and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

impl Onnode {
    /// Runs it.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let place = Place::find(dir)?;
        let (table, local) = view(&place)?;
        let node = find_node(&table, &self.node)?.id;
        go("onnode", &place, &table, (local, node), self.command)
    }
}

impl Fast {
    /// Runs it.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let place = Place::find(dir)?;
        let (table, local) = view(&place)?;
        let node = loads::fastest(&place)?;
        go("fast", &place, &table, (local, node), self.command)
    }
}

impl Localview {
    /// Runs it.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let place = Place::find(dir)?;
        let (table, local) = view(&place)?;
        run_on("localview", &place, &table, local, self.command, false, true)
    }
}

/// On another node a command of the view becomes the shadow of its task; on this one it becomes the command.
fn go(name: &str, place: &Place, table: &View, (local, node): (u32, u32), command: Vec<OsString>) -> Outcome {
    if place.in_view && local == node {
        return Err(become_command(name, command));
    }
    run_on(name, place, table, node, command, place.in_view, false)
}

/// exec(3); only returns when it fails, with the exit codes of a shell.
fn become_command(name: &str, command: Vec<OsString>) -> Error {
    use std::os::unix::process::CommandExt;
    let error = std::process::Command::new(&command[0]).args(&command[1..]).exec();
    eprintln!("{name}: exec {}: {error}", command[0].to_string_lossy());
    std::process::exit(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 })
}

/// Runs one command on `node` with our streams, terminal and signals, and ends as it ended.
pub fn run_on(
    name: &str,
    place: &Place,
    table: &View,
    node: u32,
    command: Vec<OsString>,
    shadow: bool,
    local_view: bool,
) -> Outcome {
    let mut spec = spec(place, command)?;
    spec.local_view = local_view;
    let node_name = table.nodes.iter().find(|row| row.id == node).map_or("", |row| row.name.as_str());
    let socket = place.admin_socket();
    let ending =
        foreground(Foreground { socket: &socket, node: base::NodeId(node), node_name, spec, shadow });
    let ending = ending.map_err(Error::said)?;
    if let Some(message) = ending.message() {
        eprintln!("{name}: {message}");
    }
    ending.imitate()
}

/// Runs one command on `node` and leaves its output to us; how it ended does not matter.
///
/// # Errors
/// It cannot be run there.
pub fn try_on(place: &Place, table: &View, node: u32, command: Vec<OsString>) -> Result<(), Error> {
    let spec = spec(place, command)?;
    let (socket, node_name) = (place.admin_socket(), table.name_of(node));
    let options =
        Foreground { socket: &socket, node: base::NodeId(node), node_name: &node_name, spec, shadow: false };
    foreground(options).map(drop).map_err(Error::said)
}

/// What the command inherits from us. From the host, the cluster's commands come first in its PATH.
fn spec(place: &Place, command: Vec<OsString>) -> Result<TaskSpec, Error> {
    let mut spec =
        TaskSpec::from_here(command.into_iter().map(OsString::into_vec).collect()).map_err(Error::said)?;
    if !place.in_view {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        let mut entry = b"PATH=/run/ssi/bin:".to_vec();
        entry.extend_from_slice(OsStr::as_bytes(&path));
        spec.env.retain(|variable| !variable.starts_with(b"PATH=") && !variable.starts_with(b"SSI_DIR="));
        spec.env.push(entry);
    }
    Ok(spec)
}

impl Onall {
    /// Runs it everywhere; the exit code is the highest.
    pub fn run(self, dir: Option<&Path>) -> Outcome {
        let place = Place::find(dir)?;
        let (table, _) = view(&place)?;
        let up = table.nodes.iter().filter(|node| node.state() == NodeState::Up);
        let nodes: Vec<_> = up.map(|node| (node.node_id(), node.name.clone())).collect();
        let spec = spec(&place, self.command)?;
        let socket = place.admin_socket();
        let options =
            Everywhere { socket: &socket, program: "onall", nodes: &nodes, spec, prefix: self.label };
        everywhere(&options).map_err(Error::said)
    }
}
