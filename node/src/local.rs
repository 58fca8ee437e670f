//! The local cluster: N nodes on one machine, each in a network namespace of its own with an address on a bridge.
//!
//! ```text
//!  ssi cluster up
//!    '- ssi-local   pid 1 of its own pid, mount and network namespace (and user namespace, for an ordinary user)
//!         |  br0 -- v1 -- v2 -- v3
//!         |- ssi-keeper of node1  (network namespace with eth0 = 10.77.0.1)   ssid, ssid --data, ssi-init of its view
//!         |- ssi-keeper of node2  ...
//! ```
//!
//! Nothing is made outside these namespaces but the state directory. When ssi-local ends, the kernel ends every
//! process in its pid namespace, and mounts and networks go with the last of them; ssi-local removes the directory.

pub mod lab;
pub mod member;
pub mod network;
mod permission;

use crate::config::{Security, StateDir};
use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Nodes that a local cluster may have.
pub const NODES_MAX: u32 = 32;

/// What a local cluster shall be like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// State directory of the whole cluster; node k's is `node<k>` in it.
    pub dir: PathBuf,
    /// How many nodes.
    pub nodes: u32,
    /// Ids in each home region.
    pub pid_region: u32,
    /// Cores of each node.
    pub cpus: u32,
    /// Size limit of each node's object store, bytes; 0: none.
    pub ost_bytes: u64,
    /// Whether the nodes share memory.
    pub shm: bool,
    /// How TCP connections between them are protected.
    pub security: Security,
}

/// A local cluster that runs, as its directory tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Running {
    /// Process id of ssi-local, as the host sees it.
    pub pid: i32,
    /// Its start time (clock ticks since boot): tells it from a later process with the same id.
    pub start_time: u64,
    /// The plan it was made by.
    pub plan: Plan,
}

pub use admin::default_local_dir as default_dir;

/// The name of node `k`.
pub fn node_name(k: u32) -> String {
    format!("node{k}")
}

impl Plan {
    /// Says what is wrong with it.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn check(&self) -> Result<(), Error> {
        if !(1..=NODES_MAX).contains(&self.nodes) {
            return Err(Error::Config(format!(
                "--nodes {}: a local cluster has 1 to {NODES_MAX} nodes",
                self.nodes
            )));
        }
        if base::PidRegions::new(self.pid_region).is_none() {
            return Err(Error::Config(format!(
                "--pid-region {}: a power of two from 512 is needed",
                self.pid_region
            )));
        }
        // Paths of Unix sockets end at 107 bytes; the longest of ours adds this much.
        if self.dir.as_os_str().len() + "/node32/run/admin.sock".len() > 107 {
            return Err(Error::Config(format!(
                "--dir {}: the path is too long for sockets in it",
                self.dir.display()
            )));
        }
        Ok(())
    }

    /// Node `k`'s state directory.
    pub fn state(&self, k: u32) -> StateDir {
        StateDir(self.dir.join(node_name(k)))
    }
}

impl Running {
    fn file(dir: &Path) -> PathBuf {
        dir.join("cluster.json")
    }

    /// The local cluster in `dir`, if one runs there.
    pub fn find(dir: &Path) -> Option<Running> {
        let text = std::fs::read_to_string(Running::file(dir)).ok()?;
        let running: Running = serde_json::from_str(&text).ok()?;
        (start_time(running.pid)? == running.start_time).then_some(running)
    }

    fn store(&self) -> Result<(), Error> {
        let path = Running::file(&self.plan.dir);
        let text = serde_json::to_string(self).map_err(Error::said)?;
        std::fs::write(&path, text).map_err(|source| Error::File { path, source })
    }
}

/// The log of ssi-local, the first file in a local cluster's directory.
pub const LOG: &str = "local.log";

/// Makes the directory, or takes one that is empty or was left by a local cluster that is gone.
///
/// # Errors
/// It holds what is not ours, or cannot be made or written.
fn claim(dir: &Path) -> Result<(), Error> {
    let failed = |source| Error::File { path: dir.into(), source };
    std::fs::create_dir_all(dir).map_err(failed)?;
    // Sockets and the cluster key will be in it: in /tmp somebody else may have been here first.
    let owner = std::fs::symlink_metadata(dir).map_err(failed)?.uid();
    if owner != rustix::process::geteuid().as_raw() {
        return Err(Error::Said(format!(
            "{} belongs to user {owner}: name a directory of your own",
            dir.display()
        )));
    }
    let entries = std::fs::read_dir(dir).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let stranger = entries.iter().find(|entry| !is_ours(&entry.file_name()));
    let left_by_us = dir.join(LOG).is_file();
    if let Some(entry) = stranger.or(entries.first().filter(|_| !left_by_us)) {
        return Err(Error::Said(format!(
            "{} is not empty (it holds {:?}): name an empty directory, or one that is not there yet",
            dir.display(),
            entry.file_name()
        )));
    }
    clear(dir);
    std::fs::create_dir_all(dir).map_err(failed)?;
    let log = dir.join(LOG);
    std::fs::write(&log, "").map_err(|source| Error::File { path: log, source })
}

/// Removes what a local cluster has put in `dir`, and `dir` if nothing else is in it.
fn clear(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if is_ours(&entry.file_name()) {
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let remove = if is_dir { std::fs::remove_dir_all } else { std::fs::remove_file::<PathBuf> };
            let _ = remove(entry.path());
        }
    }
    let _ = std::fs::remove_dir(dir);
}

/// Whether a local cluster makes an entry of this name in its directory.
fn is_ours(name: &std::ffi::OsStr) -> bool {
    let name = name.to_str().unwrap_or_default();
    let number = name.strip_prefix("node").and_then(|number| number.parse::<u32>().ok());
    name == LOG || name == "cluster.json" || number.is_some_and(|k| node_name(k) == name)
}

/// Field 22 of /proc/PID/stat.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_have_a_start_time_and_nobody_has_pid_0() {
        assert!(start_time(std::process::id() as i32).is_some());
        assert_eq!(start_time(0), None);
    }

    #[test]
    fn a_directory_of_another_user_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        // An ordinary user cannot give a directory away, but / is not his.
        let given = std::os::unix::fs::chown(dir.path(), Some(1_234), None);
        let theirs = if given.is_ok() { dir.path() } else { Path::new("/") };
        let refused = claim(theirs).unwrap_err().to_string();
        assert!(refused.contains("belongs to user"), "{refused}");
    }

    #[test]
    fn a_directory_with_files_of_somebody_else_is_neither_taken_nor_removed() {
        let dir = tempfile::tempdir().unwrap();
        let precious = dir.path().join("precious");
        std::fs::write(&precious, "work of years").unwrap();
        let refused = claim(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("not empty") && refused.contains("precious"), "{refused}");
        clear(dir.path());
        assert!(precious.exists());
        // A directory that only looks like a node's is not proof enough.
        let other = tempfile::tempdir().unwrap();
        std::fs::create_dir(other.path().join("node1")).unwrap();
        assert!(claim(other.path()).is_err());
    }

    #[test]
    fn a_directory_that_a_killed_cluster_left_is_taken_and_removed() {
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("c");
        claim(&dir).unwrap();
        std::fs::create_dir(dir.join("node1")).unwrap();
        std::fs::write(dir.join("node1/key"), "old").unwrap();
        std::fs::write(dir.join("cluster.json"), "{").unwrap();
        claim(&dir).unwrap();
        assert!(!dir.join("node1").exists());
        clear(&dir);
        assert!(!dir.exists());
    }

    #[test]
    fn a_plan_that_cannot_be_is_refused() {
        let good = Plan {
            dir: "/tmp/x".into(),
            nodes: 3,
            pid_region: 16_384,
            cpus: 2,
            ost_bytes: 0,
            shm: true,
            security: Security::default(),
        };
        good.check().unwrap();
        assert!(Plan { nodes: 0, ..good.clone() }.check().is_err());
        assert!(Plan { nodes: 33, ..good.clone() }.check().is_err());
        assert!(Plan { pid_region: 1000, ..good.clone() }.check().is_err());
        assert!(Plan { dir: format!("/{}", "x".repeat(100)).into(), ..good }.check().is_err());
    }
}
