//! The command line: one definition of every verb and flag, from which parsing, help, man pages and completion come.

use crate::verb::{self, Outcome};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// One Linux system out of many machines: the cluster's command line.
#[derive(Debug, Parser)]
#[command(name = "ssi", version, max_term_width = 100)]
#[command(
    after_help = "The commands onnode, onall, fastnode, fast, loads, where_pid, localview and ssirun also work by \
their own names inside the cluster (`ssi shell` enters it), and so do cluster_name, cluster_membership, cluster_transition, \
cluster_detailedtransition, clusternode_num, clusternode_avail, clusternode_info and clusternode_setinfo, the commands of OpenSSI."
)]
pub struct Cli {
    /// Directory of a local cluster, or state directory of a node [default: the view we are in, /tmp/ssi-<uid>].
    #[arg(long, global = true, env = DIR_VARIABLE, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List the nodes of the cluster: number, name, state, address, resources, pid range.
    Nodes(verb::nodes::Nodes),
    /// Show the load of every node.
    Loads(verb::loads::Loads),
    /// Name the least loaded node.
    Fastnode(verb::loads::Fastnode),
    /// Run a command on the least loaded node.
    Fast(verb::onnode::Fast),
    /// Run a command on one node.
    Onnode(verb::onnode::Onnode),
    /// Run a command on every node that is UP.
    Onall(verb::onnode::Onall),
    /// Tell on which node a process runs.
    #[command(name = "where_pid", alias = "where-pid")]
    WherePid(verb::where_pid::WherePid),
    /// Run a command that sees this node's own /proc only.
    Localview(verb::onnode::Localview),
    /// Run an MPI program (or any command) as a job of N ranks.
    Ssirun(verb::ssirun::Ssirun),
    /// Open a shell, or run a command, inside the cluster on one node.
    Shell(verb::shell::Shell),
    /// Show how the cluster is; make, start and end clusters.
    Cluster(verb::cluster::Cluster),
    /// List what changed in the cluster, and go on with what happens.
    Transitions(verb::transitions::Transitions),
    /// Let machines join: make a token and print the command.
    Addnode(verb::addnode::Addnode),
    /// Take a node out of the cluster for good.
    Rmnode(verb::membership::Rmnode),
    /// Join a machine to a cluster; start, stop, drain, name its node.
    #[command(subcommand)]
    Node(verb::node::Node),
    /// The parallel filesystem: layouts and space.
    #[command(subcommand)]
    Fs(verb::fs::Fs),
    /// The fabric: links, rates, refused connections.
    #[command(subcommand)]
    Fabric(verb::fabric::Fabric),
    /// Hold a lock of the cluster around a command, as flock(1) does.
    Lock(verb::lock::Lock),
    /// List locks: who holds them, who waits, who waits in a circle.
    Locks(verb::locks::Locks),
    /// Check a configuration file.
    #[command(subcommand)]
    Config(verb::config::Config),
    /// Print the cluster's name.
    #[command(name = "cluster_name", hide = true)]
    ClusterName(verb::api::ClusterName),
    /// Print the numbers of the nodes that are UP.
    #[command(name = "cluster_membership", hide = true)]
    ClusterMembership(verb::api::ClusterMembership),
    /// Print the next transition by which a node becomes UP or no longer is.
    #[command(name = "cluster_transition", hide = true)]
    ClusterTransition(verb::api::ClusterTransition),
    /// Print any transition, in relation to another.
    #[command(name = "cluster_detailedtransition", hide = true)]
    ClusterDetailedtransition(verb::api::ClusterDetailedtransition),
    /// Print the number of this node.
    #[command(name = "clusternode_num", hide = true)]
    ClusternodeNum(verb::api::ClusternodeNum),
    /// Print whether a node is UP.
    #[command(name = "clusternode_avail", hide = true)]
    ClusternodeAvail(verb::api::ClusternodeAvail),
    /// Print what there is to know of a node.
    #[command(name = "clusternode_info", hide = true)]
    ClusternodeInfo(verb::api::ClusternodeInfo),
    /// Ask for another state of a node.
    #[command(name = "clusternode_setinfo", hide = true)]
    ClusternodeSetinfo(verb::api::ClusternodeSetinfo),
    /// Write the man pages of every command and of libssi into a directory.
    Man(Man),
    /// Print the completion script for a shell.
    Completion(Completion),
    /// (internal) Run a daemon of a node.
    #[command(hide = true)]
    Daemon(verb::daemon::Daemon),
    /// (internal) Be a node of a local cluster.
    #[command(hide = true)]
    LocalNode(verb::daemon::LocalNode),
}

/// Man pages.
#[derive(Debug, Args)]
pub struct Man {
    /// Where to.
    directory: PathBuf,
}

/// Completion.
#[derive(Debug, Args)]
pub struct Completion {
    /// For which shell.
    shell: clap_complete::Shell,
}

/// The environment variable that stands in for `--dir`.
const DIR_VARIABLE: &str = "SSI_DIR";

/// Names under which the binary acts as one verb.
pub const COMMANDS: [&str; 16] = [
    "onnode",
    "onall",
    "fastnode",
    "fast",
    "loads",
    "where_pid",
    "localview",
    "ssirun",
    "cluster_name",
    "cluster_membership",
    "cluster_transition",
    "cluster_detailedtransition",
    "clusternode_num",
    "clusternode_avail",
    "clusternode_info",
    "clusternode_setinfo",
];

/// `ssirun`'s flags as mpiexec's users write them: one dash.
const MPI_FLAGS: [&str; 9] =
    ["-ppn", "-hosts", "-host", "-wdir", "-env", "-prepend-rank", "-np", "-perhost", "-help"];

/// The name that the user knows us by, for messages: the command's own, or `ssi`.
pub fn called_as(arguments: &[OsString]) -> String {
    let called = arguments.first().map(PathBuf::from).unwrap_or_default();
    let name = called.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if name == "ssid" || COMMANDS.contains(&name) { name.to_owned() } else { "ssi".to_owned() }
}

/// The argument list as [`Cli`] takes it: a command called by its own name becomes a verb of `ssi`, and mpiexec's
/// one-dash flags in front of the program get their second dash.
pub fn normalize(arguments: Vec<OsString>) -> Vec<OsString> {
    let name = called_as(&arguments);
    let mut line = vec![OsString::from("ssi")];
    match name.as_str() {
        "ssid" => line.push("daemon".into()),
        command if COMMANDS.contains(&command) => line.push(command.into()),
        _ => {}
    }
    line.extend(arguments.into_iter().skip(1));
    if line.get(1).is_some_and(|verb| verb == "ssirun") {
        verb::ssirun::double_dashes(line, &MPI_FLAGS)
    } else {
        line
    }
}

/// The command line's definition, given what `SSI_DIR` holds: an empty one is none, as in a shell.
fn definition(variable: Option<&OsStr>) -> clap::Command {
    let unset = variable.is_some_and(OsStr::is_empty);
    if unset { Cli::command().mut_arg("dir", |dir| dir.env(None)) } else { Cli::command() }
}

impl Cli {
    /// Reads the argument list; ends the process where help was asked for or it makes no sense.
    pub fn read(arguments: Vec<OsString>) -> Cli {
        let variable = std::env::var_os(DIR_VARIABLE);
        let matches = definition(variable.as_deref()).get_matches_from(arguments);
        Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// Does what was asked.
    pub fn run(self) -> Outcome {
        if self.verb.only_prints() {
            crate::sys::end_on_closed_pipe();
        }
        let dir = self.dir.as_deref();
        match self.verb {
            Verb::Nodes(verb) => verb.run(dir),
            Verb::Loads(verb) => verb.run(dir),
            Verb::Fastnode(verb) => verb.run(dir),
            Verb::Fast(verb) => verb.run(dir),
            Verb::Onnode(verb) => verb.run(dir),
            Verb::Onall(verb) => verb.run(dir),
            Verb::WherePid(verb) => verb.run(dir),
            Verb::Localview(verb) => verb.run(dir),
            Verb::Ssirun(verb) => verb.run(dir),
            Verb::Shell(verb) => verb.run(dir),
            Verb::Cluster(verb) => verb.run(dir),
            Verb::Transitions(verb) => verb.run(dir),
            Verb::Addnode(verb) => verb.run(dir),
            Verb::Rmnode(verb) => verb.run(dir),
            Verb::ClusterName(verb) => verb.run(dir),
            Verb::ClusterMembership(verb) => verb.run(dir),
            Verb::ClusterTransition(verb) => verb.run(dir),
            Verb::ClusterDetailedtransition(verb) => verb.run(dir),
            Verb::ClusternodeNum(verb) => verb.run(dir),
            Verb::ClusternodeAvail(verb) => verb.run(dir),
            Verb::ClusternodeInfo(verb) => verb.run(dir),
            Verb::ClusternodeSetinfo(verb) => verb.run(dir),
            Verb::Node(verb) => verb.run(dir),
            Verb::Fs(verb) => verb.run(dir),
            Verb::Fabric(verb) => verb.run(dir),
            Verb::Lock(verb) => verb.run(dir),
            Verb::Locks(verb) => verb.run(dir),
            Verb::Config(verb) => verb.run(),
            Verb::Man(man) => man.run(),
            Verb::Completion(completion) => completion.run(),
            Verb::Daemon(verb) => verb.run(dir),
            Verb::LocalNode(verb) => verb.run(),
        }
    }
}

impl Verb {
    /// True for verbs that ask and print, and hold nothing that must be put in order at the end.
    fn only_prints(&self) -> bool {
        use Verb::{
            ClusterDetailedtransition, ClusterMembership, ClusterName, ClusterTransition, ClusternodeAvail,
            ClusternodeInfo, ClusternodeNum, Completion, Config, Fabric, Fastnode, Fs, Loads, Locks, Nodes,
            Transitions, WherePid,
        };
        matches!(
            self,
            Nodes(_)
                | ClusterDetailedtransition(_)
                | ClusterMembership(_)
                | ClusterName(_)
                | ClusterTransition(_)
                | ClusternodeAvail(_)
                | ClusternodeInfo(_)
                | ClusternodeNum(_)
                | Transitions(_)
                | Loads(_)
                | Locks(_)
                | Fastnode(_)
                | WherePid(_)
                | Fs(_)
                | Fabric(_)
                | Config(_)
                | Completion(_)
        )
    }
}

impl Man {
    fn run(self) -> Outcome {
        std::fs::create_dir_all(&self.directory).map_err(crate::Error::step("make the directory"))?;
        let failed = || crate::Error::step("write man pages");
        clap_mangen::generate_to(Cli::command(), &self.directory).map_err(failed())?;
        for command in own_names() {
            clap_mangen::Man::new(command).generate_to(&self.directory).map_err(failed())?;
        }
        verb::manual::write(&self.directory).map_err(failed())?;
        Ok(0)
    }
}

impl Completion {
    fn run(self) -> Outcome {
        let mut out = std::io::stdout();
        clap_complete::generate(self.shell, &mut Cli::command(), "ssi", &mut out);
        for mut command in own_names() {
            let name = command.get_name().to_owned();
            clap_complete::generate(self.shell, &mut command, name, &mut out);
        }
        Ok(0)
    }
}

/// The definitions of the commands that are called by their own names.
fn own_names() -> Vec<clap::Command> {
    let all = Cli::command();
    let own = all.get_subcommands().filter(|command| COMMANDS.contains(&command.get_name()));
    let alone = |command: &clap::Command| {
        let name = command.get_name().to_owned();
        command.clone().display_name(name.clone()).bin_name(name).version(env!("CARGO_PKG_VERSION"))
    };
    own.map(alone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_command_called_by_its_name_is_a_verb() {
        assert_eq!(normalize(words("/run/ssi/bin/onnode 2 true")), words("ssi onnode 2 true"));
        assert_eq!(normalize(words("/usr/bin/ssi nodes")), words("ssi nodes"));
    }

    #[test]
    fn one_dash_flags_of_mpiexec_are_known_before_the_program_only() {
        assert_eq!(
            normalize(words("ssirun -n 2 -ppn 1 -env A B ./a.out -ppn")),
            words("ssi ssirun -n 2 --ppn 1 --env A B ./a.out -ppn")
        );
    }

    #[test]
    fn what_follows_the_command_belongs_to_it() {
        let cli = Cli::try_parse_from(words("ssi onnode 2 ls -l --all")).unwrap();
        let Verb::Onnode(onnode) = cli.verb else { panic!("{cli:?}") };
        assert_eq!(onnode.command, words("ls -l --all"));
    }
}
