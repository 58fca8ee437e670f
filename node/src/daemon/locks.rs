//! The lock manager of a node: its part in the locks of the cluster, and the socket on which the programs of the node ask it.

use crate::config::StateDir;
use crate::error::Error;
use dlm::node::Config;
use dlm::{Handle, server};
use fabric::Endpoint;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Tokens and trees that a node keeps for users to come.
const IDLE_MAX: usize = 65_536;
/// A node that was declared DOWN has been silent for longer than this, and has ended itself.
const LEASE: Duration = Duration::from_secs(1);

/// Starts it, for as long as the daemon lives.
///
/// # Errors
/// The socket cannot be opened, or a thread cannot be started.
pub fn start(
    state: &StateDir,
    endpoint: &Endpoint,
    membership: &membership::Handle,
) -> Result<Handle, Error> {
    let seed = getrandom::u64().map_err(Error::said)?;
    let config = Config {
        node: membership.local().node_id(),
        life: dlm::life(membership.local()),
        table: dlm::Config { seed, ..Default::default() },
        tokens_idle_max: IDLE_MAX,
        trees_idle_max: IDLE_MAX,
        // Nothing on shared storage is guarded by locks yet.
        guarded: BTreeSet::new(),
        lease: LEASE,
        remaster: dlm::node::Remaster::default(),
    };
    let locks = Handle::start(config, endpoint.clone()).map_err(Error::said)?;
    tokio::spawn(locks.clone().follow(membership.clone()));
    let listener =
        server::listen(&state.lock_socket()).map_err(Error::step("open the lock manager's socket"))?;
    tokio::spawn(server::run(listener, Arc::new(locks.clone())));
    Ok(locks)
}
