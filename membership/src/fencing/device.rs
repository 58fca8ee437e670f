//! Devices: what cuts a node off, as it is configured.
//!
//! A node has levels, tried in order; a level has devices (two power supplies, say) which must all succeed.
//!
//! Invariant: what passed [`Device::check`] can be said to an agent line by line. Values (passwords are among them) are never shown.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Devices of one level.
pub const DEVICES_MAX: usize = 8;
/// Levels of one node.
pub const LEVELS_MAX: usize = 8;
/// Parameters of one device.
pub const PARAMETERS_MAX: usize = 64;
/// Bytes of one parameter's value.
pub const VALUE_BYTES_MAX: usize = 4_096;
/// The longest time that an agent may be given.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// How often one device may be tried again.
pub const RETRIES_MAX: u32 = 16;

/// What an agent is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Turn the node off, or cut it off its storage.
    Off,
    /// Turn it off and on again: it is fenced when it was off.
    Reboot,
    /// Is it on?
    Status,
    /// Does the device answer?
    Monitor,
}

impl Action {
    /// As agents call it.
    pub fn name(self) -> &'static str {
        match self {
            Action::Off => "off",
            Action::Reboot => "reboot",
            Action::Status => "status",
            Action::Monitor => "monitor",
        }
    }
}

/// One device, and how to use it on one node.
#[derive(Clone, PartialEq, Eq)]
pub struct Device {
    /// The agent: a path, or a name to be found in PATH.
    pub agent: PathBuf,
    /// What fencing means here: [`Action::Off`] or [`Action::Reboot`].
    pub action: Action,
    /// The agent is killed after so long, which is a failure.
    pub timeout: Duration,
    /// How often it is tried again before its level has failed.
    pub retries: u32,
    /// What the agent needs to know: `ip`, `username`, `plug`...
    pub parameters: BTreeMap<String, String>,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("agent", &self.agent)
            .field("action", &self.action)
            .field("timeout", &self.timeout)
            .field("retries", &self.retries)
            .field("parameters", &self.parameters.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// Devices that must all succeed.
pub type Level = Vec<Device>;

/// The levels of each node, by name; those of [`ANY`] are for nodes that have none of their own.
pub type Plan = BTreeMap<String, Vec<Level>>;

/// Stands for all nodes that are not named.
pub const ANY: &str = "*";

/// The levels of the node called `name`.
pub fn levels<'a>(plan: &'a Plan, name: &str) -> &'a [Level] {
    plan.get(name).or_else(|| plan.get(ANY)).map_or(&[], Vec::as_slice)
}

/// What is wrong with a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No agent.
    #[error("no agent is named")]
    NoAgent,
    /// A question is no fencing.
    #[error("action = {0:?}: only \"off\" and \"reboot\" fence")]
    Action(&'static str),
    /// A time that makes no sense.
    #[error("timeout: 1 to {} seconds", TIMEOUT_MAX.as_secs())]
    Timeout,
    /// Too many of something.
    #[error("{0}: at most {1}")]
    TooMany(&'static str, usize),
    /// A parameter that cannot be said in a line.
    #[error(
        "parameter {0:?}: a name has no spaces and no '=', a value has no line ends and at most {VALUE_BYTES_MAX} bytes"
    )]
    Parameter(String),
    /// A parameter that is said already.
    #[error("parameter {0:?} is given by the cluster, not by the configuration")]
    Ours(String),
}

impl Device {
    /// Says what is wrong with it, if anything is.
    ///
    /// # Errors
    /// [`Fault`]; it quotes no value.
    pub fn check(&self) -> Result<(), Fault> {
        if self.agent.as_os_str().is_empty() {
            return Err(Fault::NoAgent);
        }
        if !matches!(self.action, Action::Off | Action::Reboot) {
            return Err(Fault::Action(self.action.name()));
        }
        if self.timeout < Duration::from_secs(1) || self.timeout > TIMEOUT_MAX {
            return Err(Fault::Timeout);
        }
        if self.retries > RETRIES_MAX {
            return Err(Fault::TooMany("retries", RETRIES_MAX as usize));
        }
        if self.parameters.len() > PARAMETERS_MAX {
            return Err(Fault::TooMany("parameters", PARAMETERS_MAX));
        }
        for (name, value) in &self.parameters {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            let sayable = !name.is_empty() && name.chars().all(plain);
            if !sayable || value.len() > VALUE_BYTES_MAX || value.contains(['\n', '\r', '\0']) {
                return Err(Fault::Parameter(name.clone()));
            }
            if ["action", "option", "nodename"].contains(&name.as_str()) {
                return Err(Fault::Ours(name.clone()));
            }
        }
        Ok(())
    }

    /// What the agent reads: the parameters, what to do, and to whom. If no `plug` or `port` is configured, the plug is the node's name.
    pub fn request(&self, action: Action, node: &str) -> String {
        let mut text = String::new();
        for (name, value) in &self.parameters {
            text.push_str(&format!("{name}={value}\n"));
        }
        if !self.parameters.contains_key("plug") && !self.parameters.contains_key("port") {
            text.push_str(&format!("plug={node}\n"));
        }
        text.push_str(&format!("nodename={node}\naction={}\n", action.name()));
        text
    }
}

/// Says what is wrong with the levels of one node, if anything is.
///
/// # Errors
/// [`Fault`].
pub fn check_levels(levels: &[Level]) -> Result<(), Fault> {
    if levels.len() > LEVELS_MAX {
        return Err(Fault::TooMany("levels of a node", LEVELS_MAX));
    }
    if levels.iter().any(|level| level.len() > DEVICES_MAX) {
        return Err(Fault::TooMany("devices of a level", DEVICES_MAX));
    }
    levels.iter().flatten().try_for_each(Device::check)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn device(agent: &str) -> Device {
        Device {
            agent: agent.into(),
            action: Action::Off,
            timeout: Duration::from_secs(5),
            retries: 1,
            parameters: [("ip", "10.0.0.9"), ("password", "secret"), ("plug", "7")]
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
        }
    }

    #[test]
    fn an_agent_reads_lines_as_the_stock_ones_expect_them() {
        let text = device("fence_ipmilan").request(Action::Off, "node2");
        assert_eq!(text, "ip=10.0.0.9\npassword=secret\nplug=7\nnodename=node2\naction=off\n");
        let mut device = device("fence_virt");
        device.parameters.clear();
        assert_eq!(device.request(Action::Status, "node2"), "plug=node2\nnodename=node2\naction=status\n");
    }

    #[test]
    fn a_node_that_is_not_named_has_the_levels_of_any() {
        let plan: Plan =
            [("node2".into(), vec![vec![device("a")]]), (ANY.into(), vec![vec![device("b")]])].into();
        let first = |name| levels(&plan, name)[0][0].agent.clone();
        assert_eq!((first("node2"), first("node3")), ("a".into(), "b".into()));
        assert!(levels(&Plan::new(), "node2").is_empty());
    }

    #[test]
    fn a_password_is_never_shown() {
        let shown = format!("{:?}", device("x"));
        assert!(shown.contains("password") && !shown.contains("secret"));
    }

    #[test]
    fn what_cannot_be_said_to_an_agent_is_refused() {
        assert_eq!(device("x").check(), Ok(()));
        let with = |name: &str, value: &str| {
            let mut device = device("x");
            device.parameters.insert(name.into(), value.into());
            device.check()
        };
        assert_eq!(with("a b", "1"), Err(Fault::Parameter("a b".into())));
        assert_eq!(with("a=b", "1"), Err(Fault::Parameter("a=b".into())));
        assert_eq!(with("a", "1\naction=on"), Err(Fault::Parameter("a".into())));
        assert_eq!(with("action", "on"), Err(Fault::Ours("action".into())));
        assert_eq!(Device { action: Action::Status, ..device("x") }.check(), Err(Fault::Action("status")));
        assert_eq!(device("").check(), Err(Fault::NoAgent));
        assert_eq!(Device { timeout: Duration::ZERO, ..device("x") }.check(), Err(Fault::Timeout));
        assert!(check_levels(&vec![vec![device("x")]; LEVELS_MAX + 1]).is_err());
        assert!(check_levels(&[vec![device("x"); DEVICES_MAX + 1]]).is_err());
    }
}
