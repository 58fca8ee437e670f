//! Where the sockets of "this node" are: in a view, or on the host beside a local cluster or a node.

use crate::client::{ANSWER_WITHIN, Client};
use crate::error::Error;
use crate::wire::{Answer, Ask};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a view has what is ours.
const VIEW_DIR: &str = "/run/ssi";
/// Names a cluster or a node's state directory, in a command's or program's environment.
const DIR_VARIABLE: &str = "SSI_DIR";
/// The lock manager's socket in the run directory, which programs in the view look for.
pub const LOCK_SOCKET: &str = "dlm.sock";

/// Where a machine keeps its node's state.
pub fn default_state_dir() -> PathBuf {
    PathBuf::from("/var/lib/ssi")
}

/// Where a local cluster keeps its state unless told: one for each user.
pub fn default_local_dir() -> PathBuf {
    PathBuf::from(format!("/tmp/ssi-{}", rustix::process::geteuid().as_raw()))
}

/// Where the sockets of "this node" are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The run directory of the node.
    pub run_dir: PathBuf,
    /// True inside a view.
    pub in_view: bool,
}

impl Place {
    /// `dir` names a local cluster or a node's state directory; without it, the view we are in, or the machine's node.
    ///
    /// # Errors
    /// [`Error::NoNode`].
    pub fn find(dir: Option<&Path>) -> Result<Place, Error> {
        let view = Path::new(VIEW_DIR);
        let in_view = view.join("localproc").exists();
        if let (true, None) = (in_view, dir) {
            return Ok(Place { run_dir: view.join("admin"), in_view });
        }
        let named = dir.map_or_else(default_local_dir, Path::to_path_buf);
        // A directory that the user names is the one that is meant, or none.
        let machine = dir.is_none().then(default_state_dir);
        for state in [named.clone(), named.join("node1")].into_iter().chain(machine) {
            if state.join("node.toml").exists() {
                return Ok(Place { run_dir: state.join("run"), in_view: false });
            }
        }
        Err(Error::NoNode(named))
    }

    /// As [`Place::find`], with what `SSI_DIR` says; an empty one says nothing.
    ///
    /// # Errors
    /// [`Error::NoNode`].
    pub fn from_environment() -> Result<Place, Error> {
        let named = std::env::var_os(DIR_VARIABLE).filter(|name| !name.is_empty());
        Place::find(named.as_deref().map(Path::new))
    }

    /// The admin socket of `ssid`.
    pub fn admin_socket(&self) -> PathBuf {
        self.run_dir.join("admin.sock")
    }

    /// The admin socket of `ssid --data`.
    pub fn data_socket(&self) -> PathBuf {
        self.run_dir.join("data.sock")
    }

    /// The socket of the lock manager.
    pub fn lock_socket(&self) -> PathBuf {
        self.run_dir.join(LOCK_SOCKET)
    }

    /// Asks `ssid`.
    ///
    /// # Errors
    /// No daemon, or what the daemon says.
    pub fn ask(&self, ask: Ask) -> Result<Answer, Error> {
        self.ask_within(ask, ANSWER_WITHIN)
    }

    /// Asks `ssid` what may take longer than most.
    ///
    /// # Errors
    /// No daemon, or what the daemon says.
    pub fn ask_within(&self, ask: Ask, limit: Duration) -> Result<Answer, Error> {
        Client::connect(&self.admin_socket())?.ask_within(ask, limit)
    }

    /// Asks `ssid --data`.
    ///
    /// # Errors
    /// No daemon, or what the daemon says.
    pub fn ask_data(&self, ask: Ask) -> Result<Answer, Error> {
        Client::connect(&self.data_socket())?.ask(ask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_directory_is_a_node_or_a_cluster_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Place::find(Some(dir.path())), Err(Error::NoNode(named)) if named == dir.path()));
        let first = dir.path().join("node1");
        std::fs::create_dir(&first).unwrap();
        std::fs::write(first.join("node.toml"), "").unwrap();
        let found = Place::find(Some(dir.path())).unwrap();
        assert_eq!(found, Place { run_dir: first.join("run"), in_view: false });
        assert_eq!(Place::find(Some(&first)).unwrap(), found);
        assert_eq!(found.admin_socket(), first.join("run/admin.sock"));
    }
}
