//! Nodes as both sides make them: an endpoint, a lock manager, a view of all of them.

use crate::Error;
use base::{Epoch, Incarnation, NodeId};
use dlm::node::{Config, Member, MemberState};
use dlm::server::lockspace;
use dlm::{Handle, Lockspace, Name};
use fabric::{ClusterKey, Endpoint, Peer, Provider, Role, Wait};
use std::collections::BTreeSet;
use std::time::Duration;

/// Unused tokens that a node keeps.
const IDLE_MAX: usize = 65_536;
/// The lockspace of all figures.
pub fn space() -> Lockspace {
    lockspace(b"bench")
}

/// Node `k`'s name on the fabric.
pub fn peer(k: u32) -> Peer {
    Peer { node: NodeId(k), role: Role::Control }
}

/// The name of resource `k` of a figure.
pub fn name(figure: &str, k: usize) -> Result<Name, Error> {
    Ok(Name::new(format!("{figure} {k}").as_bytes())?)
}

/// How one waits: `None` for a task of a runtime.
pub fn wait(word: &str) -> Result<Option<Wait>, Error> {
    match word {
        "poll" => Ok(Some(Wait::Poll)),
        "sleep" => Ok(Some(Wait::Sleep)),
        "task" => Ok(None),
        _ => Err(format!("no wait {word}").into()),
    }
}

/// The endpoint of node `k`. The others are found over TCP, whatever carries then.
pub fn endpoint_config(provider: &str, k: u32) -> Result<fabric::Config, Error> {
    let key = ClusterKey::from_bytes([7; 32]);
    let mut config = fabric::Config::new(peer(k), "127.0.0.1:0".parse()?, key, "bench");
    config.providers = vec![Provider::Tcp];
    match provider {
        "tcp" => {}
        "shm" => {
            config.providers.insert(0, Provider::Shm);
            config.shm = Some(std::env::current_dir()?);
        }
        _ => return Err(format!("no provider {provider}").into()),
    }
    Ok(config)
}

/// The lock manager of node `k` of `nodes`, all of which live.
pub fn manager(endpoint: &Endpoint, k: u32, nodes: u32) -> Result<Handle, Error> {
    let config = Config {
        node: NodeId(k),
        life: Incarnation(1),
        // All locks of a process are one owner's.
        table: dlm::Config { locks_per_owner: 1 << 20, ..Default::default() },
        tokens_idle_max: IDLE_MAX,
        trees_idle_max: IDLE_MAX,
        guarded: BTreeSet::new(),
        lease: Duration::from_secs(1),
        remaster: dlm::node::Remaster::default(),
    };
    let handle = Handle::start(config, endpoint.clone())?;
    handle.view(Epoch(1), members(nodes, None));
    Ok(handle)
}

/// All nodes; one of them may be DOWN.
pub fn members(nodes: u32, down: Option<u32>) -> Vec<Member> {
    let state = |k| if down == Some(k) { MemberState::Down } else { MemberState::Alive };
    (1..=nodes).map(|k| Member { node: NodeId(k), life: Incarnation(1), state: state(k) }).collect()
}
