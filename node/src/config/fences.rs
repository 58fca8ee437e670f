//! How nodes are fenced: the tables `[[fence]]` of `node.toml`, and the watchdog device.
//!
//! Invariant: what passes here is a plan that [`membership::fencing::Fencer`] can go by.

use crate::error::Error;
use membership::fencing::device::{ANY, check_levels};
use membership::fencing::{Action, Device, Plan};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The shortest and the longest time that a watchdog device may wait, seconds.
const WATCHDOG_SECONDS: std::ops::RangeInclusive<u64> = 2..=600;

/// What fencing does to a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FenceAction {
    /// Turn it off.
    #[default]
    Off,
    /// Turn it off and on again.
    Reboot,
}

/// One device that cuts one node off: one table `[[fence]]`.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Fence {
    /// The name of the node, or `"*"`: all that have no table of their own.
    pub node: String,
    /// Levels are tried from the lowest on. All devices of one level must succeed. Default 1.
    #[serde(default = "default_level")]
    pub level: u32,
    /// The agent: a path, or a name in PATH (`"fence_ipmilan"`).
    pub agent: PathBuf,
    /// `"off"` or `"reboot"`. Default `"off"`.
    #[serde(default)]
    pub action: FenceAction,
    /// Seconds after which the agent is killed, which is a failure. Default 60.
    #[serde(default = "default_timeout")]
    pub timeout_s: u64,
    /// How often it is tried again before its level has failed. Default 1.
    #[serde(default = "default_retries")]
    pub retries: u32,
    /// What the agent needs: `ip`, `username`, `password_script`, `plug`... Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
}

/// The watchdog device: the table `[watchdog]`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct WatchdogConfig {
    /// Its path: `"/dev/watchdog"`.
    pub device: PathBuf,
    /// Seconds without food after which it resets the machine, 2 to 600. Default 10.
    #[serde(default = "default_watchdog")]
    pub timeout_s: u64,
}

fn default_level() -> u32 {
    1
}
fn default_timeout() -> u64 {
    60
}
fn default_retries() -> u32 {
    1
}
fn default_watchdog() -> u64 {
    10
}

impl std::fmt::Debug for Fence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fence(node {:?}, level {}, {:?})", self.node, self.level, self.device())
    }
}

impl Fence {
    fn device(&self) -> Device {
        Device {
            agent: self.agent.clone(),
            action: match self.action {
                FenceAction::Off => Action::Off,
                FenceAction::Reboot => Action::Reboot,
            },
            timeout: Duration::from_secs(self.timeout_s),
            retries: self.retries,
            parameters: self.parameters.clone(),
        }
    }
}

/// The plan that these tables make.
pub fn plan(fences: &[Fence]) -> Plan {
    let mut nodes: BTreeMap<String, BTreeMap<u32, Vec<Device>>> = BTreeMap::new();
    for fence in fences {
        nodes.entry(fence.node.clone()).or_default().entry(fence.level).or_default().push(fence.device());
    }
    nodes.into_iter().map(|(node, levels)| (node, levels.into_values().collect())).collect()
}

/// Says what is wrong with the tables, if anything is. No parameter's value is quoted.
///
/// # Errors
/// [`Error::Config`] that names the table.
pub fn check(fences: &[Fence], watchdog: Option<&WatchdogConfig>) -> Result<(), Error> {
    for (node, levels) in plan(fences) {
        if node.is_empty() || (node != ANY && node.contains(ANY)) {
            return Err(Error::Config(format!("[[fence]] node = {node:?}: the name of a node, or \"*\"")));
        }
        check_levels(&levels)
            .map_err(|fault| Error::Config(format!("[[fence]] node = {node:?}: {fault}")))?;
    }
    match watchdog {
        Some(watchdog) if !watchdog.device.is_absolute() => {
            Err(Error::Config(format!("watchdog.device = {:?}: an absolute path is needed", watchdog.device)))
        }
        Some(watchdog) if !WATCHDOG_SECONDS.contains(&watchdog.timeout_s) => {
            Err(Error::Config(format!("watchdog.timeout_s = {}: 2 to 600 seconds", watchdog.timeout_s)))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::NodeConfig;
    use super::*;

    fn sample(more: &str) -> Result<NodeConfig, String> {
        let text = format!("cluster = 'c'\nid = 1\nname = 'node1'\naddress = '10.0.0.1'\n{more}");
        let config: NodeConfig = toml::from_str(&text).map_err(|error| error.to_string())?;
        config.check().map(|()| config).map_err(|error| error.to_string())
    }

    #[test]
    fn tables_become_levels() {
        let config = sample(
            "[watchdog]\ndevice = '/dev/watchdog'\n\
             [[fence]]\nnode = 'node2'\nlevel = 2\nagent = 'fence_pdu'\nparameters = { ip = '10.9.0.1', plug = '4' }\n\
             [[fence]]\nnode = 'node2'\nagent = '/usr/sbin/fence_ipmilan'\naction = 'reboot'\ntimeout_s = 20\nretries = 3\n\
             [[fence]]\nnode = 'node2'\nlevel = 2\nagent = 'fence_pdu'\nparameters = { ip = '10.9.0.2', plug = '4' }\n\
             [[fence]]\nnode = '*'\nagent = 'fence_virt'",
        )
        .unwrap();
        assert_eq!(config.watchdog.as_ref().map(|watchdog| watchdog.timeout_s), Some(10));
        let plan = plan(&config.fence);
        let node2 = &plan["node2"];
        assert_eq!((node2.len(), node2[0].len(), node2[1].len()), (2, 1, 2));
        assert_eq!((node2[0][0].action, node2[0][0].retries), (Action::Reboot, 3));
        assert_eq!(node2[0][0].timeout, Duration::from_secs(20));
        assert_eq!(node2[1][1].parameters["ip"], "10.9.0.2");
        assert_eq!(plan[ANY][0][0].agent, PathBuf::from("fence_virt"));
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<NodeConfig>(&text).unwrap(), config, "it is written as it is read");
    }

    #[test]
    fn a_wrong_table_is_named_and_no_password_is() {
        for (more, named) in [
            ("[[fence]]\nnode = 'node2'\nagent = ''", "node2"),
            ("[[fence]]\nnode = ''\nagent = 'a'", "node = \"\""),
            ("[[fence]]\nnode = 'node*'\nagent = 'a'", "node*"),
            ("[[fence]]\nnode = 'n'\nagent = 'a'\ntimeout_s = 0", "timeout"),
            ("[[fence]]\nnode = 'n'\nagent = 'a'\nretries = 1000", "retries"),
            ("[[fence]]\nnode = 'n'\nagent = 'a'\ncolour = 'red'", "colour"),
            ("[[fence]]\nnode = 'n'\nagent = 'a'\naction = 'status'", "status"),
            ("[[fence]]\nnode = 'n'\nagent = 'a'\nparameters = { password = \"sec\\nret\" }", "password"),
            ("[watchdog]\ndevice = 'watchdog'", "watchdog.device"),
            ("[watchdog]\ndevice = '/dev/watchdog'\ntimeout_s = 1", "watchdog.timeout_s"),
        ] {
            let message = sample(more).unwrap_err();
            assert!(message.contains(named) && !message.contains("sec\nret"), "{message}");
        }
        let config =
            sample("[[fence]]\nnode = 'n'\nagent = 'a'\nparameters = { password = 'secret' }").unwrap();
        assert!(!format!("{config:?}").contains("secret"));
    }
}
