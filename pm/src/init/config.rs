//! What a supervisor is told when it starts, and how that travels from the keeper: one tagged message in a memfd.

use super::Error;
use base::{Incarnation, NodeId, PidRegions};
use prost::Message;
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Everything `ssi-init` needs to know. All paths are the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitConfig {
    /// The node.
    pub node: NodeId,
    /// The view's host name.
    pub hostname: String,
    /// The node's state directory; `view` in it becomes the mount point of the view's root.
    pub state_dir: PathBuf,
    /// Where the daemons of this node find `ssi-init`. What stands there is replaced; mode 0600.
    pub init_socket: PathBuf,
    /// The socket of `ssid` for commands. Its *directory* is bound into the view, because `ssid` makes the socket
    /// anew at each start; that directory must be one that users may enter.
    pub admin_socket: PathBuf,
    /// The executable, bound into the view as `/run/ssi/bin/ssi`.
    pub binary: PathBuf,
    /// User commands: links to the executable in `/run/ssi/bin`.
    pub commands: Vec<String>,
    /// How pids are cut into home regions.
    pub regions: PidRegions,
    /// Where the shared filesystem is mounted in the view; `None`: nowhere.
    pub fs_mount: Option<PathBuf>,
    /// True: /proc of the view is the cluster's, served by `ssid`. False: it is the node's own.
    pub cluster_proc: bool,
    /// The cluster's name, part of every heartbeat.
    pub cluster: String,
    /// The cluster's key, for heartbeats.
    pub key: [u8; 32],
    /// This life of the node.
    pub incarnation: Incarnation,
}

#[derive(Clone, PartialEq, Message)]
struct Wire {
    #[prost(uint32, tag = "1")]
    node: u32,
    #[prost(string, tag = "2")]
    hostname: String,
    #[prost(bytes = "vec", tag = "3")]
    state_dir: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    init_socket: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    admin_socket: Vec<u8>,
    #[prost(bytes = "vec", tag = "6")]
    binary: Vec<u8>,
    #[prost(string, repeated, tag = "7")]
    commands: Vec<String>,
    #[prost(uint32, tag = "8")]
    region_size: u32,
    #[prost(bytes = "vec", optional, tag = "9")]
    fs_mount: Option<Vec<u8>>,
    #[prost(bool, tag = "10")]
    cluster_proc: bool,
    #[prost(string, tag = "11")]
    cluster: String,
    #[prost(bytes = "vec", tag = "12")]
    key: Vec<u8>,
    #[prost(uint64, tag = "13")]
    incarnation: u64,
}

fn bytes_of(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

fn path_of(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

impl InitConfig {
    /// As one message.
    pub fn encode(&self) -> Vec<u8> {
        Wire {
            node: self.node.0,
            hostname: self.hostname.clone(),
            state_dir: bytes_of(&self.state_dir),
            init_socket: bytes_of(&self.init_socket),
            admin_socket: bytes_of(&self.admin_socket),
            binary: bytes_of(&self.binary),
            commands: self.commands.clone(),
            region_size: self.regions.size(),
            fs_mount: self.fs_mount.as_deref().map(bytes_of),
            cluster_proc: self.cluster_proc,
            cluster: self.cluster.clone(),
            key: self.key.to_vec(),
            incarnation: self.incarnation.0,
        }
        .encode_to_vec()
    }

    /// Reads what [`InitConfig::encode`] made.
    ///
    /// # Errors
    /// [`Error::Config`]: the bytes are no configuration.
    pub fn decode(bytes: &[u8]) -> Result<InitConfig, Error> {
        let wire = Wire::decode(bytes).map_err(|error| Error::Config(error.to_string()))?;
        let regions = PidRegions::new(wire.region_size)
            .ok_or_else(|| Error::Config(format!("{} is no size of a pid region", wire.region_size)))?;
        if wire.node == 0 || wire.node > regions.node_max().0 {
            return Err(Error::Config(format!("node {} has no pid region", wire.node)));
        }
        let key = wire.key.try_into().map_err(|_| Error::Config("the key is not 32 bytes long".into()))?;
        Ok(InitConfig {
            node: NodeId(wire.node),
            hostname: wire.hostname,
            state_dir: path_of(wire.state_dir),
            init_socket: path_of(wire.init_socket),
            admin_socket: path_of(wire.admin_socket),
            binary: path_of(wire.binary),
            commands: wire.commands,
            regions,
            fs_mount: wire.fs_mount.map(path_of),
            cluster_proc: wire.cluster_proc,
            cluster: wire.cluster,
            key,
            incarnation: Incarnation(wire.incarnation),
        })
    }

    /// The configuration in anonymous memory, for a child to inherit.
    pub(super) fn to_memory(&self) -> std::io::Result<std::fs::File> {
        let memory = rustix::fs::memfd_create("ssi-init-config", rustix::fs::MemfdFlags::CLOEXEC)?;
        let mut file = std::fs::File::from(memory);
        file.write_all(&self.encode())?;
        file.rewind()?;
        Ok(file)
    }

    /// Reads the configuration that a parent left in `file`.
    pub(super) fn from_file(mut file: std::fs::File) -> Result<InitConfig, Error> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| Error::Config(error.to_string()))?;
        InitConfig::decode(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_configuration_survives_its_journey() {
        let config = InitConfig {
            node: NodeId(3),
            hostname: "node3".into(),
            state_dir: "/var/lib/ssi".into(),
            init_socket: "/var/lib/ssi/init.sock".into(),
            admin_socket: "/var/lib/ssi/admin/admin.sock".into(),
            binary: "/usr/bin/ssi".into(),
            commands: vec!["onnode".into(), "onall".into()],
            regions: PidRegions::new(16_384).unwrap(),
            fs_mount: Some("/ssi".into()),
            cluster_proc: true,
            cluster: "demo".into(),
            key: [7; 32],
            incarnation: Incarnation(99),
        };
        assert_eq!(InitConfig::from_file(config.to_memory().unwrap()).unwrap(), config);
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(InitConfig::decode(&bytes).is_err());
        }
    }
}
