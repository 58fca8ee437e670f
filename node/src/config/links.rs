//! How a node's daemons take part in the fabric: the keys of `node.toml` that say so, and what they mean to an endpoint.
//!
//! Invariant: both daemons of a node, and a machine that joins, are set up here and nowhere else.

use super::{NodeConfig, StateDir};
use crate::error::Error;
use base::NodeId;
use fabric::{Config, Keys, NEWCOMER, Peer, Role};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Further rails that a node may have.
pub const RAILS_MAX: usize = 7;
/// The longest path of a Unix socket, bytes.
const SOCKET_PATH_MAX: usize = 107;
/// What the fabric's socket is called: as long as every name of it.
const SOCKET_NAME: &str = "fabric-0123456789abcdef.sock";

/// How TCP connections are protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// The ends prove the cluster key; what they say is encrypted and cannot be changed on the way.
    #[default]
    Encrypted,
    /// The ends prove the cluster key; what they say is neither. For networks that nobody else can touch.
    Authenticated,
}

/// What may carry the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// Memory shared with nodes of the same host.
    Shm,
    /// RDMA devices.
    Verbs,
    /// TCP connections.
    Tcp,
}

/// Every provider.
pub fn all_providers() -> Vec<Provider> {
    vec![Provider::Shm, Provider::Verbs, Provider::Tcp]
}

impl NodeConfig {
    /// Says what is wrong with the keys that concern the fabric.
    pub(super) fn check_links(&self) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::Config(what));
        let repeated = |at: usize| self.providers[..at].contains(&self.providers[at]);
        if !self.providers.contains(&Provider::Tcp) || (0..self.providers.len()).any(repeated) {
            return wrong(format!(
                "providers = {:?}: each of \"shm\", \"verbs\", \"tcp\" at most once, and \"tcp\" must be among them (every link is set \
                 up over it)",
                self.providers
            ));
        }
        if self.rails.len() > RAILS_MAX {
            return wrong(format!("rails: {} are too many, {RAILS_MAX} are the maximum", self.rails.len()));
        }
        let all: Vec<IpAddr> = std::iter::once(self.address).chain(self.rails.iter().copied()).collect();
        for (at, rail) in all.iter().enumerate().skip(1) {
            if rail.is_unspecified() || rail.is_multicast() || all[..at].contains(rail) {
                return wrong(format!(
                    "rails: {rail}: an address of this node that is not named before is needed"
                ));
            }
        }
        match &self.shm_dir {
            Some(dir) if !dir.is_absolute() => {
                wrong(format!("shm_dir = {dir:?}: an absolute path is needed"))
            }
            _ => Ok(()),
        }
    }

    /// Port of one of the two daemons.
    fn port_of(&self, role: Role) -> u16 {
        match role {
            Role::Control => self.port,
            Role::Data => self.port + 1,
        }
    }

    /// Where one of the two daemons listens: `address` first, then the further rails.
    pub fn listens(&self, role: Role) -> Vec<SocketAddr> {
        let port = self.port_of(role);
        std::iter::once(self.address)
            .chain(self.rails.iter().copied())
            .map(|ip| SocketAddr::new(ip, port))
            .collect()
    }

    /// What an endpoint of this node is told, but for shared memory: see [`offer_memory`].
    fn endpoint(&self, local: Peer, listen: SocketAddr, keys: &Keys) -> Config {
        let mut config = Config::new(local, listen, keys.current.clone(), &self.cluster);
        config.security = match self.security {
            Security::Encrypted => fabric::Security::Encrypted,
            Security::Authenticated => fabric::Security::Authenticated,
        };
        config.providers = self.providers.iter().copied().map(carrier).collect();
        config
    }

    /// What an endpoint is told that speaks for a machine which is no node yet.
    pub fn joining_endpoint(&self, key: &fabric::ClusterKey) -> Config {
        self.outside_endpoint(NodeId(0), key)
    }

    /// The same for a machine that has no more than a join token, whose key is `key`.
    pub fn newcomer_endpoint(&self, key: &fabric::ClusterKey) -> Config {
        self.outside_endpoint(NEWCOMER, key)
    }

    fn outside_endpoint(&self, node: NodeId, key: &fabric::ClusterKey) -> Config {
        let local = Peer { node, role: Role::Control };
        self.endpoint(local, SocketAddr::new(self.address, 0), &Keys::one(key.clone()))
    }

    /// What the endpoint of one of this node's daemons is told.
    pub fn daemon_endpoint(&self, state: &StateDir, role: Role, keys: &Keys) -> Config {
        let local = Peer { node: self.node_id(), role };
        let listens = self.listens(role);
        let mut config = self.endpoint(local, listens[0], keys);
        config.rails = listens[1..].to_vec();
        if self.providers.contains(&Provider::Shm) {
            config.shm = offer_memory(&self.shm_place(state, role));
        }
        config
    }

    /// The directory for one daemon's socket: one for each, so that each may clear away what it has left there.
    fn shm_place(&self, state: &StateDir, role: Role) -> PathBuf {
        let dir = self.shm_dir.clone().unwrap_or_else(|| state.0.join("shm"));
        let daemon = match role {
            Role::Control => "control",
            Role::Data => "data",
        };
        dir.join(format!("{daemon}{}", self.id))
    }
}

/// What the fabric calls it.
fn carrier(provider: Provider) -> fabric::Provider {
    match provider {
        Provider::Shm => fabric::Provider::Shm,
        Provider::Verbs => fabric::Provider::Verbs,
        Provider::Tcp => fabric::Provider::Tcp,
    }
}

/// Makes the directory for the socket over which memory is passed, without what a killed daemon has left there. None where that
/// cannot be: shared memory is an advantage, not a need.
fn offer_memory(dir: &Path) -> Option<PathBuf> {
    let length = dir.as_os_str().len() + 1 + SOCKET_NAME.len();
    if length > SOCKET_PATH_MAX {
        tracing::warn!(
            dir = %dir.display(),
            "no shared memory: a socket's path there has {length} bytes, {SOCKET_PATH_MAX} are the maximum; name a shorter shm_dir"
        );
        return None;
    }
    match clear(dir) {
        Ok(()) => Some(dir.to_path_buf()),
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "no shared memory: its directory cannot be used");
            None
        }
    }
}

fn clear(dir: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with("fabric-") && name.ends_with(".sock")) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(more: &str) -> Result<NodeConfig, String> {
        let text = format!("cluster = 'c'\nid = 1\nname = 'node1'\naddress = '10.0.0.1'\n{more}");
        let config: NodeConfig = toml::from_str(&text).map_err(|error| error.to_string())?;
        config.check().map(|()| config).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_said_is_the_safe_and_fast_choice() {
        let config = sample("").unwrap();
        assert_eq!((config.security, &config.providers), (Security::Encrypted, &all_providers()));
        assert_eq!(config.listens(Role::Data), ["10.0.0.1:7101".parse().unwrap()]);
    }

    #[test]
    fn every_rail_has_the_ports_of_the_first() {
        let config =
            sample("rails = ['10.1.0.1', 'fd00::1']\nsecurity = 'authenticated'\nproviders = ['tcp']")
                .unwrap();
        let state = StateDir("/nowhere".into());
        let key = fabric::ClusterKey::from_bytes([1; 32]);
        let endpoint = config.daemon_endpoint(&state, Role::Data, &Keys::one(key));
        assert_eq!(endpoint.listen, "10.0.0.1:7101".parse().unwrap());
        assert_eq!(endpoint.rails, ["10.1.0.1:7101".parse().unwrap(), "[fd00::1]:7101".parse().unwrap()]);
        assert_eq!((endpoint.security, endpoint.shm), (fabric::Security::Authenticated, None));
        assert_eq!(endpoint.providers, [fabric::Provider::Tcp]);
    }

    #[test]
    fn a_wrong_key_is_named() {
        for (text, key) in [
            ("security = 'none'", "security"),
            ("providers = ['shm']", "providers"),
            ("providers = ['tcp', 'tcp']", "providers"),
            ("providers = ['udp']", "udp"),
            ("rails = ['10.0.0.1']", "rails"),
            ("rails = ['0.0.0.0']", "rails"),
            ("rails = ['10.0.0.2', '10.0.0.2']", "rails"),
            ("shm_dir = 'here'", "shm_dir"),
        ] {
            let message = sample(text).unwrap_err();
            assert!(message.contains(key), "{text}: {message}");
        }
    }

    #[test]
    fn sockets_that_a_killed_daemon_left_are_cleared_and_nothing_else() {
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("shm/data1");
        assert_eq!(offer_memory(&dir), Some(dir.clone()));
        std::fs::write(dir.join("fabric-00.sock"), "").unwrap();
        std::fs::write(dir.join("precious"), "").unwrap();
        assert_eq!(offer_memory(&dir), Some(dir.clone()));
        assert!(!dir.join("fabric-00.sock").exists() && dir.join("precious").exists());
        assert_eq!(offer_memory(&above.path().join("x".repeat(100))), None);
        assert_eq!(offer_memory(&dir.join("precious")), None);
    }
}
