//! A node's configuration: `node.toml` in its state directory, every key with its unit and default.

mod fences;
mod keys;
mod links;

pub use fences::{Fence, FenceAction, WatchdogConfig, plan as fence_plan};
pub use keys::{KeyRing, Step};
pub use links::{Provider, RAILS_MAX, Security, all_providers};

use crate::error::Error;
use base::{NodeId, PidRegions};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// The port of `ssid` on the fabric, and of heartbeats; `ssid --data` has the next one.
pub const PORT: u16 = 7100;
/// Ids in each home region unless the cluster was made with another size.
pub const PID_REGION: u32 = 16_384;

/// What `node.toml` says.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// The cluster's name.
    pub cluster: String,
    /// The node's number, given at `ssi cluster init` (1) or `ssi node join`.
    pub id: u32,
    /// The node's name, unique in the cluster; also the host name of its view.
    pub name: String,
    /// The address that the other nodes reach this one by.
    pub address: IpAddr,
    /// Port of `ssid`; `ssid --data` takes the next one. Default 7100.
    #[serde(default = "default_port")]
    pub port: u16,
    /// Ids in each home region, a power of two, the same on all nodes. Default 16384.
    #[serde(default = "default_region")]
    pub pid_region: u32,
    /// Cores that this node gives to the cluster. Default: all it has.
    #[serde(default = "default_cpus")]
    pub cpus: u32,
    /// Memory that this node gives to the cluster, MiB. Default: all it has.
    #[serde(default = "default_memory")]
    pub memory_mib: u64,
    /// Relative speed of one core; 100 is the reference. Default 100.
    #[serde(default = "default_speed")]
    pub speed: u32,
    /// Where the filesystem is mounted in the view. Default `/ssi`.
    #[serde(default = "default_mount")]
    pub mount: PathBuf,
    /// Directory of this node's object store. Default `ost` in the state directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ost_dir: Option<PathBuf>,
    /// Directory of the metadata store. Default `mdt` in the state directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mdt_dir: Option<PathBuf>,
    /// Further addresses of this node, one for each further network that leads to it: its rails. The daemons listen there with the
    /// same ports, bulk goes over all of them, and one that fails loses nothing. At most 7. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rails: Vec<IpAddr>,
    /// How TCP connections between the nodes are protected: `"encrypted"`, or `"authenticated"` (both ends prove the cluster key, and
    /// what they say is in clear) for networks that nobody else can touch. The stricter of two nodes holds. Default `"encrypted"`.
    #[serde(default)]
    pub security: Security,
    /// What may carry the links: the best of them that both ends have does. `"tcp"` must be among them. Default: `["shm", "verbs", "tcp"]`.
    #[serde(default = "all_providers")]
    pub providers: Vec<Provider>,
    /// Directory of the sockets over which nodes of the same host share memory; its path must be the same for all of them. Default `shm` in
    /// the state directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_dir: Option<PathBuf>,
    /// A device that resets this machine when its node has lost its lease and cannot end what it served. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<WatchdogConfig>,
    /// Devices that cut other nodes off when they are DOWN: one table for each device of each node. The CLMS master goes by its own
    /// file, so write them into that of each voter. Passwords may stand here: then the file must be readable by its owner alone.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fence: Vec<Fence>,
}

fn default_port() -> u16 {
    PORT
}
fn default_region() -> u32 {
    PID_REGION
}
fn default_speed() -> u32 {
    100
}
fn default_mount() -> PathBuf {
    PathBuf::from("/ssi")
}

/// The cores of this machine that we may use.
pub fn default_cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

/// The memory of this machine, MiB.
pub fn default_memory() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram * u64::from(info.mem_unit)) >> 20
}

impl NodeConfig {
    /// The pid regions of the cluster.
    pub fn regions(&self) -> PidRegions {
        PidRegions::new(self.pid_region).expect("checked when the file was read")
    }

    /// The node's number.
    pub fn node_id(&self) -> NodeId {
        NodeId(self.id)
    }

    /// Where `ssid` listens; heartbeats arrive there as well, by UDP.
    pub fn control_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// Where `ssid --data` listens first.
    pub fn data_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port + 1)
    }

    /// Says what is wrong with the values, if anything is.
    ///
    /// # Errors
    /// [`Error::Config`] that names the key.
    pub fn check(&self) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::Config(what));
        if PidRegions::new(self.pid_region).is_none() {
            return wrong(format!(
                "pid_region = {}: a power of two from 512 to 1048576 is needed",
                self.pid_region
            ));
        }
        if self.id == 0 || self.id > self.regions().node_max().0 {
            return wrong(format!(
                "id = {}: 1 to {} fit this pid_region",
                self.id,
                self.regions().node_max()
            ));
        }
        if self.name.is_empty()
            || self.name.len() > 64
            || !self.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            return wrong(format!("name = {:?}: 1 to 64 letters, digits, '-', '_' or '.'", self.name));
        }
        if self.cpus == 0 || self.speed == 0 || self.memory_mib == 0 {
            return wrong("cpus, speed and memory_mib must be at least 1".into());
        }
        if self.port == 0 || self.port == u16::MAX {
            return wrong(format!("port = {}: 1 to 65534, the next one is used as well", self.port));
        }
        if !self.mount.is_absolute() || self.mount.parent() != Some(Path::new("/")) {
            return wrong(format!("mount = {:?}: a directory directly below / is needed", self.mount));
        }
        fences::check(&self.fence, self.watchdog.as_ref())?;
        self.check_links()
    }
}

/// A node's state directory and what stands where in it.
#[derive(Clone, Debug)]
pub struct StateDir(pub PathBuf);

impl StateDir {
    /// `node.toml`.
    pub fn config_file(&self) -> PathBuf {
        self.0.join("node.toml")
    }
    /// The cluster key, mode 0600.
    pub fn key_file(&self) -> PathBuf {
        self.0.join("key")
    }
    /// The directory that is bound into the view: it holds the sockets which commands use.
    pub fn run_dir(&self) -> PathBuf {
        self.0.join("run")
    }
    /// The admin socket of `ssid`.
    pub fn admin_socket(&self) -> PathBuf {
        self.run_dir().join("admin.sock")
    }
    /// The admin socket of `ssid --data`.
    pub fn data_socket(&self) -> PathBuf {
        self.run_dir().join("data.sock")
    }
    /// The socket of the lock manager, for the programs of the node.
    pub fn lock_socket(&self) -> PathBuf {
        self.run_dir().join(admin::LOCK_SOCKET)
    }
    /// The socket of ssi-init, mode 0600.
    pub fn init_socket(&self) -> PathBuf {
        self.0.join("init.sock")
    }
    /// Logs of the node's processes.
    pub fn log_file(&self, process: &str) -> PathBuf {
        self.0.join(format!("{process}.log"))
    }
    /// The metadata store.
    pub fn mdt_dir(&self, config: &NodeConfig) -> PathBuf {
        config.mdt_dir.clone().unwrap_or_else(|| self.0.join("mdt"))
    }
    /// The object store.
    pub fn ost_dir(&self, config: &NodeConfig) -> PathBuf {
        config.ost_dir.clone().unwrap_or_else(|| self.0.join("ost"))
    }

    /// Reads and checks `node.toml`.
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::File`].
    pub fn load(&self) -> Result<NodeConfig, Error> {
        let path = self.config_file();
        let text =
            std::fs::read_to_string(&path).map_err(|source| Error::File { path: path.clone(), source })?;
        let config: NodeConfig =
            toml::from_str(&text).map_err(|e| Error::Config(format!("{}: {e}", path.display())))?;
        config.check()?;
        Ok(config)
    }

    /// Writes `node.toml`.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn store(&self, config: &NodeConfig) -> Result<(), Error> {
        let text = toml::to_string(config).map_err(|e| Error::Config(e.to_string()))?;
        let path = self.config_file();
        std::fs::write(&path, text).map_err(|source| Error::File { path, source })
    }

    /// Reads the cluster key that this node proves.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Config`].
    pub fn key(&self) -> Result<fabric::ClusterKey, Error> {
        read_key(&self.key_file())
    }

    /// Reads all that the key file says.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Config`].
    pub fn key_ring(&self) -> Result<KeyRing, Error> {
        KeyRing::read(&self.key_file())
    }

    /// Stores the cluster key, readable by the owner only.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn store_key(&self, key: &fabric::ClusterKey) -> Result<(), Error> {
        KeyRing::one(key.clone()).store(self)
    }
}

/// Reads a cluster key from a file.
///
/// # Errors
/// [`Error::File`] or [`Error::Config`] if it is no key.
pub fn read_key(path: &Path) -> Result<fabric::ClusterKey, Error> {
    KeyRing::read(path).map(|ring| ring.current)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> NodeConfig {
        toml::from_str("cluster = 'c'\nid = 1\nname = 'node1'\naddress = '127.0.0.1'").unwrap()
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let config = sample();
        config.check().unwrap();
        assert_eq!((config.port, config.pid_region, config.mount), (PORT, PID_REGION, "/ssi".into()));
    }

    #[test]
    fn a_wrong_value_is_named() {
        for (config, key) in [
            (NodeConfig { pid_region: 1000, ..sample() }, "pid_region"),
            (NodeConfig { id: 0, ..sample() }, "id"),
            (NodeConfig { id: 400, ..sample() }, "id"),
            (NodeConfig { name: "a b".into(), ..sample() }, "name"),
            (NodeConfig { cpus: 0, ..sample() }, "cpus"),
            (NodeConfig { mount: "/a/b".into(), ..sample() }, "mount"),
        ] {
            let message = config.check().unwrap_err().to_string();
            assert!(message.contains(key), "{message}");
        }
    }

    #[test]
    fn a_key_that_nobody_knows_is_an_error() {
        assert!(
            toml::from_str::<NodeConfig>("cluster='c'\nid=1\nname='n'\naddress='::1'\ncolour='red'").is_err()
        );
    }
}
